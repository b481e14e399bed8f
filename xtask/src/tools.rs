//! Tools that tests need, at one version each: from `PATH` when it is that version, or else built with Go into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{Checkout, exec, host};

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

/// Helm 3, which installs the chart as users do.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn helm() -> anyhow::Result<PathBuf> {
    HELM.path()
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

/// The folder of the Go module that promtool is built from, below the checkout, and the version that it pins.
const PROMTOOL: (&str, &str) = ("xtask/promtool", "v0.311.3");

/// Prometheus' own tool, which tests alerting rules and lints metrics. Built this way it does not know its version, so
/// none that is in `PATH` counts.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn promtool(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let (module, version) = PROMTOOL;
    build("promtool", version, "1.25", |into| {
        let mut go = Command::new("go");
        go.current_dir(checkout.root().join(module))
            // Which targets could be scraped is no business of rules: leaves out the clients of two dozen clouds.
            .args(["build", "-mod=readonly", "-trimpath", "-tags=remove_all_sd", "-ldflags=-s -w", "-o"])
            .arg(into)
            .arg("github.com/prometheus/prometheus/cmd/promtool");
        go
    })
}

/// The program `name` in the cache; what `command` gives builds it into a folder, if it is not there yet.
fn build(
    name: &str,
    version: &str,
    go: &str,
    command: impl FnOnce(&Path) -> Command,
) -> anyhow::Result<PathBuf> {
    let tools = host::cache()?.join("tools");
    let dir = tools.join(format!("{name}-{version}"));
    let kept = dir.join(name);
    if host::is_executable(&kept) {
        return Ok(kept);
    }
    if host::find_program("go").is_none() {
        bail!("{name} {version} is missing, and so is Go to build it with\nhint: install Go {go} or newer");
    }
    let _lock = host::Lock::wait(&tools.join("lock"), "installing a tool")?;
    if host::is_executable(&kept) {
        return Ok(kept); // built while we waited
    }
    let new = host::scratch(&tools, "installing-")?;
    let built = host::run_with_progress(
        command(&new).env("CGO_ENABLED", "0").env("GOFLAGS", ""),
        &format!("installing {name} {version}"),
        &new.join("install.log"),
    )
    .and_then(|()| fs::rename(&new, &dir).with_context(|| format!("making {}", dir.display())));
    if built.is_err() {
        fs::remove_dir_all(&new).ok(); // the build's error says more than that of tidying up
    }
    built?;
    Ok(kept)
}

impl Tool {
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(found) = host::find_program(self.name)
            && exec::read(Command::new(&found).args(self.ask))
                .is_ok_and(|text| is_version(&text, self.version))
        {
            return Ok(found);
        }
        build(self.name, self.version, "1.24", |into| {
            let mut go = Command::new("go");
            go.env("GOBIN", into)
                .args(["install", "-trimpath", "-ldflags=-s -w"])
                .arg(format!("{}@{}", self.package, self.version));
            go
        })
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
    fn promtool_is_of_the_version_that_its_module_pins() {
        let (module, version) = PROMTOOL;
        let text = fs::read_to_string(Checkout::find().unwrap().root().join(module).join("go.mod")).unwrap();
        assert!(text.contains(&format!("github.com/prometheus/prometheus {version}\n")), "{text}");
    }

    #[test]
    fn only_the_very_version_counts() {
        assert!(is_version("v3.19.0+g3d8990f\n", "v3.19.0"));
        assert!(is_version("v1.3.2", "v1.3.2"));
        for other in ["v3.19.01", "v3.19", "3.19.0", "v3.19.0-rc.1", ""] {
            assert!(!is_version(other, "v3.19.0"), "{other}");
        }
    }
}
