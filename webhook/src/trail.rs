//! The audit trail, written by one thread beside the server.
//!
//! A record is durable before the answer that it is about: an `fdatasync` each. Requests that come together share
//! one, so that the trail does not set the pace.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sealedenv_audit::{Log, Record};
use tokio::sync::oneshot;

/// Requests that may wait for the trail. Beyond it records are refused at once: the sinks are not keeping up.
const WAITING: usize = 1024;

/// Records that share one write.
const TOGETHER: usize = 64;

/// A record that no sink took, where the policy demands one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no audit sink took the record")]
pub struct Unrecorded;

/// Hands records to the thread. Clones share it; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Trail(SyncSender<Entry>);

struct Entry {
    record: Record,
    done: oneshot::Sender<Result<(), Unrecorded>>,
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
            counter.inner().store(value, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl Trail {
    /// Starts the thread over `log`. Join the handle after the last clone is gone.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        log: Log,
        counters: Counters,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(&log, &counters, &receiver, clock))?;
        Ok((Self(sender), thread))
    }

    /// Records one thing; returns when it is durable, or lost as the policy permits.
    ///
    /// # Errors
    /// [`Unrecorded`]: what the record is about must not be done.
    pub async fn record(&self, record: Record) -> Result<(), Unrecorded> {
        let (done, written) = oneshot::channel();
        self.0.try_send(Entry { record, done }).map_err(|_| Unrecorded)?;
        written.await.unwrap_or(Err(Unrecorded))
    }
}

fn write(log: &Log, counters: &Counters, entries: &Receiver<Entry>, clock: impl Fn() -> Timestamp) {
    while let Ok(first) = entries.recv() {
        let mut records = vec![first.record];
        let mut waiting = vec![first.done];
        while records.len() < TOGETHER
            && let Ok(next) = entries.try_recv()
        {
            records.push(next.record);
            waiting.push(next.done);
        }
        let written = log.record_all(clock(), records).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit trail takes no records");
            Unrecorded
        });
        counters.follow(log);
        for done in waiting {
            let _requester_may_be_gone = done.send(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_audit::{Action, Actor, FailurePolicy, MemorySink, Outcome, verify};

    fn record(name: &str) -> Record {
        Record::new(Action::Admission, Actor::webhook(name), Outcome::Ok)
    }

    #[tokio::test]
    async fn many_at_once_are_all_on_the_trail_in_one_chain() {
        let (sink, memory) = MemorySink::new("memory");
        let log = Log::open(vec![Box::new(sink)], "w", FailurePolicy::Closed).unwrap();
        let (trail, thread) = Trail::start(log, Counters::default(), Timestamp::now).unwrap();
        let all = (0..300).map(|n| {
            let trail = trail.clone();
            tokio::spawn(async move { trail.record(record(&n.to_string())).await })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        drop(trail);
        thread.join().unwrap();
        assert_eq!(verify(memory.text().as_bytes()).unwrap().seq, 300);
    }

    #[tokio::test]
    async fn a_dead_sink_refuses_or_loses_by_policy_and_recovers() {
        for (policy, expected) in [(FailurePolicy::Closed, Err(Unrecorded)), (FailurePolicy::Open, Ok(()))] {
            let (sink, memory) = MemorySink::new("memory");
            let counters = Counters::default();
            let log = Log::open(vec![Box::new(sink)], "w", policy).unwrap();
            let (trail, _thread) = Trail::start(log, counters.clone(), Timestamp::now).unwrap();
            trail.record(record("a")).await.unwrap();
            memory.fail(true);
            assert_eq!(trail.record(record("b")).await, expected);
            assert_eq!(counters.failed.get() + counters.lost.get(), 1);
            memory.fail(false);
            trail.record(record("c")).await.unwrap();
            assert!(!memory.text().contains("\"b\""));
        }
    }
}
