//! `sealedenv recipients fetch`

use kube::{Api, Client};
use sealedenv_crds::{SealingKey, names};
use sealedenv_seal::{Recipient, RecipientError};
use serde::Serialize;
use thiserror::Error;

use super::Context;
use crate::cluster::{self, ClusterArgs, ClusterError, Connection};
use crate::console::{Format, JSON_VERSION, OutputArgs, write_json, write_lines};
use crate::failure::{Exit, Failure, Fault};
use crate::recipients::listed;

/// Print the recipients of a cluster, one a line
///
/// They are read from the SealingKey "cluster", which every authenticated user may read. Write them to a file for
/// --recipients-file, and commit it: sealing then needs no cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Why there are no recipients to show.
#[derive(Debug, Error)]
enum FetchError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the cluster at {url} does not know the kind SealingKey")]
    NoCrd { url: String },
    #[error("the cluster at {url} has no SealingKey named cluster")]
    NoSealingKey { url: String },
    #[error("the SealingKey of the cluster at {url} names no recipient")]
    NoRecipient { url: String },
    #[error("the SealingKey of the cluster at {url} names a recipient that cannot be used")]
    BadRecipient { url: String, source: RecipientError },
}

impl Fault for FetchError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Cluster(ClusterError::Forbidden { .. }) => {
                "the chart lets every authenticated user get sealingkeys; ask an administrator"
            }
            Self::Cluster(error) => return error.hint(),
            Self::NoCrd { .. } => "install the chart sealedenv first",
            Self::NoSealingKey { .. } | Self::NoRecipient { .. } => {
                "the operator makes it when it starts: see its log and kubectl get sealingkey cluster -o yaml"
            }
            Self::BadRecipient { source: RecipientError::Unsupported { .. }, .. } => {
                "this sealedenv is older than the cluster's; get a newer one"
            }
            Self::BadRecipient { .. } => return None,
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
    let (url, recipients) = cluster::block_on(fetch(args))??;
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
    let Connection { client, url, .. } = cluster::connect(&args.cluster).await?;
    let recipients = current_recipients(client, &url).await?;
    Ok((url, recipients))
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
        // Of an object that is not there the server says its name; of a kind that is not there it cannot.
        kube::Error::Api(status) if status.code == 404 => {
            let named = status.details.as_ref().is_some_and(|details| details.name == names::CLUSTER_KEY);
            if named { FetchError::NoSealingKey { url } } else { FetchError::NoCrd { url } }
        }
        _ => cluster::refused(error, url, "the SealingKey").into(),
    }
}

#[cfg(test)]
mod tests;
