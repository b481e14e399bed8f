//! The sealed values of one `SealedEnv`.

use std::collections::HashSet;

use sealedenv_crds::names;
use sealedenv_seal::{Fingerprint, ParseError, Place, Recipient, Scope, Sealed};

use super::{Finding, shown};
use crate::recipients::listed;
use crate::yaml::Entry;

/// Where the values stand, and who they should be sealed to.
pub(super) struct Stand<'a> {
    /// The namespace, if it is known.
    pub(super) namespace: Option<&'a str>,
    /// The name of the `SealedEnv`.
    pub(super) name: &'a str,
    /// The recipients that every value must have, if they are known.
    pub(super) recipients: Option<&'a [Recipient]>,
}

/// What came out of `spec.data`.
pub(super) struct Values {
    pub(super) findings: Vec<Finding>,
    /// The length of all values that could be taken apart.
    pub(super) value_bytes: usize,
}

/// Checks every value of `spec.data`.
pub(super) fn check(data: &[Entry], stand: &Stand<'_>) -> Values {
    let mut values = Values { findings: Vec::new(), value_bytes: 0 };
    let mut unknown_namespace = None;
    for entry in data {
        if !names::is_valid_key(&entry.key) {
            values.findings.push(bad_key(entry, "data"));
            continue;
        }
        // What is not text is the schema's to report.
        let Some(text) = entry.value.text() else { continue };
        let line = entry.line;
        let found = match Sealed::parse(text) {
            Ok(sealed) => {
                values.value_bytes += sealed.value_len();
                if stand.namespace.is_none() && sealed.scope().and_then(Scope::bound_namespace).is_some() {
                    unknown_namespace = unknown_namespace.or(Some(line));
                }
                of_sealed(&sealed, &entry.key, line, stand)
            }
            Err(error) => vec![not_sealed(&error, line)],
        };
        values.findings.extend(found.into_iter().map(|finding| finding.key(&entry.key)));
    }
    if let Some(line) = unknown_namespace {
        let message =
            "metadata.namespace is not set: the namespace that values are sealed for is not checked";
        values.findings.push(
            Finding::warning(line, "NoNamespace", message).hint("say which one it will be with --namespace"),
        );
    }
    values
}

/// A key that a Secret cannot have.
pub(super) fn bad_key(entry: &Entry, block: &str) -> Finding {
    let message = format!("a key in spec.{block} cannot be a key of a Secret");
    Finding::error(entry.line, "KeyName", message)
        .hint("letters, digits, '-', '_' and '.', at most 253, and not starting with '..'")
}

fn not_sealed(error: &ParseError, line: usize) -> Finding {
    let finding = Finding::error(line, error.reason(), error.to_string());
    match error {
        ParseError::NotSealed => finding.hint(
            "seal it with sealedenv value seal, or move it to public if it is not secret; change a secret that was committed",
        ),
        ParseError::UnsupportedVersion { .. } => finding.hint("get a newer sealedenv"),
        _ => finding.hint("restore it from git, or seal it anew"),
    }
}

fn of_sealed(sealed: &Sealed, key: &str, line: usize, stand: &Stand<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    match sealed.scope() {
        None => found.push(
            Finding::error(line, "Unscoped", "the value is not sealed for any scope")
                .hint("it was made by plain age; seal it with sealedenv value seal"),
        ),
        Some(scope) => found.extend(misplaced(scope, key, line, stand)),
    }
    if sealed.recipient_stanzas() == 0 {
        let types = sealed.unknown_types().iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        let message =
            format!("the value is sealed only to recipients of types that cannot be opened: {types}");
        found.push(Finding::error(line, "UnknownRecipientType", message));
    } else if sealed.recipients().len() != sealed.recipient_stanzas() {
        let message = format!(
            "the value names {} recipients and has {}",
            sealed.recipients().len(),
            sealed.recipient_stanzas()
        );
        found.push(Finding::warning(line, "RecipientHint", message));
    }
    if let Some(wanted) = stand.recipients {
        found.extend(other_recipients(sealed, wanted, line));
    }
    found
}

fn misplaced(scope: &Scope, key: &str, line: usize, stand: &Stand<'_>) -> Option<Finding> {
    // An unknown namespace is taken for the right one.
    let namespace = stand.namespace.or(scope.bound_namespace()).unwrap_or_default();
    let place = Place { namespace, name: stand.name, key };
    if scope.admits(&place) {
        return None;
    }
    let sealed_for = scope.to_string();
    let sealed_for = sealed_for.strip_prefix("strict ").unwrap_or(&sealed_for);
    let finding =
        Finding::error(line, "ScopeMismatch", format!("sealed for {sealed_for}, stands at {place}"));
    Some(finding.hint(
        "a value opens only where it was sealed for; where kustomize changes names, seal with --scope namespace",
    ))
}

fn other_recipients(sealed: &Sealed, wanted: &[Recipient], line: usize) -> Vec<Finding> {
    let wanted: Vec<Fingerprint> = wanted.iter().map(Recipient::fingerprint).collect();
    let named: HashSet<&Fingerprint> = sealed.recipients().iter().collect();
    let missing: Vec<Fingerprint> = wanted.iter().filter(|one| !named.contains(one)).copied().collect();
    let extra: Vec<Fingerprint> =
        sealed.recipients().iter().filter(|one| !wanted.contains(one)).copied().collect();
    let mut found = Vec::new();
    if !extra.is_empty() {
        let message = format!("sealed to recipients that are not among those given: {}", listed(extra));
        found.push(
            Finding::error(line, "UnknownRecipient", message).hint("whoever holds their keys can open it"),
        );
    }
    if !missing.is_empty() {
        let message = format!("not sealed to {}", listed(missing));
        found.push(Finding::error(line, "MissingRecipient", message).hint("seal it anew to all recipients"));
    }
    found
}
