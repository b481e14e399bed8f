//! `bench delivery`: values that never rest in etcd, from the operator to the files of a pod, in the embedded cluster
//! with the chart installed.

mod opens;
mod pods;
mod publish;

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::api::{Cluster, Kind, POD, SEALED_ENV, has_status};
use crate::objects::SealedEnv;
use crate::process::Process;
use crate::report::{Conditions, Line, Report};
use crate::{Common, say};

/// Settings of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Namespace of the release.
    #[arg(long, default_value = "sealedenv-system")]
    system: String,
    /// Name of the release.
    #[arg(long, default_value = "sealedenv")]
    release: String,
    /// An image with a shell, for pods.
    #[arg(long)]
    image: String,
    /// Seconds for which calls are made of the operator, and of the API server for the floor.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Volumes that are published one after the other.
    #[arg(long, default_value_t = 500)]
    publishes: usize,
    /// Pairs of pods: one with files in memory, one with a Secret.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Pods that are made at once.
    #[arg(long, default_value_t = 100)]
    pods: usize,
}

const NAMESPACE: &str = "bench-delivery";
/// The SealedEnv of files in memory, and the one with a Secret, of the same values.
const MEMORY: &str = "memory";
const SECRET: &str = "secret";
const AUDIENCE: &str = "sealedenv.dev";
const DRIVER: &str = "csi.sealedenv.dev";
const SERVICE_ACCOUNTS: Kind =
    Kind { group: "", version: "v1", kind: "ServiceAccount", plural: "serviceaccounts" };

/// Where things are.
struct Place {
    cluster: Cluster,
    operators: Vec<Process>,
    plugin: Process,
}

/// Runs the bench on a cluster with the chart installed, node plugin and all.
///
/// # Errors
/// When something cannot be measured.
pub async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut conditions = Conditions::at_start();
    let cluster = Cluster::connect(&common.kubeconfig).await?;
    prepare(common, &cluster).await?;
    let operators = processes(&cluster, options, "operator").await?;
    let plugin = processes(&cluster, options, "node").await?;
    let plugin = *plugin.first().context("no node plugin runs")?;
    let place = Place { cluster, operators, plugin };

    let mut lines = Vec::new();
    say("calls of the operator");
    lines.extend(opens::measure(&place, options).await?);
    conditions.note();
    say("publishes of the node plugin");
    lines.push(publish::measure(&place, options).await?);
    conditions.note();
    say("pods one by one");
    let (pairs, rounds) = pods::pairs(&place, options).await?;
    lines.push(pairs);
    conditions.note();
    say("pods at once");
    lines.extend(pods::at_once(&place, options).await?);
    conditions.note();
    let memory = plugin.memory()?;
    let note = format!("its peak {}", crate::report::number(memory.peak));
    lines.push(Line::at_most("memory of the node plugin after all that", memory.now, 24.0, " MiB", &note));
    clear(&place.cluster).await?;
    Ok(Report { title: "delivery", lines, rounds, conditions })
}

/// The namespace with both SealedEnvs in it, reconciled.
async fn prepare(common: &Common, cluster: &Cluster) -> Result<()> {
    cluster.namespace(NAMESPACE).await?;
    clear(cluster).await?;
    let key = cluster.get("/apis/sealedenv.dev/v1alpha1/sealingkeys/cluster").await?;
    let recipient = key["status"]["recipients"][0].as_str().context("the SealingKey names no recipient")?;
    let env = SealedEnv::seal(&common.binaries, recipient)?;
    let mut observer = cluster.observe(SEALED_ENV, NAMESPACE, has_status);
    let collection = SEALED_ENV.within(NAMESPACE);
    cluster.create(&collection, env.named(SECRET)).await?;
    cluster.create(&collection, env.in_memory()?.named(MEMORY)).await?;
    observer.wait(2).await?;
    // A new namespace has its ServiceAccount a moment later, and no pod before.
    let account = format!("{}/default", SERVICE_ACCOUNTS.within(NAMESPACE));
    for _ in 0..300 {
        if cluster.get(&account).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the namespace gets no ServiceAccount")
}

async fn clear(cluster: &Cluster) -> Result<()> {
    cluster.delete_all(POD, NAMESPACE).await?;
    cluster.clear(NAMESPACE).await
}

/// The processes of a component's pods, on this machine, once all of them are ready. Helm does not wait for a DaemonSet
/// that may be away from its only node.
async fn processes(cluster: &Cluster, options: &Options, component: &str) -> Result<Vec<Process>> {
    let Options { system, release, .. } = options;
    let selector =
        format!("app.kubernetes.io%2Finstance%3D{release}%2Capp.kubernetes.io%2Fcomponent%3D{component}");
    let path = format!("{}?labelSelector={selector}", POD.within(system));
    for _ in 0..600 {
        let list = cluster.get(&path).await?;
        let pods = list["items"].as_array().context("a list of pods")?;
        if !pods.is_empty() && pods.iter().all(is_ready) {
            let uids = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str());
            return uids.map(|uid| Process::of_pod(uid, &format!("sealedenv-{component}"))).collect();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the pods of {component} do not become ready")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(|all| all.iter().any(ready))
}

/// A pod of this namespace.
fn pod(name: &str, image: &str, volume: &Value) -> Value {
    let mut volume = volume.clone();
    volume["name"] = Value::from("values");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "app", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", "exec sleep 3600"],
                "volumeMounts": [{ "name": "values", "mountPath": "/run/values", "readOnly": true }],
            }],
            "volumes": [volume],
        },
    })
}

/// A volume of the node plugin.
fn in_memory() -> Value {
    json!({ "csi": { "driver": DRIVER, "readOnly": true, "volumeAttributes": { "sealedenv": MEMORY } } })
}

/// A token of the namespace's ServiceAccount for the operator, bound to a pod.
async fn token(cluster: &Cluster, pod: &str, uid: &str) -> Result<String> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [AUDIENCE], "expirationSeconds": 3600,
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid },
        },
    });
    let url = format!("{}/default/token", SERVICE_ACCOUNTS.within(NAMESPACE));
    let answer = cluster.post(&url, body.to_string()).await?;
    answer["status"]["token"].as_str().map(str::to_owned).context("a token")
}
