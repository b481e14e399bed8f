//! The log: a record counts when at least one sink has it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, TryLockError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
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

/// How long [`Log::record`] waits: for sinks, and for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of a write to the begin of the next, so that what comes meanwhile shares it. What comes later is
    /// written at once.
    pub between: Duration,
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
    /// A thread could not be started.
    #[error("cannot start a thread of the audit trail")]
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
/// - Calls that wait are written together, in their order, by a thread of the log: one `fdatasync` serves them all.
/// - Each call is answered, also when the log is dropped: that waits until what was submitted is written.
///
/// # Caveats
/// - A sink that answers too late may hold a record whose author was told that nobody took it. What was released is
///   always recorded; what is recorded was not always released.
/// - A call may wait for the call before it: twice [`Timeouts::any`] at most. One that comes right after it waits for
///   others that do, for [`Timeouts::between`].
pub struct Log {
    policy: FailurePolicy,
    /// None where callers write themselves, and once the log is being closed.
    calls: Option<mpsc::Sender<Call>>,
    writer: Option<JoinHandle<()>>,
    books: Arc<Books>,
}

/// What the thread that writes and those who ask have in common.
struct Books {
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

/// Records that wait to be written.
struct Call {
    records: Vec<(Timestamp, Record)>,
    /// Whether they may still be written.
    still: Box<dyn Fn() -> bool + Send>,
    /// Told how it ended.
    told: Box<dyn FnOnce(Verdict) + Send>,
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
        // Making lines durable is a fifth of what a delivery to a pod takes; that is, where each has a write of its own.
        let between = Duration::from_millis(4);
        Self { between, any: Duration::from_millis(1500), rest: Duration::from_millis(500) }
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
        let mut log = Self::without_thread(sinks, writer, policy, timeouts)?;
        let (calls, waiting) = mpsc::channel();
        let writer = thread::Builder::new().name("audit-log".to_owned()).spawn({
            let books = Arc::clone(&log.books);
            move || books.write_all(&waiting, policy, timeouts.between)
        });
        log.writer = Some(writer.map_err(AuditError::Thread)?);
        log.calls = Some(calls);
        Ok(log)
    }

    /// A log that writes on the thread of each caller, [`Log::submit`] too. For tests whose clock stands still while they
    /// compute, and runs on where they only wait for another thread.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn unthreaded(
        sinks: Vec<Box<dyn Sink>>,
        writer: impl Into<String>,
        policy: FailurePolicy,
    ) -> Result<Self, AuditError> {
        Self::without_thread(sinks, writer, policy, Timeouts::default())
    }

    fn without_thread(
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
        let books = Arc::new(Books { desk: Mutex::new(desk), board });
        Ok(Self { policy, calls: None, writer: None, books })
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
        let (answer, answered) = mpsc::channel();
        self.submit(now, records, still, move |ended| {
            let _ = answer.send(ended); // it is waited for below
        });
        answered.recv().unwrap_or_else(|_| answer_of(self.policy, Err(Refused::unknown())))
    }

    /// [`Log::record_all_if`] for who must not block. `told` is given what that would have returned, on the thread that
    /// everybody's records wait for: it must not block either, nor own the log.
    pub fn submit(
        &self,
        now: Timestamp,
        records: Vec<Record>,
        still: impl Fn() -> bool + Send + 'static,
        told: impl FnOnce(Result<(), AuditError>) + Send + 'static,
    ) {
        if records.is_empty() {
            return told(Ok(()));
        }
        let policy = self.policy;
        let records = records.into_iter().map(|record| (now, record)).collect();
        let told = Box::new(move |verdict| told(answer_of(policy, verdict)));
        let call = Call { records, still: Box::new(still), told };
        match &self.calls {
            None => self.books.write(vec![call], policy),
            Some(calls) => {
                // The thread catches what panics, so nobody meets this.
                if let Err(mpsc::SendError(call)) = calls.send(call) {
                    call.answer(Err(Refused::unknown()));
                }
            }
        }
    }

    /// What was counted so far. Does not wait for sinks.
    #[must_use]
    pub fn counters(&self) -> Counters {
        unpoisoned(self.books.board.lock()).counters
    }

    /// Records that were lost so far ([`FailurePolicy::Open`] only). Does not wait for sinks.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counters().lost
    }

    /// How each sink does. Does not wait for sinks: while a call is being written, what was known before it.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        let desk = match self.books.desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut desk) = desk {
            desk.settle();
            *unpoisoned(self.books.board.lock()) = desk.board();
        }
        unpoisoned(self.books.board.lock()).sinks.clone()
    }
}

