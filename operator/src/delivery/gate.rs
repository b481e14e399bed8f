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

/// Places in one line, or waiting in it.
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

    /// Waits for what so many SealedEnvs of a namespace may need.
    pub(crate) async fn share(&self, namespace: &str, count: usize) -> Result<Share, AcquireError> {
        let units = (count * ONE).div_ceil(UNIT).min(self.all / 2);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let of_namespace = self.namespaces.take(namespace.to_owned(), units).await?;
        let of_all = Arc::clone(&self.free).acquire_many_owned(units).await?;
        Ok(Share { of_all, of_namespace })
    }
}

impl Share {
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
        // What is larger than a half waits for all of it, not for ever.
        let half = budget.share("shop", 100).await.unwrap();
        assert_eq!(budget.free.available_permits(), 2 * ONE / UNIT);
        drop(half);
        assert_eq!(budget.free.available_permits(), 4 * ONE / UNIT);
        assert!(budget.namespaces.lines.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_namespace_that_waits_for_its_half_keeps_no_other_waiting() {
        let budget = Budget::new(16 * ONE);
        let _unread = budget.share("greedy", 8).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(budget.share("greedy", 8))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(budget.share("shop", 8).now_or_never().is_some());
    }
}
