//! The cluster's programs: built from `e2e/cluster` once, and kept under a hash of what they are made from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{Checkout, exec, host};

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
        let key = key(&sources(&checkout.root().join("e2e/cluster"))?, &go_version()?);
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

fn go_version() -> anyhow::Result<String> {
    if host::find_program("go").is_none() {
        bail!("the Go toolchain is missing\nhint: install Go 1.24 or newer, the cluster is built with it");
    }
    exec::read(Command::new("go").arg("version").env("GOTOOLCHAIN", "local"))
}

/// Everything the programs are made from: path below the folder, and content, in a fixed order.
fn sources(dir: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.push(path);
            } else if (name.ends_with(".go") && !name.ends_with("_test.go"))
                || ["go.mod", "go.sum"].contains(&&*name)
            {
                let below = path.strip_prefix(dir)?.to_string_lossy().into_owned();
                found.push((below, fs::read(&path).with_context(|| format!("reading {}", path.display()))?));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The hash that the programs are kept under. Lengths are part of it, so no two sets of sources run together.
fn key(sources: &[(String, Vec<u8>)], go: &str) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    add(go.trim().as_bytes());
    add(std::env::consts::ARCH.as_bytes());
    add(format!("{VERSION:?}{COMPONENTS:?}").as_bytes());
    for (path, content) in sources {
        add(path.as_bytes());
        add(content);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> (String, Vec<u8>) {
        (path.into(), content.into())
    }

    #[test]
    fn the_key_changes_with_sources_paths_and_go_and_with_nothing_else() {
        let one = key(&[file("a.go", "xy"), file("go.sum", "z")], "go1");
        assert_eq!(one.len(), 64);
        assert_eq!(one, key(&[file("a.go", "xy"), file("go.sum", "z")], "go1\n"));
        for other in [
            key(&[file("a.go", "xy"), file("go.sum", "y")], "go1"),
            key(&[file("a.go", "x"), file("go.sum", "yz")], "go1"),
            key(&[file("b.go", "xy"), file("go.sum", "z")], "go1"),
            key(&[file("a.go", "xy"), file("go.sum", "z")], "go2"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_what_goes_into_the_programs_is_hashed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pause")).unwrap();
        for name in ["main.go", "main_test.go", "go.mod", "go.sum", "README.md", "pause/main.go"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names: Vec<_> = sources(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["go.mod", "go.sum", "main.go", "pause/main.go"]);
    }

    #[test]
    fn the_version_is_the_one_that_go_mod_pins() {
        let checkout = Checkout::find().unwrap();
        let text = fs::read_to_string(checkout.root().join("e2e/cluster/go.mod")).unwrap();
        let (major, minor, patch) = VERSION;
        assert!(text.contains(&format!("k8s.io/kubernetes v{major}.{minor}.{patch}\n")), "{text}");
    }
}
