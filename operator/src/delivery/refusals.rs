//! How many refusals go on record, each with a line of its own.
//!
//! Anybody who reaches the port can be refused without end, and each line is a durable write. Releases are always on
//! record; of refusals the first many are, and then how many there were.

use std::time::Duration;

use crate::leader::clock::Tick;

/// Refusals that are recorded one by one, however fast they come.
const BURST: u32 = 64;

/// After those, one in this time.
const EVERY: Duration = Duration::from_millis(100);

/// Counts.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How many may be recorded now.
    left: u32,
    /// When the next one is added to that.
    since: Tick,
    omitted: u64,
}

impl Refusals {
    pub(crate) fn new(now: Tick) -> Self {
        Self { left: BURST, since: now, omitted: 0 }
    }

    /// Whether one more may be recorded, and then how many were left out before it.
    pub(crate) fn one_more(&mut self, now: Tick) -> Option<u64> {
        let periods = u32::try_from((now - self.since).as_nanos() / EVERY.as_nanos()).unwrap_or(u32::MAX);
        if periods > 0 {
            self.left = self.left.saturating_add(periods).min(BURST);
            self.since = if self.left == BURST { now } else { self.since + EVERY * periods };
        }
        if self.left == 0 {
            self.omitted += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::after(Duration::from_millis(millis))
    }

    #[test]
    fn the_first_are_recorded_and_then_a_few_that_count_the_others() {
        let mut refusals = Refusals::new(at(0));
        for _ in 0..BURST {
            assert_eq!(refusals.one_more(at(1)), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(refusals.one_more(at(2)), None);
        }
        assert_eq!(refusals.one_more(at(101)), Some(1000));
        assert_eq!(refusals.one_more(at(102)), None);
        assert_eq!(refusals.one_more(at(200)), Some(1), "the time that was used in part counts");
        assert_eq!(refusals.one_more(at(3_600_000)), Some(0), "a quiet hour");
        for _ in 1..BURST {
            assert_eq!(refusals.one_more(at(3_600_001)), Some(0));
        }
        assert_eq!(refusals.one_more(at(3_600_001)), None, "no more than the first many");
    }
}
