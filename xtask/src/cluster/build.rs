//! The cluster's programs: built from `e2e/cluster` once, and kept under a hash of what they are made from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{Checkout, gomodule, host};

/// The Kubernetes release that `e2e/cluster/go.mod` pins.
const VERSION: (&str, &str, &str) = ("1", "34", "4");
const PROGRAM: &str = "sealedenv-cluster";
/// Names that the program is called by. The component is chosen by it, and `ps` shows it.
const COMPONENTS: [&str; 8] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "cluster-dns",
    "kubectl",
];

/// The folder with the built programs.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a program by its name.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where they are or would be, without building.
    pub(crate) fn expected(checkout: &Checkout) -> anyhow::Result<Self> {
        let sources = gomodule::sources(&checkout.root().join("e2e/cluster"))?;
        let key = gomodule::key(&sources, &gomodule::go_version()?, &more());
        Ok(Self { dir: host::cache()?.join("cluster").join(key) })
    }

    /// Finds them in the cache or builds them, which takes minutes the first time.
    pub(crate) fn ensure(checkout: &Checkout) -> anyhow::Result<Self> {
        let binaries = Self::expected(checkout)?;
        if binaries.is_complete() {
            return Ok(binaries);
        }
        let cache = host::cache()?.join("cluster");
        let _lock = host::Lock::wait(&cache.join("build.lock"), "building the cluster's programs")?;
        if binaries.is_complete() {
            return Ok(binaries); // built while we waited
        }
        let new = host::scratch(&cache, "building-")?;
        let built = build(&checkout.root().join("e2e/cluster"), &new);
        let built = built.and_then(|()| {
            fs::rename(&new, &binaries.dir).with_context(|| format!("making {}", binaries.dir.display()))
        });
        if built.is_err() {
            fs::remove_dir_all(&new).ok(); // the build's error says more than that of tidying up
        }
        built?;
        Ok(binaries)
    }

    fn is_complete(&self) -> bool {
        host::is_executable(&self.program(PROGRAM)) && host::is_executable(&self.program("pause"))
    }
}

fn build(sources: &Path, into: &Path) -> anyhow::Result<()> {
    let (major, minor, patch) = VERSION;
    let version = format!("v{major}.{minor}.{patch}");
    let stamp: String = [("gitVersion", version.as_str()), ("gitMajor", major), ("gitMinor", minor)]
        .map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}"))
        .concat();
    let log = into.join("build.log");
    let go = |package: &str, output: &str, flags: &str| {
        let mut go = Command::new("go");
        go.current_dir(sources)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o"])
            .arg(into.join(output))
            .arg(package);
        go
    };
    host::run_with_progress(
        &mut go(".", PROGRAM, &format!("-s -w{stamp}")),
        &format!("building Kubernetes {version} (some minutes, once)"),
        &log,
    )?;
    host::run_with_progress(&mut go("./pause", "pause", "-s -w"), "building pause", &log)?;
    for name in COMPONENTS {
        std::os::unix::fs::symlink(PROGRAM, into.join(name)).with_context(|| format!("linking {name}"))?;
    }
    fs::remove_file(&log).context("removing the build's log")
}

/// What the programs depend on apart from their sources.
fn more() -> String {
    format!("{VERSION:?}{COMPONENTS:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_go_mod_pins() {
        let checkout = Checkout::find().unwrap();
        let text = fs::read_to_string(checkout.root().join("e2e/cluster/go.mod")).unwrap();
        let (major, minor, patch) = VERSION;
        assert!(text.contains(&format!("k8s.io/kubernetes v{major}.{minor}.{patch}\n")), "{text}");
    }
}
