//! Merging into a manifest that exists: the lines of changed keys change, new keys get lines, all else stays.

use std::collections::BTreeMap;

use sealedenv_crds::names;
use thiserror::Error;

use super::plan::Existing;
use super::{Block, Change};
use crate::failure::Fault;
use crate::yaml::{self, Content, Edit, EditError, NewEntry, Node, YamlError};

/// A `SealedEnv` found in a file.
pub(crate) struct Target {
    documents: Vec<Node>,
    index: usize,
    /// Its namespace, if it names one.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
    /// What stands in it.
    pub(crate) existing: Existing,
}

/// Why a file was not merged into. It is as it was.
#[derive(Debug, Error)]
pub(crate) enum MergeError {
    /// It is not YAML.
    #[error("{file}, line {}", .source.line())]
    Yaml {
        /// The file.
        file: String,
        /// What is wrong.
        source: YamlError,
    },
    /// It has none that fits.
    #[error("{file} has no SealedEnv{wanted}")]
    None {
        /// The file.
        file: String,
        /// ` shop/checkout`, if one was asked for.
        wanted: String,
    },
    /// It has several that fit.
    #[error("{file} has several SealedEnvs{wanted}: {}", .found.join(", "))]
    Several {
        /// The file.
        file: String,
        /// What was asked for.
        wanted: String,
        /// Their names.
        found: Vec<String>,
    },
    /// It has no `spec`.
    #[error("the SealedEnv in {file} has no spec to merge into")]
    NoSpec {
        /// The file.
        file: String,
    },
    /// A line cannot be edited in place.
    #[error("{file} cannot be merged into")]
    Edit {
        /// The file.
        file: String,
        /// Why.
        source: EditError,
    },
    /// The edited text would not mean what it should.
    #[error("{file} cannot be merged into: the edit would change more than was meant")]
    Verify {
        /// The file.
        file: String,
    },
}

impl Fault for MergeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::None { .. } => Some("make one first: sealedenv manifest … > FILE".to_owned()),
            Self::Several { .. } => Some("choose with --namespace and --name".to_owned()),
            Self::Edit { .. } | Self::Verify { .. } => {
                Some("write spec.data and spec.public as plain lines, KEY: value, without anchors".to_owned())
            }
            _ => None,
        }
    }
}

