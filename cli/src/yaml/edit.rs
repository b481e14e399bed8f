//! Edits in place: the bytes of one value, or a new line, and nothing else.
//!
//! An edit is planned from a tree and made on the text. Whoever makes one parses the result and compares
//! ([`super::Node::means`]): YAML has corners in which a line means something else than it seems to.

use std::ops::Range;

use thiserror::Error;

use super::scalar::{quoted, written};
use super::{Content, Entry, Node};

/// Bytes to replace, and by what.
pub(crate) struct Edit {
    range: Range<usize>,
    by: String,
}

/// Why a place cannot be edited line by line.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line} is written in a way that cannot be edited in place: {why}")]
pub(crate) struct EditError {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) why: &'static str,
}

/// A new entry of a mapping: both as they are to be written.
pub(crate) struct NewEntry {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The text with all edits made. Edits at one place are made in the order given.
pub(crate) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out = String::with_capacity(text.len() + edits.iter().map(|edit| edit.by.len()).sum::<usize>());
    let mut done = 0;
    for Edit { range, by } in edits {
        out.push_str(text.get(done..range.start).unwrap_or_default());
        out.push_str(&by);
        done = range.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// Gives an entry another text as its value, in the quotes it has.
pub(crate) fn replace(text: &str, entry: &Entry, value: &str) -> Result<Edit, EditError> {
    let old = &entry.value;
    if !matches!(old.content, Content::Scalar(..)) {
        return Err(EditError { line: entry.line, why: "its value is not text" });
    }
    let by = match text.get(old.span.clone()).and_then(|raw| raw.chars().next()) {
        Some('"') => quoted(value),
        _ => value_text(value),
    };
    if old.block || old.span.is_empty() {
        // What stands between the colon and the value (`>-`, a tag) goes with the old value.
        let colon = after_colon(text, entry)?;
        let end = if old.block { trimmed_end(text, &old.span) } else { colon };
        return Ok(Edit { range: colon..end.max(colon), by: format!(" {by}") });
    }
    Ok(Edit { range: old.span.clone(), by })
}

/// Adds entries to a mapping that stands as the value of `parent`: in their place if its keys are in order,
/// otherwise at its end.
pub(crate) fn add(text: &str, parent: &Entry, new: &[NewEntry]) -> Result<Vec<Edit>, EditError> {
    match &parent.value.content {
        Content::Mapping { entries, flow: false } => Ok(add_to_block(text, parent, entries, new)),
        Content::Mapping { entries, flow: true } if !entries.is_empty() => add_to_flow(entries, new),
        Content::Mapping { .. } => fill(text, parent, new),
        Content::Scalar(..) if parent.value.is_null() => fill(text, parent, new),
        Content::Scalar(..) | Content::Sequence(_) => {
            Err(EditError { line: parent.line, why: "its value is not a mapping" })
        }
    }
}

/// Gives a key that has nothing (`data:`, `data: {}`, `data: null`) its first entries.
fn fill(text: &str, parent: &Entry, new: &[NewEntry]) -> Result<Vec<Edit>, EditError> {
    let indent = " ".repeat(column(text, parent) + 2);
    let colon = after_colon(text, parent)?;
    // An implicit null spans nothing, and not always where its key stands.
    let old =
        if parent.value.span.is_empty() { colon..colon } else { colon..parent.value.span.end.max(colon) };
    let lines = insert_after_line(text, old.end, new.iter().map(|entry| line_of(&indent, entry)));
    Ok(vec![Edit { range: old, by: String::new() }, lines])
}

/// Adds a mapping under a new key at the end of the mapping that is the value of `parent`.
pub(crate) fn add_mapping(
    text: &str,
    parent: &Entry,
    key: &str,
    new: &[NewEntry],
) -> Result<Edit, EditError> {
    match &parent.value.content {
        Content::Mapping { entries, flow: false } if !entries.is_empty() => {
            let first = &entries[0];
            let step = column(text, first).saturating_sub(column(text, parent)).max(1);
            let indent = " ".repeat(column(text, first));
            let below = " ".repeat(column(text, first) + step);
            let lines =
                std::iter::once(format!("{indent}{key}:")).chain(new.iter().map(|e| line_of(&below, e)));
            Ok(insert_after_line(text, entries.iter().map(end_of).max().unwrap_or_default(), lines))
        }
        Content::Mapping { flow: true, .. } => {
            Err(EditError { line: parent.line, why: "a mapping in braces; write it as lines first" })
        }
        _ => Err(EditError { line: parent.line, why: "its value is not a mapping" }),
    }
}

fn add_to_block(text: &str, parent: &Entry, entries: &[Entry], new: &[NewEntry]) -> Vec<Edit> {
    let indent = " ".repeat(entries.first().map_or(0, |first| column(text, first)));
    let ordered = entries.len() > 1 && entries.windows(2).all(|pair| pair[0].key < pair[1].key);
    let mut new: Vec<&NewEntry> = new.iter().collect();
    if ordered {
        new.sort_by(|a, b| a.key.cmp(&b.key));
    }
    new.into_iter()
        .map(|entry| {
            let before = entries.iter().rev().find(|old| !ordered || old.key < entry.key);
            let after = before.map_or(parent.key_span.end, end_of);
            insert_after_line(text, after, std::iter::once(line_of(&indent, entry)))
        })
        .collect()
}

fn add_to_flow(entries: &[Entry], new: &[NewEntry]) -> Result<Vec<Edit>, EditError> {
    let Some(last) = entries.last().filter(|last| !last.value.span.is_empty()) else {
        return Err(EditError {
            line: entries.last().map_or(0, |e| e.line),
            why: "a key in braces without a value",
        });
    };
    let end = last.value.span.end;
    Ok(new
        .iter()
        .map(|NewEntry { key, value }| Edit {
            range: end..end,
            by: format!(", {}: {}", written(key), value_text(value)),
        })
        .collect())
}

/// An entry as a line of its own, without a line break.
pub(crate) fn line_of(indent: &str, NewEntry { key, value }: &NewEntry) -> String {
    format!("{indent}{}: {}", written(key), value_text(value))
}

/// A sealed value needs no quotes; anything else goes the careful way.
fn value_text(value: &str) -> String {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    match value.strip_prefix(sealedenv_seal::PREFIX) {
        Some(encoded) if encoded.chars().all(base64) => value.to_owned(),
        _ => written(value),
    }
}

/// New lines below the one that the byte before `at` stands on, with the line break that it has.
fn insert_after_line(text: &str, at: usize, lines: impl Iterator<Item = String>) -> Edit {
    let rest = text.get(at..).unwrap_or_default();
    let (end, newline, broken) = match rest.find('\n') {
        Some(feed) => {
            let crlf = text.get(..at + feed).is_some_and(|line| line.ends_with('\r'));
            (at + feed + 1, if crlf { "\r\n" } else { "\n" }, true)
        }
        None => (text.len(), if text.contains("\r\n") { "\r\n" } else { "\n" }, false),
    };
    let by = lines.map(|line| if broken { line + newline } else { newline.to_owned() + &line }).collect();
    Edit { range: end..end, by }
}

/// The column of a key in characters.
fn column(text: &str, entry: &Entry) -> usize {
    let before = text.get(..entry.key_span.start).unwrap_or_default();
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    line.trim_start_matches('\u{feff}').chars().count()
}

/// The byte after the colon of an entry.
fn after_colon(text: &str, entry: &Entry) -> Result<usize, EditError> {
    let after = text.get(entry.key_span.end..).unwrap_or_default();
    let rest = after.trim_start_matches([' ', '\t']);
    if rest.starts_with(':') {
        Ok(entry.key_span.end + (after.len() - rest.len()) + 1)
    } else {
        Err(EditError { line: entry.line, why: "its key and its colon stand on different lines" })
    }
}

/// The end of an entry's last byte that is more than a line break.
fn end_of(entry: &Entry) -> usize {
    end_of_node(&entry.value).max(entry.key_span.end)
}

fn end_of_node(node: &Node) -> usize {
    match &node.content {
        // The line breaks after a block scalar may belong to it; `insert_after_line` wants its last line.
        Content::Scalar(..) if node.block => node.span.end.saturating_sub(1),
        Content::Scalar(..) if node.span.is_empty() => 0,
        Content::Scalar(..) | Content::Mapping { flow: true, .. } => node.span.end,
        Content::Mapping { entries, flow: false } => entries.iter().map(end_of).max().unwrap_or(0),
        Content::Sequence(items) => items.iter().map(end_of_node).max().unwrap_or(0).max(node.span.start),
    }
}

fn trimmed_end(text: &str, span: &Range<usize>) -> usize {
    let content = text.get(span.clone()).unwrap_or_default();
    span.start + content.trim_end().len()
}
