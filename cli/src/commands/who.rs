//! `sealedenv who`

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use sealedenv_crds::SealedEnv;
use serde::Serialize;
use thiserror::Error;

use super::Context;
use crate::cluster::{self, ClusterArgs, ClusterError, Connection};
use crate::console::{Format, JSON_VERSION, OutputArgs, write_json, write_lines};
use crate::consumers::{Holder, How, Version, holders};
use crate::failure::{Exit, Failure, Fault};

/// Pods that are asked for at once.
const PAGE: u32 = 500;

/// Show which pods hold the values of a SealedEnv, and whether they are up to date
///
/// Pods that ended are left out. Files of a Secret are kept up to date by the kubelet; variables stay as they were when
/// their container started. It reads the SealedEnv and the pods of its namespace, and no Secret.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the SealedEnv
    #[arg(value_name = "SEALEDENV")]
    name: String,

    /// Only pods that hold this key
    #[arg(value_name = "KEY")]
    key: Option<String>,

    /// Namespace of the SealedEnv; the context's if left out
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Why it cannot be said.
#[derive(Debug, Error)]
enum WhoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no SealedEnv {namespace}/{name} in the cluster at {url}")]
    NotFound { namespace: String, name: String, url: String },
    #[error("SealedEnv {namespace}/{name} has no key {key}")]
    NoKey { namespace: String, name: String, key: String },
}

impl Fault for WhoError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Cluster(error) => error.hint(),
            Self::NotFound { namespace, .. } => {
                Some(format!("kubectl -n {namespace} get sealedenvs lists them"))
            }
            Self::NoKey { namespace, name, .. } => {
                Some(format!("kubectl -n {namespace} get sealedenv {name} -o yaml shows them"))
            }
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    holders: Vec<Holder>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let (namespace, holders) = cluster::block_on(ask(args))??;
    match args.output.output {
        Format::Text => {
            if holders.is_empty() {
                context
                    .console
                    .receipt(&format!("no pod holds values of SealedEnv {namespace}/{}", args.name));
            } else {
                write_lines(table(&holders, Timestamp::now()))?;
            }
        }
        Format::Json => write_json(&Found {
            api_version: JSON_VERSION,
            kind: "Holders",
            namespace,
            name: args.name.clone(),
            holders,
        })?,
    }
    Ok(Exit::Ok)
}

async fn ask(args: &Args) -> Result<(String, Vec<Holder>), WhoError> {
    let Connection { client, url, namespace } = cluster::connect(&args.cluster).await?;
    let namespace = args.namespace.clone().unwrap_or(namespace);
    let holders = look(client, &url, &namespace, &args.name, args.key.as_deref()).await?;
    Ok((namespace, holders))
}

async fn look(
    client: Client,
    url: &str,
    namespace: &str,
    name: &str,
    key: Option<&str>,
) -> Result<Vec<Holder>, WhoError> {
    let envs: Api<SealedEnv> = Api::namespaced(client.clone(), namespace);
    let env = envs.get_opt(name).await;
    let env = env.map_err(|error| cluster::refused(&error, url.to_owned(), "the SealedEnv"))?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let Some(env) = env else { return Err(WhoError::NotFound { namespace, name, url: url.to_owned() }) };
    if let Some(key) =
        key.filter(|key| !env.spec.data.contains_key(*key) && !env.spec.public.contains_key(*key))
    {
        return Err(WhoError::NoKey { namespace, name, key: key.to_owned() });
    }
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = pods.list(&page).await;
        let list = list.map_err(|error| cluster::refused(&error, url.to_owned(), "the pods"))?;
        // One page at a time: a namespace may have many pods.
        found.extend(holders(&env, &list.items, key));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => break,
        }
    }
    found.sort_by(|a, b| (&a.pod, a.how).cmp(&(&b.pod, b.how)));
    Ok(found)
}

/// Columns as kubectl has them.
fn table(holders: &[Holder], now: Timestamp) -> Vec<String> {
    let head = ["POD", "HOW", "CONTAINERS", "KEYS", "VERSION", "SINCE"].map(str::to_owned);
    let rows = holders.iter().map(|holder| {
        let version = match (holder.version, &holder.refused) {
            (version, Some(reason)) => format!("{} (refused: {reason})", word(version)),
            (version, None) => word(version).to_owned(),
        };
        let keys = holder
            .keys
            .as_ref()
            .map_or_else(|| "all".to_owned(), |keys| keys.iter().cloned().collect::<Vec<_>>().join(","));
        let since = holder.since.map_or_else(|| "-".to_owned(), |since| age(since, now));
        [holder.pod.clone(), how(holder.how).to_owned(), holder.containers.join(","), keys, version, since]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn word(version: Version) -> &'static str {
    match version {
        Version::Current => "current",
        Version::Outdated => "outdated",
        Version::Unknown => "unknown",
    }
}

fn how(how: How) -> &'static str {
    match how {
        How::Csi => "csi",
        How::Agent => "agent",
        How::Secret => "secret",
        How::Variables => "variables",
    }
}

/// The time that has passed, as kubectl writes it: the largest unit, or two where the first is small.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 120 => format!("{minutes}m"),
        () if hours < 48 => format!("{hours}h"),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_says_why_a_pod_was_refused() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let holder = |pod: &str, version, refused: Option<&str>, since: Option<&str>| Holder {
            pod: pod.to_owned(),
            how: How::Csi,
            containers: vec!["app".to_owned()],
            keys: None,
            version,
            refused: refused.map(str::to_owned),
            since: since.map(|at| at.parse().unwrap()),
        };
        let lines = table(
            &[
                holder("a", Version::Current, None, Some("2026-11-28T11:59:00Z")),
                holder("checkout-7d", Version::Outdated, Some("NotAllowed"), Some("2026-11-25T12:00:00Z")),
                holder("new", Version::Unknown, None, None),
            ],
            now,
        );
        assert_eq!(
            lines,
            [
                "POD           HOW   CONTAINERS   KEYS   VERSION                          SINCE",
                "a             csi   app          all    current                          60s",
                "checkout-7d   csi   app          all    outdated (refused: NotAllowed)   3d",
                "new           csi   app          all    unknown                          -",
            ]
        );
    }
}
