//! What a store is asked next, and when. Pure: time is passed in.
//!
//! Each path is asked for once, however many want it ([`Schedule::want`]), and by one call at a time. What is due goes
//! out oldest first, after what is new or asked for anew (for half its interval, and not for ever), in batches where the
//! store takes them, within the store's [`Budget`]. A path that fails is tried again with growing pauses; a store that
//! fails again and again is probed with one call until it answers, by the paths in turn. Then what is overdue goes out as
//! any other day: within the budget. A call of which nothing is heard is given up after a while ([`LOST`]).

mod breaker;
mod budget;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use breaker::{Breaker, May};

pub use breaker::OPENS_AT;
pub use budget::Budget;

use crate::transport::ANSWER;
use crate::{Answer, Ask, By, Outcome};

/// A moment: how long after any one of a clock that never goes back.
pub type Time = Duration;

/// The first pause of a path or a store that failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Calls of one store at the same time.
const CALLS: usize = 4;

/// A call that is not told of for so long is lost: whoever made it is gone. Providers end within [`ANSWER`].
pub const LOST: Duration = ANSWER.saturating_mul(3);

/// The plan for one store.
pub struct Schedule {
    /// What is spread is spread by it: the store's name, and the replica's, so that replicas do not go in step.
    seed: String,
    budget: Budget,
    batch: usize,
    breaker: Breaker,
    calls: Vec<Call>,
    paths: BTreeMap<Ask, Path>,
}

/// A call that is under way. No other has any of its paths.
struct Call {
    asks: Vec<Ask>,
    since: Time,
}

/// What is known of one path.
struct Path {
    interval: Duration,
    due: Time,
    /// When it was last answered. None: never, or something failed since.
    answered: Option<Time>,
    /// For how long that answer holds, where that is not its interval.
    holds: Option<Duration>,
    /// Not before then: it failed.
    held: Time,
    /// It is new, or somebody wants to know now: it goes before what is merely due, and not for long.
    is_urgent: bool,
    asking: Asking,
    /// Nobody wants it any more. It stays until its answer comes, so that it is not asked for twice at once.
    is_left: bool,
    /// In a row.
    failures: u32,
}

/// Whether a call for a path is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    Yes,
    /// And somebody wanted to know anew meanwhile.
    Again,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for these with one call, and tell of it with [`Schedule::answered`].
    Call(Vec<Ask>),
    /// Nothing for so long, unless something is wanted or answered before.
    Wait(Duration),
    /// Nothing, until something is wanted or answered.
    Idle,
}

impl Schedule {
    /// For a store of that name, which takes so many paths with one call. `replica` is what tells this process from the
    /// others that ask the same store.
    pub fn new(store: &str, replica: &str, budget: Budget, batch: usize) -> Self {
        Self {
            seed: format!("{store} {replica}"),
            budget,
            batch: batch.max(1),
            breaker: Breaker::default(),
            calls: Vec::new(),
            paths: BTreeMap::new(),
        }
    }

    /// A path is wanted, and at that interval from its last answer on. One that is new is due at once.
    pub fn want(&mut self, ask: &Ask, interval: Duration, now: Time) {
        let Some(path) = self.paths.get_mut(ask) else {
            self.paths.insert(ask.clone(), Path::new(interval, now));
            return;
        };
        path.is_left = false;
        path.interval = interval;
        // Counted from the answer and not from what was due, so that two who differ in turn move it nowhere.
        if let (Some(answered), false) = (path.answered, path.is_urgent) {
            path.due = answered.saturating_add(path.rest(&seed_of(&self.seed, ask)));
        }
    }

    /// Nobody wants it any more.
    pub fn forget(&mut self, ask: &Ask) {
        match self.paths.get_mut(ask) {
            Some(path) if path.asking != Asking::No => path.is_left = true,
            _ => drop(self.paths.remove(ask)),
        }
    }

    /// Somebody wants to know now. That waits for the budget, and for a store that is away, like all else.
    pub fn refresh(&mut self, ask: &Ask, now: Time) {
        if let Some(path) = self.paths.get_mut(ask) {
            path.due = path.due.min(now);
            match path.asking {
                Asking::No => path.is_urgent = true,
                Asking::Yes | Asking::Again => path.asking = Asking::Again,
            }
        }
    }

    /// Whether the store is only probed.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// What to do now. A call counts from here on.
    pub fn next(&mut self, now: Time) -> Next {
        self.give_up(now);
        // A call that is under way may be lost, and then its paths are free again.
        let lost = self.calls.iter().map(|call| call.lost().saturating_sub(now)).min();
        match (self.pick(now), lost) {
            (Next::Wait(pause), Some(lost)) => Next::Wait(pause.min(lost)),
            (Next::Idle, Some(lost)) => Next::Wait(lost),
            (next, _) => next,
        }
    }

    fn pick(&mut self, now: Time) -> Next {
        let most = match self.breaker.may(now) {
            _ if self.paths.is_empty() => return Next::Idle,
            May::Wait(pause) => return Next::Wait(pause),
            May::Probe if !self.calls.is_empty() => return Next::Idle,
            May::Probe => 1,
            May::Ask if self.calls.len() >= CALLS => return Next::Idle,
            May::Ask => self.batch,
        };
        let is_probe = self.breaker.is_open();
        let free = self.paths.iter().filter(|(_, path)| path.asking == Asking::No);
        let Some(first) = free.clone().map(|(_, path)| path.ready()).min() else { return Next::Idle };
        let pause = first.saturating_sub(now).max(self.budget.wait(now));
        if !pause.is_zero() {
            return Next::Wait(pause);
        }
        let mut waiting: Vec<(_, &Ask)> = free
            .filter(|(_, path)| path.ready() <= now)
            .map(|(ask, path)| {
                // A path that always fails is no reason to take a store for one that is away, so it is the last to probe.
                let failures = if is_probe { path.failures } else { 0 };
                ((failures, path.turn(), path.due), ask)
            })
            .collect();
        waiting.sort_unstable();
        let asks: Vec<Ask> = waiting.into_iter().take(most).map(|(_, ask)| ask.clone()).collect();
        for ask in &asks {
            if let Some(path) = self.paths.get_mut(ask) {
                (path.asking, path.is_urgent) = (Asking::Yes, false);
            }
        }
        self.budget.spend(now);
        self.calls.push(Call { asks: asks.clone(), since: now });
        Next::Call(asks)
    }

