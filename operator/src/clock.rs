//! The clock, injected: decisions get the time as an argument, and the edge asks this.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock. Whole seconds, as Kubernetes writes times.
    pub fn system() -> Self {
        Self::from_fn(Timestamp::now)
    }

    /// Another clock.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now, in full precision: for records.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// The time now in whole seconds: for status, where Kubernetes keeps no more.
    pub fn seconds(&self) -> Timestamp {
        let now = self.now();
        Timestamp::new(now.as_second(), 0).unwrap_or(now)
    }
}
