//! How often a store may be called.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Time;

/// A budget of calls: so many a second, and a few at once after a quiet time (the generic cell rate algorithm, of ATM).
/// In any span of time there are at most its length times the rate, and the burst.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Between two calls of an even flow.
    every: Duration,
    /// How far calls may be ahead of that flow.
    ahead: Duration,
    /// When the next call would be due in it.
    next: Time,
}

impl Budget {
    /// So many calls a second, and so many at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let every = Duration::from_secs(1) / per_second.get();
        Self { every, ahead: every * (burst.get() - 1), next: Time::ZERO }
    }

    /// How long to wait before a call. Zero: none.
    pub(super) fn wait(&self, now: Time) -> Duration {
        self.next.saturating_sub(self.ahead).saturating_sub(now)
    }

    /// Counts a call.
    pub(super) fn spend(&mut self, now: Time) {
        self.next = self.next.max(now).saturating_add(self.every);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_burst_then_an_even_flow_then_a_burst_after_rest() {
        let mut budget = Budget::new(of(10), of(3));
        let mut now = Duration::from_secs(7);
        for _ in 0..3 {
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.spend(now);
        }
        assert_eq!(budget.wait(now), Duration::from_millis(100));
        now += Duration::from_millis(100);
        assert_eq!(budget.wait(now), Duration::ZERO);
        budget.spend(now);
        assert_eq!(budget.wait(now), Duration::from_millis(100));
        now += Duration::from_mins(1);
        for _ in 0..3 {
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.spend(now);
        }
        assert_ne!(budget.wait(now), Duration::ZERO, "rest is not saved up");
    }

    proptest! {
        #[test]
        fn no_span_has_more_calls_than_it_may(
            rate in 1..50_u32,
            burst in 1..20_u32,
            steps in prop::collection::vec(0..400_u64, 1..200),
        ) {
            let mut budget = Budget::new(of(rate), of(burst));
            let (mut now, mut calls) = (Duration::ZERO, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                while budget.wait(now).is_zero() {
                    budget.spend(now);
                    calls.push(now);
                }
            }
            for (first, from) in calls.iter().enumerate() {
                for (last, to) in calls.iter().enumerate().skip(first) {
                    let span = to.saturating_sub(*from);
                    let most = span.as_secs_f64() * f64::from(rate) + f64::from(burst);
                    let made = u32::try_from(last - first + 1).unwrap();
                    prop_assert!(f64::from(made) <= most + 1e-6, "{made} calls in {span:?}");
                }
            }
        }
    }
}
