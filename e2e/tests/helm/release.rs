//! The release under test, and what must survive whatever is done to it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use sealedenv_e2e::cluster::{Namespace, kubectl, run, wait};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::Value;

static ALONE: Mutex<()> = Mutex::new(());

/// The one release of the cluster. Whoever holds it is alone.
pub(crate) struct Release {
    name: String,
    namespace: String,
    _alone: MutexGuard<'static, ()>,
}

/// The chart of this checkout.
pub(crate) fn chart() -> Result<PathBuf> {
    Ok(setting::get("SEALEDENV_E2E_CHART")?.into())
}

/// The chart of the first version that could be installed: `helm package` of the commit before leader election. It is
/// here for upgrades from it, and never changed.
pub(crate) fn first_chart() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helm/charts/first.tgz").into()
}

/// What the first chart needs to run today's operator: it grants no right to a Lease.
pub(crate) const FIRST: [&str; 2] = ["--set", "operator.extraArgs.leader-elect=false"];

impl Release {
    /// Takes the release, and sees to it that this checkout's chart is installed with its defaults.
    pub(crate) fn current() -> Result<Self> {
        let release = Self {
            name: setting::get("SEALEDENV_E2E_RELEASE")?,
            namespace: setting::system_namespace()?,
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        };
        release.install(&chart()?, &[])?;
        Ok(release)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs helm on the cluster under test and no other.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(setting::get("SEALEDENV_E2E_HELM")?);
        command.args(["--kubeconfig", &setting::kubeconfig()?, "--namespace", &self.namespace]);
        command.args(arguments);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HELM_")) {
            command.env_remove(name);
        }
        let output = run(command, b"")?;
        if !output.status.success() {
            bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `--set` of the image that was built here.
    pub(crate) fn image() -> Result<String> {
        let image = setting::get("SEALEDENV_E2E_IMAGE")?;
        let (repository, tag) = image.rsplit_once(':').context("the image has a tag")?;
        Ok(format!("image.repository={repository},image.tag={tag}"))
    }

    /// Installs or upgrades to a chart and waits until it is ready.
    pub(crate) fn install(&self, chart: &std::path::Path, more: &[&str]) -> Result<()> {
        let (chart, image) = (chart.display().to_string(), Self::image()?);
        let arguments =
            ["upgrade", "--install", &self.name, &chart, "--set", &image, "--wait", "--timeout=3m"];
        self.helm(&[&arguments, more].concat()).map(drop)
    }

    /// Goes back to a revision and waits until it is ready.
    pub(crate) fn rollback(&self, revision: &str) -> Result<()> {
        self.helm(&["rollback", &self.name, revision, "--wait", "--timeout=3m"]).map(drop)
    }

    pub(crate) fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", &self.name, "--wait", "--timeout=3m"]).map(drop)
    }

    /// The number of the revision that is deployed.
    pub(crate) fn revision(&self) -> Result<String> {
        let status: Value = serde_json::from_str(&self.helm(&["status", &self.name, "-o", "json"])?)?;
        Ok(status["version"].to_string())
    }

    /// Waits until all pods of the release are ready, when something else than helm brought them.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        for component in ["operator", "webhook"] {
            let deployment = format!("deployment/{}-{component}", self.name);
            kubectl(&["-n", &self.namespace, "rollout", "status", &deployment, "--timeout=120s"])?;
        }
        Ok(())
    }

    /// What must not change: identity and version of each key Secret, of the digest key, of each SealedEnv of a
    /// namespace and of its Secrets; and the keys that the SealingKey names.
    pub(crate) fn precious(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let mut precious = Vec::new();
        let keys = ["-n", self.namespace.as_str(), "get", "secrets", "-o", "json"];
        for secret in items(&kubectl(&keys)?)? {
            // Helm's own records of its releases come and go.
            if secret["type"] != "helm.sh/release.v1" {
                precious.push(identity(&secret));
            }
        }
        anyhow::ensure!(precious.len() >= 2, "no key Secrets: {precious:?}");
        let key: Value = serde_json::from_str(&kubectl(&["get", "sealingkey", "cluster", "-o", "json"])?)?;
        let named = &key["status"];
        precious
            .push(format!("SealingKey {} {} {}", key["metadata"]["uid"], named["current"], named["keys"]));
        for object in items(&namespace.kubectl(&["get", "sealedenvs,secrets", "-o", "json"])?)? {
            precious.push(identity(&object));
        }
        precious.sort();
        Ok(precious)
    }

    /// That nothing precious changed, and that the operator and the webhook work.
    pub(crate) fn check(&self, after: &str, before: &[String], namespace: &Namespace) -> Result<()> {
        // The operator is at work again once it has delivered something new; then whatever it was going to do to the
        // old ones is done.
        let name = format!("after-{after}");
        let manifest = Manifest::new(namespace.name(), &name)?.value("A", after)?.yaml();
        wait("the webhook to let a SealedEnv in", || namespace.apply(&manifest).map(Some))?;
        namespace.wait_condition("sealedenv", &name, "Ready", "True", "Delivered")?;
        anyhow::ensure!(namespace.secret_value(&name, "A")? == after);
        namespace.kubectl(&["delete", "sealedenv", &name, "--wait"])?;
        wait("its Secret to go with it", || Ok(namespace.find("secret", &name)?.is_none().then_some(())))?;
        let now = self.precious(namespace)?;
        anyhow::ensure!(
            now == before,
            "after {after}:\n{}\nand before:\n{}",
            now.join("\n"),
            before.join("\n")
        );
        Ok(())
    }
}

/// A namespace with SealedEnvs that are delivered: one as it should be, one with a key that does not open.
pub(crate) fn in_use(test: &str) -> Result<Namespace> {
    let namespace = Namespace::new(test)?;
    let whole = Manifest::new(namespace.name(), "whole")?.value("A", "a")?.value("B", "b")?;
    namespace.apply(&whole.yaml())?;
    let sealed =
        sealedenv_e2e::seal::strict(&sealedenv_e2e::seal::stranger()?, namespace.name(), "half", "B", "b")?;
    namespace.apply(&Manifest::new(namespace.name(), "half")?.value("A", "a")?.raw("B", &sealed).yaml())?;
    namespace.wait_condition("sealedenv", "whole", "Ready", "True", "Delivered")?;
    namespace.wait_condition("sealedenv", "half", "Stalled", "True", "KeysNotOpened")?;
    Ok(namespace)
}

fn items(list: &str) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(list)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn identity(object: &Value) -> String {
    let meta = &object["metadata"];
    format!("{} {} {} {}", object["kind"], meta["name"], meta["uid"], meta["resourceVersion"])
}
