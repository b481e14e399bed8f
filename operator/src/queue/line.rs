//! Who is next: pure, with the time passed in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Why an object is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its turn has come in a look at many: after a start, after a change of keys, after a wait.
    Routine,
    /// Something about it changed just now.
    Change,
}

/// So many changes go before a routine look that waits too. Routine must not starve.
const CHANGES_IN_A_ROW: u32 = 8;

/// Room for so many is never given back.
const ROOM: usize = 4096;

/// What waits, what is worked on, and what will wait later.
///
/// # Guarantees
/// - An item is worked on by one worker at a time, and waits at most once, from the first request on.
/// - What is asked for while it is worked on is looked at again afterwards.
/// - Within its kind, what waits longest is next. A change goes before routine, but for one turn in nine.
/// - Being looked at ends an older appointment: the look decides anew.
pub(super) struct Line<T> {
    waiting: HashMap<T, Place>,
    changes: VecDeque<T>,
    routine: VecDeque<T>,
    changes_in_a_row: u32,
    /// With what was asked for meanwhile.
    running: HashMap<T, Option<Place>>,
    appointments: BTreeMap<(Instant, u64), T>,
    appointed: HashMap<T, (Instant, u64)>,
    /// Tells appointments of the same moment apart.
    made: u64,
}

#[derive(Clone, Copy)]
struct Place {
    why: Why,
    since: Instant,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            changes: VecDeque::new(),
            routine: VecDeque::new(),
            changes_in_a_row: 0,
            running: HashMap::new(),
            appointments: BTreeMap::new(),
            appointed: HashMap::new(),
            made: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Line<T> {
    /// Somebody asks for an item. Returns whether a worker has something to do that it had not before.
    pub(super) fn add(&mut self, item: T, why: Why, now: Instant) -> bool {
        let new = Place { why, since: now };
        if let Some(again) = self.running.get_mut(&item) {
            let place = again.get_or_insert(new);
            place.why = place.why.max(why);
            return false;
        }
        self.put(item, new)
    }

    fn put(&mut self, item: T, new: Place) -> bool {
        let before = self.waiting.get(&item).copied();
        let place = match before {
            // What stays behind in the other queue is passed over when its turn comes.
            Some(old) if old.why < new.why => Place { why: new.why, since: old.since },
            Some(_) => return false,
            None => new,
        };
        self.waiting.insert(item.clone(), place);
        match place.why {
            Why::Change => self.changes.push_back(item),
            Why::Routine => self.routine.push_back(item),
        }
        before.is_none()
    }

    /// The next item. It is worked on until [`Line::done`].
    pub(super) fn take(&mut self) -> Option<T> {
        loop {
            let routine_is_due = self.changes_in_a_row >= CHANGES_IN_A_ROW && !self.routine.is_empty();
            let turn = if self.changes.is_empty() || routine_is_due { Why::Routine } else { Why::Change };
            let item = match turn {
                Why::Change => self.changes.pop_front(),
                Why::Routine => self.routine.pop_front(),
            }?;
            if self.waiting.get(&item).is_none_or(|place| place.why != turn) {
                continue;
            }
            self.changes_in_a_row = if turn == Why::Change { self.changes_in_a_row + 1 } else { 0 };
            self.waiting.remove(&item);
            self.cancel(&item);
            self.running.insert(item.clone(), None);
            self.give_back_room();
            return Some(item);
        }
    }

    /// A worker is through with an item, and wants to see it again after a while, or not. Returns whether there is
    /// something to do at once.
    pub(super) fn done(&mut self, item: &T, again: Option<Duration>, now: Instant) -> bool {
        let asked = self.running.remove(item).flatten();
        if let Some(place) = asked {
            // The look that was asked for makes its own appointment.
            return self.put(item.clone(), place);
        }
        if let Some(due) = again.and_then(|after| now.checked_add(after)) {
            self.cancel(item);
            self.made += 1;
            self.appointments.insert((due, self.made), item.clone());
            self.appointed.insert(item.clone(), (due, self.made));
        }
        false
    }

    fn cancel(&mut self, item: &T) {
        if let Some(appointment) = self.appointed.remove(item) {
            self.appointments.remove(&appointment);
        }
    }

    /// The next appointment.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.appointments.first_key_value().map(|((due, _), _)| *due)
    }

    /// Lets those whose appointment has come wait for their turn. Returns how many.
    pub(super) fn keep_appointments(&mut self, now: Instant) -> usize {
        let mut kept = 0;
        while let Some(first) = self.appointments.first_entry().filter(|first| first.key().0 <= now) {
            let item = first.remove();
            self.appointed.remove(&item);
            kept += usize::from(self.add(item, Why::Routine, now));
        }
        kept
    }

    /// How many wait, and for how long the one that waits longest has. What has an appointment does not wait.
    pub(super) fn depth_and_age(&self, now: Instant) -> (usize, Duration) {
        let asked = self.running.values().flatten();
        let since = self.waiting.values().chain(asked.clone()).map(|place| place.since).min();
        let age = since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        (self.waiting.len() + asked.count(), age)
    }

