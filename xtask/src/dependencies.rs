//! `docs/src/dependencies.md`: every direct dependency, by what cargo, its sources and `docs/dependencies.yaml` say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use serde::Deserialize;

use crate::{Checkout, exec};

/// What a person says of a dependency.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Review {
    by: String,
    reaches: String,
}

/// Our crates that do not ship.
const TOOLS: [&str; 3] = ["sealedenv-bench", "sealedenv-e2e", "xtask"];

const HEAD: &str = "\
# Dependencies

<!-- Made by `cargo xtask gen` from Cargo.toml, Cargo.lock, the crates' sources and docs/dependencies.yaml. Do not edit. -->

Every crate that a crate of ours names, with its reason from the root `Cargo.toml`. A new one without a reason there or without
a line in `docs/dependencies.yaml` fails `cargo xtask gen`. What these bring along is in the image's
[list of components](supply.md#what-is-in-the-image), and `deny.toml` says what it may be.

*unsafe* is `forbidden` where the crate forbids it to itself, `none` where its sources have none, otherwise `yes`. *Build
script* and *macro* are code that runs where it is built. *Reaches* is what it does beyond computing, in our use of it.
";

/// The page.
///
/// # Errors
/// When a dependency has no reason or no review, or a review is of something that is not used.
pub(crate) fn page(checkout: &Checkout) -> anyhow::Result<String> {
    let mut metadata = MetadataCommand::new();
    metadata.cargo_path(exec::cargo(checkout.root()).get_program()).current_dir(checkout.root());
    let metadata =
        metadata.other_options(["--locked".to_owned()]).exec().context("reading cargo's metadata")?;
    let read = |name: &str| {
        let path = checkout.root().join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let reasons = reasons(&read("Cargo.toml")?);
    let mut reviews: BTreeMap<String, Review> =
        serde_saphyr::from_str(&read("docs/dependencies.yaml")?).context("reading docs/dependencies.yaml")?;

    let used = used(&metadata)?;
    let (mut ships, mut tests) = (String::new(), String::new());
    for (package, users) in used.values() {
        let name = package.name.as_str();
        let reason = reasons.get(name).with_context(|| {
            format!("{name} has no reason: say in the root Cargo.toml, behind a #, what it is for")
        })?;
        let review = reviews.remove(name).with_context(|| {
            format!("{name} has no review: add a line to docs/dependencies.yaml with by and reaches")
        })?;
        let row = row(package, users, reason, &review)?;
        let is_test = users.iter().all(|user| user.only_tests);
        if is_test { &mut tests } else { &mut ships }.push_str(&row);
    }
    if let Some(name) = reviews.keys().next() {
        bail!("docs/dependencies.yaml reviews {name}, which nothing uses");
    }
    let head = "| crate | for | used by | licence | kept by | unsafe | runs at build | reaches |\n|---|---|---|---|---|---|---|---|\n";
    Ok(format!("{HEAD}\n## What ships\n\n{head}{ships}\n## Tests and tools\n\n{head}{tests}"))
}

/// Which of our crates uses a dependency.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct User {
    name: String,
    only_tests: bool,
}

/// The dependencies by name, each with who uses it.
fn used(metadata: &Metadata) -> anyhow::Result<BTreeMap<String, (&Package, BTreeSet<User>)>> {
    let resolve = metadata.resolve.as_ref().context("cargo's metadata has no dependency graph")?;
    let mut used: BTreeMap<String, (&Package, BTreeSet<User>)> = BTreeMap::new();
    for ours in metadata.workspace_packages() {
        let node =
            resolve.nodes.iter().find(|node| node.id == ours.id).context("a package without a node")?;
        for dep in &node.deps {
            let package = &metadata[&dep.pkg];
            if package.source.is_none() {
                continue; // one of ours
            }
            let tests = TOOLS.contains(&ours.name.as_str())
                || dep.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development);
            let name = ours.name.trim_start_matches("sealedenv-").to_owned();
            let (_, users) =
                used.entry(package.name.to_string()).or_insert_with(|| (package, BTreeSet::new()));
            users.insert(User { name, only_tests: tests });
        }
    }
    Ok(used)
}

