//! Whether the image depends on where it is built.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    Checkout, exec, host,
    image::{self, Image},
};

/// Flags for rustc that keep paths of this machine out of what ships: its bytes would depend on where it was built.
pub(crate) fn remaps(checkout: &Checkout) -> anyhow::Result<String> {
    let about = exec::rustc(&["-vV"])?;
    let hash = about.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let sysroot = exec::rustc(&["--print", "sysroot"])?;
    let from = [
        (checkout.root().display().to_string(), "/sealedenv".to_owned()),
        (checkout.cargo_home()?.display().to_string(), "/cargo".to_owned()),
        // Where the sources of the standard library are installed, rustc names them as they are on this machine.
        (format!("{}/lib/rustlib/src/rust", sysroot.trim()), format!("/rustc/{hash}")),
    ];
    Ok(from.map(|(from, to)| format!("--remap-path-prefix={from}={to}")).join(" "))
}

/// Builds the image from another folder, with another target folder and another `CARGO_HOME`, and compares.
///
/// # Errors
/// When it does not build, or when a byte differs.
pub(crate) fn verify(checkout: &Checkout, first: &Image) -> anyhow::Result<()> {
    let beside = checkout.target().join("reproduce");
    fs::create_dir_all(&beside).with_context(|| format!("making {}", beside.display()))?;
    let _lock =
        host::Lock::wait(&checkout.target().join("reproduce.lock"), "building the image a second time")?;
    let place = host::scratch(&beside, "elsewhere-")?;
    let other = Checkout::apart(
        copy(checkout, &place.join("another/checkout"))?,
        place.join("objects"),
        cargo_home(checkout, &place.join("cargo"))?,
    );
    exec::say(format_args!("once more, in {}", place.display()));
    let second = image::build(&other)?;
    let differences = differences(first, &second)?;
    if differences.is_empty() {
        exec::say("byte for byte the same from two checkouts, two target folders and two CARGO_HOMEs");
        return fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()));
    }
    bail!(
        "the two builds differ: {}\nhint: compare {} with {}",
        differences.join(", "),
        first.binaries.display(),
        second.binaries.display()
    );
}

/// What differs between two images that should be the same.
fn differences(first: &Image, second: &Image) -> anyhow::Result<Vec<String>> {
    let mut different = Vec::new();
    for (what, one, other) in
        [("name", &first.reference, &second.reference), ("digest", &first.id, &second.id)]
    {
        if one != other {
            different.push(format!("{what} ({one}, {other})"));
        }
    }
    for (what, one, other) in
        [("archive", &first.archive, &second.archive), ("SBOM", &first.sbom, &second.sbom)]
    {
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        if read(one)? != read(other)? {
            different.push(what.to_owned());
        }
    }
    Ok(different)
}

/// Copies what git knows of, as it is now.
fn copy(checkout: &Checkout, to: &Path) -> anyhow::Result<PathBuf> {
    let list = exec::read(Command::new("git").arg("-C").arg(checkout.root()).args(["ls-files", "-z"]))?;
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let (from, file) = (checkout.root().join(name), to.join(name));
        let folder = file.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::copy(&from, &file).with_context(|| format!("copying {}", from.display()))?;
    }
    to.canonicalize().with_context(|| format!("finding {}", to.display()))
}

/// A `CARGO_HOME` with another name and the same downloads.
fn cargo_home(checkout: &Checkout, to: &Path) -> anyhow::Result<PathBuf> {
    let from = checkout.cargo_home()?;
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for name in ["registry", "git", "config.toml"] {
        let from = from.join(name);
        if from.exists() {
            symlink(&from, to.join(name)).with_context(|| format!("linking {}", from.display()))?;
        }
    }
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str, id: &str, archive: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("archive"), archive).unwrap();
            fs::write(folder.join("sbom"), "{}").unwrap();
            Image {
                reference: "a:b".into(),
                id: id.into(),
                archive: folder.join("archive"),
                binaries: folder.clone(),
                sbom: folder.join("sbom"),
            }
        };
        let first = image("first", "1", "bytes");
        assert_eq!(differences(&first, &image("same", "1", "bytes")).unwrap(), Vec::<String>::new());
        assert_eq!(differences(&first, &image("archive", "1", "bytez")).unwrap(), ["archive"]);
        assert_eq!(differences(&first, &image("digest", "2", "bytes")).unwrap(), ["digest (1, 2)"]);
        let other = image("sbom", "1", "bytes");
        fs::write(&other.sbom, "{ }").unwrap();
        assert_eq!(differences(&first, &other).unwrap(), ["SBOM"]);
        fs::remove_file(&other.sbom).unwrap();
        assert!(differences(&first, &other).is_err());
    }
}