impl Drop for Log {
    /// Waits until what was submitted is written and the sinks are closed.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it catches what panics
        }
    }
}

fn answer_of(policy: FailurePolicy, verdict: Verdict) -> Result<(), AuditError> {
    match (policy, verdict) {
        (_, Err(Refused::Withheld)) => Err(AuditError::Withheld),
        (_, Ok(())) | (FailurePolicy::Open, Err(Refused::Untaken { .. })) => Ok(()),
        (FailurePolicy::Closed, Err(Refused::Untaken { sinks, source: Some(source) })) => {
            Err(AuditError::NotRecorded { sinks, source })
        }
        (FailurePolicy::Closed, Err(Refused::Untaken { source: None, .. })) => Err(AuditError::NoSink),
    }
}

// === impl Refused ===

impl Refused {
    /// Writing panicked; nothing is known to be taken.
    fn unknown() -> Self {
        let sink = "all".to_owned();
        let source = Some(Arc::new(SinkError::Panicked { sink: sink.clone() }));
        Self::Untaken { sinks: sink, source }
    }
}

// === impl Books ===

impl Books {
    /// Writes what comes until nothing more can come. Whatever happens, each call is answered.
    fn write_all(&self, waiting: &mpsc::Receiver<Call>, policy: FailurePolicy, between: Duration) {
        let mut last = None;
        while let Ok(first) = waiting.recv() {
            // Asleep, and not waiting for the others: each of them would have to wake this thread.
            thread::sleep(still_to_wait(last, Instant::now(), between));
            let mut calls = vec![first];
            calls.extend(waiting.try_iter().take(MAX_CALLS - 1));
            self.write(calls, policy);
            last = Some(Instant::now());
        }
    }

    fn write(&self, calls: Vec<Call>, policy: FailurePolicy) {
        let mut desk = unpoisoned(self.desk.lock());
        // Not before the desk is free, which may have taken long.
        let (mut calls, withheld) = calls.into_iter().partition::<Vec<_>, _>(Call::may_be_written);
        let records = calls.iter_mut().flat_map(|call| std::mem::take(&mut call.records)).collect();
        let verdict = catch_unwind(AssertUnwindSafe(|| desk.write(records, policy)));
        let verdict = verdict.unwrap_or_else(|_| Err(Refused::unknown()));
        *unpoisoned(self.board.lock()) = desk.board();
        drop(desk);
        for call in calls {
            call.answer(verdict.clone());
        }
        for call in withheld {
            call.answer(Err(Refused::Withheld));
        }
    }
}

/// How long it is from now to the next write.
fn still_to_wait(last: Option<Instant>, now: Instant, between: Duration) -> Duration {
    last.map_or(Duration::ZERO, |last| between.saturating_sub(now.saturating_duration_since(last)))
}

// === impl Call ===

impl Call {
    /// A condition that panics does not hold.
    fn may_be_written(&self) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.still)())).unwrap_or(false)
    }

    /// What panics in it concerns nobody else.
    fn answer(self, verdict: Verdict) {
        let _panicked = catch_unwind(AssertUnwindSafe(|| (self.told)(verdict)));
    }
}

/// A panic elsewhere leaves data behind that is still good: each step of ours keeps it consistent.
fn unpoisoned<T>(locked: Result<T, PoisonError<T>>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
