//! `sealedenv recipients fetch`

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};
use sealedenv_crds::{SealingKey, names};
use sealedenv_seal::{Recipient, RecipientError};
use serde::Serialize;
use thiserror::Error;

use super::Context;
use crate::console::{Format, JSON_VERSION, OutputArgs, write_json, write_lines};
use crate::failure::{Exit, Failure, Fault};
use crate::input::path_argument;
use crate::recipients::listed;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Print the recipients of a cluster, one a line
///
/// They are read from the SealingKey "cluster", which every authenticated user may read. Write them to a file for
/// --recipients-file, and commit it: sealing then needs no cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Context of the kubeconfig; the current one if left out
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// Kubeconfig to use instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", value_parser = path_argument)]
    kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Why there are no recipients to show. Texts of a kubeconfig or of a credential helper are not repeated.
#[derive(Debug, Error)]
enum FetchError {
    #[error("no kubeconfig was found")]
    NoKubeconfig,
    #[error("cannot read the kubeconfig {file}")]
    ReadKubeconfig { file: String, source: std::io::Error },
    #[error("the kubeconfig cannot be used: {why}")]
    BadKubeconfig { why: String },
    #[error("the kubeconfig names no current context")]
    NoContext,
    #[error("the kubeconfig has no context {name}")]
    UnknownContext { name: String },
    #[error("no client could be made of the kubeconfig")]
    Client,
    #[error("cannot reach the cluster at {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("the cluster at {url} does not accept the credentials of the kubeconfig")]
    Unauthorized { url: String },
    #[error("the credentials of the kubeconfig could not be obtained")]
    Credentials,
    #[error("the cluster at {url} forbids reading the SealingKey: {why}")]
    Forbidden { url: String, why: String },
    #[error("the cluster at {url} does not know the kind SealingKey")]
    NoCrd { url: String },
    #[error("the cluster at {url} has no SealingKey named cluster")]
    NoSealingKey { url: String },
    #[error("the SealingKey of the cluster at {url} names no recipient")]
    NoRecipient { url: String },
    #[error("the SealingKey of the cluster at {url} names a recipient that cannot be used")]
    BadRecipient { url: String, source: RecipientError },
    #[error("the cluster at {url} gave an answer that is not understood: {why}")]
    Answer { url: String, why: String },
    #[error("the asynchronous runtime does not start")]
    Runtime(#[source] std::io::Error),
}

impl Fault for FetchError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKubeconfig => "give one with --kubeconfig or $KUBECONFIG",
            Self::NoContext | Self::UnknownContext { .. } => {
                "kubectl config get-contexts lists them; choose with --context"
            }
            Self::Unreachable { .. } | Self::Unauthorized { .. } | Self::Credentials | Self::Client => {
                "see whether this works with the same kubeconfig: kubectl get sealingkey cluster"
            }
            Self::Forbidden { .. } => {
                "the chart lets every authenticated user get sealingkeys; ask an administrator"
            }
            Self::NoCrd { .. } => "install the chart sealedenv first",
            Self::NoSealingKey { .. } | Self::NoRecipient { .. } => {
                "the operator makes it when it starts: see its log and kubectl get sealingkey cluster -o yaml"
            }
            Self::BadRecipient { source: RecipientError::Unsupported { .. }, .. } => {
                "this sealedenv is older than the cluster's; get a newer one"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The recipients of a cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fetched {
    api_version: &'static str,
    kind: &'static str,
    server: String,
    recipients: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    recipient: String,
    fingerprint: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FetchError::Runtime)?;
    let (url, recipients) = runtime.block_on(fetch(args))?;
    match args.output.output {
        Format::Text => {
            write_lines(recipients.iter().map(ToString::to_string))?;
            context.console.receipt(&format!(
                "{} of the cluster at {url}",
                listed(recipients.iter().map(Recipient::fingerprint))
            ));
        }
        Format::Json => write_json(&Fetched {
            api_version: JSON_VERSION,
            kind: "Recipients",
            server: url,
            recipients: recipients
                .iter()
                .map(|recipient| Entry {
                    recipient: recipient.to_string(),
                    fingerprint: recipient.fingerprint().to_string(),
                })
                .collect(),
        })?,
    }
    Ok(Exit::Ok)
}

async fn fetch(args: &Args) -> Result<(String, Vec<Recipient>), FetchError> {
    let config = config(args).await?;
    let url = config.cluster_url.to_string();
    // Two libraries of one process may each install one; ours or theirs, it is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(config).map_err(|error| match error {
        kube::Error::Auth(_) => FetchError::Credentials,
        _ => FetchError::Client,
    })?;
    let recipients = current_recipients(client, &url).await?;
    Ok((url, recipients))
}

