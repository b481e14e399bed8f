//! A stream of YAML documents, and which of them are ours.

use sealedenv_crds::names;

use super::rules::Rules;
use super::schema::{self, Schema};
use super::{Finding, Options, object, shown};
use crate::yaml::{self, Content, Node};

/// What came out of one text.
pub(crate) struct Checked {
    /// What was found, by line.
    pub(crate) findings: Vec<Finding>,
    /// How many `SealedEnv`s were checked.
    pub(crate) sealed_envs: usize,
    /// How many other objects were passed over.
    pub(crate) others: usize,
}

/// The checks, made ready: worth doing once for many files.
pub(crate) struct Checker {
    schema: Schema,
    rules: Rules,
}

impl Checker {
    /// Makes the CRD's schema and rules ready.
    pub(crate) fn new() -> Self {
        let crd = schema::of_sealed_env();
        Self { schema: Schema::new(&crd), rules: Rules::new(&crd) }
    }

    /// Checks every `SealedEnv` of a text, also those in lists.
    pub(crate) fn check(&self, bytes: &[u8], options: &Options) -> Checked {
        let mut checked = Checked { findings: Vec::new(), sealed_envs: 0, others: 0 };
        match str::from_utf8(bytes) {
            Ok(text) => match yaml::parse(text) {
                Ok(documents) => {
                    for document in &documents {
                        self.take(document, options, &mut checked);
                    }
                }
                Err(error) => {
                    checked.findings.push(Finding::error(error.line(), "NotYaml", error.to_string()));
                }
            },
            Err(error) => {
                let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                checked.findings.push(Finding::error(line, "NotText", "not UTF-8 text"));
            }
        }
        checked.findings.sort_by_key(|finding| finding.line);
        checked
    }

    fn take(&self, document: &Node, options: &Options, checked: &mut Checked) {
        let text = |field| document.get(field).and_then(Node::text).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if let (true, Some(Content::Sequence(items))) =
            (kind.ends_with("List"), document.get("items").map(|items| &items.content))
        {
            for item in items {
                self.take(item, options, checked);
            }
        } else if kind == "SealedEnv" && version == names::API_VERSION {
            checked.sealed_envs += 1;
            let found = object::check(document, options, &self.schema, &self.rules);
            checked.findings.extend(found);
        } else if kind == "SealedEnv" {
            checked.sealed_envs += 1;
            let known = names::API_VERSION;
            let message = if group == names::GROUP {
                format!("apiVersion {} of SealedEnv is not known: only {known}", shown(version))
            } else {
                format!("a SealedEnv has the apiVersion {known}")
            };
            checked.findings.push(Finding::error(document.line, "UnknownVersion", message));
        } else {
            checked.others += 1;
            checked.findings.extend(plain_secret(document, version, kind, options));
        }
    }
}

/// A Secret with values, readable for everybody who can read the file.
fn plain_secret(document: &Node, version: &str, kind: &str, options: &Options) -> Option<Finding> {
    if version != "v1" || kind != "Secret" {
        return None;
    }
    let values = ["data", "stringData"].into_iter().filter_map(|field| document.get(field));
    if values.map(|node| node.entries().len()).sum::<usize>() == 0 {
        return None;
    }
    let message = "a plain Secret: whoever reads this text can read its values";
    let finding = if options.strict_secrets {
        Finding::error(document.line, "PlainSecret", message)
    } else {
        Finding::warning(document.line, "PlainSecret", message)
    };
    Some(finding.hint("make a SealedEnv of it, and change the values that were committed"))
}