fn row(package: &Package, users: &BTreeSet<User>, reason: &str, review: &Review) -> anyhow::Result<String> {
    let address = package.repository.as_deref().unwrap_or_default().trim_end_matches(".git");
    let users: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let mut at_build = Vec::new();
    for (is, what) in [
        (package.targets.iter().any(cargo_metadata::Target::is_custom_build), "script"),
        (package.targets.iter().any(cargo_metadata::Target::is_proc_macro), "macro"),
    ] {
        at_build.extend(is.then_some(what));
    }
    let sources = package.manifest_path.parent().context("a manifest has a folder")?.join("src");
    let mut row = String::new();
    writeln!(
        row,
        "| [{} {}]({address}) | {} | {} | {} | {} | {} | {} | {} |",
        package.name,
        package.version,
        reason.replace('|', "\\|"),
        users.join(", "),
        package.license.as_deref().unwrap_or("none stated"),
        review.by,
        Unsafe::of(sources.as_std_path())?.word(),
        at_build.join(", "),
        review.reaches,
    )?;
    Ok(row)
}

/// The comments behind the dependencies of a root Cargo.toml, by name.
fn reasons(manifest: &str) -> BTreeMap<String, String> {
    let lines = manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(" = ")?;
            let (_, reason) = rest.rsplit_once(" # ").or_else(|| rest.rsplit_once("\t# "))?;
            Some((name.to_owned(), reason.trim().to_owned()))
        })
        .collect()
}

/// What a crate's sources have of `unsafe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsafe {
    Forbidden,
    None,
    Yes,
}

impl Unsafe {
    fn word(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::None => "none",
            Self::Yes => "yes",
        }
    }

    fn of(folder: &Path) -> anyhow::Result<Self> {
        let root = folder.join("lib.rs");
        let text = fs::read_to_string(&root).with_context(|| format!("reading {}", root.display()))?;
        if text.lines().any(is_forbidden) {
            return Ok(Self::Forbidden);
        }
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let text =
                        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                    if text.lines().any(has_unsafe) {
                        return Ok(Self::Yes);
                    }
                }
            }
        }
        Ok(Self::None)
    }
}

/// Whether a line forbids it for the whole crate, whatever its features.
fn is_forbidden(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("#![forbid(") && line.contains("unsafe_code")
}

/// Whether a line of code has the word as a keyword.
fn has_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    if code.starts_with("//") || code.starts_with('*') {
        return false;
    }
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_what_stands_behind_the_last_sign() {
        let manifest = "[workspace]\na = 1 # no\n[workspace.dependencies]\nage = \"1\"   # the format # itself\n\n# --- part ---\nx-y = { version = \"2\" } # why\nnone = \"1\"\n[profile.dev]\nz = 1 # no\n";
        let wanted = [("age", "itself"), ("x-y", "why")].map(|(n, r)| (n.to_owned(), r.to_owned()));
        assert_eq!(reasons(manifest), wanted.into());
    }

    #[test]
    fn a_keyword_is_told_from_a_word() {
        for line in ["unsafe {", "    pub unsafe fn f() {}", "x(unsafe { y })", "unsafe impl Send for X {}"] {
            assert!(has_unsafe(line), "{line}");
        }
        for line in ["// unsafe {", "/// is unsafe", "#![deny(unsafe_code)]", "unsafely()", " * unsafe"] {
            assert!(!has_unsafe(line), "{line}");
        }
        assert!(
            is_forbidden("#![forbid(unsafe_code)]") && is_forbidden(" #![forbid(missing_docs, unsafe_code)]")
        );
        assert!(
            !is_forbidden("#![cfg_attr(not(x), forbid(unsafe_code))]")
                && !is_forbidden("#![deny(unsafe_code)]")
        );
    }

    #[test]
    fn every_dependency_has_a_reason_and_a_review() {
        let page = page(&Checkout::find().unwrap()).unwrap();
        for part in ["[kube ", "[age ", "## Tests and tools", "kube-rs, a CNCF project"] {
            assert!(page.contains(part), "{part}");
        }
    }
}
