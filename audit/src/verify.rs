//! Verification: does a run of lines form one unbroken chain?

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    chain::{Head, Position},
    files::open_trail,
    line::{Entry, ParseError},
    record::Action,
    text::{LineEnd, read_line, skip_line},
};

/// Where a chain must begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At its first line: `seq` 1 with a `prev` of zeros. Anything else means that lines before are missing.
    #[default]
    Genesis,
    /// Anywhere: for a part of a trail, e.g. what a log collector still has. What came before is not checked.
    Anywhere,
}

/// The first line that does not fit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file, where there are files.
    pub file: Option<PathBuf>,
    /// Number of the line in that file or stream, from 1.
    pub line: u64,
    /// The last line that was still right, in the chain's own count.
    pub good: u64,
    /// Why it does not fit.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The last line has no newline: a write is going on right now, or was cut short by a crash. Not a sign of
    /// tampering; the writer sets such a line aside when it starts.
    TornTail,
    /// A line in the middle of the trail (the last one of a rotated file) has no newline.
    Unterminated,
    /// Not a line of an audit trail.
    Unparsable(ParseError),
    /// `seq` is not one more than in the line before: lines were taken out, put in, doubled or swapped.
    Sequence {
        /// What `seq` should have been.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// `prev` is not the hash of the line before: that line, or this one's `prev`, was changed.
    Link,
    /// The trail does not begin at its beginning: what came before this `seq` is missing.
    NotTheBeginning {
        /// The first `seq` there is.
        found: u64,
    },
    /// The trail could not be read on.
    Unreadable(std::io::ErrorKind),
}

/// What verification saw, when nothing was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The last line; `seq` 0 when there was none.
    pub head: Head,
    /// `seq` of the first line seen.
    pub first: u64,
    /// Lines verified.
    pub lines: u64,
    /// Files read.
    pub files: u64,
    /// Times of the first and the last line.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Lines that say that this sink failed, or its file was changed, in between ([`Action::Resumed`]).
    pub resumed: u64,
    /// Lines that say that the chain had been further before, and lost its end ([`crate::Rewound`]).
    pub rewound: u64,
    /// Records that are not here because only another sink took them.
    pub missed_elsewhere: u64,
    /// Records that no sink took while this one was failing (refused or lost).
    pub missed_nowhere: u64,
    /// Torn lines that were set aside ([`Action::Recovered`]).
    pub recovered: u64,
    /// Writers that were followed by another writer without a [`Action::Stop`] of their own: killed, or cut off.
    pub unclean_ends: u64,
}

/// Checks a chain line by line. Pure: it is given lines and says which one is wrong.
#[derive(Debug, Clone)]
pub struct Verifier {
    at: Option<Position>,
    last: Option<(String, Action)>,
    report: Report,
}

// === impl Verifier ===

impl Verifier {
    /// A verifier at the start of a chain.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let at = match start {
            Start::Genesis => Some(Position::GENESIS),
            Start::Anywhere => None,
        };
        Self { at, last: None, report: Report::empty() }
    }

    /// Takes the next line, without its newline, if it continues the chain.
    ///
    /// # Errors
    /// [`Why`] it does not. The verifier stays where it was.
    pub fn push(&mut self, line: &[u8]) -> Result<Entry, Why> {
        let entry = Entry::parse(line).map_err(Why::Unparsable)?;
        self.push_parsed(&entry, line)?;
        Ok(entry)
    }

    /// Like [`Verifier::push`] with a line that was parsed already.
    fn push_parsed(&mut self, entry: &Entry, line: &[u8]) -> Result<(), Why> {
        if let Some(at) = self.at {
            if entry.seq != at.seq.saturating_add(1) {
                return Err(if self.report.lines == 0 && at == Position::GENESIS {
                    Why::NotTheBeginning { found: entry.seq }
                } else {
                    Why::Sequence { expected: at.seq.saturating_add(1), found: entry.seq }
                });
            }
            if entry.prev != at.hash {
                return Err(Why::Link);
            }
        } else if entry.seq == 1 && entry.prev != Position::GENESIS.hash {
            return Err(Why::Link);
        }
        self.at = Some(Position { seq: entry.seq, hash: crate::chain::hash(line) });
        self.note(entry);
        Ok(())
    }

    /// Where the chain stands now.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at.unwrap_or(Position::GENESIS)
    }

    /// Number of the last line that was right, by its `seq`; 0 before the first.
    #[must_use]
    pub fn good(&self) -> u64 {
        self.position().seq
    }

    /// What was seen so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.head = Head::at(self.position(), self.last.as_ref().map_or("", |(writer, _)| writer));
        report
    }

    fn note(&mut self, entry: &Entry) {
        let report = &mut self.report;
        if report.lines == 0 {
            report.first = entry.seq;
        }
        report.lines += 1;
        report.times = Some((report.times.map_or(entry.time, |(first, _)| first), entry.time));
        match entry.record.action {
            Action::Resumed => report.resumed += 1,
            Action::Recovered => report.recovered += 1,
            _ => {}
        }
        report.rewound += u64::from(entry.record.rewound.is_some());
        if let Some(gap) = entry.record.gap {
            report.missed_elsewhere = report.missed_elsewhere.saturating_add(gap.elsewhere);
            report.missed_nowhere = report.missed_nowhere.saturating_add(gap.nowhere);
        }
        if self
            .last
            .as_ref()
            .is_some_and(|(writer, action)| *writer != entry.writer && *action != Action::Stop)
        {
            report.unclean_ends += 1;
        }
        self.last = Some((entry.writer.clone(), entry.record.action));
    }
}

