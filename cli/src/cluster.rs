//! The cluster of a kubeconfig.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

use crate::failure::Fault;
use crate::input::path_argument;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Context of the kubeconfig; the current one if left out
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// Kubeconfig to use instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", value_parser = path_argument)]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Why a cluster tells nothing. Texts of a kubeconfig or of a credential helper are not repeated.
#[derive(Debug, Error)]
pub(crate) enum ClusterError {
    /// There is none.
    #[error("no kubeconfig was found")]
    NoKubeconfig,
    /// It cannot be read.
    #[error("cannot read the kubeconfig {file}")]
    ReadKubeconfig {
        /// The file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not what a kubeconfig is.
    #[error("the kubeconfig cannot be used: {why}")]
    BadKubeconfig {
        /// Why not, in our words.
        why: String,
    },
    /// Nothing says which cluster.
    #[error("the kubeconfig names no current context")]
    NoContext,
    /// There is no such context.
    #[error("the kubeconfig has no context {name}")]
    UnknownContext {
        /// Its name.
        name: String,
    },
    /// The kubeconfig gives no client.
    #[error("no client could be made of the kubeconfig")]
    Client,
    /// Nobody answers.
    #[error("cannot reach the cluster at {url}: {why}")]
    Unreachable {
        /// The cluster.
        url: String,
        /// The cause.
        why: String,
    },
    /// The credentials are not good.
    #[error("the cluster at {url} does not accept the credentials of the kubeconfig")]
    Unauthorized {
        /// The cluster.
        url: String,
    },
    /// A credential helper failed.
    #[error("the credentials of the kubeconfig could not be obtained")]
    Credentials,
    /// The user may not do that.
    #[error("the cluster at {url} forbids reading {what}: {why}")]
    Forbidden {
        /// The cluster.
        url: String,
        /// What was to be read.
        what: &'static str,
        /// What the cluster says.
        why: String,
    },
    /// Something else than what was asked for.
    #[error("the cluster at {url} gave an answer that is not understood: {why}")]
    Answer {
        /// The cluster.
        url: String,
        /// In our words.
        why: String,
    },
    /// No event queue, or no memory.
    #[error("the asynchronous runtime does not start")]
    Runtime(#[source] std::io::Error),
}

impl Fault for ClusterError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKubeconfig => "give one with --kubeconfig or $KUBECONFIG",
            Self::NoContext | Self::UnknownContext { .. } => {
                "kubectl config get-contexts lists them; choose with --context"
            }
            Self::Unreachable { .. } | Self::Unauthorized { .. } | Self::Credentials | Self::Client => {
                "see whether this works with the same kubeconfig: kubectl get sealingkey cluster"
            }
            Self::Forbidden { .. } => "ask an administrator for that right",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A client and what it is of.
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    /// Address of the cluster.
    pub(crate) url: String,
    /// The context's namespace.
    pub(crate) namespace: String,
}

/// Waits for what a cluster says.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ClusterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(ClusterError::Runtime)?.block_on(work))
}

/// Makes a client. Contacts nobody but a credential helper.
pub(crate) async fn connect(args: &ClusterArgs) -> Result<Connection, ClusterError> {
    let config = config(args).await?;
    let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
    // Two libraries of one process may each install one; ours or theirs, it is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(config).map_err(|error| match error {
        kube::Error::Auth(_) => ClusterError::Credentials,
        _ => ClusterError::Client,
    })?;
    Ok(Connection { client, url, namespace })
}

async fn config(args: &ClusterArgs) -> Result<Config, ClusterError> {
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
            Config::incluster().map_err(|_| ClusterError::NoKubeconfig)?
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
fn refused_kubeconfig(error: KubeconfigError, given: bool) -> ClusterError {
    match error {
        KubeconfigError::FindPath => ClusterError::NoKubeconfig,
        KubeconfigError::ReadConfig(source, _) if !given && source.kind() == std::io::ErrorKind::NotFound => {
            ClusterError::NoKubeconfig
        }
        KubeconfigError::ReadConfig(source, file) => {
            ClusterError::ReadKubeconfig { file: file.display().to_string(), source }
        }
        KubeconfigError::CurrentContextNotSet => ClusterError::NoContext,
        KubeconfigError::LoadContext(name) if name.is_empty() => ClusterError::NoContext,
        KubeconfigError::LoadContext(name) => ClusterError::UnknownContext { name },
        KubeconfigError::LoadClusterOfContext(name) => ClusterError::BadKubeconfig {
            why: format!("its context refers to a cluster {name} that it does not have"),
        },
        // The parser quotes what it does not understand, and a token may stand there.
        KubeconfigError::Parse(_) => {
            ClusterError::BadKubeconfig { why: "it is not the YAML of a kubeconfig".to_owned() }
        }
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            ClusterError::BadKubeconfig { why: "its certificate authority cannot be read".to_owned() }
        }
        KubeconfigError::LoadClientCertificate(_) | KubeconfigError::LoadClientKey(_) => {
            ClusterError::BadKubeconfig { why: "its client certificate or key cannot be read".to_owned() }
        }
        KubeconfigError::MissingClusterUrl | KubeconfigError::ParseClusterUrl(_) => {
            ClusterError::BadKubeconfig { why: "its cluster has no usable address".to_owned() }
        }
        _ => ClusterError::BadKubeconfig { why: "it is inconsistent".to_owned() },
    }
}

/// Why a request was refused, where that has nothing to do with what was asked for.
pub(crate) fn refused(error: &kube::Error, url: String, what: &'static str) -> ClusterError {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => ClusterError::Unauthorized { url },
            403 => ClusterError::Forbidden { url, what, why: status.message.clone() },
            code => ClusterError::Answer { url, why: format!("status {code}") },
        },
        kube::Error::Auth(_) => ClusterError::Credentials,
        kube::Error::SerdeError(_) => ClusterError::Answer { url, why: format!("it is not {what}") },
        // kube hands the credentials over inside of the service too.
        kube::Error::Service(service) if service.is::<kube::client::AuthError>() => ClusterError::Credentials,
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            ClusterError::Unreachable { url, why: innermost(error) }
        }
        _ => ClusterError::Answer { url, why: "the request failed".to_owned() },
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