/// Finds the `SealedEnv` that is asked for, or the only one.
pub(crate) fn find(
    text: &str,
    file: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<Target, MergeError> {
    let documents = yaml::parse(text).map_err(|source| MergeError::Yaml { file: file.to_owned(), source })?;
    let wanted = match (namespace, name) {
        (Some(namespace), Some(name)) => format!(" {namespace}/{name}"),
        (None, Some(name)) => format!(" named {name}"),
        (Some(namespace), None) => format!(" in {namespace}"),
        (None, None) => String::new(),
    };
    let found: Vec<usize> = (0..documents.len())
        .filter(|&index| {
            let Some((is_namespace, is_name)) = identity(&documents[index]) else { return false };
            // A manifest without a namespace gets it from kustomize or kubectl.
            name.is_none_or(|name| name == is_name)
                && namespace.is_none_or(|namespace| is_namespace.is_none_or(|is| is == namespace))
        })
        .collect();
    let index = match found[..] {
        [index] => index,
        [] => return Err(MergeError::None { file: file.to_owned(), wanted }),
        _ => {
            let name = |&index: &usize| {
                identity(&documents[index]).map_or(String::new(), |(_, name)| name.to_owned())
            };
            let found = found.iter().map(name).collect();
            return Err(MergeError::Several { file: file.to_owned(), wanted, found });
        }
    };
    let (namespace, name) = identity(&documents[index])
        .map_or_else(Default::default, |(namespace, name)| (namespace.map(str::to_owned), name.to_owned()));
    let existing = existing(&documents[index]);
    Ok(Target { documents, index, namespace, name, existing })
}

/// Namespace and name of a document that is a `SealedEnv` of this version.
fn identity(document: &Node) -> Option<(Option<&str>, &str)> {
    let is = |field, value| document.get(field).and_then(Node::text) == Some(value);
    if !is("apiVersion", names::API_VERSION) || !is("kind", "SealedEnv") {
        return None;
    }
    let metadata = document.get("metadata")?;
    let name = metadata.get("name").and_then(Node::text)?;
    Some((metadata.get("namespace").and_then(Node::text), name))
}

fn existing(document: &Node) -> Existing {
    let Some(spec) = document.get("spec") else { return Existing::default() };
    let texts = |field| -> BTreeMap<String, Option<String>> {
        let entries = spec.get(field).map(Node::entries).unwrap_or_default();
        entries.iter().map(|entry| (entry.key.clone(), entry.value.text().map(str::to_owned))).collect()
    };
    let meta = spec.get("meta").map(Node::entries).unwrap_or_default();
    let is_secret = |value: &Node| value.get("class").and_then(Node::text) == Some("secret");
    Existing {
        data: texts("data"),
        public: texts("public"),
        secret_class: meta
            .iter()
            .filter(|entry| is_secret(&entry.value))
            .map(|entry| entry.key.clone())
            .collect(),
    }
}

/// The text with the changes made.
///
/// # Guarantees
/// Every line that is not the line of a changed key is as it was, byte for byte, and in its order. The result was
/// parsed again: it means what the old text meant, but for the changes.
pub(crate) fn merge(
    text: &str,
    file: &str,
    target: &Target,
    changes: &[Change],
) -> Result<String, MergeError> {
    if changes.is_empty() {
        return Ok(text.to_owned());
    }
    let refused = |source| MergeError::Edit { file: file.to_owned(), source };
    let document = &target.documents[target.index];
    let Some(spec) =
        document.entry("spec").filter(|spec| matches!(spec.value.content, Content::Mapping { .. }))
    else {
        return Err(MergeError::NoSpec { file: file.to_owned() });
    };
    let mut edits: Vec<Edit> = Vec::new();
    for block in [Block::Data, Block::Public] {
        let parent = spec.value.entry(block.field());
        let mut new = Vec::new();
        for change in changes.iter().filter(|change| change.block == block) {
            match parent.and_then(|parent| parent.value.entry(&change.key)) {
                Some(entry) => edits.push(yaml::replace(text, entry, &change.text).map_err(refused)?),
                None => new.push(NewEntry { key: change.key.clone(), value: change.text.clone() }),
            }
        }
        match parent {
            _ if new.is_empty() => {}
            Some(parent) => edits.extend(yaml::add(text, parent, &new).map_err(refused)?),
            None => edits.push(yaml::add_mapping(text, spec, block.field(), &new).map_err(refused)?),
        }
    }
    let merged = yaml::apply(text, edits);
    if is_as_meant(&merged, target, changes) {
        Ok(merged)
    } else {
        Err(MergeError::Verify { file: file.to_owned() })
    }
}

/// Whether the merged text, with the changes undone, means what the old one meant.
fn is_as_meant(merged: &str, target: &Target, changes: &[Change]) -> bool {
    let Ok(mut documents) = yaml::parse(merged) else { return false };
    let old = &target.documents[target.index];
    let Some(document) = documents.get_mut(target.index) else { return false };
    for change in changes {
        let field = change.block.field();
        let old_block = old.get("spec").and_then(|spec| spec.get(field));
        let old_value = old_block.and_then(|block| block.get(&change.key));
        let Some(block) = document.get_mut("spec").and_then(|spec| spec.get_mut(field)) else { return false };
        if block.get(&change.key).and_then(Node::text) != Some(change.text.as_str()) {
            return false;
        }
        match old_value {
            Some(old) => block.set(&change.key, old.clone()),
            None => block.remove(&change.key),
        }
    }
    for block in [Block::Data, Block::Public] {
        let field = block.field();
        let Some(spec) = document.get_mut("spec") else { return false };
        if spec.get(field).is_some_and(|block| block.entries().is_empty()) {
            match old.get("spec").and_then(|spec| spec.get(field)) {
                Some(old) => spec.set(field, old.clone()),
                None => spec.remove(field),
            }
        }
    }
    documents.len() == target.documents.len()
        && documents.iter().zip(&target.documents).all(|(new, old)| new.means(old))
}

#[cfg(test)]
mod tests;
