//! The audit trail of `SealedEnv`: records, a hash chain over them, its verification, and the sinks that keep it.
//!
//! # Which type for which need
//!
//! | to … | use |
//! |---|---|
//! | say what happened | [`Record`] with [`Actor`], [`Action`], [`ObjectRef`], [`Outcome`] |
//! | write it, fail-closed | [`Log`] over [`FileSink`] and [`StdoutSink`] |
//! | turn a record into the next line of a chain, purely | [`append`] and [`Head`] |
//! | check lines, or a file with its rotated predecessors | [`verify`], [`verify_files`], [`verify_stream`] |
//! | read entries back | [`read_all`], [`tail`], [`Follow`] |
//! | see in a test what was recorded, or make a sink fail | [`MemorySink`] |
//!
//! # Cautions
//!
//! - A record holds names and keyed digests. This crate knows no type that holds an opened value, and must never
//!   depend on one that does.
//! - [`Log::record`] blocks (a write and an `fdatasync`, at most [`Timeouts::any`]). From async code, use
//!   [`Log::submit`].
//! - A chain alone shows neither a tail that was cut off at a line's end nor a file that was written anew as a
//!   whole, and its last line is protected by nothing. Signed checkpoints will; the action `checkpoint` is reserved
//!   for them.
//!
//! # Example
//!
//! ```
//! use sealedenv_audit::{
//!     Action, Actor, FailurePolicy, Log, MemorySink, ObjectRef, Outcome, Record, verify, writer,
//! };
//!
//! let (sink, memory) = MemorySink::new("memory");
//! let log = Log::open(vec![Box::new(sink)], writer("operator-0", *b"8 random"), FailurePolicy::Closed)?;
//! let now = "2026-01-01T00:00:00Z".parse()?;
//! let record = Record::new(Action::Reconcile, Actor::operator("sealedenv-operator"), Outcome::Ok)
//!     .object(ObjectRef::new("SealedEnv", "checkout").namespace("shop"))
//!     .keys(["STRIPE_API_KEY"]);
//! log.record(now, record)?;
//!
//! let head = verify(memory.text().as_bytes())?;
//! assert_eq!(head.seq, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The page `docs/src/audit.md` specifies the format and the semantics for people and for other programs.

mod chain;
mod desk;
mod digest;
mod disk;
mod escape;
mod file;
mod files;
mod line;
mod log;
mod memory;
mod read;
mod record;
mod recover;
mod service;
mod sink;
mod stdout;
mod text;
mod verify;
mod worker;

pub use chain::{Head, Position, append, writer};
pub use digest::{DigestError, KeyedDigest};
pub use escape::{escape, needs_escape};
pub use file::{FileSink, Rotation};
pub use line::{Entry, MAX_LINE, ParseError};
pub use log::{AuditError, Counters, FailurePolicy, Log, SinkState, Timeouts};
pub use memory::{Memory, MemorySink};
pub use read::{Follow, Located, read_all, tail};
pub use record::{Action, Actor, ActorKind, Gap, MAX_TEXT, ObjectRef, Outcome, Record, Rewound};
pub use sink::{Notice, Resumed, Sink, SinkError};
pub use stdout::{Stdout, StdoutSink};
pub use verify::{Broken, Report, Start, StreamReport, Verifier, Why, verify, verify_files, verify_stream};
