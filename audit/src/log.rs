//! The log: a record counts when at least one sink has it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, TryLockError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    desk::Desk,
    record::Record,
    sink::{Sink, SinkError},
};

/// What to do when no sink takes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// [`Log::record`] fails, and its caller must not release what the record was about.
    #[default]
    Closed,
    /// [`Log::record`] succeeds and counts the record as lost.
    Open,
}

/// How long [`Log::record`] waits for sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first sink to take the lines.
    pub any: Duration,
    /// For the other sinks, once one has them.
    pub rest: Duration,
}

/// What the log counted since it was opened. Each record is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records that at least one sink took in time.
    pub taken: u64,
    /// Records that no sink took, refused to their author ([`FailurePolicy::Closed`]).
    pub failed: u64,
    /// Records that no sink took, lost ([`FailurePolicy::Open`]).
    pub lost: u64,
}

/// How one sink does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// The sink's name.
    pub name: String,
    /// Whether it took the last records in time. True before the first.
    pub healthy: bool,
    /// Records it took.
    pub taken: u64,
    /// Records it did not take, whether or not another sink did. Records that it is still busy with are in neither.
    pub missed: u64,
    /// Why it did not take the last ones, with causes; none when healthy.
    pub error: Option<String>,
}

/// Why a log could not be opened or a record was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no sink at all, and the policy is [`FailurePolicy::Closed`].
    #[error("there is no audit sink, and without one nothing may be released")]
    NoSink,
    /// A sink's thread could not be started.
    #[error("cannot start the thread of an audit sink")]
    Thread(#[source] std::io::Error),
    /// No sink took the record. The source is the first sink's error.
    #[error("no audit sink took the record (tried: {sinks})")]
    NotRecorded {
        /// Names of the sinks, joined by commas.
        sinks: String,
        /// Why the first of them did not.
        source: Arc<SinkError>,
    },
    /// The condition of [`Log::record_all_if`] did not hold when the records' turn came. No sink was given them.
    #[error("the record was withheld: its author may not write any more")]
    Withheld,
}

/// An audit trail that is being written.
///
/// # Guarantees
/// - Under [`FailurePolicy::Closed`], `Ok` means that at least one sink took the records durably.
/// - Each sink has a chain of its own, so what one sink misses never breaks another's chain. A sink that missed
///   records says so in its own trail ([`crate::Action::Resumed`]) before it goes on.
/// - A sink that fails, hangs or panics holds up a call for at most [`Timeouts::any`], and is tried again with the
///   next records (a sink that hangs, as soon as it answers).
/// - Calls from many threads at once are written together: one `fdatasync` serves all that wait.
///
/// # Caveats
/// - A sink that answers too late may hold a record whose author was told that nobody took it. What was released is
///   always recorded; what is recorded was not always released.
/// - A call may wait for the call before it: twice [`Timeouts::any`] at most.
pub struct Log {
    policy: FailurePolicy,
    queue: Mutex<Queue>,
    changed: Condvar,
    desk: Mutex<Desk>,
    /// What the desk knew when it was last free: to be read without waiting for a sink.
    board: Mutex<Board>,
}

/// A copy of the books.
#[derive(Clone, Default)]
pub(crate) struct Board {
    pub(crate) counters: Counters,
    pub(crate) sinks: Vec<SinkState>,
}

/// Calls that wait to be written.
#[derive(Default)]
struct Queue {
    calls: VecDeque<Call>,
    /// Whether some caller is writing for the others.
    writing: bool,
}

struct Call {
    records: Vec<(Timestamp, Record)>,
    /// Whether they may still be written.
    still: Box<dyn Fn() -> bool + Send>,
    ticket: Arc<OnceLock<Verdict>>,
}

/// How a write ended, for each of the calls that it was for.
pub(crate) type Verdict = Result<(), Refused>;

/// The records were not taken.
#[derive(Clone)]
pub(crate) enum Refused {
    /// By no sink.
    Untaken {
        sinks: String,
        /// Why the first of them did not; none where there is no sink.
        source: Option<Arc<SinkError>>,
    },
    /// Their author may not write any more.
    Withheld,
}

/// As many calls as are written together.
const MAX_CALLS: usize = 256;

impl Default for Timeouts {
    fn default() -> Self {
        Self { any: Duration::from_millis(1500), rest: Duration::from_millis(500) }
    }
}

// === impl Log ===

impl Log {
    /// A log over sinks. `writer` names this start of a process in each line, and no other start: see
    /// [`crate::writer`].
    ///
    /// Sinks are not touched before the first record, and one that fails is tried again with each record.
    ///
    /// # Errors
    /// [`AuditError::NoSink`], [`AuditError::Thread`].
    pub fn open(
        sinks: Vec<Box<dyn Sink>>,
        writer: impl Into<String>,
        policy: FailurePolicy,
    ) -> Result<Self, AuditError> {
        Self::open_with(sinks, writer, policy, Timeouts::default())
    }

