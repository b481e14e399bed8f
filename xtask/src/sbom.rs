//! What is linked into the image, as CycloneDX 1.6: every crate that was compiled for the image's target, by what cargo
//! reports of the build itself, the standard library, and the C library.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use cargo_metadata::{DependencyKind, Message, Metadata, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Checkout, exec, gomodule};

const MODULE: &str = "e2e/supply";

const READER: gomodule::Program = gomodule::Program {
    module: MODULE,
    sources: Some("bomcheck"),
    tags: "",
    package: "./bomcheck",
    name: "bomcheck",
};

/// A program that reads such a list with CycloneDX's own library, and the folder of CycloneDX's schemas.
///
/// # Errors
/// When it does not build.
pub fn reader(checkout: &Checkout) -> anyhow::Result<(PathBuf, PathBuf)> {
    let dir = READER.ensure(checkout, |new| {
        let module = gomodule::folder_of(checkout, MODULE, "github.com/CycloneDX/cyclonedx-go")?;
        gomodule::copy_files(&module.join("schema"), &new.join("schemas"))
    })?;
    Ok((dir.join(READER.name), dir.join("schemas")))
}

/// What cargo compiled for a target, rather than for the build itself (macros, build scripts).
#[derive(Debug)]
pub(crate) struct Linked {
    target: String,
    packages: BTreeSet<PackageId>,
}

impl Linked {
    /// Reads cargo's messages of a build: the packages of which an artifact stands below the target's own folder.
    pub(crate) fn of(messages: &str, target: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut packages = BTreeSet::new();
        for message in Message::parse_stream(messages.as_bytes()) {
            if let Message::CompilerArtifact(artifact) = message.context("reading what cargo built")?
                && artifact.filenames.iter().any(|file| file.as_std_path().starts_with(folder))
            {
                packages.insert(artifact.package_id);
            }
        }
        Ok(Self { target: target.to_owned(), packages })
    }
}

/// A program of the image.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Its file in the image.
    pub(crate) file: &'a str,
    /// What cargo calls it.
    pub(crate) name: &'a str,
    /// The file as it was built.
    pub(crate) path: &'a Path,
}

/// Writes the list for an image of these programs.
///
/// # Errors
/// When something that is linked is not known to cargo, or the file cannot be written.
pub(crate) fn write(
    checkout: &Checkout,
    linked: &Linked,
    programs: &[Program<'_>],
    image_id: &str,
    to: &Path,
) -> anyhow::Result<()> {
    let mut metadata = MetadataCommand::new();
    metadata.cargo_path(exec::cargo(checkout.root()).get_program());
    metadata.env("CARGO_HOME", checkout.cargo_home()?).current_dir(checkout.root());
    metadata.other_options(["--locked".to_owned(), format!("--filter-platform={}", linked.target)]);
    let metadata = metadata.exec().context("reading cargo's metadata")?;
    let lock = checkout.root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let mut files = BTreeMap::new();
    for program in programs {
        let bytes = fs::read(program.path).with_context(|| format!("reading {}", program.path.display()))?;
        files.insert(program.file, (program.name, hex::encode(Sha256::digest(&bytes))));
    }
    let bom = bom(&Facts {
        linked,
        metadata: &metadata,
        checksums: &checksums(&lock),
        programs: &files,
        image_id,
        runtime: &runtime(&linked.target)?,
    })?;
    let mut text = serde_json::to_string_pretty(&bom)?;
    text.push('\n');
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

/// What is linked in besides crates.
#[derive(Debug)]
struct Runtime {
    name: &'static str,
    version: String,
    license: &'static str,
    purl: String,
}

/// The standard library and, where it is linked statically, the C library of this machine.
fn runtime(target: &str) -> anyhow::Result<Vec<Runtime>> {
    let about = exec::rustc(&["-vV"])?;
    let release = about.lines().find_map(|line| line.strip_prefix("release: ")).context("`rustc -vV`")?;
    let mut parts = vec![Runtime {
        name: "rust-std",
        version: release.to_owned(),
        license: "MIT OR Apache-2.0",
        purl: format!("pkg:generic/rust-std@{release}"),
    }];
    if target.ends_with("-gnu") {
        // `ldd (Debian GLIBC 2.36-9) 2.36`: the package's version, and the release.
        let said = exec::read(Command::new("ldd").arg("--version"))?;
        let version = glibc(&said).context("`ldd --version` names no version")?;
        let purl = format!("pkg:generic/glibc@{version}");
        parts.push(Runtime { name: "glibc", version, license: "LGPL-2.1-or-later", purl });
    }
    Ok(parts)
}

fn glibc(said: &str) -> Option<String> {
    let first = said.lines().next()?;
    let version = match first.split_once(" GLIBC ").and_then(|(_, rest)| rest.split_once(')')) {
        Some((package, _)) => package,
        None => first.rsplit(' ').next()?,
    };
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Checksums of the registry's packages, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            package.lines().find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"').map(ToOwned::to_owned)
            })
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

