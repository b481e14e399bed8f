//! How much is worked on at once: few calls for one address, and no more bytes of values than memory allows, for one
//! namespace half of them at most.
//!
//! What is counted lasts until an answer has been written, not only until it is made: a peer that does not read holds
//! what it was given ([`sealedenv_delivery::server::Sending`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use sealedenv_delivery::MAX_CONTENT;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Bytes in one unit of the budget.
const UNIT: usize = 1 << 10;

/// What one SealedEnv may need, before it is known: its content, and paths.
pub(crate) const ONE: usize = MAX_CONTENT + (256 << 10);

/// Places for each of many. Clones share them.
#[derive(Clone)]
pub(crate) struct Lines<K> {
    each: usize,
    lines: Arc<Mutex<HashMap<K, Arc<Semaphore>>>>,
}

/// Places in one line, or waiting for them.
pub(crate) struct Turn<K: Eq + Hash + Clone> {
    lines: Lines<K>,
    key: K,
    line: Option<Arc<Semaphore>>,
    places: Option<OwnedSemaphorePermit>,
}

/// Bytes of values that may be under way. Clones share it.
#[derive(Clone)]
pub(crate) struct Budget {
    all: usize,
    free: Arc<Semaphore>,
    namespaces: Lines<String>,
}

/// Part of a budget, given back when it is dropped.
pub(crate) struct Share {
    of_all: OwnedSemaphorePermit,
    free: Arc<Semaphore>,
    of_namespace: Turn<String>,
}

impl<K: Eq + Hash + Clone> Lines<K> {
    /// With so many places for each.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, lines: Arc::default() }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self, key: K) -> Result<Turn<K>, AcquireError> {
        self.take(key, 1).await
    }

    /// Waits for so many places. Who waits for its own keeps nobody else waiting.
    async fn take(&self, key: K, places: u32) -> Result<Turn<K>, AcquireError> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lines.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let mut turn = Turn { lines: self.clone(), key, line: Some(Arc::clone(&line)), places: None };
        turn.places = Some(line.acquire_many_owned(places).await?);
        Ok(turn)
    }
}

impl<K: Eq + Hash + Clone> Turn<K> {
    /// Takes so many places more, where they are free.
    fn extend(&mut self, places: u32) -> bool {
        let (Some(line), Some(held)) = (&self.line, &mut self.places) else { return false };
        let more = Arc::clone(line).try_acquire_many_owned(places);
        more.map(|more| held.merge(more)).is_ok()
    }

    fn keep(&mut self, places: usize) {
        if let Some(held) = &mut self.places {
            drop(held.split(held.num_permits().saturating_sub(places)));
        }
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut lines = self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner);
        self.places = None;
        self.line = None;
        // Nothing is kept of who has gone.
        if lines.get(&self.key).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.key);
        }
    }
}

impl Budget {
    /// Of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let all = bytes / UNIT;
        Self { all, free: Arc::new(Semaphore::new(all)), namespaces: Lines::new(all / 2) }
    }

    /// Waits for what so many SealedEnvs of a namespace may need, or for a quarter of the whole: with most it turns out to
    /// be enough, and two calls of a namespace are worked on at once. [`Share::has_room`] asks for more when it is not.
    pub(crate) async fn share(&self, namespace: &str, count: usize) -> Result<Share, AcquireError> {
        let units = u32::try_from((count * ONE).div_ceil(UNIT).min(self.all / 4)).unwrap_or(u32::MAX);
        let of_namespace = self.namespaces.take(namespace.to_owned(), units).await?;
        let of_all = Arc::clone(&self.free).acquire_many_owned(units).await?;
        Ok(Share { of_all, free: Arc::clone(&self.free), of_namespace })
    }
}

