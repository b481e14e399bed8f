//! Checks of manifests with no cluster and no private key. Pure: text in, findings out.
//!
//! [`stream`] takes a stream of documents apart, [`schema`] applies the CRD's own schema, [`rules`] its CEL rules,
//! [`values`] looks at each sealed value, [`object`] at all of a `SealedEnv`.
//!
//! A finding names places, keys and rules. It never holds a value: what stands in `spec.data` by mistake may be one
//! that was never sealed.

mod object;
mod rules;
mod schema;
mod stream;
mod values;

use serde::Serialize;

pub(crate) use stream::{Checked, Checker};

/// What is checked beyond the rules that always hold.
pub(crate) struct Options {
    /// The recipients that every value must be sealed to, these and no others.
    pub(crate) recipients: Option<Vec<sealedenv_seal::Recipient>>,
    /// The namespace of manifests that name none.
    pub(crate) namespace: Option<String>,
    /// Whether a plain Secret in the stream is an error.
    pub(crate) strict_secrets: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The cluster refuses it, or it does not do what it says.
    Error,
    /// It works, and is likely not meant.
    Warning,
}

impl Severity {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The line, from 1.
    pub(crate) line: usize,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// A stable `PascalCase` name of the rule.
    pub(crate) rule: &'static str,
    /// `shop/checkout`, where it is about a `SealedEnv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// The key, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<&'static str>,
}

impl Finding {
    fn error(line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            line,
            severity: Severity::Error,
            rule,
            object: None,
            key: None,
            message: message.into(),
            hint: None,
        }
    }

    fn warning(line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(line, rule, message) }
    }

    fn key(self, key: &str) -> Self {
        Self { key: Some(shown(key)), ..self }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// A name from a manifest, short enough for a message.
fn shown(name: &str) -> String {
    const LIMIT: usize = 80;
    match name.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