struct Facts<'a> {
    linked: &'a Linked,
    metadata: &'a Metadata,
    checksums: &'a BTreeMap<(String, String), String>,
    /// Name in cargo and SHA-256 of each program by its file.
    programs: &'a BTreeMap<&'a str, (&'a str, String)>,
    image_id: &'a str,
    runtime: &'a [Runtime],
}

/// The list itself. No time and no random number are in it: the same build gives the same list.
fn bom(facts: &Facts<'_>) -> anyhow::Result<Value> {
    let mut components = Vec::new();
    let mut dependencies = BTreeMap::new();
    for part in facts.runtime {
        components.push(json!({
            "type": "library",
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            "licenses": [{ "expression": part.license }],
        }));
        dependencies.insert(part.purl.clone(), BTreeSet::new());
    }
    let resolve = facts.metadata.resolve.as_ref().context("cargo's metadata has no dependency graph")?;
    for id in &facts.linked.packages {
        let package = package(facts.metadata, id)?;
        components.push(library(package, facts.checksums)?);
        let node = resolve.nodes.iter().find(|node| &node.id == id).context("a package without a node")?;
        let mut needs = BTreeSet::new();
        for dep in &node.deps {
            let is_linked = facts.linked.packages.contains(&dep.pkg);
            if is_linked && dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
                needs.insert(purl(self::package(facts.metadata, &dep.pkg)?));
            }
        }
        dependencies.insert(purl(package), needs);
    }
    for (file, (name, digest)) in facts.programs {
        let reference = format!("file:/{file}");
        components.push(json!({
            "type": "application",
            "bom-ref": reference,
            "name": file,
            "version": env!("CARGO_PKG_VERSION"),
            "hashes": [{ "alg": "SHA-256", "content": digest }],
            "licenses": [{ "expression": env!("CARGO_PKG_LICENSE") }],
        }));
        let mut needs: BTreeSet<String> = facts.runtime.iter().map(|part| part.purl.clone()).collect();
        for id in &facts.linked.packages {
            let package = package(facts.metadata, id)?;
            if package.targets.iter().any(|target| target.is_bin() && target.name == *name) {
                needs.insert(purl(package));
            }
        }
        dependencies.insert(reference, needs);
    }
    let image = format!("oci:{}", facts.image_id);
    dependencies.insert(image.clone(), facts.programs.keys().map(|name| format!("file:/{name}")).collect());
    let digest = facts.image_id.strip_prefix("sha256:").context("the image's digest is no SHA-256")?;
    let dependencies: Vec<Value> = dependencies
        .into_iter()
        .map(|(reference, needs)| json!({ "ref": reference, "dependsOn": needs }))
        .collect();
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{ "phase": "build" }],
            "component": {
                "type": "container",
                "bom-ref": image,
                "name": "sealedenv",
                "version": env!("CARGO_PKG_VERSION"),
                "hashes": [{ "alg": "SHA-256", "content": digest }],
                "licenses": [{ "expression": env!("CARGO_PKG_LICENSE") }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn package<'m>(metadata: &'m Metadata, id: &PackageId) -> anyhow::Result<&'m Package> {
    let found = metadata.packages.iter().find(|package| &package.id == id);
    found.with_context(|| format!("{id} was built, and cargo's metadata does not know it"))
}

fn purl(package: &Package) -> String {
    // A semantic version's `+` is the one letter of it that a package URL escapes.
    format!("pkg:cargo/{}@{}", package.name, package.version.to_string().replace('+', "%2B"))
}

