//! What the chart installed: its pods, and changes to the release for the time of a test.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cluster::{kubectl, run, wait};
use crate::process::Process;
use crate::setting;

/// A pod of the release.
#[derive(Debug)]
pub struct Pod {
    /// `operator`, `webhook` or `node`.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// How often its container was started again.
    pub restarts: i64,
    /// Whether it is ready.
    pub ready: bool,
    /// Why its container ended last, if it ever did.
    pub ended: Value,
}

impl Pod {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &object["status"]["containerStatuses"][0];
        Self {
            component: text(&object["metadata"]["labels"]["app.kubernetes.io/component"]),
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            ip: text(&object["status"]["podIP"]),
            restarts: container["restartCount"].as_i64().unwrap_or_default(),
            ready: container["ready"] == true,
            ended: container["lastState"]["terminated"].clone(),
        }
    }

    /// Its process, as this machine sees it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> Result<Process> {
        Process::of_pod(&self.uid, &format!("sealedenv-{}", self.component))
    }

    /// Runs the CLI in its container.
    ///
    /// # Errors
    /// When it fails.
    pub fn sealedenv(&self, args: &[&str]) -> Result<String> {
        let namespace = setting::system_namespace()?;
        kubectl(&[&["-n", &namespace, "exec", &self.name, "--", "/sealedenv"], args].concat())
    }

    /// All that it logged, and that its container before the last restart logged.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn logs(&self) -> Result<String> {
        let namespace = setting::system_namespace()?;
        let mut logs = kubectl(&["-n", &namespace, "logs", &self.name])?;
        if self.restarts > 0 {
            logs.push_str(&kubectl(&["-n", &namespace, "logs", "--previous", &self.name])?);
        }
        Ok(logs)
    }
}

/// The pods of a component (or of all, when it is empty) that are not on their way out.
///
/// # Errors
/// When kubectl fails.
pub fn pods(component: &str) -> Result<Vec<Pod>> {
    let namespace = setting::system_namespace()?;
    let mut selector = format!("app.kubernetes.io/instance={}", setting::get("SEALEDENV_E2E_RELEASE")?);
    if !component.is_empty() {
        selector.push_str(",app.kubernetes.io/component=");
        selector.push_str(component);
    }
    let list = kubectl(&["-n", &namespace, "get", "pods", "-l", &selector, "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let items = list["items"].as_array().context("a list of pods")?;
    Ok(items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(Pod::of).collect())
}

/// Waits until all that is installed is ready and nothing of it is on its way out.
///
/// # Errors
/// After the deadline.
pub fn settled() -> Result<Vec<Pod>> {
    let namespace = setting::system_namespace()?;
    wait("the release to be settled", || {
        let list = kubectl(&["-n", &namespace, "get", "deployments,daemonsets,pods", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let (mut wanted, mut there) = (0, 0);
        for object in list["items"].as_array().context("a list")? {
            let pods = match object["kind"].as_str() {
                Some("Deployment") => Some(&object["spec"]["replicas"]),
                Some("DaemonSet") => Some(&object["status"]["desiredNumberScheduled"]),
                _ => None,
            };
            if let Some(pods) = pods {
                wanted += pods.as_u64().unwrap_or_default();
                if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
                    bail!("{} is not looked at yet", object["metadata"]["name"]);
                }
            } else {
                there += 1;
                if !object["metadata"]["deletionTimestamp"].is_null() || !Pod::of(object).ready {
                    bail!("{} is not ready", object["metadata"]["name"]);
                }
            }
        }
        if there == wanted { Ok(Some(())) } else { bail!("{there} pods of {wanted}") }
    })?;
    pods("")
}

/// The release with other values, until it is dropped.
pub struct Changed {
    revision: String,
}

impl Changed {
    /// Upgrades to these values, each `name=value` as helm takes it, and waits until that runs.
    ///
    /// # Errors
    /// When helm refuses, or the pods do not become ready.
    pub fn to(values: &[&str]) -> Result<Self> {
        let history: Value = serde_json::from_str(&helm(&["history", "--output", "json", "--max", "1"])?)?;
        let revision = history[0]["revision"].as_u64().context("a revision")?.to_string();
        let changed = Self { revision };
        let chart = setting::get("SEALEDENV_E2E_CHART")?;
        let mut args = vec!["upgrade", &chart, "--reset-then-reuse-values", "--wait", "--timeout", "110s"];
        for value in values {
            args.extend(["--set", value]);
        }
        helm(&args)?;
        settled()?;
        Ok(changed)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let back = helm(&["rollback", &self.revision, "--wait", "--timeout", "110s"]).and_then(|_| settled());
        if let Err(error) = back {
            eprintln!("putting the release back: {error:#}");
        }
    }
}

/// Runs helm on the release: its name goes after the first word.
fn helm(args: &[&str]) -> Result<String> {
    let mut command = Command::new(setting::get("SEALEDENV_E2E_HELM")?);
    command.args(&args[..1]).arg(setting::get("SEALEDENV_E2E_RELEASE")?).args(&args[1..]);
    command.args(["--namespace", &setting::system_namespace()?, "--kubeconfig", &setting::kubeconfig()?]);
    let output = run(command, b"")?;
    if !output.status.success() {
        bail!("helm {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// No operator in the cluster, until it is dropped.
pub struct NoOperator {
    deployment: String,
    replicas: String,
}

impl NoOperator {
    /// Scales it to nothing and waits until its pods are gone.
    ///
    /// # Errors
    /// When they do not go.
    pub fn now() -> Result<Self> {
        let deployment = format!("deployment/{}-operator", setting::get("SEALEDENV_E2E_RELEASE")?);
        let namespace = setting::system_namespace()?;
        let replicas = kubectl(&["-n", &namespace, "get", &deployment, "-o", "jsonpath={.spec.replicas}"])?;
        let none = Self { deployment, replicas };
        none.scale("0")?;
        wait("the operator's pods to be gone", || {
            let selector = "app.kubernetes.io/component=operator";
            let left = kubectl(&["-n", &namespace, "get", "pods", "-l", selector, "-o", "name"])?;
            if left.is_empty() { Ok(Some(())) } else { bail!("{left}") }
        })?;
        Ok(none)
    }

    fn scale(&self, replicas: &str) -> Result<()> {
        let (namespace, replicas) = (setting::system_namespace()?, format!("--replicas={replicas}"));
        kubectl(&["-n", &namespace, "scale", &self.deployment, &replicas]).map(drop)
    }
}

impl Drop for NoOperator {
    fn drop(&mut self) {
        if let Err(error) = self.scale(&self.replicas).and_then(|()| settled().map(drop)) {
            eprintln!("bringing the operator back: {error:#}");
        }
    }
}
