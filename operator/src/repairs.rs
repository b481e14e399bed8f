//! How soon a Secret is repaired again. Who edits or deletes it by hand finds it put right at once; something that does
//! so in a loop, such as another controller, is answered at a slowing pace, or each of its writes would cost one of
//! ours and an audit record.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::known::Known;
use crate::leader::clock::{Steady, Tick};

/// So many repairs in a row are made at once: more than people make by hand while they try things out.
const AT_ONCE: u32 = 5;
/// The pause after that many. It doubles with each repair.
const FIRST: Duration = Duration::from_secs(1);
/// A Secret stays wrong for no longer than this.
const LONGEST: Duration = Duration::from_mins(1);
/// Repairs further apart than this are not in a row.
const QUIET: Duration = Duration::from_mins(5);

/// Repairs in a row, by object.
pub struct Repairs {
    clock: Steady,
    rows: Mutex<HashMap<ObjectRef<Known>, Row>>,
}

#[derive(Clone, Copy)]
struct Row {
    count: u32,
    last: Tick,
}

/// A repair has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// So many were made in a row.
    pub repairs: u32,
    /// The next one is due in so long.
    pub left: Duration,
}

impl Pause {
    /// The pause from its beginning.
    pub fn whole(self) -> Duration {
        after(self.repairs)
    }
}

impl Repairs {
    /// None so far.
    pub fn new(clock: Steady) -> Self {
        Self { clock, rows: Mutex::default() }
    }

    /// Whether a repair of this object has to wait.
    pub fn pause(&self, reference: &ObjectRef<Known>) -> Option<Pause> {
        let row = *self.lock().get(reference)?;
        let left = after(row.count).checked_sub(self.clock.now() - row.last)?;
        (!left.is_zero()).then_some(Pause { repairs: row.count, left })
    }

    /// A repair was made.
    pub fn made(&self, reference: &ObjectRef<Known>) {
        let now = self.clock.now();
        let mut rows = self.lock();
        let row = rows.entry(reference.clone()).or_insert(Row { count: 0, last: now });
        if now - row.last > QUIET {
            row.count = 0;
        }
        *row = Row { count: row.count.saturating_add(1), last: now };
    }

    /// Forgets an object.
    pub fn forget(&self, reference: &ObjectRef<Known>) {
        self.lock().remove(reference);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<Known>, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after so many repairs in a row.
fn after(count: u32) -> Duration {
    match count.checked_sub(AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => FIRST.saturating_mul(2_u32.saturating_pow(more)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at_zero() -> (Arc<Mutex<Duration>>, Repairs, ObjectRef<Known>) {
        let time = Arc::new(Mutex::new(Duration::ZERO));
        let clock = Steady::from_fn({
            let time = Arc::clone(&time);
            move || Tick::after(*time.lock().unwrap())
        });
        (time, Repairs::new(clock), ObjectRef::new("checkout").within("shop"))
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<_> = (0..14).map(|count| after(count).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(after(u32::MAX), LONGEST);
    }

    #[test]
    fn a_few_are_made_at_once_and_then_each_waits_its_turn() {
        let (time, repairs, reference) = at_zero();
        for _ in 0..AT_ONCE {
            assert_eq!(repairs.pause(&reference), None);
            repairs.made(&reference);
        }
        let pause = |left| Some(Pause { repairs: AT_ONCE, left });
        assert_eq!(repairs.pause(&reference), pause(FIRST));
        *time.lock().unwrap() += FIRST / 4;
        assert_eq!(repairs.pause(&reference), pause(FIRST * 3 / 4));
        *time.lock().unwrap() += FIRST * 3 / 4;
        assert_eq!(repairs.pause(&reference), None);
        repairs.made(&reference);
        assert_eq!(repairs.pause(&reference), Some(Pause { repairs: AT_ONCE + 1, left: FIRST * 2 }));
        assert_eq!(repairs.pause(&ObjectRef::new("other").within("shop")), None, "it is nobody else's");
    }

    #[test]
    fn quiet_ends_the_row() {
        let (time, repairs, reference) = at_zero();
        for _ in 0..20 {
            repairs.made(&reference);
        }
        *time.lock().unwrap() += QUIET;
        repairs.made(&reference);
        assert_eq!(repairs.pause(&reference), Some(Pause { repairs: 21, left: LONGEST }));
        *time.lock().unwrap() += QUIET + Duration::from_secs(1);
        repairs.made(&reference);
        assert_eq!(repairs.pause(&reference), None);
    }

    #[test]
    fn an_object_that_is_gone_is_forgotten() {
        let (_, repairs, reference) = at_zero();
        for _ in 0..20 {
            repairs.made(&reference);
        }
        repairs.forget(&reference);
        assert_eq!(repairs.pause(&reference), None);
        assert!(repairs.lock().is_empty());
    }
}