    /// What nobody told of for too long is as good as told of without answers.
    fn give_up(&mut self, now: Time) {
        while let Some(index) = self.calls.iter().position(|call| call.lost() <= now) {
            let call = self.calls.swap_remove(index);
            self.came(&call.asks, &[], now);
        }
    }

    /// A call that [`Schedule::next`] gave came to this: an answer for each path, in the order in which they were asked.
    /// A call that was lost should be told of too, without answers: what has none is tried again after a pause. What
    /// comes after a call was given up counts for the one that is made in its stead, or for nothing.
    pub fn answered(&mut self, call: &[Ask], answers: &[Answer], now: Time) {
        if let Some(index) = self.calls.iter().position(|made| made.asks == call) {
            self.calls.swap_remove(index);
            self.came(call, answers, now);
        }
    }

    fn came(&mut self, call: &[Ask], answers: &[Answer], now: Time) {
        let (mut answered, mut pause, mut failed) = (false, None, false);
        for (index, ask) in call.iter().enumerate() {
            let answer = answers.get(index);
            let by_store = answer.is_some_and(|answer| answer.by == By::Store);
            let is_known = match answer.map(|answer| &answer.outcome) {
                Some(Outcome::Unavailable { retry_after }) if by_store => {
                    (pause, failed) = (pause.max(*retry_after), true);
                    false
                }
                Some(Outcome::Unavailable { .. }) | None => false,
                Some(_) => {
                    answered |= by_store;
                    true
                }
            };
            let Some(path) = self.paths.get_mut(ask) else { continue };
            if path.is_left {
                self.paths.remove(ask);
            } else {
                let again = answer.and_then(|answer| answer.again);
                path.came(is_known, again, &seed_of(&self.seed, ask), now);
            }
        }
        // A call that one path of it was answered in has reached a store that works.
        if answered {
            self.breaker.answered();
        }
        let asks_for_one = pause.is_some_and(|pause| !pause.is_zero());
        if failed && (!answered || asks_for_one) {
            self.breaker.failed(now, pause, &self.seed);
        }
    }
}

impl Call {
    fn lost(&self) -> Time {
        self.since.saturating_add(LOST)
    }
}

impl Path {
    fn new(interval: Duration, now: Time) -> Self {
        Self {
            interval,
            due: now,
            answered: None,
            holds: None,
            held: Time::ZERO,
            is_urgent: true,
            asking: Asking::No,
            is_left: false,
            failures: 0,
        }
    }

    /// When it may be asked for. What is urgent goes first, and through no pause after a failure.
    fn ready(&self) -> Time {
        self.due.max(self.held)
    }

    /// Whose turn it is: the earliest. What is merely due gives way to what is urgent, but not for so long that it were
    /// stale by that, however many are urgent in the meantime.
    fn turn(&self) -> Time {
        self.due.saturating_add(if self.is_urgent { Duration::ZERO } else { self.interval / 2 })
    }

    /// How long after its answer it is due.
    fn rest(&self, seed: &str) -> Duration {
        let whole = spread(self.interval, seed);
        self.holds.map_or(whole, |holds| holds.min(whole))
    }

    /// It was asked for. `is_known`: and something is known by that, for its interval or until `again_after`.
    fn came(&mut self, is_known: bool, again_after: Option<Duration>, seed: &str, now: Time) {
        let again = std::mem::replace(&mut self.asking, Asking::No) == Asking::Again;
        if is_known {
            (self.failures, self.answered, self.held) = (0, Some(now), Time::ZERO);
            self.holds = again_after;
            self.due = if again { now } else { now.saturating_add(self.rest(seed)) };
        } else {
            self.failures = self.failures.saturating_add(1);
            self.answered = None;
            self.held = now.saturating_add(backoff(self.failures, seed));
            self.due = self.held;
        }
        self.is_urgent = again;
    }
}

fn seed_of(seed: &str, ask: &Ask) -> String {
    format!("{seed} {} {:?}", ask.path, ask.version)
}

/// A little less than an interval, the same for each path at any time: paths that came at once are not asked for at once
/// for ever.
fn spread(interval: Duration, seed: &str) -> Duration {
    interval.saturating_sub(interval / 20_000 * hash(seed, 0))
}

/// The pause after so many failures in a row: doubled each time, and anything between a quarter and all of it.
fn backoff(failures: u32, seed: &str) -> Duration {
    let (first, longest) = PAUSES;
    let whole = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(longest);
    whole / 4 + whole / 4 * 3 * hash(seed, failures) / 1000
}

/// Between 0 and 999, by chance and always the same.
fn hash(seed: &str, salt: u32) -> u32 {
    let mut hasher = DefaultHasher::new();
    (seed, salt).hash(&mut hasher);
    u32::try_from(hasher.finish() % 1000).unwrap_or_default()
}

#[cfg(test)]
mod tests;
