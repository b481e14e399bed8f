//! A clock for spans of time: it only goes forward, nobody sets it, and it goes on while the machine or this process
//! sleeps.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

/// A moment of a steady clock, as time since an arbitrary beginning. Means nothing outside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(Duration);

impl Tick {
    /// Before every moment.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// A moment, that long after the beginning.
    pub const fn after(since: Duration) -> Self {
        Self(since)
    }

    pub(super) fn nanos(self) -> u64 {
        // 584 years.
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub for Tick {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the moment.
#[derive(Clone)]
pub struct Steady(Arc<dyn Fn() -> Tick + Send + Sync>);

impl Steady {
    /// The kernel's boot clock. Unlike the monotonic one it counts the time for which the machine is suspended: a
    /// leader that wakes up in a laptop or a paused virtual machine must know how long it was away.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Tick(Duration::try_from(now).unwrap_or_default())
        })
    }

    /// Another clock.
    pub fn from_fn(now: impl Fn() -> Tick + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The moment.
    pub fn now(&self) -> Tick {
        (self.0)()
    }
}