fn library(package: &Package, checksums: &BTreeMap<(String, String), String>) -> anyhow::Result<Value> {
    let (name, version) = (package.name.to_string(), package.version.to_string());
    let mut library = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    if let Some(license) = &package.license {
        // Crates of old wrote a slash for "or".
        let expression = license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ");
        library["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(address) = &package.repository {
        library["externalReferences"] = json!([{ "type": "vcs", "url": address }]);
    }
    if package.source.is_some() {
        let checksum = checksums.get(&(name, version));
        let Some(checksum) = checksum else { bail!("Cargo.lock has no checksum of {}", package.id) };
        library["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        MetadataCommand::new().other_options(["--locked".to_owned()]).exec().unwrap()
    }

    fn ids(metadata: &Metadata, names: &[&str]) -> BTreeSet<PackageId> {
        let chosen = metadata.packages.iter().filter(|package| names.contains(&package.name.as_str()));
        chosen.map(|package| package.id.clone()).collect()
    }

    fn list(names: &[&str]) -> Value {
        let metadata = metadata();
        let lock = fs::read_to_string(Checkout::find().unwrap().root().join("Cargo.lock")).unwrap();
        let linked = Linked { target: "t".into(), packages: ids(&metadata, names) };
        bom(&Facts {
            linked: &linked,
            metadata: &metadata,
            checksums: &checksums(&lock),
            programs: &[("crds", ("crdgen", "aa".repeat(32)))].into(),
            image_id: &format!("sha256:{}", "bb".repeat(32)),
            runtime: &[Runtime {
                name: "rust-std",
                version: "1".into(),
                license: "MIT",
                purl: "pkg:generic/rust-std@1".into(),
            }],
        })
        .unwrap()
    }

    #[test]
    fn only_what_was_compiled_for_the_target_is_linked() {
        let metadata = metadata();
        let id = |name: &str| ids(&metadata, &[name]).into_iter().next().unwrap();
        let message = |name: &str, file: &str| {
            json!({
                "reason": "compiler-artifact",
                "package_id": id(name),
                "manifest_path": "/x/Cargo.toml",
                "target": { "kind": ["lib"], "crate_types": ["lib"], "name": name, "src_path": "/x/lib.rs",
                    "edition": "2021", "doc": true, "doctest": true, "test": true },
                "profile": { "opt_level": "0", "debuginfo": 0, "debug_assertions": false,
                    "overflow_checks": false, "test": false },
                "features": [],
                "filenames": [file],
                "executable": null,
                "fresh": true,
            })
            .to_string()
        };
        let messages = [
            message("age", "/target/t/release/deps/libage.rlib"),
            message("syn", "/target/release/deps/libsyn.rlib"),
            message("hmac", "/target/t/release/deps/libhmac.rlib"),
            message("hmac", "/target/release/deps/libhmac.rlib"),
            json!({ "reason": "build-finished", "success": true }).to_string(),
        ];
        let linked = Linked::of(&messages.join("\n"), "t", Path::new("/target/t")).unwrap();
        assert_eq!(linked.packages, ids(&metadata, &["age", "hmac"]));
    }

    #[test]
    fn a_component_has_what_a_reader_needs() {
        let list = list(&["sealedenv-crds", "serde", "kube"]);
        let components = list["components"].as_array().unwrap();
        let serde = components.iter().find(|component| component["name"] == "serde").unwrap();
        assert_eq!(serde["purl"], format!("pkg:cargo/serde@{}", serde["version"].as_str().unwrap()));
        assert_eq!(serde["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(serde["hashes"][0]["content"].as_str().unwrap().len(), 64);
        let ours = components.iter().find(|component| component["name"] == "sealedenv-crds").unwrap();
        assert!(ours["hashes"].is_null(), "nobody publishes it");
        let dependencies = list["dependencies"].as_array().unwrap();
        let of = |start: &str| {
            let found = dependencies.iter().find(|d| d["ref"].as_str().unwrap().starts_with(start));
            found.unwrap_or_else(|| panic!("{start}"))["dependsOn"].to_string()
        };
        assert!(of("pkg:cargo/sealedenv-crds@").contains("pkg:cargo/kube@"));
        assert!(of("file:/crds").contains("pkg:cargo/sealedenv-crds@"));
        assert!(of("file:/crds").contains("rust-std"));
        assert!(of("oci:sha256:bb").contains("file:/crds"));
    }

    #[test]
    fn the_c_library_is_named_by_its_packages_version() {
        assert_eq!(glibc("ldd (Debian GLIBC 2.36-9+deb12u13) 2.36\nx"), Some("2.36-9+deb12u13".into()));
        assert_eq!(glibc("ldd (GNU libc) 2.41\n"), Some("2.41".into()));
        assert_eq!(glibc("musl libc"), None);
        assert_eq!(glibc(""), None);
    }
}