    /// After a start with very many objects, their room is not kept.
    fn give_back_room(&mut self) {
        let left = self.waiting.len();
        if self.waiting.capacity() > ROOM && left < self.waiting.capacity() / 8 {
            self.waiting.shrink_to(ROOM / 2);
            self.changes.shrink_to(ROOM / 2);
            self.routine.shrink_to(ROOM / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Why::{Change, Routine};

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// All that is next, in order, each done at once.
    fn drain<T: Clone + Eq + Hash>(line: &mut Line<T>, now: Instant) -> Vec<T> {
        let mut all = Vec::new();
        while let Some(item) = line.take() {
            line.done(&item, None, now);
            all.push(item);
        }
        all
    }

    #[test]
    fn an_item_waits_once_and_from_its_first_request() {
        let (mut line, start) = (Line::default(), Instant::now());
        assert_eq!(line.depth_and_age(start), (0, Duration::ZERO));
        assert!(line.add("a", Change, start + seconds(1)));
        assert!(line.add("b", Change, start + seconds(2)));
        assert!(!line.add("a", Change, start + seconds(3)));
        assert_eq!(line.depth_and_age(start + seconds(5)), (2, seconds(4)));
        assert_eq!(line.take(), Some("a"));
        assert_eq!(line.depth_and_age(start + seconds(5)), (1, seconds(3)));
        assert_eq!(line.take(), Some("b"));
        assert_eq!(line.take(), None);
        assert_eq!(line.depth_and_age(start + seconds(5)), (0, Duration::ZERO));
    }

    #[test]
    fn what_waits_longest_is_next() {
        let (mut line, now) = (Line::default(), Instant::now());
        for item in ["c", "a", "d", "b"] {
            line.add(item, Change, now);
        }
        assert_eq!(drain(&mut line, now), ["c", "a", "d", "b"]);
    }

    #[test]
    fn nobody_works_on_what_another_works_on_and_no_request_is_lost() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.add("a", Change, now);
        assert_eq!(line.take(), Some("a"));
        assert!(!line.add("a", Routine, now));
        assert!(!line.add("a", Change, now + seconds(1)));
        assert_eq!(line.take(), None, "it is worked on");
        assert_eq!(line.depth_and_age(now + seconds(2)), (1, seconds(2)));
        assert!(line.done(&"a", Some(seconds(100)), now));
        assert_eq!(line.take(), Some("a"), "once more");
        assert!(!line.done(&"a", None, now));
        assert_eq!(
            (line.take(), line.next_due()),
            (None, None),
            "the look in between took the appointment's place"
        );
    }

    #[test]
    fn a_change_goes_before_routine_and_routine_does_not_starve() {
        let (mut line, now) = (Line::default(), Instant::now());
        for item in 0..5000 {
            line.add(item, Routine, now);
        }
        line.add(9000, Change, now);
        assert_eq!(line.take(), Some(9000));
        for item in 9001..9101 {
            line.add(item, Change, now);
        }
        let order = drain(&mut line, now);
        let routine = order[..112].iter().filter(|item| **item < 5000).count();
        assert_eq!(routine, 12, "one of nine");
        let last_change = order.iter().position(|item| *item == 9100).unwrap();
        assert_eq!(last_change, 111, "behind all other changes, and no more than that");
        assert_eq!(order.len(), 5100);
    }

    #[test]
    fn a_change_to_what_waits_for_routine_brings_it_forward_once() {
        let (mut line, now) = (Line::default(), Instant::now());
        for item in ["a", "b", "c"] {
            line.add(item, Routine, now);
        }
        assert!(!line.add("c", Change, now), "it was there already");
        assert!(!line.add("c", Routine, now));
        assert_eq!(drain(&mut line, now), ["c", "a", "b"]);
    }

    #[test]
    fn appointments_are_kept_in_their_order_and_not_before() {
        let (mut line, now) = (Line::default(), Instant::now());
        for (item, after) in [("late", 9), ("soon", 1), ("later", 9)] {
            line.add(item, Change, now);
            line.take();
            line.done(&item, Some(seconds(after)), now);
        }
        assert_eq!(line.next_due(), Some(now + seconds(1)));
        assert_eq!(line.keep_appointments(now), 0);
        assert_eq!(line.depth_and_age(now), (0, Duration::ZERO), "who has an appointment does not wait");
        assert_eq!(line.keep_appointments(now + seconds(1)), 1);
        assert_eq!(drain(&mut line, now), ["soon"]);
        assert_eq!(line.keep_appointments(now + seconds(100)), 2);
        assert_eq!(drain(&mut line, now), ["late", "later"]);
        assert_eq!(line.next_due(), None);
    }

    #[test]
    fn a_look_ends_the_appointment() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.add("a", Change, now);
        line.take();
        line.done(&"a", Some(seconds(5)), now);
        line.add("a", Change, now + seconds(1));
        assert_eq!(line.take(), Some("a"));
        line.done(&"a", None, now + seconds(1));
        assert_eq!(line.keep_appointments(now + seconds(10)), 0);
        // The same where both have come.
        line.done(&"a", Some(seconds(5)), now);
        line.add("a", Change, now + seconds(6));
        line.keep_appointments(now + seconds(6));
        assert_eq!(drain(&mut line, now), ["a"]);
    }

    #[test]
    fn an_appointment_beyond_all_time_is_none() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.add("a", Change, now);
        line.take();
        line.done(&"a", Some(Duration::MAX), now);
        assert_eq!(line.next_due(), None);
    }

    #[test]
    fn room_for_many_is_given_back() {
        let (mut line, now) = (Line::default(), Instant::now());
        for item in 0..100_000 {
            line.add(item, Routine, now);
        }
        assert_eq!(drain(&mut line, now).len(), 100_000);
        assert!(line.waiting.capacity() <= ROOM && line.routine.capacity() <= ROOM);
    }
}
