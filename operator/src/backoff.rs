//! How long to wait after a failure: exponential, bounded, and spread so that many objects that failed together do
//! not come back together.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::known::Known;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(5);

/// Failures in a row, by object.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<ObjectRef<Known>, u32>>);

impl Failures {
    /// Counts a failure and says how long to wait.
    pub fn next(&self, reference: &ObjectRef<Known>, uid: &str) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(reference.clone()).or_insert(0);
        *count = count.saturating_add(1);
        jitter(after(*count), &format!("{uid}{count}"))
    }

    /// The object succeeded, or is gone.
    pub fn reset(&self, reference: &ObjectRef<Known>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(reference);
    }
}

/// The wait after so many failures in a row, before it is spread.
fn after(failures: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

/// Spreads a wait over 75 % to 125 % of itself, by a seed.
pub fn jitter(wait: Duration, seed: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let percent = 75 + u32::try_from(hasher.finish() % 51).unwrap_or(25);
    wait * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        assert_eq!(after(1), FIRST);
        assert_eq!(after(2), FIRST * 2);
        assert_eq!(after(5), FIRST * 16);
        assert_eq!(after(11), LONGEST);
        assert_eq!(after(u32::MAX), LONGEST);
    }

    #[test]
    fn waits_are_spread_within_bounds() {
        let waits: std::collections::BTreeSet<_> =
            (0..200).map(|i| jitter(Duration::from_secs(100), &i.to_string())).collect();
        assert!(waits.len() > 20);
        assert!(waits.iter().all(|w| (75..=125).contains(&w.as_secs())));
    }

    #[test]
    fn success_starts_over() {
        let (failures, reference) = (Failures::default(), ObjectRef::<Known>::new("a").within("b"));
        failures.next(&reference, "u");
        assert!(failures.next(&reference, "u") > failures_first("u"));
        failures.reset(&reference);
        assert_eq!(failures.next(&reference, "u"), failures_first("u"));
    }

    fn failures_first(uid: &str) -> Duration {
        jitter(FIRST, &format!("{uid}1"))
    }
}