async fn config(args: &Args) -> Result<Config, FetchError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let refused = |error| refused_kubeconfig(error, args.kubeconfig.is_some() || env_is_set("KUBECONFIG"));
    let config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(refused)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    // In a pod there is no kubeconfig, and none is needed.
    let mut config = match config {
        Err(_) if args.kubeconfig.is_none() && args.context.is_none() && in_pod() => {
            Config::incluster().map_err(|_| FetchError::NoKubeconfig)?
        }
        other => other.map_err(refused)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(config)
}

fn in_pod() -> bool {
    env_is_set("KUBERNETES_SERVICE_HOST") && !env_is_set("KUBECONFIG")
}

fn env_is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// `given`: whether the user named a file, by flag or by environment.
fn refused_kubeconfig(error: KubeconfigError, given: bool) -> FetchError {
    match error {
        KubeconfigError::FindPath => FetchError::NoKubeconfig,
        KubeconfigError::ReadConfig(source, _) if !given && source.kind() == std::io::ErrorKind::NotFound => {
            FetchError::NoKubeconfig
        }
        KubeconfigError::ReadConfig(source, file) => {
            FetchError::ReadKubeconfig { file: file.display().to_string(), source }
        }
        KubeconfigError::CurrentContextNotSet => FetchError::NoContext,
        KubeconfigError::LoadContext(name) if name.is_empty() => FetchError::NoContext,
        KubeconfigError::LoadContext(name) => FetchError::UnknownContext { name },
        KubeconfigError::LoadClusterOfContext(name) => FetchError::BadKubeconfig {
            why: format!("its context refers to a cluster {name} that it does not have"),
        },
        // The parser quotes what it does not understand, and a token may stand there.
        KubeconfigError::Parse(_) => {
            FetchError::BadKubeconfig { why: "it is not the YAML of a kubeconfig".to_owned() }
        }
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            FetchError::BadKubeconfig { why: "its certificate authority cannot be read".to_owned() }
        }
        KubeconfigError::LoadClientCertificate(_) | KubeconfigError::LoadClientKey(_) => {
            FetchError::BadKubeconfig { why: "its client certificate or key cannot be read".to_owned() }
        }
        KubeconfigError::MissingClusterUrl | KubeconfigError::ParseClusterUrl(_) => {
            FetchError::BadKubeconfig { why: "its cluster has no usable address".to_owned() }
        }
        _ => FetchError::BadKubeconfig { why: "it is inconsistent".to_owned() },
    }
}

/// What to seal to, as the cluster says.
async fn current_recipients(client: Client, url: &str) -> Result<Vec<Recipient>, FetchError> {
    let key = Api::<SealingKey>::all(client)
        .get(names::CLUSTER_KEY)
        .await
        .map_err(|error| refused_request(&error, url.to_owned()))?;
    let texts = key.status.map(|status| status.recipients).unwrap_or_default();
    if texts.is_empty() {
        return Err(FetchError::NoRecipient { url: url.to_owned() });
    }
    texts
        .iter()
        .map(|text| text.parse().map_err(|source| FetchError::BadRecipient { url: url.to_owned(), source }))
        .collect()
}

fn refused_request(error: &kube::Error, url: String) -> FetchError {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => FetchError::Unauthorized { url },
            403 => FetchError::Forbidden { url, why: status.message.clone() },
            // Of an object that is not there the server says its name; of a kind that is not there it cannot.
            404 if status.details.as_ref().is_some_and(|details| details.name == names::CLUSTER_KEY) => {
                FetchError::NoSealingKey { url }
            }
            404 => FetchError::NoCrd { url },
            code => FetchError::Answer { url, why: format!("status {code}") },
        },
        kube::Error::Auth(_) => FetchError::Credentials,
        kube::Error::SerdeError(_) => FetchError::Answer { url, why: "it is not a SealingKey".to_owned() },
        // kube hands the credentials over inside of the service too.
        kube::Error::Service(service) if service.is::<kube::client::AuthError>() => FetchError::Credentials,
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            FetchError::Unreachable { url, why: innermost(error) }
        }
        _ => FetchError::Answer { url, why: "the request failed".to_owned() },
    }
}

/// What lies at the bottom of a failed connection: the layers above only repeat it.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    crate::failure::chain(error)
}

#[cfg(test)]
mod tests;
