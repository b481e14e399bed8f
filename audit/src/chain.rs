//! The hash chain: each line names the SHA-256 of the line before it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    escape::cut,
    line::{self, Entry},
    record::{MAX_TEXT, Record},
};

/// A place in a chain: the last line that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence number of the last line; 0 before the first.
    pub seq: u64,
    /// SHA-256 of the last line's bytes without its newline; zeros before the first.
    pub hash: [u8; 32],
}

/// A place in a chain, and who writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last line; 0 before the first.
    pub seq: u64,
    /// SHA-256 of the last line's bytes without its newline, which is the next line's `prev`; zeros before the first.
    pub prev: [u8; 32],
    /// Who writes the next line; in what [`crate::verify`] returns, who wrote the last.
    pub writer: String,
}

impl Position {
    /// Before the first line of a chain.
    pub const GENESIS: Self = Self { seq: 0, hash: [0; 32] };

    /// The place after one more line.
    #[must_use]
    pub fn after(self, line: &str) -> Self {
        Self { seq: self.seq.saturating_add(1), hash: hash(line.as_bytes()) }
    }
}

impl Head {
    /// The head of a new chain.
    #[must_use]
    pub fn genesis(writer: impl Into<String>) -> Self {
        Self::at(Position::GENESIS, writer)
    }

    /// A head that continues a chain.
    #[must_use]
    pub fn at(position: Position, writer: impl Into<String>) -> Self {
        Self { seq: position.seq, prev: position.hash, writer: writer.into() }
    }

    /// The place without the writer.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { seq: self.seq, hash: self.prev }
    }
}

/// The next line of a chain, without its newline, and the head after it.
///
/// Pure: the clock is an argument, and nothing is written. The line is canonical JSON of at most
/// [`crate::MAX_LINE`] bytes, whatever the record holds: texts and lists that are too long are cut, visibly.
#[must_use]
pub fn append(head: &Head, time: Timestamp, record: &Record) -> (String, Head) {
    let entry = Entry {
        seq: head.seq.saturating_add(1),
        time,
        writer: head.writer.clone(),
        record: record.clone(),
        prev: head.prev,
    };
    let line = line::render(&entry);
    let head = Head::at(head.position().after(&line), head.writer.clone());
    (line, head)
}

/// A name for one start of a process, by which its lines are told from those of every other start: the instance, for
/// people, and what is `random`. A long instance is cut, so that a line takes the whole.
#[must_use]
pub fn writer(instance: &str, random: [u8; 8]) -> String {
    let start = format!("_{}", hex::encode(random));
    cut(instance, MAX_TEXT - start.len()) + &start
}

/// SHA-256 of a line's bytes.
pub(crate) fn hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}