impl Share {
    /// Whether it is so many bytes, once more is taken where that is free. It never waits: two that hold something and
    /// wait for what the other holds would do so for ever.
    pub(crate) fn has_room(&mut self, bytes: usize) -> bool {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.of_all.num_permits());
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(of_all) = Arc::clone(&self.free).try_acquire_many_owned(missing) else { return false };
        let has = self.of_namespace.extend(missing);
        if has {
            self.of_all.merge(of_all);
        }
        has
    }

    /// Gives back what is not needed, as far as that is known.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let units = bytes / UNIT + 1;
        drop(self.of_all.split(self.of_all.num_permits().saturating_sub(units)));
        self.of_namespace.keep(units);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_address_waits_for_its_own_calls_only_and_nothing_is_kept_of_it() {
        let lines = Lines::new(2);
        let first = lines.enter("a").await.unwrap();
        let second = lines.enter("a").await.unwrap();
        let mut third = Box::pin(lines.enter("a"));
        assert!(third.as_mut().now_or_never().is_none(), "too many from one address");
        drop(lines.enter("b").await.unwrap());
        drop(first);
        let third = third.await.unwrap();
        let mut gives_up = Box::pin(lines.enter("a"));
        assert!(gives_up.as_mut().now_or_never().is_none());
        drop((second, third));
        assert!(lines.lines.lock().unwrap().contains_key("a"), "one is in the line");
        drop(gives_up);
        assert!(lines.lines.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_needed_is_given_back_as_soon_as_that_is_known() {
        let budget = Budget::new(4 * ONE);
        let mut first = budget.share("shop", 1).await.unwrap();
        let second = budget.share("shop", 1).await.unwrap();
        assert!(budget.share("shop", 1).now_or_never().is_none(), "its half is spent");
        first.shrink(10 * UNIT);
        assert!(budget.share("shop", 1).now_or_never().is_none(), "first holds a little");
        assert_eq!(budget.free.available_permits(), 3 * ONE / UNIT - 11);
        drop((first, second));
        assert_eq!(budget.free.available_permits(), 4 * ONE / UNIT);
        assert!(budget.namespaces.lines.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn two_calls_of_a_namespace_for_all_they_may_ask_for_are_worked_on_at_once() {
        let budget = Budget::new(16 * ONE);
        let _first = budget.share("shop", 8).await.unwrap();
        let _second = budget.share("shop", 8).now_or_never().expect("a quarter is free").unwrap();
        assert!(budget.share("shop", 1).now_or_never().is_none(), "its half is spent");
        assert!(budget.share("depot", 8).now_or_never().is_some(), "another's is not");
    }

    #[tokio::test]
    async fn more_than_a_quarter_is_taken_where_it_is_free_and_counted() {
        let budget = Budget::new(16 * ONE);
        let mut first = budget.share("shop", 8).await.unwrap();
        assert!(first.has_room(4 * ONE));
        assert_eq!(budget.free.available_permits(), 12 * ONE / UNIT, "nothing more was needed");
        assert!(first.has_room(5 * ONE));
        assert_eq!(budget.free.available_permits(), 11 * ONE / UNIT);
        let second = budget.share("shop", 2).await.unwrap();
        assert!(!first.has_room(7 * ONE), "its namespace's half is spent");
        assert_eq!(budget.free.available_permits(), 9 * ONE / UNIT, "what was not enough is given back");
        let others = (budget.share("depot", 4).await.unwrap(), budget.share("depot", 4).await.unwrap());
        assert!(first.has_room(6 * ONE));
        drop(second);
        assert!(!first.has_room(9 * ONE), "there is not as much");
        assert!(first.has_room(8 * ONE));
        assert_eq!(budget.free.available_permits(), 0);
        drop((first, others));
        assert_eq!(budget.free.available_permits(), 16 * ONE / UNIT);
        assert!(budget.namespaces.lines.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_namespace_that_waits_for_its_half_keeps_no_other_waiting() {
        let budget = Budget::new(16 * ONE);
        let _unread = (budget.share("greedy", 8).await.unwrap(), budget.share("greedy", 8).await.unwrap());
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(budget.share("greedy", 8))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(budget.share("shop", 8).now_or_never().is_some());
    }
}
