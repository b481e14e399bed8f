//! Tools that tests need, at one version each: from `PATH` when it is that version, or else installed with `go install`
//! into the cache.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};

use crate::{Checkout, exec, gomodule::Program, host};

struct Tool {
    name: &'static str,
    version: &'static str,
    package: &'static str,
    /// Arguments that make it print its version, and nothing before it.
    ask: &'static [&'static str],
}

const HELM: Tool = Tool {
    name: "helm",
    version: "v3.19.0",
    package: "helm.sh/helm/v3/cmd/helm",
    ask: &["version", "--short"],
};
const AGE: Tool =
    Tool { name: "age", version: "v1.3.2", package: "filippo.io/age/cmd/age", ask: &["--version"] };
const AGE_KEYGEN: Tool = Tool {
    name: "age-keygen",
    version: "v1.3.2",
    package: "filippo.io/age/cmd/age-keygen",
    ask: &["--version"],
};

/// It prints its version among others' only, so it is not looked for on the `PATH`.
const CSI_SANITY: Tool = Tool {
    name: "csi-sanity",
    version: "v5.4.0",
    package: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
    ask: &[],
};

/// The peer that the bench measures beside. Its controller prints no version and has a name that says nothing, so
/// neither is looked for on the `PATH`.
const SEALED_SECRETS: [Tool; 2] = [
    Tool {
        name: "controller",
        version: SEALED_SECRETS_VERSION,
        package: "github.com/bitnami-labs/sealed-secrets/cmd/controller",
        ask: &[],
    },
    Tool {
        name: "kubeseal",
        version: SEALED_SECRETS_VERSION,
        package: "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal",
        ask: &[],
    },
];
const SEALED_SECRETS_VERSION: &str = "v0.36.6";

/// sealed-secrets, to measure beside.
#[derive(Debug)]
pub struct SealedSecrets {
    /// Its controller.
    pub controller: PathBuf,
    /// Its command line.
    pub kubeseal: PathBuf,
    /// Its CRD.
    pub crd: PathBuf,
}

/// sealed-secrets as it is released.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn sealed_secrets() -> anyhow::Result<SealedSecrets> {
    let [controller, kubeseal] = &SEALED_SECRETS;
    let (controller, kubeseal) = (controller.path()?, kubeseal.path()?);
    let module = format!("github.com/bitnami-labs/sealed-secrets@{SEALED_SECRETS_VERSION}");
    let download = exec::read(Command::new("go").args(["mod", "download", "-json", &module]))?;
    let download: serde_json::Value =
        serde_json::from_str(&download).context("reading what Go downloaded")?;
    let folder = download["Dir"].as_str().context("Go does not say where the module is")?;
    let crd = PathBuf::from(folder).join("helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml");
    Ok(SealedSecrets { controller, kubeseal, crd })
}

/// Helm 3, which installs the chart as users do.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn helm() -> anyhow::Result<PathBuf> {
    HELM.path()
}

/// The CSI project's test of drivers.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn csi_sanity() -> anyhow::Result<PathBuf> {
    CSI_SANITY.path()
}

/// age's reference command line, in Go: it must open what we seal.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn age() -> anyhow::Result<PathBuf> {
    AGE.path()
}

/// Its companion that makes identities.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn age_keygen() -> anyhow::Result<PathBuf> {
    AGE_KEYGEN.path()
}

/// From a module of its own, because `go install` refuses Prometheus', which excludes versions.
const PROMTOOL: Program = Program {
    module: "xtask/promtool",
    sources: None,
    // Which targets could be scraped is no business of rules: leaves out the clients of two dozen clouds.
    tags: "remove_all_sd",
    package: "github.com/prometheus/prometheus/cmd/promtool",
    name: "promtool",
};

/// Prometheus' own tool, which tests alerting rules and lints metrics.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn promtool(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    Ok(PROMTOOL.ensure(checkout, |_| Ok(()))?.join(PROMTOOL.name))
}

/// A Vault whose storage is in memory, from a module of our own: the core, without most of what Vault brings with it.
const VAULT: Program =
    Program { module: "e2e/vault", sources: Some("."), tags: "", package: ".", name: "vault-for-tests" };

/// A real Vault to test against. It is under the Business Source License, and in nothing that is shipped.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn vault(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    Ok(VAULT.ensure(checkout, |_| Ok(()))?.join(VAULT.name))
}

impl Tool {
    fn path(&self) -> anyhow::Result<PathBuf> {
        let dir = host::cache()?.join("tools").join(format!("{}-{}", self.name, self.version));
        let kept = dir.join(self.name);
        if host::is_executable(&kept) {
            return Ok(kept);
        }
        if !self.ask.is_empty()
            && let Some(found) = host::find_program(self.name)
            && exec::read(Command::new(&found).args(self.ask))
                .is_ok_and(|text| is_version(&text, self.version))
        {
            return Ok(found);
        }
        if host::find_program("go").is_none() {
            bail!(
                "{} {} is missing, and so is Go to install it with\nhint: install Go 1.25 or newer",
                self.name,
                self.version
            );
        }
        let tools = host::cache()?.join("tools");
        let _lock = host::Lock::wait(&tools.join("lock"), "installing a tool")?;
        if host::is_executable(&kept) {
            return Ok(kept); // installed while we waited
        }
        let new = host::scratch(&tools, "installing-")?;
        let installed = host::run_with_progress(
            Command::new("go")
                .env("GOBIN", &new)
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "")
                .args(["install", "-trimpath", "-ldflags=-s -w"])
                .arg(format!("{}@{}", self.package, self.version)),
            &format!("installing {} {}", self.name, self.version),
            &new.join("install.log"),
        )
        .and_then(|()| fs::rename(&new, &dir).with_context(|| format!("making {}", dir.display())));
        if installed.is_err() {
            fs::remove_dir_all(&new).ok(); // the installation's error says more than that of tidying up
        }
        installed?;
        Ok(kept)
    }
}

/// Whether a tool's answer is exactly this version, build metadata aside.
fn is_version(text: &str, version: &str) -> bool {
    let text = text.trim();
    text.split_once('+').map_or(text, |(version, _)| version) == version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_version_counts() {
        assert!(is_version("v3.19.0+g3d8990f\n", "v3.19.0"));
        assert!(is_version("v1.3.2", "v1.3.2"));
        for other in ["v3.19.01", "v3.19", "3.19.0", "v3.19.0-rc.1", ""] {
            assert!(!is_version(other, "v3.19.0"), "{other}");
        }
    }
}
