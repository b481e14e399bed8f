//! Go programs that tests need: built from a module of this checkout once, and kept under a hash of what they are made
//! from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{Checkout, exec, host};

/// A program of a Go module of this checkout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// The module's folder below the checkout.
    pub(crate) module: &'static str,
    /// The folder below it that has all the program's own sources; none of a program that the module only requires.
    pub(crate) sources: Option<&'static str>,
    /// Build tags, comma-separated.
    pub(crate) tags: &'static str,
    /// The package, as `go build` takes it.
    pub(crate) package: &'static str,
    /// What the program is called.
    pub(crate) name: &'static str,
}

impl Program {
    /// Finds the program in the cache or builds it. Gives the folder that has it under its name; `beside` may put more
    /// into that folder when it is made.
    pub(crate) fn ensure(
        &self,
        checkout: &Checkout,
        beside: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let module = checkout.root().join(self.module);
        let mut sources = Vec::new();
        for name in ["go.mod", "go.sum"] {
            let path = module.join(name);
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            sources.push((name.to_owned(), content));
        }
        if let Some(folder) = self.sources {
            sources.extend(self::sources(&module.join(folder))?);
        }
        let key = key(&sources, &go_version()?, &format!("{}{}", self.package, self.tags));
        let tools = host::cache()?.join("tools");
        let dir = tools.join(format!("{}-{}", self.name, &key[..16]));
        let program = dir.join(self.name);
        if host::is_executable(&program) {
            return Ok(dir);
        }
        let _lock = host::Lock::wait(&tools.join("lock"), "installing a tool")?;
        if host::is_executable(&program) {
            return Ok(dir); // built while we waited
        }
        let new = host::scratch(&tools, "installing-")?;
        let built = host::run_with_progress(
            Command::new("go")
                .current_dir(&module)
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "")
                .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
                .arg(new.join(self.name))
                .arg(format!("-tags={}", self.tags))
                .arg(self.package),
            &format!("building {}", self.name),
            &new.join("build.log"),
        )
        .and_then(|()| beside(&new))
        .and_then(|()| fs::rename(&new, &dir).with_context(|| format!("making {}", dir.display())));
        if built.is_err() {
            fs::remove_dir_all(&new).ok(); // the build's error says more than that of tidying up
        }
        built?;
        Ok(dir)
    }
}

/// The folder of a module that another one requires, in Go's own cache.
pub(crate) fn folder_of(checkout: &Checkout, module: &str, required: &str) -> anyhow::Result<PathBuf> {
    let mut go = Command::new("go");
    go.current_dir(checkout.root().join(module)).env("GOFLAGS", "");
    let text = exec::read(go.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", required]))?;
    let folder = text.trim();
    if folder.is_empty() {
        bail!("Go has not downloaded {required}, which {module}/go.mod requires");
    }
    Ok(PathBuf::from(folder))
}

/// Copies the files of a folder into a new one. Not with their modes: files of Go's cache are read-only, and the copies
/// must be removable.
pub(crate) fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let path = entry?.path();
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let file = to.join(path.file_name().unwrap_or_default());
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// What `go version` says.
pub(crate) fn go_version() -> anyhow::Result<String> {
    if host::find_program("go").is_none() {
        bail!(
            "the Go toolchain is missing\nhint: install Go 1.25 or newer, programs that tests need are built with it"
        );
    }
    exec::read(Command::new("go").arg("version").env("GOTOOLCHAIN", "local"))
}

/// Everything the programs are made from: path below the folder, and content, in a fixed order.
pub(crate) fn sources(dir: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
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

/// The hash that programs are kept under. Lengths are part of it, so no two sets of sources run together.
pub(crate) fn key(sources: &[(String, Vec<u8>)], go: &str, more: &str) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    add(go.trim().as_bytes());
    add(std::env::consts::ARCH.as_bytes());
    add(more.as_bytes());
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
        let one = key(&[file("a.go", "xy"), file("go.sum", "z")], "go1", "");
        assert_eq!(one.len(), 64);
        assert_eq!(one, key(&[file("a.go", "xy"), file("go.sum", "z")], "go1\n", ""));
        for other in [
            key(&[file("a.go", "xy"), file("go.sum", "y")], "go1", ""),
            key(&[file("a.go", "x"), file("go.sum", "yz")], "go1", ""),
            key(&[file("b.go", "xy"), file("go.sum", "z")], "go1", ""),
            key(&[file("a.go", "xy"), file("go.sum", "z")], "go2", ""),
            key(&[file("a.go", "xy"), file("go.sum", "z")], "go1", "more"),
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
}