impl Report {
    /// Whether the trail itself says that records are missing from it: another sink has them, no sink has, or the
    /// file lost its end while it was written. The chain is whole all the same.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.rewound > 0 || self.missed_elsewhere > 0 || self.missed_nowhere > 0
    }

    fn empty() -> Self {
        Self {
            head: Head::genesis(""),
            first: 0,
            lines: 0,
            files: 0,
            times: None,
            resumed: 0,
            rewound: 0,
            missed_elsewhere: 0,
            missed_nowhere: 0,
            recovered: 0,
            unclean_ends: 0,
        }
    }
}

/// Verifies a whole chain from its first line to its last and gives the last line's head.
///
/// An empty trail is a valid one with `seq` 0. For a file with rotated predecessors use [`crate::verify_files`].
///
/// # Errors
/// [`Broken`]: the first line that does not fit, and why.
pub fn verify(reader: impl BufRead) -> Result<Head, Broken> {
    let mut verifier = Verifier::new(Start::Genesis);
    verify_into(reader, &mut verifier, None, true)?;
    Ok(verifier.report().head)
}

/// Verifies a trail in files: the rotated ones and the current one, as one chain.
///
/// # Errors
/// [`Broken`]: the first line that does not fit, and why. A trail that is not there is [`Why::Unreadable`].
pub fn verify_files(path: impl AsRef<Path>, start: Start) -> Result<Report, Broken> {
    let path = path.as_ref();
    let unreadable = |file: &Path, good, error: io::Error| Broken {
        file: Some(file.to_owned()),
        line: 0,
        good,
        why: Why::Unreadable(error.kind()),
    };
    let parts = open_trail(path).map_err(|error| unreadable(path, 0, error))?;
    let mut verifier = Verifier::new(start);
    let last = parts.len() - 1;
    for (index, part) in parts.into_iter().enumerate() {
        let (file, open) = part.open().map_err(|(file, error)| unreadable(&file, verifier.good(), error))?;
        verify_into(BufReader::new(open), &mut verifier, Some(&file), index == last)?;
        verifier.report.files += 1;
    }
    Ok(verifier.report())
}

/// What [`verify_stream`] saw, when nothing was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamReport {
    /// The chain of each writer.
    pub chains: BTreeMap<String, Report>,
    /// Lines that are not audit lines: other output of the process, or a line that was cut.
    pub foreign: u64,
}

/// Verifies audit lines from standard output, as a log collector gives them back: mixed with other lines, and with
/// the lines of several processes mixed into each other. Each writer has a chain of its own there.
///
/// # Errors
/// [`Broken`]: the first line that does not fit, and why.
pub fn verify_stream(mut reader: impl BufRead, start: Start) -> Result<StreamReport, Broken> {
    let mut chains: BTreeMap<String, Verifier> = BTreeMap::new();
    let mut foreign = 0;
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        number += 1;
        let broken = |good, why| Broken { file: None, line: number, good, why };
        let unreadable = |error: io::Error| broken(0, Why::Unreadable(error.kind()));
        match read_line(&mut reader, &mut line).map_err(unreadable)? {
            LineEnd::Eof => break,
            LineEnd::Torn => foreign += 1,
            LineEnd::TooLong => {
                foreign += 1;
                skip_line(&mut reader).map_err(unreadable)?;
            }
            LineEnd::Newline => match Entry::parse(&line) {
                Err(_) => foreign += 1,
                Ok(entry) => {
                    let chain = chains.entry(entry.writer.clone()).or_insert_with(|| Verifier::new(start));
                    chain.push_parsed(&entry, &line).map_err(|why| broken(chain.good(), why))?;
                }
            },
        }
    }
    Ok(StreamReport {
        chains: chains.into_iter().map(|(writer, chain)| (writer, chain.report())).collect(),
        foreign,
    })
}

/// Feeds all lines of one reader to a verifier.
fn verify_into(
    mut reader: impl BufRead,
    verifier: &mut Verifier,
    file: Option<&Path>,
    last: bool,
) -> Result<(), Broken> {
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        number += 1;
        let broken = |verifier: &Verifier, why| Broken {
            file: file.map(Path::to_owned),
            line: number,
            good: verifier.good(),
            why,
        };
        let end = read_line(&mut reader, &mut line)
            .map_err(|error| broken(verifier, Why::Unreadable(error.kind())))?;
        match end {
            LineEnd::Eof => return Ok(()),
            LineEnd::Torn => {
                return Err(broken(verifier, if last { Why::TornTail } else { Why::Unterminated }));
            }
            LineEnd::TooLong => return Err(broken(verifier, Why::Unparsable(ParseError::TooLong))),
            LineEnd::Newline => {
                verifier.push(&line).map_err(|why| broken(verifier, why))?;
            }
        }
    }
}

// === impl Broken ===

impl Broken {
    /// Whether only the last line is incomplete: a write that is going on, or a crash.
    #[must_use]
    pub fn is_torn_tail(&self) -> bool {
        self.why == Why::TornTail
    }
}

impl std::error::Error for Broken {}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail => {
                f.write_str("the last line is incomplete (a write going on, or cut short by a crash)")
            }
            Self::Unterminated => {
                f.write_str("the line is incomplete, yet the trail goes on in the next file")
            }
            Self::Unparsable(error) => error.fmt(f),
            Self::Sequence { expected, found } => {
                write!(
                    f,
                    "seq is {found} where {expected} was expected: lines are missing, added, doubled or swapped"
                )
            }
            Self::Link => {
                f.write_str("prev is not the hash of the line before: that line or this one was changed")
            }
            Self::NotTheBeginning { found } => {
                write!(f, "the trail begins at seq {found}: everything before it is missing")
            }
            Self::Unreadable(kind) => write!(f, "cannot read on ({kind})"),
        }
    }
}
