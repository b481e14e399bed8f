//! What the `audit` commands share: where the trail is, and how an entry reads.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use sealedenv_audit::{Broken, Entry};
use thiserror::Error;

use crate::failure::{Exit, Fault};

/// Where the chart lets operator and webhook write.
pub(super) const DEFAULT: &str = "/var/lib/sealedenv/audit/audit.jsonl";

/// Why a trail was not read.
#[derive(Debug, Error)]
pub(super) enum TrailError {
    /// It could not be read at all.
    #[error("cannot read the audit trail {}", .file.display())]
    Read {
        /// The current file of the trail.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such record.
    #[error("{} holds no record {seq}", .file.display())]
    NoSuchRecord {
        /// The current file of the trail.
        file: PathBuf,
        /// The number asked for.
        seq: u64,
    },
    /// A line cannot be read.
    #[error("{0}")]
    Broken(Broken),
}

impl Fault for TrailError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "name the file; in the cluster: kubectl exec DEPLOYMENT -- /sealedenv audit …".to_owned(),
            ),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::Usage,
            Self::NoSuchRecord { .. } | Self::Broken(_) => Exit::Failure,
        }
    }
}

impl TrailError {
    pub(super) fn read(file: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Read { file: file.to_owned(), source }
    }
}

/// An entry on one line.
pub(super) fn line(entry: &Entry) -> String {
    let record = &entry.record;
    let mut text = format!(
        "{:>6}  {:.3}  {:<10} {:<7}",
        entry.seq,
        entry.time,
        record.action.as_str(),
        record.outcome.as_str()
    );
    // Writing to a String cannot fail.
    if let Some(object) = object(entry) {
        let _ = write!(text, "  {object}");
    }
    if !record.keys.is_empty() {
        let _ = write!(text, "  keys {}", some(&record.keys, record.keys_omitted));
    }
    let _ = write!(text, "  by {} {}", record.actor.kind.as_str(), record.actor.name);
    if let Some(reason) = &record.reason {
        let _ = write!(text, "  {reason}");
    }
    if let Some(detail) = &record.detail {
        let _ = write!(text, ": {detail}");
    }
    text
}

/// An entry in full, one field a line.
pub(super) fn lines(entry: &Entry) -> Vec<String> {
    let record = &entry.record;
    let mut fields: Vec<(&str, String)> = vec![
        ("seq", entry.seq.to_string()),
        ("time", format!("{:.3}", entry.time)),
        ("writer", entry.writer.clone()),
        ("actor", format!("{} {}", record.actor.kind.as_str(), record.actor.name)),
        ("action", record.action.as_str().to_owned()),
    ];
    fields.extend(object(entry).map(|object| ("object", object)));
    let of_object = record.object.as_ref();
    fields.extend(of_object.and_then(|object| object.uid.clone()).map(|uid| ("uid", uid)));
    fields.extend(of_object.and_then(|object| object.generation).map(|n| ("generation", n.to_string())));
    if !record.keys.is_empty() || record.keys_omitted > 0 {
        fields.push(("keys", all(&record.keys, record.keys_omitted)));
    }
    fields.extend(record.before.as_ref().map(|digest| ("before", digest.as_str().to_owned())));
    fields.extend(record.after.as_ref().map(|digest| ("after", digest.as_str().to_owned())));
    if !record.recipients.is_empty() || record.recipients_omitted > 0 {
        fields.push(("recipients", all(&record.recipients, record.recipients_omitted)));
    }
    fields.extend(record.git_revision.clone().map(|revision| ("git revision", revision)));
    fields.extend(
        record
            .gap
            .map(|gap| ("gap", format!("{} records elsewhere only, {} nowhere", gap.elsewhere, gap.nowhere))),
    );
    fields.push(("outcome", record.outcome.as_str().to_owned()));
    fields.extend(record.reason.clone().map(|reason| ("reason", reason)));
    fields.extend(record.detail.clone().map(|detail| ("detail", detail)));
    fields.push(("prev", entry.prev.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))));
    fields.into_iter().map(|(name, value)| format!("{name:<13} {value}")).collect()
}

fn object(entry: &Entry) -> Option<String> {
    let object = entry.record.object.as_ref()?;
    Some(match &object.namespace {
        Some(namespace) => format!("{} {namespace}/{}", object.kind, object.name),
        None => format!("{} {}", object.kind, object.name),
    })
}

fn all(names: &[String], omitted: u64) -> String {
    let mut text = names.join(", ");
    if omitted > 0 {
        let _ = write!(text, " and {omitted} more that the line had no room for");
    }
    text
}

fn some(names: &[String], omitted: u64) -> String {
    const SHOWN: usize = 4;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    let more = u64::try_from(names.len().saturating_sub(SHOWN)).unwrap_or(u64::MAX).saturating_add(omitted);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
