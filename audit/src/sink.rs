//! Where lines go: the trait, and why a sink may not take them.

use std::{io, path::PathBuf};

use crate::{chain::Position, verify::Broken};

/// A place that keeps lines. Each sink has a chain of its own.
///
/// [`crate::Log`] calls it from one thread of the sink's own, so it may block; the log stops waiting after a while.
pub trait Sink: Send {
    /// A short name for messages and metrics, e.g. `file`.
    fn name(&self) -> &str;

    /// Makes the sink ready and tells where its chain stands.
    ///
    /// Called before the first append, and again before the append that follows a failed one.
    ///
    /// # Errors
    /// [`SinkError`] while it is not ready. It is called again for the next record.
    fn resume(&mut self) -> Result<Resumed, SinkError>;

    /// Takes lines (each without its newline) in order and returns when they are durable.
    ///
    /// # Errors
    /// [`SinkError`]: the lines do not count as taken, even if some arrived. [`Sink::resume`] then says how far
    /// the sink's chain really got.
    fn append(&mut self, lines: &[String]) -> Result<(), SinkError>;
}

/// A sink that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The last line in the sink.
    pub position: Position,
    /// What was found out while getting ready; each becomes a record in this sink.
    pub notices: Vec<Notice>,
}

/// Something that a sink found out, and that its trail must say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The last line was torn and was set aside.
    TornTail {
        /// How many bytes.
        bytes: u64,
        /// Name of the file, beside the trail, that holds them now.
        file: String,
        /// SHA-256 of those bytes.
        hash: [u8; 32],
    },
    /// Another file stands at the path than before. The chain goes on, nothing is missing: the file was moved to
    /// where rotated files stand, or copied.
    Replaced,
    /// The line that this process wrote last is not there any more: the file was cut, deleted, or replaced by
    /// another one. The chain goes on from what is there now.
    Rewound {
        /// Where the chain had been.
        was: Position,
    },
    /// There are lines behind the last one that this process knows to have written: lines that an earlier failure
    /// left, or somebody else's.
    Advanced {
        /// Where the chain had been.
        was: Position,
    },
}

/// Why a sink did not take lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The file or its folder could not be opened, locked or read.
    #[error("cannot open the audit file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process writes to this file.
    #[error("another process writes to the audit file {}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The path names a folder, a pipe, a device or a link.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The path no longer names the file that is open: it was deleted, moved or replaced.
    #[error("the audit file {} was deleted, moved or replaced", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The file's size is not what this process left: somebody else cut it or wrote to it.
    #[error("the audit file {} was changed by somebody else ({expected} bytes expected, {found} found)", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its size as this process left it.
        expected: u64,
        /// Its size now.
        found: u64,
    },
    /// The end of the trail on disk is not a valid chain. Nothing is appended to it.
    #[error("the audit trail is broken; keep a copy and move it away to start a new one")]
    Broken(#[source] Broken),
    /// A torn last line could not be set aside.
    #[error("cannot set the torn last line of {} aside", path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The full file could not be moved out of the way.
    #[error("cannot rotate the audit file {}", path.display())]
    Rotate {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The lines could not be written or made durable (disk full, input/output error, closed pipe).
    #[error("cannot write to the audit sink {sink}")]
    Write {
        /// The sink's name.
        sink: String,
        /// The cause.
        source: io::Error,
    },
    /// The sink did not answer in time, or is still busy with lines it got before.
    #[error("the audit sink {sink} does not answer")]
    Blocked {
        /// The sink's name.
        sink: String,
    },
    /// The sink has a bug and panicked. It is tried again with the next record.
    #[error("the audit sink {sink} panicked")]
    Panicked {
        /// The sink's name.
        sink: String,
    },
}
