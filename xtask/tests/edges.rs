//! The crates depend on each other as docs/src/architecture.md says, and on nothing that they must not hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests they are the report of a failure")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of our crates each of our crates may depend on. A crate that is not listed here fails the test.
const ALLOWED: [(&str, &[&str]); 18] = [
    ("sealedenv-seal", &[]),
    ("sealedenv-audit", &[]),
    ("sealedenv-crds", &[]),
    ("sealedenv-runtime", &[]),
    ("sealedenv-delivery", &[]),
    // What a file looks like in the API, and the type that a value is.
    ("sealedenv-render", &["sealedenv-seal", "sealedenv-crds"]),
    // The type that a value is.
    ("sealedenv-providers", &["sealedenv-seal"]),
    (
        "sealedenv-operator",
        &[
            "sealedenv-seal",
            "sealedenv-audit",
            "sealedenv-crds",
            "sealedenv-runtime",
            "sealedenv-delivery",
            "sealedenv-render",
        ],
    ),
    // seal for parsing only: the webhook never has a key. render for its checks.
    (
        "sealedenv-webhook",
        &["sealedenv-seal", "sealedenv-audit", "sealedenv-crds", "sealedenv-runtime", "sealedenv-render"],
    ),
    // No seal, no crds: it can open nothing, and asks no API server.
    ("sealedenv-node", &["sealedenv-delivery", "sealedenv-volume", "sealedenv-runtime"]),
    ("sealedenv-agent", &["sealedenv-delivery", "sealedenv-volume", "sealedenv-runtime"]),
    // What both write files with.
    ("sealedenv-volume", &["sealedenv-delivery"]),
    // Runs in pods' own containers.
    ("sealedenv-exec", &[]),
    ("sealedenv-cli", &["sealedenv-seal", "sealedenv-audit", "sealedenv-crds", "sealedenv-render"]),
    // All components in one program. Nothing depends on it, so none of them learns of another.
    (
        "sealedenv-image",
        &[
            "sealedenv-operator",
            "sealedenv-webhook",
            "sealedenv-node",
            "sealedenv-agent",
            "sealedenv-cli",
            "sealedenv-runtime",
        ],
    ),
    // Black-box tests: the built binaries, never the libraries. What the API server and the wire show is the outside.
    ("sealedenv-e2e", &["sealedenv-crds", "sealedenv-delivery"]),
    // The same for what measures them.
    ("sealedenv-bench", &["sealedenv-delivery", "sealedenv-node"]),
    ("xtask", &[]),
];

/// What must not stand anywhere below a crate, in what ships.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    // The format knows no cluster, no clock, no runtime; anybody can embed it.
    ("sealedenv-seal", &["kube", "kube-client", "k8s-openapi", "tokio", "hyper", "jiff", "rustls"]),
    // The trail cannot hold a value: it does not even know the type.
    ("sealedenv-audit", &["sealedenv-seal", "age", "kube", "tokio"]),
    // The contract opens nothing and asks no API server: what the node plugin links is no way to a key.
    ("sealedenv-delivery", &["sealedenv-seal", "age", "kube", "k8s-openapi"]),
    // It asks stores, and no API server: what may be asked of which store is not its to find out.
    ("sealedenv-providers", &["kube", "kube-client", "k8s-openapi"]),
    // Nor can the node plugin, which runs on every node.
    ("sealedenv-node", &["sealedenv-seal", "age", "kube", "kube-client", "k8s-openapi"]),
    // Nor the agent, which runs in every pod that has it.
    ("sealedenv-agent", &["sealedenv-seal", "age", "kube", "kube-client", "k8s-openapi"]),
    // It is in other people's images: the standard library, and nothing else.
    ("sealedenv-exec", &["tokio", "rustls", "rustix", "serde", "clap"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().other_options(["--locked".to_owned()]).exec().unwrap()
}

#[test]
fn crates_depend_on_each_other_only_as_allowed() {
    let metadata = metadata();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.into_iter().map(|(name, others)| (name, others.iter().copied().collect())).collect();
    let members: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(members, allowed.keys().copied().collect(), "the list of crates is not the workspace's");
    for package in metadata.workspace_packages() {
        // Dev-dependencies count: a test that reaches across an edge blurs it as well.
        let ours: BTreeSet<&str> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|name| members.contains(name))
            .collect();
        let name = package.name.as_str();
        let beyond: Vec<_> = ours.difference(&allowed[name]).collect();
        assert!(beyond.is_empty(), "{name} must not depend on {beyond:?}: see docs/src/architecture.md");
    }
}

#[test]
fn leaves_stay_free_of_what_they_must_not_know() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    for (root, forbidden) in FORBIDDEN {
        let package = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == root);
        let mut waiting = vec![package.unwrap_or_else(|| panic!("no crate {root}")).id.clone()];
        let mut below = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !below.insert(id.clone()) {
                continue;
            }
            let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
            waiting.extend(
                node.deps
                    .iter()
                    .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal))
                    .map(|dep| dep.pkg.clone()),
            );
        }
        let names: BTreeSet<&str> = below.iter().map(|id| metadata[id].name.as_str()).collect();
        for name in forbidden {
            assert!(!names.contains(name), "{root} depends on {name}");
        }
    }
}

/// Features of the whole workspace, since one build unifies them: what the CLI turned on, the operator would have.
#[test]
fn age_has_neither_ssh_nor_plugins() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let age = resolve.nodes.iter().find(|node| metadata[&node.id].name.as_str() == "age").unwrap();
    for feature in ["ssh", "plugin", "async"] {
        assert!(
            !age.features.iter().any(|on| **on == *feature),
            "age's feature {feature} is on: RUSTSEC-2023-0071, or running other programs, or nothing needed here"
        );
    }
}

/// What the templates of files were judged without. `fuel` is what bounds them.
#[test]
fn the_template_engine_has_no_more_than_it_needs() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let engine = resolve.nodes.iter().find(|node| metadata[&node.id].name.as_str() == "minijinja").unwrap();
    let on: BTreeSet<&str> = engine.features.iter().map(|feature| feature.as_str()).collect();
    assert_eq!(on, BTreeSet::from(["fuel", "internal_debug", "unstable_machinery"]));
}

/// Whether a manifest takes the workspace's lints: the table `[lints]` with `workspace = true`.
fn takes_the_workspace_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line == "workspace = true")
}

#[test]
fn every_crate_has_the_workspaces_lints() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            takes_the_workspace_lints(&manifest),
            "{}: add `[lints]` with `workspace = true`",
            package.manifest_path
        );
    }
    assert!(!takes_the_workspace_lints("[lints]\n[dependencies]\nworkspace = true\n"));
}

/// What a binary does is in its library, where tests reach it.
#[test]
fn no_main_is_long() {
    let metadata = metadata();
    let mains: Vec<_> = (metadata.workspace_packages().into_iter())
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_bin())
        .collect();
    assert!(mains.len() >= 5, "operator, webhook, cli, crdgen, xtask");
    for main in mains {
        let lines = std::fs::read_to_string(&main.src_path).unwrap().lines().count();
        assert!(lines <= 30, "{} has {lines} lines: move it into the library", main.src_path);
    }
}
