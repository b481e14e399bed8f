//! The election as it runs: does what [`decide`](super::decide) says, and tells [`Leadership`] what came of it.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::task::JoinHandle;

use super::Leadership;
use super::clock::{Steady, Tick};
use super::decide::{Election, Seen, Step, Timing, Why};
use super::lease::{LeaseApi, LeaseError};

/// A running election.
pub struct Running {
    end: Shutdown,
    task: JoinHandle<()>,
}

/// What an election needs.
pub struct Candidate {
    /// What stands in the Lease while we hold it. No other process must ever have the same.
    pub me: String,
    /// Times.
    pub timing: Timing,
    /// The clock that [`Leadership`] has as well.
    pub clock: Steady,
    /// The Lease.
    pub lease: LeaseApi,
    /// Who is told.
    pub leadership: Leadership,
}

impl Running {
    /// Starts it.
    pub fn start(candidate: Candidate) -> Self {
        let end = Shutdown::new();
        let task = tokio::spawn(run(Arc::new(candidate), end.clone()));
        Self { end, task }
    }

    /// Ends it. A Lease that we hold is given up, so that another replica leads at once. Nothing may be written after
    /// this is called.
    pub async fn end(self) {
        self.end.trigger();
        if self.task.await.is_err() {
            tracing::error!("the election ended in a panic");
        }
    }
}

async fn run(candidate: Arc<Candidate>, end: Shutdown) {
    let Candidate { me, timing, clock, lease, leadership } = &*candidate;
    let mut election = Election::new(me.clone(), *timing);
    let mut watch = pin!(lease.watch());
    let mut fitness = leadership.fitness();
    while !end.is_triggered() {
        let now = clock.now();
        let unfit = *fitness.borrow_and_update();
        match election.step(now, unfit) {
            Step::Wait(time) => tokio::select! {
                () = end.triggered() => {}
                () = tokio::time::sleep(time) => {}
                _ = fitness.changed() => {}
                Some(seen) = watch.next() => election.watched(clock.now(), seen),
            },
            Step::Look => match lease.read().await {
                Ok(seen) => election.looked(clock.now(), seen),
                Err(error) => failed(&mut election, clock.now(), &error),
            },
            Step::Create => {
                election.writing();
                let answer = lease.create().await;
                settle(&candidate, &mut election, now, answer);
            }
            Step::Take { version, transitions } => {
                election.writing();
                let answer = lease.take(&version, transitions).await;
                settle(&candidate, &mut election, now, answer);
            }
            Step::Renew { version } => {
                let answer = lease.renew(&version).await;
                settle(&candidate, &mut election, now, answer);
            }
            Step::StepDown(why) => {
                leadership.lose();
                election.stepped_down();
                let why = match why {
                    Why::Lapsed => "the Lease could not be renewed in time, or the process was paused",
                    Why::Taken => "the Lease names somebody else",
                };
                tracing::warn!(why, "leading no longer");
            }
            Step::Offer { version } => {
                tracing::warn!("the audit trail takes nothing: offering leadership to another replica");
                give_up(&candidate, &version).await;
                election.offered(clock.now());
            }
        }
    }
    match election.version() {
        Some(version) => give_up(&candidate, version).await,
        None => leadership.lose(),
    }
}

/// Takes the answer to a write that was sent then.
fn settle(candidate: &Candidate, election: &mut Election, sent: Tick, answer: Result<Seen, LeaseError>) {
    let led = election.holds();
    match answer {
        Ok(seen) => election.wrote(sent, seen),
        Err(error) => return failed(election, candidate.clock.now(), &error),
    }
    if !led {
        candidate.leadership.vacant(election.vacant_since());
    }
    if let Some(until) = election.certain_until() {
        candidate.leadership.lead_until(until);
    }
    if !led {
        tracing::info!(holder = candidate.me, "leading");
    }
}

fn failed(election: &mut Election, now: Tick, error: &LeaseError) {
    if matches!(error, LeaseError::Conflict) {
        election.conflicted();
    } else {
        tracing::warn!(error = chain(error), "leader election");
        election.failed(now);
    }
}

/// Stops acting, then lets others know. If writes are still on their way, the Lease is left to expire instead.
async fn give_up(candidate: &Candidate, version: &str) {
    let Candidate { leadership, lease, timing, .. } = candidate;
    leadership.lose();
    if !leadership.quiet(timing.answer()).await {
        tracing::warn!("writes are still on their way: the Lease is left to expire");
        return;
    }
    match lease.release(version).await {
        Ok(_) => tracing::info!("leadership was given up"),
        Err(error) => tracing::warn!(error = chain(&error), "the Lease was not given up, and will expire"),
    }
}
