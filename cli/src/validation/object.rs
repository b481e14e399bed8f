//! One `SealedEnv`.

use std::collections::HashSet;

use sealedenv_crds::names;
use sealedenv_render::Problem;
use sealedenv_seal::{MAX_VALUE, PREFIX};

use super::rules::{Rules, without_nulls};
use super::schema::Schema;
use super::values::{self, Stand};
use super::{Finding, Options, shown};
use crate::names::{is_label, is_subdomain};
use crate::yaml::{Content, Entry, Node};

/// What etcd, and so the API server, takes for one object.
const MAX_OBJECT: usize = 1536 << 10;

/// Fields that `metadata` may have.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// All that is wrong with a `SealedEnv`.
pub(super) fn check(document: &Node, options: &Options, schema: &Schema, rules: &Rules) -> Vec<Finding> {
    let metadata = document.get("metadata");
    let text = |field| metadata.and_then(|metadata| metadata.get(field)).and_then(Node::text);
    let name = text("name").unwrap_or_default();
    let namespace = text("namespace").or(options.namespace.as_deref());

    let mut found = head(document);
    match document.get("spec") {
        Some(spec) if !spec.is_null() => {
            let stand = Stand { namespace, name, recipients: options.recipients.as_deref() };
            found.extend(of_spec(document, spec, &stand, schema, rules));
        }
        _ => found.push(Finding::error(document.line, "Schema", "the SealedEnv has no spec")),
    }
    let object = match namespace {
        Some(namespace) => format!("{}/{}", shown(namespace), shown(name)),
        None => shown(name),
    };
    found.into_iter().map(|finding| Finding { object: Some(object.clone()), ..finding }).collect()
}

/// `metadata`, and the fields around `spec`.
fn head(document: &Node) -> Vec<Finding> {
    let mut found = Vec::new();
    for entry in document.entries() {
        if !matches!(entry.key.as_str(), "apiVersion" | "kind" | "metadata" | "spec" | "status") {
            found.push(unknown(entry, ""));
        }
    }
    let metadata = document.get("metadata");
    for entry in metadata.map(Node::entries).unwrap_or_default() {
        let path = format!("metadata.{}", shown(&entry.key));
        match entry.key.as_str() {
            key if !METADATA.contains(&key) => found.push(unknown(entry, "metadata.")),
            "labels" | "annotations" => {
                for of in entry.value.entries().iter().filter(|of| of.value.text().is_none()) {
                    let message = format!("{path}.{} must be text: put it in quotes", shown(&of.key));
                    found.push(Finding::error(of.line, "Schema", message));
                }
            }
            _ => {}
        }
    }
    let text = |field| metadata.and_then(|metadata| metadata.get(field));
    let line = |field| text(field).map_or(document.line, |node| node.line);
    if !text("name").and_then(Node::text).is_some_and(is_subdomain) {
        found.push(
            Finding::error(line("name"), "Name", "metadata.name is not a name that Kubernetes allows").hint(
                "lower-case letters, digits, '-' and '.'; in quotes if YAML reads it as something else",
            ),
        );
    }
    if text("namespace").is_some_and(|node| !node.is_null() && !node.text().is_some_and(is_label)) {
        let message = "metadata.namespace is not a name that Kubernetes allows";
        found.push(Finding::error(line("namespace"), "Name", message));
    }
    found
}

fn unknown(entry: &Entry, of: &str) -> Finding {
    Finding::error(entry.line, "UnknownField", format!("unknown field {of}{}", shown(&entry.key)))
}

fn of_spec(document: &Node, spec: &Node, stand: &Stand<'_>, schema: &Schema, rules: &Rules) -> Vec<Finding> {
    let block = |field| spec.get(field).map(Node::entries).unwrap_or_default();
    let (data, public, meta) = (block("data"), block("public"), block("meta"));

    let mut found = schema.check(spec);
    found.extend(of_files(spec));
    let sealed = values::check(data, stand);
    let has_plain = sealed.findings.iter().any(|finding| finding.rule == "NotSealed");
    if found.iter().all(|finding| finding.rule != "Schema") {
        // The server applies the rules only to what the schema allows. That a value is not sealed was said already,
        // with its key and its line.
        let broken = rules.check(document);
        found.extend(
            broken.into_iter().filter(|finding| !(has_plain && finding.message.starts_with("spec.data: "))),
        );
    }
    found.extend(sealed.findings);
    let keys_of = |block: &[Entry]| block.iter().map(|entry| entry.key.clone()).collect::<HashSet<String>>();
    let (sealed_keys, public_keys) = (keys_of(data), keys_of(public));
    found.extend(public.iter().flat_map(|entry| of_public(entry, &sealed_keys)));
    for entry in meta {
        if !sealed_keys.contains(&entry.key) && !public_keys.contains(&entry.key) {
            let message = "spec.meta describes a key that is neither in data nor in public";
            found.push(Finding::warning(entry.line, "MetaWithoutKey", message).key(&entry.key));
        }
    }
    let public_bytes: usize = public.iter().filter_map(|entry| entry.value.text()).map(str::len).sum();
    let bytes = sealed.value_bytes + public_bytes;
    if bytes > MAX_VALUE {
        let message =
            format!("the values have {bytes} bytes together, more than the {MAX_VALUE} that a Secret holds");
        found.push(
            Finding::error(document.line, "TooLarge", message).hint("split it into several SealedEnvs"),
        );
    }
    let object = document.to_json().to_string().len();
    if object > MAX_OBJECT {
        let message =
            format!("the object has {object} bytes, more than the {MAX_OBJECT} that the API server stores");
        found.push(
            Finding::error(document.line, "TooLarge", message).hint("split it into several SealedEnvs"),
        );
    }
    found
}

/// Files that cannot be made, whatever the values are. What is wrong with their shape is the schema's and the rules' to
/// report.
fn of_files(spec: &Node) -> Vec<Finding> {
    let Some(files) = spec.get("files").map(Node::entries) else { return Vec::new() };
    let Ok(spec) = serde_json::from_value(without_nulls(spec.to_json())) else { return Vec::new() };
    let line = |path: &str| files.iter().find(|entry| entry.key == path).map_or(1, |entry| entry.line);
    let finding = |Problem { path, fault }: Problem| {
        let finding =
            Finding::error(line(&path), fault.reason(), format!("spec.files.{}: {fault}", shown(&path)));
        if fault.line().is_some() {
            finding.hint("the line is that of the template, from 1")
        } else {
            finding
        }
    };
    sealedenv_render::check(&spec).into_iter().map(finding).collect()
}

fn of_public(entry: &Entry, sealed_keys: &HashSet<String>) -> Vec<Finding> {
    if !names::is_valid_key(&entry.key) {
        return vec![values::bad_key(entry, "public")];
    }
    let mut found = Vec::new();
    if sealed_keys.contains(&entry.key) {
        let message = "the key stands in data and in public: the sealed value in data counts";
        found.push(Finding::warning(entry.line, "KeyTwice", message).key(&entry.key));
    }
    let Content::Scalar(text, _) = &entry.value.content else { return found };
    if text.starts_with(PREFIX) {
        let finding =
            Finding::error(entry.line, "SealedInPublic", "a sealed value in public is delivered as it is");
        found.push(finding.key(&entry.key).hint("move it to data"));
    } else if text.contains("AGE-SECRET-KEY-") || text.contains("PRIVATE KEY-----") {
        let finding = Finding::error(entry.line, "PrivateKeyInPublic", "a private key in plain text");
        found.push(
            finding.key(&entry.key).hint("seal it, and replace it: whoever could read this text has it"),
        );
    }
    found
}
