//! One line of the trail: canonical JSON, written and read.

use std::{borrow::Cow, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::KeyedDigest,
    escape::{cut, needs_escape, push_escaped},
    record::{Action, Actor, Gap, MAX_TEXT, ObjectRef, Outcome, Record, Rewound},
};

/// The longest line, in bytes without its newline.
pub const MAX_LINE: usize = 64 << 10;

/// The longest actor name, in bytes: a `ServiceAccount`'s user name may have 339.
const MAX_ACTOR: usize = 512;

/// Bytes that the key names of one line may take, as they stand in it.
const KEYS_BUDGET: usize = 32 << 10;

/// Bytes that the recipients of one line may take, as they stand in it.
const RECIPIENTS_BUDGET: usize = 8 << 10;

/// The largest sequence number: what every JSON reader holds exactly.
const MAX_SEQ: u64 = (1 << 53) - 1;

/// A line that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the line in its chain, from 1.
    pub seq: u64,
    /// When, by the writer's clock, in milliseconds. Order is `seq`'s, not time's.
    pub time: Timestamp,
    /// Which process wrote it.
    pub writer: String,
    /// What happened.
    pub record: Record,
    /// SHA-256 of the line before; zeros in the first.
    pub prev: [u8; 32],
}

/// Why some bytes are not a line of an audit trail. The bytes are not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Not an audit record as this version knows it.
    #[error("the line is not an audit record (or a newer version wrote it)")]
    NotARecord,
    /// A record, but not in the one form that its content has: somebody rewrote it.
    #[error("the line is an audit record, but not in canonical form")]
    NotCanonical,
}

/// The line's fields in the order in which they stand.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    seq: u64,
    #[serde(with = "millis")]
    time: Timestamp,
    writer: String,
    actor: Cow<'a, Actor>,
    action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    keys_omitted: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<KeyedDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<KeyedDigest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    recipients_omitted: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git_revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewound: Option<Rewound>,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(with = "hash_hex")]
    prev: [u8; 32],
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

// === impl Entry ===

impl Entry {
    /// Reads a line (without its newline) and checks that it has the one canonical form of its content.
    ///
    /// # Errors
    /// [`ParseError`], total over all bytes.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        if line.len() > MAX_LINE {
            return Err(ParseError::TooLong);
        }
        let wire: Wire<'_> = serde_json::from_slice(line).map_err(|_| ParseError::NotARecord)?;
        if !(1..=MAX_SEQ).contains(&wire.seq) {
            return Err(ParseError::NotARecord);
        }
        let entry = Self {
            seq: wire.seq,
            time: wire.time,
            writer: wire.writer,
            record: Record {
                actor: wire.actor.into_owned(),
                action: wire.action,
                object: wire.object,
                keys: wire.keys,
                keys_omitted: wire.keys_omitted,
                before: wire.before,
                after: wire.after,
                recipients: wire.recipients,
                recipients_omitted: wire.recipients_omitted,
                git_revision: wire.git_revision,
                gap: wire.gap,
                rewound: wire.rewound,
                outcome: wire.outcome,
                reason: wire.reason,
                detail: wire.detail,
            },
            prev: wire.prev,
        };
        if render(&entry).as_bytes() == line { Ok(entry) } else { Err(ParseError::NotCanonical) }
    }
}

/// The canonical line of an entry, without its newline, cut to the limits.
pub(crate) fn render(entry: &Entry) -> String {
    let record = &entry.record;
    let (keys, keys_left) = within(&record.keys, KEYS_BUDGET);
    let (recipients, recipients_left) = within(&record.recipients, RECIPIENTS_BUDGET);
    let wire = Wire {
        seq: entry.seq,
        time: entry.time,
        writer: cut(&entry.writer, MAX_TEXT),
        actor: Cow::Owned(Actor { kind: record.actor.kind, name: cut(&record.actor.name, MAX_ACTOR) }),
        action: record.action,
        object: record.object.as_ref().map(bounded),
        keys,
        keys_omitted: record.keys_omitted.saturating_add(keys_left),
        before: record.before.clone(),
        after: record.after.clone(),
        recipients,
        recipients_omitted: record.recipients_omitted.saturating_add(recipients_left),
        git_revision: record.git_revision.as_deref().map(|text| cut(text, MAX_TEXT)),
        gap: record.gap,
        rewound: record.rewound,
        outcome: record.outcome,
        reason: record.reason.as_deref().map(|text| cut(text, MAX_TEXT)),
        detail: record.detail.as_deref().map(|text| cut(text, MAX_TEXT)),
        prev: entry.prev,
    };
    to_canonical(&wire)
}

fn bounded(object: &ObjectRef) -> ObjectRef {
    ObjectRef {
        kind: cut(&object.kind, MAX_TEXT),
        namespace: object.namespace.as_deref().map(|text| cut(text, MAX_TEXT)),
        name: cut(&object.name, MAX_TEXT),
        uid: object.uid.as_deref().map(|text| cut(text, MAX_TEXT)),
        generation: object.generation,
    }
}

/// The first names that fit into a budget of line bytes, and how many did not.
fn within(names: &[String], budget: usize) -> (Vec<String>, u64) {
    let mut used = 0;
    let mut kept = Vec::new();
    for name in names {
        let name = cut(name, MAX_TEXT);
        used += to_canonical(&name).len() + 1;
        if used > budget {
            break;
        }
        kept.push(name);
    }
    let left = names.len() - kept.len();
    (kept, u64::try_from(left).unwrap_or(u64::MAX))
}

/// JSON without spaces, in field order, with every hostile character escaped.
fn to_canonical<T: Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    // Neither writing to memory nor serialising these types can fail; an empty line would break the chain visibly.
    let done = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Canonical));
    debug_assert!(done.is_ok(), "serialising an audit line cannot fail");
    String::from_utf8(out).unwrap_or_default()
}

/// Compact JSON in which [`needs_escape`] characters stand as `\uXXXX`.
struct Canonical;

impl serde_json::ser::Formatter for Canonical {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !fragment.contains(needs_escape) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut out = String::with_capacity(fragment.len() + 16);
        for c in fragment.chars() {
            if needs_escape(c) { push_escaped(&mut out, c) } else { out.push(c) }
        }
        writer.write_all(out.as_bytes())
    }
}

/// Times in a line: RFC 3339 in UTC with exactly three decimals.
pub(crate) mod millis {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let floor = Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(*time);
        serializer.collect_str(&format_args!("{floor:.3}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Hashes in a line: 64 lower-case hex digits.
pub(crate) mod hash_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text.as_bytes(), &mut hash).map_err(D::Error::custom)?;
        Ok(hash)
    }
}
