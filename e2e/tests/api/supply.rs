//! What the image's list of components says, read by CycloneDX's own library and held against other witnesses: cargo's
//! dependency tree, and the programs themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sealedenv_e2e::cluster::run;
use sealedenv_e2e::setting;
use serde_json::Value;

/// The components, as the reader gives them. It fails on what is not CycloneDX 1.6.
fn components(list: &[u8]) -> Result<Vec<Value>> {
    let mut reader = Command::new(setting::get("SEALEDENV_E2E_BOMCHECK")?);
    reader.arg(setting::get("SEALEDENV_E2E_BOM_SCHEMAS")?);
    let output = run(reader, list)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines.map(|line| serde_json::from_str(line).context("what the reader prints")).collect()
}

fn list() -> Result<Vec<u8>> {
    let path = setting::get("SEALEDENV_E2E_SBOM")?;
    std::fs::read(&path).with_context(|| format!("reading {path}"))
}

fn text<'v>(component: &'v Value, field: &str) -> &'v str {
    component[field].as_str().unwrap_or_default()
}

/// Names and versions of the crates in the list.
fn crates(components: &[Value]) -> BTreeSet<(String, String)> {
    let crates = components.iter().filter(|component| text(component, "purl").starts_with("pkg:cargo/"));
    crates
        .map(|component| (text(component, "name").to_owned(), text(component, "version").to_owned()))
        .collect()
}

#[test]
fn the_list_conforms_and_is_complete() -> Result<()> {
    let components = components(&list()?)?;
    for component in &components {
        let name = text(component, "name");
        assert!(!text(component, "license").is_empty(), "{name} has no licence");
        let ours = name.starts_with("sealedenv") && component["type"] == "library";
        let runtime = text(component, "purl").starts_with("pkg:generic/");
        assert!(ours || runtime || text(component, "sha256").len() == 64, "{name} has no digest");
    }
    let runtimes: Vec<&str> = (components.iter())
        .filter(|component| text(component, "purl").starts_with("pkg:generic/"))
        .map(|component| text(component, "name"))
        .collect();
    assert_eq!(runtimes, ["rust-std", "glibc"]);
    Ok(())
}

#[test]
fn the_list_has_exactly_what_cargo_links() -> Result<()> {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.current_dir(env!("CARGO_MANIFEST_DIR"));
    tree.args(["tree", "--locked", "--prefix=none", "--no-dedupe", "--edges=normal,no-proc-macro"]);
    for package in setting::get("SEALEDENV_E2E_IMAGE_PACKAGES")?.split(',') {
        tree.args(["--package", package]);
    }
    let output = run(tree, b"")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut wanted = BTreeSet::new();
    for line in std::str::from_utf8(&output.stdout)?.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let (name, version) = (words.next().context("a name")?, words.next().context("a version")?);
        wanted.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
    }
    assert!(wanted.len() > 100, "{wanted:?}");
    assert_eq!(crates(&components(&list()?)?), wanted, "left: the list, right: cargo's tree");
    Ok(())
}

/// A panic names the file that it came from, so each program holds paths of the crates that are in it.
#[test]
fn the_programs_hold_no_crate_that_is_not_listed() -> Result<()> {
    let components = components(&list()?)?;
    let listed = crates(&components);
    let mut seen = BTreeSet::new();
    let programs: Vec<&Value> =
        components.iter().filter(|component| component["type"] == "application").collect();
    assert!(!programs.is_empty());
    for program in programs {
        let bytes = std::fs::read(setting::binary(text(program, "name"))?)?;
        let folder = b"/cargo/registry/src/";
        for at in memchr_all(&bytes, folder) {
            let rest = &bytes[at + folder.len()..];
            let path: Vec<&[u8]> = rest.splitn(3, |byte| *byte == b'/').take(2).collect();
            let Some(package) = path.get(1).and_then(|word| std::str::from_utf8(word).ok()) else { continue };
            // The version starts at the first dash that a digit follows and that makes a listed name of what is before.
            let known = package.match_indices('-').any(|(dash, _)| {
                listed.contains(&(package[..dash].to_owned(), package[dash + 1..].to_owned()))
            });
            assert!(known, "{} holds {package}, which is not in the list", text(program, "name"));
            seen.insert(package.to_owned());
        }
    }
    assert!(seen.len() > 40, "the paths were not found: {seen:?}");
    Ok(())
}

fn memchr_all<'b>(bytes: &'b [u8], wanted: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    (0..bytes.len().saturating_sub(wanted.len()))
        .filter(move |at| bytes[*at] == wanted[0] && &bytes[*at..*at + wanted.len()] == wanted)
}

#[test]
fn the_list_names_the_programs_by_their_bytes() -> Result<()> {
    let components = components(&list()?)?;
    let listed: BTreeMap<&str, &str> = (components.iter())
        .filter(|component| component["type"] == "application")
        .map(|component| (text(component, "name"), text(component, "sha256")))
        .collect();
    assert!(!listed.is_empty());
    for (name, digest) in listed {
        let mut sum = Command::new("sha256sum");
        sum.arg(setting::binary(name)?);
        let sum = String::from_utf8(run(sum, b"")?.stdout)?;
        assert_eq!(sum.split_whitespace().next(), Some(digest), "{name}");
    }
    Ok(())
}

/// A reader that takes anything would make the tests above say nothing.
#[test]
fn the_reader_refuses_what_is_no_such_list() -> Result<()> {
    let good: Value = serde_json::from_slice(&list()?)?;
    let broken = |change: &dyn Fn(&mut Value)| -> Result<String> {
        let mut list = good.clone();
        change(&mut list);
        match components(list.to_string().as_bytes()) {
            Ok(_) => bail!("it was taken"),
            Err(error) => Ok(error.to_string()),
        }
    };
    for (what, change, said) in [
        ("a word too much", (|list| list["colour"] = "red".into()) as fn(&mut Value), "colour"),
        ("an unknown type", |list| list["components"][0]["type"] = "thing".into(), "type"),
        ("no dependencies", |list| list["dependencies"] = Value::Array(vec![]), "nothing needs"),
        ("an edge to nowhere", |list| list["dependencies"][0]["dependsOn"] = serde_json::json!(["x"]), "x"),
        ("an odd digest", |list| list["metadata"]["component"]["hashes"][0]["content"] = "1".into(), "hash"),
    ] {
        let error = broken(&change).context(what)?;
        assert!(error.contains(said), "{what}: {error}");
    }
    Ok(())
}
