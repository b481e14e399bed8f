//! The Helm chart as a program: renders it with the real helm, and reads what came out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{Checkout, exec, tools};

/// Release name and namespace of every rendering, as the documentation uses them.
pub const RELEASE: &str = "sealedenv";
/// See [`RELEASE`].
pub const NAMESPACE: &str = "sealedenv-system";
/// The oldest Kubernetes that the chart supports: what renders for it renders for all.
pub const OLDEST_KUBERNETES: &str = "1.30.0";

/// One file of values in `charts/sealedenv/ci`, and what it must render to.
#[derive(Debug)]
pub struct Case {
    /// The file's name without `-values.yaml`.
    pub name: String,
    /// The values.
    pub values: PathBuf,
    /// The wanted rendering.
    pub golden: PathBuf,
}

/// Every case, found by listing the folder.
///
/// # Errors
/// When the folder cannot be read, holds a file of another name, or holds none.
pub fn cases(checkout: &Checkout) -> anyhow::Result<Vec<Case>> {
    let folder = checkout.chart().join("ci");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let values = entry?.path();
        let name = values
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix("-values.yaml"));
        let Some(name) = name else { bail!("{} is not called NAME-values.yaml", values.display()) };
        let golden = goldens(checkout).join(format!("{name}.yaml"));
        cases.push(Case { name: name.to_owned(), values, golden });
    }
    if cases.is_empty() {
        bail!("{} holds no values", folder.display());
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// The folder of the wanted renderings.
pub fn goldens(checkout: &Checkout) -> PathBuf {
    checkout.chart().join("tests/golden")
}

/// The helm to use: `SEALEDENV_E2E_HELM` where it is set, else the pinned one.
///
/// # Errors
/// When it cannot be built.
pub fn helm() -> anyhow::Result<PathBuf> {
    match std::env::var_os("SEALEDENV_E2E_HELM").filter(|path| !path.is_empty()) {
        Some(path) => Ok(path.into()),
        None => tools::helm(),
    }
}

/// `helm template`, with these files of values and these `--set` (or other) arguments.
///
/// # Errors
/// What helm says against the values or the templates.
pub fn render(
    helm: &Path,
    checkout: &Checkout,
    values: &[&Path],
    arguments: &[&str],
) -> anyhow::Result<String> {
    let mut command = quiet(helm);
    command.args(["template", RELEASE]).arg(checkout.chart());
    command.args(["--namespace", NAMESPACE, "--kube-version", OLDEST_KUBERNETES]);
    for file in values {
        command.arg("--values").arg(file);
    }
    exec::read(command.args(arguments))
}

/// The rendering that a case is compared by. CRDs are left out: they are compared with their source instead.
///
/// # Errors
/// As [`render`].
pub fn render_case(helm: &Path, checkout: &Checkout, case: &Case) -> anyhow::Result<String> {
    let text = render(helm, checkout, &[&case.values], &["--set", "crds.enabled=false"])?;
    Ok(format!("# `helm template` with ci/{}-values.yaml. Written by `cargo xtask gen`.\n{text}", case.name))
}

/// `helm lint --strict`.
///
/// # Errors
/// What helm finds.
pub fn lint(helm: &Path, checkout: &Checkout, values: &Path) -> anyhow::Result<()> {
    let mut command = quiet(helm);
    command.arg("lint").arg(checkout.chart()).args([
        "--strict",
        "--quiet",
        "--kube-version",
        OLDEST_KUBERNETES,
    ]);
    exec::read(command.arg("--values").arg(values)).map(drop)
}

/// Helm with no settings of the person who runs it, and no cluster.
pub(crate) fn quiet(helm: &Path) -> Command {
    let mut command = Command::new(helm);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("HELM_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("KUBECONFIG");
    command
}

/// The objects of a rendering.
///
/// # Errors
/// When it is not YAML.
pub fn objects(rendering: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendering).context("reading rendered YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// What a subject may do: `"namespace group/resource[:name] verb"`, with `*` for all namespaces, and the binding's
/// subject as the key, for instance `ServiceAccount sealedenv-system/sealedenv-operator`.
pub type Rights = BTreeMap<String, Vec<String>>;

/// Follows every binding of a rendering to its role.
///
/// # Errors
/// When a binding names a role that is not in the rendering, or an object is malformed.
pub fn rights(objects: &[Value]) -> anyhow::Result<Rights> {
    let mut rights = Rights::new();
    for binding in objects {
        let kind = text(binding, "/kind")?;
        if !kind.ends_with("Binding") {
            continue;
        }
        let place = match kind {
            "ClusterRoleBinding" => "*",
            _ => text(binding, "/metadata/namespace")?,
        };
        let role = objects
            .iter()
            .find(|role| {
                role.get("kind") == binding.pointer("/roleRef/kind")
                    && role.pointer("/metadata/name") == binding.pointer("/roleRef/name")
                    && (role["kind"] == "ClusterRole"
                        || role.pointer("/metadata/namespace") == binding.pointer("/metadata/namespace"))
            })
            .with_context(|| {
                format!("the {kind} {} names a role that is not rendered", binding["metadata"]["name"])
            })?;
        for subject in list(binding, "/subjects")? {
            let name = match subject["kind"].as_str() {
                Some("ServiceAccount") => {
                    format!("ServiceAccount {}/{}", text(subject, "/namespace")?, text(subject, "/name")?)
                }
                _ => format!("{} {}", text(subject, "/kind")?, text(subject, "/name")?),
            };
            let granted = rights.entry(name).or_default();
            for rule in list(role, "/rules")? {
                granted.extend(allowed(rule, place)?);
            }
        }
    }
    for granted in rights.values_mut() {
        granted.sort();
        granted.dedup();
    }
    Ok(rights)
}

/// One rule, written out: a line for each resource, name and verb.
///
/// # Errors
/// When the rule is malformed or speaks of something else than resources.
pub fn allowed(rule: &Value, place: &str) -> anyhow::Result<Vec<String>> {
    let names = match rule.get("resourceNames") {
        Some(_) => list(rule, "/resourceNames")?.iter().map(|name| format!(":{}", word(name))).collect(),
        None => vec![String::new()],
    };
    let mut lines = Vec::new();
    for group in list(rule, "/apiGroups")? {
        for resource in list(rule, "/resources")? {
            for name in &names {
                for verb in list(rule, "/verbs")? {
                    lines.push(format!("{place} {}/{}{name} {}", word(group), word(resource), word(verb)));
                }
            }
        }
    }
    Ok(lines)
}

fn word(value: &Value) -> &str {
    match value.as_str() {
        Some("") => "core",
        Some(word) => word,
        None => "?",
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> anyhow::Result<&'v str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer} in {value}"))
}

fn list<'v>(value: &'v Value, pointer: &str) -> anyhow::Result<&'v [Value]> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .with_context(|| format!("no list at {pointer} in {value}"))
}
