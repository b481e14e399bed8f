//! What a store is asked next, and when. Pure: time is passed in.
//!
//! Each path is asked for once, however many want it ([`Schedule::want`]), and by one call at a time. What is due goes
//! out oldest first, in batches where the store takes them, within the store's [`Budget`]. A path that fails is tried
//! again with growing pauses; a store that fails again and again is probed with one call until it answers. Then what is
//! overdue goes out as any other day: within the budget.

mod breaker;
mod budget;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use breaker::{Breaker, May};

pub use breaker::OPENS_AT;
pub use budget::Budget;

use crate::{Ask, Outcome};

/// A moment: how long after any one of a clock that never goes back.
pub type Time = Duration;

/// The first pause of a path or a store that failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Calls of one store at the same time.
const CALLS: usize = 4;

/// The plan for one store.
pub struct Schedule {
    /// Its name: what is spread is spread by it.
    store: String,
    budget: Budget,
    batch: usize,
    breaker: Breaker,
    calls: usize,
    paths: BTreeMap<Ask, Path>,
}

/// What is known of one path.
struct Path {
    interval: Duration,
    due: Time,
    is_asked: bool,
    /// Nobody wants it any more. It stays until its answer comes, so that it is not asked for twice at once.
    is_left: bool,
    /// Something asked for it anew while it was being asked.
    again: bool,
    /// In a row.
    failures: u32,
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
    /// For a store of that name, which takes so many paths with one call.
    pub fn new(store: impl Into<String>, budget: Budget, batch: usize) -> Self {
        Self {
            store: store.into(),
            budget,
            batch: batch.max(1),
            breaker: Breaker::default(),
            calls: 0,
            paths: BTreeMap::new(),
        }
    }

    /// A path is wanted, and at least that often. One that is new is due at once.
    pub fn want(&mut self, ask: &Ask, interval: Duration, now: Time) {
        if let Some(path) = self.paths.get_mut(ask) {
            path.is_left = false;
            if interval != path.interval {
                let sooner = path.interval.saturating_sub(interval);
                path.due = path.due.saturating_sub(sooner).max(now);
                path.interval = interval;
            }
            return;
        }
        let path = Path { interval, due: now, is_asked: false, is_left: false, again: false, failures: 0 };
        self.paths.insert(ask.clone(), path);
    }

    /// Nobody wants it any more.
    pub fn forget(&mut self, ask: &Ask) {
        match self.paths.get_mut(ask) {
            Some(path) if path.is_asked => path.is_left = true,
            _ => drop(self.paths.remove(ask)),
        }
    }

    /// Somebody wants to know now. That waits for the budget, and for a store that is away, like all else.
    pub fn refresh(&mut self, ask: &Ask, now: Time) {
        if let Some(path) = self.paths.get_mut(ask) {
            path.due = path.due.min(now);
            path.again |= path.is_asked;
        }
    }

    /// Whether the store is only probed.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// What to do now. A call counts from here on.
    pub fn next(&mut self, now: Time) -> Next {
        let most = match self.breaker.may(now) {
            _ if self.paths.is_empty() => return Next::Idle,
            May::Wait(pause) => return Next::Wait(pause),
            May::Probe if self.calls > 0 => return Next::Idle,
            May::Probe => 1,
            May::Ask if self.calls >= CALLS => return Next::Idle,
            May::Ask => self.batch,
        };
        let mut waiting: Vec<(Time, &Ask)> =
            self.paths.iter().filter(|(_, path)| !path.is_asked).map(|(ask, path)| (path.due, ask)).collect();
        waiting.sort_unstable();
        let Some((first, _)) = waiting.first() else { return Next::Idle };
        let pause = first.saturating_sub(now).max(self.budget.wait(now));
        if !pause.is_zero() {
            return Next::Wait(pause);
        }
        let asks: Vec<Ask> =
            waiting.iter().filter(|(due, _)| *due <= now).take(most).map(|(_, ask)| (*ask).clone()).collect();
        for ask in &asks {
            if let Some(path) = self.paths.get_mut(ask) {
                path.is_asked = true;
            }
        }
        self.budget.spend(now);
        self.calls += 1;
        Next::Call(asks)
    }

    /// A call that [`Schedule::next`] gave came to this: an outcome for each path, in the order in which they were asked.
    pub fn answered<'a>(&mut self, call: impl IntoIterator<Item = (&'a Ask, &'a Outcome)>, now: Time) {
        self.calls = self.calls.saturating_sub(1);
        let (mut answers, mut pause, mut failed) = (false, None, false);
        for (ask, outcome) in call {
            let unavailable = if let Outcome::Unavailable { retry_after } = outcome {
                (pause, failed) = (pause.max(*retry_after), true);
                true
            } else {
                answers = true;
                false
            };
            let Some(path) = self.paths.get_mut(ask) else { continue };
            path.is_asked = false;
            if path.is_left {
                self.paths.remove(ask);
                continue;
            }
            let seed = format!("{} {} {:?}", self.store, ask.path, ask.version);
            let wait = if unavailable {
                path.failures = path.failures.saturating_add(1);
                backoff(path.failures, &seed)
            } else {
                path.failures = 0;
                spread(path.interval, &seed)
            };
            let again = std::mem::take(&mut path.again) && !unavailable;
            path.due = if again { now } else { now + wait };
        }
        // A call that one path of it was answered in has reached a store that works.
        if answers {
            self.breaker.answered();
        }
        if failed && (!answers || pause.is_some()) {
            self.breaker.failed(now, pause, &self.store);
        }
    }
}

/// A little less than an interval, the same for each path at any time: paths that came at once are not asked for at once
/// for ever.
fn spread(interval: Duration, seed: &str) -> Duration {
    interval.saturating_sub(interval / 20 * hash(seed, 0) / 1000)
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
