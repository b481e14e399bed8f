//! The log's desk: hands each write to all sinks, waits a bounded time, and keeps the books.

use std::{
    error::Error,
    io,
    sync::{Arc, mpsc},
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    log::{Board, Counters, FailurePolicy, Refused, SinkState, Timeouts, Verdict},
    record::{Gap, Record},
    sink::{Sink, SinkError},
    worker::{self, Answer, Job},
};

/// All sinks and what is known of them.
pub(crate) struct Desk {
    counters: Counters,
    slots: Vec<Slot>,
    answers: mpsc::Receiver<Answer>,
    timeouts: Timeouts,
}

/// One sink.
struct Slot {
    state: SinkState,
    /// None once the desk is being closed.
    jobs: Option<mpsc::Sender<Job>>,
    /// The job that the sink has not answered yet. It gets no other one before it has.
    busy: Option<Given>,
    /// What the sink missed and was not told yet.
    gap: Option<Gap>,
}

/// What a sink was given.
struct Given {
    first: Timestamp,
    count: u64,
    /// What it was told it had missed before.
    gap: Option<Gap>,
    /// Whether another sink took the same records.
    elsewhere: bool,
}

/// What one write came to at one sink.
enum Fate {
    /// It was given the records and has not answered.
    Waiting,
    /// It answered.
    Answered(Result<(), Arc<SinkError>>),
    /// It was not given the records.
    Skipped(Arc<SinkError>),
}

// === impl Desk ===

impl Desk {
    pub(crate) fn open(sinks: Vec<Box<dyn Sink>>, writer: &Arc<str>, timeouts: Timeouts) -> io::Result<Self> {
        let (sender, answers) = mpsc::channel();
        let mut slots = Vec::with_capacity(sinks.len());
        for (index, sink) in sinks.into_iter().enumerate() {
            let name = sink.name().to_owned();
            let jobs = worker::start(index, sink, Arc::clone(writer), sender.clone())?;
            let state = SinkState { name, healthy: true, taken: 0, missed: 0, error: None };
            slots.push(Slot { state, jobs: Some(jobs), busy: None, gap: None });
        }
        Ok(Self { counters: Counters::default(), slots, answers, timeouts })
    }

    /// Offers records to all sinks and waits for them, but not for ever.
    pub(crate) fn write(&mut self, records: Vec<(Timestamp, Record)>, policy: FailurePolicy) -> Verdict {
        self.settle();
        let Some((first, _)) = records.first() else { return Ok(()) };
        let (first, count) = (*first, records.len() as u64);
        let records = Arc::new(records);
        let mut fates: Vec<Fate> = self.slots.iter_mut().map(|slot| slot.give(first, &records)).collect();
        let taken = self.wait(&mut fates);
        let mut source = None;
        for (slot, fate) in self.slots.iter_mut().zip(fates) {
            if let Err(error) = slot.close(fate, first, count, taken) {
                source.get_or_insert(error);
            }
        }
        if taken {
            self.counters.taken += count;
            return Ok(());
        }
        match policy {
            FailurePolicy::Closed => self.counters.failed += count,
            FailurePolicy::Open => self.counters.lost += count,
        }
        let sinks = self.slots.iter().map(|slot| slot.state.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(Refused::Untaken { sinks, source })
    }

    /// A copy of the books.
    pub(crate) fn board(&self) -> Board {
        Board { counters: self.counters, sinks: self.slots.iter().map(|slot| slot.state.clone()).collect() }
    }

    /// Books the answers of sinks that were late.
    pub(crate) fn settle(&mut self) {
        while let Ok((index, result)) = self.answers.try_recv() {
            self.slots[index].book(result.map_err(Arc::new));
        }
    }

    /// Waits for the sinks that were given records, less long once one has taken them. Says whether one has.
    fn wait(&mut self, fates: &mut [Fate]) -> bool {
        let mut taken = false;
        let mut deadline = Instant::now() + self.timeouts.any;
        while fates.iter().any(|fate| matches!(fate, Fate::Waiting)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((index, result)) = self.answers.recv_timeout(left) else { break };
            let result = result.map_err(Arc::new);
            if !matches!(fates[index], Fate::Waiting) {
                self.slots[index].book(result); // the late answer to an earlier write
                continue;
            }
            if result.is_ok() && !taken {
                taken = true;
                deadline = deadline.min(Instant::now() + self.timeouts.rest);
            }
            fates[index] = Fate::Answered(result);
        }
        taken
    }
}

impl Drop for Desk {
    /// Waits until the sinks are closed, so that their files are free again; not for one that hangs.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            slot.jobs = None;
        }
        let deadline = Instant::now() + self.timeouts.any;
        while self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

// === impl Slot ===

impl Slot {
    fn give(&mut self, first: Timestamp, records: &Arc<Vec<(Timestamp, Record)>>) -> Fate {
        let sink = || self.state.name.clone();
        if self.busy.is_some() {
            return Fate::Skipped(Arc::new(SinkError::Blocked { sink: sink() }));
        }
        let job = Job { records: Arc::clone(records), gap: self.gap };
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            return Fate::Skipped(Arc::new(SinkError::Panicked { sink: sink() }));
        }
        self.busy =
            Some(Given { first, count: records.len() as u64, gap: self.gap.take(), elsewhere: false });
        Fate::Waiting
    }

    /// Ends a write at this sink.
    fn close(&mut self, fate: Fate, first: Timestamp, count: u64, taken: bool) -> Result<(), Arc<SinkError>> {
        if let (Some(given), Fate::Waiting | Fate::Answered(_)) = (&mut self.busy, &fate) {
            given.elsewhere = taken;
        }
        match fate {
            Fate::Answered(result) => {
                self.book(result.clone());
                result
            }
            Fate::Waiting => {
                let error = Arc::new(SinkError::Blocked { sink: self.state.name.clone() });
                self.unwell(&error);
                Err(error)
            }
            Fate::Skipped(error) => {
                self.miss(Gap::of(first, count, taken));
                self.unwell(&error);
                Err(error)
            }
        }
    }

    /// Books the answer to what the sink was given.
    fn book(&mut self, result: Result<(), Arc<SinkError>>) {
        let Some(given) = self.busy.take() else { return };
        match result {
            Ok(()) => {
                self.state.taken += given.count;
                self.state.healthy = true;
                self.state.error = None;
            }
            Err(error) => {
                let since = self.gap.take();
                self.gap = given.gap;
                self.miss(Gap::of(given.first, given.count, given.elsewhere));
                self.gap = Gap::join(self.gap, since);
                self.unwell(&error);
            }
        }
    }

    fn miss(&mut self, gap: Gap) {
        self.state.missed += gap.elsewhere + gap.nowhere;
        self.gap = Gap::join(self.gap, Some(gap));
    }

    fn unwell(&mut self, error: &SinkError) {
        self.state.healthy = false;
        self.state.error = Some(chain_of(error));
    }
}

// === impl Gap ===

impl Gap {
    fn of(since: Timestamp, count: u64, elsewhere: bool) -> Self {
        let (elsewhere, nowhere) = if elsewhere { (count, 0) } else { (0, count) };
        Self { since, elsewhere, nowhere }
    }

    /// One gap after another.
    pub(crate) fn join(first: Option<Self>, then: Option<Self>) -> Option<Self> {
        match (first, then) {
            (Some(first), Some(then)) => Some(Self {
                since: first.since,
                elsewhere: first.elsewhere + then.elsewhere,
                nowhere: first.nowhere + then.nowhere,
            }),
            (one, other) => one.or(other),
        }
    }
}

/// An error and its causes on one line.
fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
