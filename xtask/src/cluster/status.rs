//! What a cluster looks like from outside.

use std::process::Command;

use serde::Serialize;
use serde_json::Value;

use super::{
    config,
    layout::{Layout, Mode, NODE, Record},
    process,
};

/// One component and its process.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// As `ps` shows it, except for the process that only keeps the node's namespaces.
    pub name: &'static str,
    /// Its process, when it runs.
    pub pid: Option<i32>,
}

/// The state of a cluster, as `status --output json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Everything that should run does, the API answers and the node is ready.
    pub up: bool,
    /// None when there is no cluster.
    pub mode: Option<Mode>,
    /// The folder with everything it keeps.
    pub state_dir: String,
    /// Path of the admin's kubeconfig.
    pub kubeconfig: Option<String>,
    /// Version that the API server tells; none when it does not answer.
    pub api_version: Option<String>,
    /// None when there is no node or no answer about it.
    pub node_ready: Option<bool>,
    /// Empty when there is no cluster.
    pub components: Vec<Component>,
}

impl Status {
    pub(super) fn read(layout: &Layout) -> anyhow::Result<Self> {
        let state_dir = layout.root().display().to_string();
        let Some(record) = layout.record()? else {
            return Ok(Self {
                up: false,
                mode: None,
                state_dir,
                kubeconfig: None,
                api_version: None,
                node_ready: None,
                components: vec![],
            });
        };
        let components: Vec<_> = config::names(record.mode)
            .into_iter()
            .map(|name| {
                let process = process::noted(layout, name).filter(process::Identity::is_alive);
                Component { name, pid: process.map(|process| process.pid) }
            })
            .collect();
        let api_version = api_version(layout, &record);
        let node_ready = match record.mode {
            Mode::Full if api_version.is_some() => node_ready(layout, &record),
            _ => None,
        };
        let node_fine = record.mode == Mode::ControlPlane || node_ready == Some(true);
        Ok(Self {
            up: record.ready
                && node_fine
                && api_version.is_some()
                && components.iter().all(|component| component.pid.is_some()),
            mode: Some(record.mode),
            state_dir,
            kubeconfig: Some(layout.kubeconfig().display().to_string()),
            api_version,
            node_ready,
            components,
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        if self.mode.is_none() {
            return vec!["no cluster".into()];
        }
        let mut lines: Vec<_> = self
            .components
            .iter()
            .map(|component| match component.pid {
                Some(pid) => format!("{:24} running, pid {pid}", component.name),
                None => format!("{:24} not running", component.name),
            })
            .collect();
        lines.push(format!("{:24} {}", "API", self.api_version.as_deref().unwrap_or("no answer")));
        if self.mode == Some(Mode::Full) {
            let ready = match self.node_ready {
                Some(true) => "ready",
                Some(false) => "not ready",
                None => "unknown",
            };
            lines.push(format!("{:24} {ready}", "Node"));
        }
        lines
    }
}

/// The bundled kubectl with the admin's kubeconfig.
pub(super) fn kubectl(layout: &Layout, record: &Record) -> Command {
    let mut kubectl = Command::new(record.binaries.join("kubectl"));
    kubectl.env("KUBECONFIG", layout.kubeconfig()).env("KUBECACHEDIR", layout.path("kube-cache"));
    process::without_proxies(&mut kubectl);
    kubectl
}

fn json(command: &mut Command) -> Option<Value> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    serde_json::from_slice(&output.stdout).ok()
}

/// The API server's version once it is ready to serve; none before.
pub(super) fn api_version(layout: &Layout, record: &Record) -> Option<String> {
    let raw = |path: &str| {
        let mut kubectl = kubectl(layout, record);
        kubectl.args(["--request-timeout=10s", "get", "--raw", path]);
        kubectl
    };
    let ready = raw("/readyz").output().ok()?;
    if !ready.status.success() {
        return None;
    }
    Some(json(&mut raw("/version"))?["gitVersion"].as_str()?.to_owned())
}

/// Whether the node takes pods.
pub(super) fn node_ready(layout: &Layout, record: &Record) -> Option<bool> {
    let node =
        json(kubectl(layout, record).args(["--request-timeout=10s", "get", "node", NODE, "-o", "json"]))?;
    Some(takes_pods(&node))
}

fn takes_pods(node: &Value) -> bool {
    let ready = node["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
    let tainted = node["spec"]["taints"].as_array().is_some_and(|taints| !taints.is_empty());
    ready && !tainted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_takes_pods_when_it_is_ready_and_free_of_taints() {
        let node = |status: &str, taints: Value| {
            json!({"spec": {"taints": taints}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status}]}})
        };
        assert!(takes_pods(&node("True", Value::Null)));
        assert!(takes_pods(&node("True", json!([]))));
        assert!(!takes_pods(&node("False", Value::Null)));
        assert!(!takes_pods(&node("True", json!([{"key": "node.kubernetes.io/not-ready"}]))));
        assert!(!takes_pods(&json!({})));
    }
}
