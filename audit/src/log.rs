//! The log: a record counts when at least one sink has it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    chain::{Head, append},
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
    /// Records that at least one sink took.
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
    /// Whether it took the last record offered to it.
    pub healthy: bool,
    /// Records it took.
    pub taken: u64,
    /// Records it did not take, whether or not another sink did.
    pub missed: u64,
    /// Why it did not take the last one, with causes; none when healthy.
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
    #[error("no audit sink took the record ({sinks})")]
    NotRecorded {
        /// Names of the sinks that were tried.
        sinks: String,
        /// Why the first of them did not.
        source: Arc<SinkError>,
    },
}

/// An audit trail that is being written.
pub struct Log {
    policy: FailurePolicy,
    writer: String,
    inner: Mutex<Inner>,
}

struct Inner {
    counters: Counters,
    slots: Vec<Slot>,
}

struct Slot {
    sink: Box<dyn Sink>,
    head: Option<Head>,
    state: SinkState,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { any: Duration::from_secs(2), rest: Duration::from_millis(500) }
    }
}

impl Log {
    /// A log over sinks. `writer` names this process in each line: unique to it, e.g. pod name and start time.
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
        if sinks.is_empty() && policy == FailurePolicy::Closed {
            return Err(AuditError::NoSink);
        }
        let slots = sinks
            .into_iter()
            .map(|sink| Slot {
                state: SinkState {
                    name: sink.name().to_owned(),
                    healthy: true,
                    taken: 0,
                    missed: 0,
                    error: None,
                },
                sink,
                head: None,
            })
            .collect();
        Ok(Self {
            policy,
            writer: writer.into(),
            inner: Mutex::new(Inner { counters: Counters::default(), slots }),
        })
    }

    /// Records one thing. See [`Log::record_all`].
    ///
    /// # Errors
    /// [`AuditError::NotRecorded`].
    pub fn record(&self, now: Timestamp, record: Record) -> Result<(), AuditError> {
        self.record_all(now, vec![record])
    }

    /// Records several things as one durable write.
    ///
    /// # Errors
    /// [`AuditError::NotRecorded`] when no sink took all of them and the policy is [`FailurePolicy::Closed`].
    #[allow(clippy::needless_pass_by_value)]
    pub fn record_all(&self, now: Timestamp, records: Vec<Record>) -> Result<(), AuditError> {
        let mut inner = self.inner();
        let count = records.len() as u64;
        let mut taken = false;
        let mut first = None;
        for slot in &mut inner.slots {
            match slot.take(now, &records, &self.writer) {
                Ok(()) => {
                    taken = true;
                    slot.state.taken += count;
                    slot.state.healthy = true;
                }
                Err(error) => {
                    slot.state.missed += count;
                    slot.state.healthy = false;
                    first.get_or_insert(Arc::new(error));
                }
            }
        }
        if taken {
            inner.counters.taken += count;
            return Ok(());
        }
        match (self.policy, first) {
            (FailurePolicy::Closed, Some(source)) => {
                inner.counters.failed += count;
                let sinks =
                    inner.slots.iter().map(|slot| slot.state.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(AuditError::NotRecorded { sinks, source })
            }
            (FailurePolicy::Closed, None) => Err(AuditError::NoSink),
            (FailurePolicy::Open, _) => {
                inner.counters.lost += count;
                Ok(())
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner().counters
    }

    /// Records that were lost so far ([`FailurePolicy::Open`] only).
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counters().lost
    }

    /// How each sink does.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        self.inner().slots.iter().map(|slot| slot.state.clone()).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn take(&mut self, now: Timestamp, records: &[Record], writer: &str) -> Result<(), SinkError> {
        let mut head = match self.head.take() {
            Some(head) => head,
            None => Head::at(self.sink.resume()?.position, writer),
        };
        let mut lines = Vec::with_capacity(records.len());
        for record in records {
            let (line, next) = append(&head, now, record);
            lines.push(line);
            head = next;
        }
        self.sink.append(&lines)?;
        self.head = Some(head);
        Ok(())
    }
}