    /// [`Log::open`] with other time limits.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_with(
        sinks: Vec<Box<dyn Sink>>,
        writer: impl Into<String>,
        policy: FailurePolicy,
        timeouts: Timeouts,
    ) -> Result<Self, AuditError> {
        if sinks.is_empty() && policy == FailurePolicy::Closed {
            return Err(AuditError::NoSink);
        }
        let desk = Desk::open(sinks, &writer.into().into(), timeouts).map_err(AuditError::Thread)?;
        let board = Mutex::new(desk.board());
        Ok(Self { policy, queue: Mutex::default(), changed: Condvar::new(), desk: Mutex::new(desk), board })
    }

    /// Records one thing. See [`Log::record_all`].
    ///
    /// # Errors
    /// [`AuditError::NotRecorded`].
    pub fn record(&self, now: Timestamp, record: Record) -> Result<(), AuditError> {
        self.record_all(now, vec![record])
    }

    /// Records several things as one durable write. Blocks; see [`Log`] for how long and for what it guarantees.
    ///
    /// # Errors
    /// [`AuditError::NotRecorded`] when no sink took all of them and the policy is [`FailurePolicy::Closed`].
    pub fn record_all(&self, now: Timestamp, records: Vec<Record>) -> Result<(), AuditError> {
        self.record_all_if(now, records, || true)
    }

    /// [`Log::record_all`] under a condition that is looked at when the records' turn has come, right before sinks are
    /// given them: between that moment and this call lie a queue and perhaps a pause of the whole process.
    ///
    /// # Errors
    /// As [`Log::record_all`], and [`AuditError::Withheld`] under every policy when the condition does not hold.
    pub fn record_all_if(
        &self,
        now: Timestamp,
        records: Vec<Record>,
        still: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), AuditError> {
        if records.is_empty() {
            return Ok(());
        }
        let ticket = Arc::new(OnceLock::new());
        let records = records.into_iter().map(|record| (now, record)).collect();
        let mut queue = unpoisoned(self.queue.lock());
        queue.calls.push_back(Call { records, still: Box::new(still), ticket: Arc::clone(&ticket) });
        loop {
            if let Some(verdict) = ticket.get() {
                return self.answer(verdict.clone());
            }
            if queue.writing {
                queue = unpoisoned(self.changed.wait(queue));
                continue;
            }
            queue.writing = true;
            let count = queue.calls.len().min(MAX_CALLS);
            let calls = queue.calls.drain(..count).collect();
            drop(queue);
            Turn { log: self, calls, verdict: None }.write();
            queue = unpoisoned(self.queue.lock());
        }
    }

    /// What was counted so far. Does not wait for sinks.
    #[must_use]
    pub fn counters(&self) -> Counters {
        unpoisoned(self.board.lock()).counters
    }

    /// Records that were lost so far ([`FailurePolicy::Open`] only). Does not wait for sinks.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counters().lost
    }

    /// How each sink does. Does not wait for sinks: while a call is being written, what was known before it.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        let desk = match self.desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut desk) = desk {
            desk.settle();
            *unpoisoned(self.board.lock()) = desk.board();
        }
        unpoisoned(self.board.lock()).sinks.clone()
    }

    fn answer(&self, verdict: Verdict) -> Result<(), AuditError> {
        match (self.policy, verdict) {
            (_, Err(Refused::Withheld)) => Err(AuditError::Withheld),
            (_, Ok(())) | (FailurePolicy::Open, Err(Refused::Untaken { .. })) => Ok(()),
            (FailurePolicy::Closed, Err(Refused::Untaken { sinks, source: Some(source) })) => {
                Err(AuditError::NotRecorded { sinks, source })
            }
            (FailurePolicy::Closed, Err(Refused::Untaken { source: None, .. })) => Err(AuditError::NoSink),
        }
    }
}

/// One caller's turn to write for all that wait. Ends the turn whatever happens, or everybody would wait for ever.
struct Turn<'a> {
    log: &'a Log,
    calls: Vec<Call>,
    verdict: Option<Verdict>,
}

impl Turn<'_> {
    fn write(mut self) {
        let mut desk = unpoisoned(self.log.desk.lock());
        self.calls.retain(|call| {
            let still = (call.still)();
            if !still {
                let _ = call.ticket.set(Err(Refused::Withheld)); // only this turn sets it
            }
            still
        });
        let records = self.calls.iter_mut().flat_map(|call| std::mem::take(&mut call.records)).collect();
        self.verdict = Some(desk.write(records, self.log.policy));
        *unpoisoned(self.log.board.lock()) = desk.board();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let verdict = self.verdict.take().unwrap_or_else(|| {
            let sink = "all".to_owned(); // writing panicked; nothing is known to be taken
            let source = Some(Arc::new(SinkError::Panicked { sink: sink.clone() }));
            Err(Refused::Untaken { sinks: sink, source })
        });
        for call in &self.calls {
            let _ = call.ticket.set(verdict.clone()); // only this turn sets it
        }
        unpoisoned(self.log.queue.lock()).writing = false;
        self.log.changed.notify_all();
    }
}

/// A panic elsewhere leaves data behind that is still good: each step of ours keeps it consistent.
fn unpoisoned<T>(locked: Result<T, PoisonError<T>>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
