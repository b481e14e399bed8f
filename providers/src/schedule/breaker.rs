//! Whether a store is asked at all, after it failed again and again.

use std::time::Duration;

use super::{Time, backoff};

/// Failures in a row after which a store is only probed.
pub const OPENS_AT: u32 = 5;

/// The longest pause that a store may ask for with `Retry-After`.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// A circuit breaker, and the pause that a store asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    /// In a row, of any path.
    failures: u32,
    /// Not before then.
    until: Time,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// Anything.
    Ask,
    /// One call for one path, while no other is under way.
    Probe,
    /// Nothing for so long.
    Wait(Duration),
}

impl Breaker {
    pub(super) fn may(&self, now: Time) -> May {
        let pause = self.until.saturating_sub(now);
        if !pause.is_zero() {
            May::Wait(pause)
        } else if self.is_open() {
            May::Probe
        } else {
            May::Ask
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= OPENS_AT
    }

    /// The store answered, whatever it was.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// It did not. `seed` spreads the pauses of many replicas.
    pub(super) fn failed(&mut self, now: Time, retry_after: Option<Duration>, seed: &str) {
        self.failures = self.failures.saturating_add(1);
        // A store that says "at once" and fails gets the pause of one that says nothing.
        let pause = match retry_after.filter(|asked| !asked.is_zero()) {
            Some(asked) => asked.min(LONGEST_PAUSE),
            None if self.is_open() => backoff(self.failures - OPENS_AT + 1, seed),
            None => Duration::ZERO,
        };
        self.until = self.until.max(now.saturating_add(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_answer_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 1..OPENS_AT {
            breaker.failed(S, None, "vault");
            assert_eq!(breaker.may(S), May::Ask);
        }
        breaker.answered();
        for _ in 1..OPENS_AT {
            breaker.failed(S, None, "vault");
        }
        assert_eq!(breaker.may(S), May::Ask, "not in a row");
        breaker.failed(S, None, "vault");
        let May::Wait(first) = breaker.may(S) else { panic!("it is open") };
        assert!(first <= S);
        assert_eq!(breaker.may(S + first), May::Probe);
        breaker.failed(S + first, None, "vault");
        assert!(matches!(breaker.may(S + first), May::Wait(_)));
        breaker.answered();
        assert_eq!(breaker.may(S * 600), May::Ask);
    }

    #[test]
    fn a_pause_that_the_store_asks_for_is_kept_and_bounded() {
        let mut breaker = Breaker::default();
        breaker.failed(S, Some(S * 30), "vault");
        assert_eq!(breaker.may(S), May::Wait(S * 30));
        breaker.failed(S * 2, Some(S), "vault");
        assert_eq!(breaker.may(S * 2), May::Wait(S * 29), "a shorter one shortens nothing");
        breaker.failed(S * 2, Some(Duration::MAX), "vault");
        assert_eq!(breaker.may(S * 2), May::Wait(LONGEST_PAUSE));
    }

    #[test]
    fn at_once_is_no_pause_that_a_store_may_ask_for() {
        let mut breaker = Breaker::default();
        for _ in 0..OPENS_AT {
            breaker.failed(S, Some(Duration::ZERO), "vault");
        }
        assert!(matches!(breaker.may(S), May::Wait(_)));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let mut breaker = Breaker::default();
        breaker.failed(Duration::MAX, Some(S), "vault");
        assert_eq!(breaker.may(Duration::MAX), May::Ask);
    }
}
