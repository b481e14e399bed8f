//! When the operator is asked again. Pure: chance is an argument, of 0 to 1.

use std::time::Duration;

/// When to ask again while the operator has not said.
pub const USUAL: Duration = Duration::from_mins(1);

/// What the operator's hint is held to: neither a flood nor silence.
const HINTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(1));

/// The longest pause of a pod that waits for its files.
pub const WAITING: Duration = Duration::from_secs(30);

/// The first pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The pause after so many failures in a row. They grow to the longest, and pods that failed together do not come back
/// together.
pub fn after_failure(failures: u32, longest: Duration, chance: f64) -> Duration {
    let pause = AFTER_FAILURE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest);
    pause.mul_f64(f64::midpoint(1.0, chance.clamp(0.0, 1.0)))
}

/// The pause after a look that went well, around what the operator wants.
pub fn after_success(hint: Option<Duration>, chance: f64) -> Duration {
    let hint = hint.unwrap_or(USUAL).clamp(HINTS.0, HINTS.1);
    hint.mul_f64(0.9 + chance.clamp(0.0, 1.0) / 5.0)
}

/// The pause before the first refresh: the files have just come. Pods that began together are spread out.
pub fn at_first(chance: f64) -> Duration {
    USUAL.mul_f64(f64::midpoint(1.0, chance.clamp(0.0, 1.0)))
}

/// Chance, for the callers of the above.
pub fn chance() -> f64 {
    // Without random numbers everybody comes at the same time: a nuisance, no fault.
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pause: Duration) -> f64 {
        pause.as_secs_f64()
    }

    #[test]
    fn pauses_after_failures_grow_to_a_bound_and_are_spread() {
        let longest = |failures| seconds(after_failure(failures, WAITING, 1.0));
        for (failures, pause) in
            [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (u32::MAX, 30.0)]
        {
            assert!((longest(failures) - pause).abs() < 1e-9, "{failures}");
            assert!(
                (seconds(after_failure(failures, WAITING, 0.0)) - pause / 2.0).abs() < 1e-9,
                "{failures}"
            );
        }
    }

    #[test]
    fn the_operators_hint_is_followed_within_bounds() {
        for (hint, least, most) in [
            (None, 54.0, 66.0),
            (Some(100), 90.0, 110.0),
            (Some(0), 4.5, 5.5),
            (Some(u64::MAX), 3240.0, 3960.0),
        ] {
            let hint = hint.map(Duration::from_secs);
            assert!((seconds(after_success(hint, 0.0)) - least).abs() < 1e-6, "{hint:?}");
            assert!((seconds(after_success(hint, 1.0)) - most).abs() < 1e-6, "{hint:?}");
        }
        assert!((seconds(at_first(0.0)) - 30.0).abs() < 1e-9 && (seconds(at_first(1.0)) - 60.0).abs() < 1e-9);
    }

    #[test]
    fn chance_is_between_nothing_and_one() {
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&chance()));
        }
    }
}
