//! The audit trail, for requests.
//!
//! A record is durable before the answer that it is about. The log gathers what requests that come together wait for into
//! one `fdatasync`, so that the trail does not set the pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sealedenv_audit::{Log, Record};
use tokio::sync::{Semaphore, oneshot};

/// Requests that may wait for the trail. Beyond it records are refused at once: the sinks are not keeping up.
const WAITING: usize = 1024;

/// A record that no sink took, where the policy demands one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no audit sink took the record")]
pub struct Unrecorded;

/// Puts records on the trail. Clones share it; the log is closed when the last one is dropped, which waits for its sinks.
#[derive(Clone)]
pub struct Trail {
    log: Arc<Log>,
    room: Arc<Semaphore>,
    counters: Counters,
    clock: fn() -> Timestamp,
}

/// What the log counted, for metrics.
#[derive(Clone, Default)]
pub struct Counters {
    taken: Counter<u64, AtomicU64>,
    failed: Counter<u64, AtomicU64>,
    lost: Counter<u64, AtomicU64>,
}

impl Counters {
    /// Adds `audit_records_taken_total`, `audit_records_failed_total` and `audit_records_lost_total` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        for (name, help, counter) in [
            ("audit_records_taken", "Audit records that at least one sink took", &counters.taken),
            (
                "audit_records_failed",
                "Audit records that no sink took, refused to their author",
                &counters.failed,
            ),
            ("audit_records_lost", "Audit records that no sink took, lost", &counters.lost),
        ] {
            registry.register(name, help, counter.clone());
        }
        counters
    }

    fn follow(&self, log: &Log) {
        let counted = log.counters();
        for (counter, value) in
            [(&self.taken, counted.taken), (&self.failed, counted.failed), (&self.lost, counted.lost)]
        {
            // Requests come here at the same time, and a counter never goes back.
            counter.inner().fetch_max(value, Ordering::Relaxed);
        }
    }
}

impl Trail {
    /// A trail over `log`.
    #[must_use]
    pub fn new(log: Log, counters: Counters, clock: fn() -> Timestamp) -> Self {
        Self { log: Arc::new(log), room: Arc::new(Semaphore::new(WAITING)), counters, clock }
    }

    /// Records one thing; returns when it is durable, or lost as the policy permits.
    ///
    /// # Errors
    /// [`Unrecorded`]: what the record is about must not be done.
    pub async fn record(&self, record: Record) -> Result<(), Unrecorded> {
        // Given back when the log is done with the record, however long the request waits for that.
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Unrecorded)?;
        let (told, ended) = oneshot::channel();
        self.log.submit(
            (self.clock)(),
            vec![record],
            || true,
            move |taken| {
                drop(place);
                let _requester_may_be_gone = told.send(taken);
            },
        );
        let taken = ended.await.map_err(|_| Unrecorded)?;
        self.counters.follow(&self.log);
        taken.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit trail takes no records");
            Unrecorded
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use futures::FutureExt as _;
    use sealedenv_audit::{
        Action, Actor, FailurePolicy, MemorySink, Outcome, Resumed, Sink, SinkError, Timeouts, verify,
    };

    use super::*;

    fn record(name: &str) -> Record {
        Record::new(Action::Admission, Actor::webhook(name), Outcome::Ok)
    }

    #[tokio::test]
    async fn many_at_once_are_all_on_the_trail_in_one_chain() {
        let (sink, memory) = MemorySink::new("memory");
        let log = Log::open(vec![Box::new(sink)], "w", FailurePolicy::Closed).unwrap();
        let trail = Trail::new(log, Counters::default(), Timestamp::now);
        let all = (0..300).map(|n| {
            let trail = trail.clone();
            tokio::spawn(async move { trail.record(record(&n.to_string())).await })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        drop(trail);
        assert_eq!(verify(memory.text().as_bytes()).unwrap().seq, 300);
    }

    #[tokio::test]
    async fn a_dead_sink_refuses_or_loses_by_policy_and_recovers() {
        for (policy, expected) in [(FailurePolicy::Closed, Err(Unrecorded)), (FailurePolicy::Open, Ok(()))] {
            let (sink, memory) = MemorySink::new("memory");
            let counters = Counters::default();
            let log = Log::open(vec![Box::new(sink)], "w", policy).unwrap();
            let trail = Trail::new(log, counters.clone(), Timestamp::now);
            trail.record(record("a")).await.unwrap();
            memory.fail(true);
            assert_eq!(trail.record(record("b")).await, expected);
            assert_eq!(counters.failed.get() + counters.lost.get(), 1);
            memory.fail(false);
            trail.record(record("c")).await.unwrap();
            assert!(!memory.text().contains("\"b\""));
        }
    }

    /// Takes nothing before it is let go.
    struct Held(MemorySink, Receiver<()>);

    impl Sink for Held {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn resume(&mut self) -> Result<Resumed, SinkError> {
            self.0.resume()
        }

        fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
            let _let_go = self.1.recv();
            self.0.append(lines)
        }
    }

    #[tokio::test]
    async fn beyond_those_that_wait_a_record_is_refused_at_once_however_few_are_left_of_who_asked() {
        let (sink, memory) = MemorySink::new("memory");
        let (held, until) = channel();
        let patient = Duration::from_mins(1);
        let timeouts = Timeouts { between: Duration::ZERO, any: patient, rest: patient };
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(Held(sink, until))];
        let log = Log::open_with(sinks, "w", FailurePolicy::Open, timeouts).unwrap();
        let trail = Trail::new(log, Counters::default(), Timestamp::now);
        for _ in 0..WAITING {
            assert_eq!(trail.record(record("a")).now_or_never(), None, "it waits, and is given up");
        }
        assert_eq!(trail.record(record("b")).now_or_never(), Some(Err(Unrecorded)));
        drop(held);
        while trail.room.available_permits() < WAITING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        trail.record(record("c")).await.unwrap();
        assert_eq!(memory.lines().len(), WAITING + 1);
    }
}
