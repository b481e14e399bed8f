//! How many calls are worked on at once: few for one address, and no more altogether than memory allows.
//!
//! What is counted lasts until an answer has been written, not only until it is made: a peer that does not read holds
//! what it was given ([`sealedenv_delivery::server::Sending`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sealedenv_delivery::MAX_CONTENT;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Bytes in one unit of the budget.
const UNIT: usize = 1 << 10;

/// What one SealedEnv may need, before it is known: its content, and paths.
const ONE: usize = MAX_CONTENT + (256 << 10);

/// Places for each address. Clones share them.
#[derive(Clone)]
pub(crate) struct Gate {
    each: usize,
    places: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

/// A place at the gate, or in the line before it.
pub(crate) struct Place {
    gate: Gate,
    address: IpAddr,
    line: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Bytes of values that may be under way. Clones share it.
#[derive(Clone)]
pub(crate) struct Budget {
    all: usize,
    free: Arc<Semaphore>,
}

/// Part of a budget, given back when it is dropped.
pub(crate) struct Share(OwnedSemaphorePermit);

impl Gate {
    /// With so many places for each address.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, places: Arc::default() }
    }

    /// Waits for a place. Who comes from one address waits for its own calls only.
    pub(crate) async fn enter(&self, address: IpAddr) -> Result<Place, AcquireError> {
        let line = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(address).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let mut place = Place { gate: self.clone(), address, line: Some(Arc::clone(&line)), permit: None };
        place.permit = Some(line.acquire_owned().await?);
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.gate.places.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        self.line = None;
        // Nothing is kept of who has gone.
        if places.get(&self.address).is_some_and(|line| Arc::strong_count(line) == 1) {
            places.remove(&self.address);
        }
    }
}

impl Budget {
    /// Of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let all = bytes / UNIT;
        Self { all, free: Arc::new(Semaphore::new(all)) }
    }

    /// Waits for what a call for so many SealedEnvs may need, in the order of asking.
    pub(crate) async fn share(&self, count: usize) -> Result<Share, AcquireError> {
        let units = (count * ONE).div_ceil(UNIT).min(self.all);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        Ok(Share(Arc::clone(&self.free).acquire_many_owned(units).await?))
    }
}

impl Share {
    /// Gives back what is not needed, now that the size is known.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(bytes / UNIT + 1);
        drop(self.0.split(spare));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test]
    async fn one_address_waits_for_its_own_calls_only_and_nothing_is_kept_of_it() {
        let gate = Gate::new(2);
        let first = gate.enter(A).await.unwrap();
        let second = gate.enter(A).await.unwrap();
        let mut third = Box::pin(gate.enter(A));
        assert!(third.as_mut().now_or_never().is_none(), "too many from one address");
        drop(gate.enter(B).await.unwrap());
        drop(first);
        let third = third.await.unwrap();
        let mut gives_up = Box::pin(gate.enter(A));
        assert!(gives_up.as_mut().now_or_never().is_none());
        drop((second, third));
        assert!(gate.places.lock().unwrap().contains_key(&A), "one is in the line");
        drop(gives_up);
        assert!(gate.places.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_needed_is_given_back_as_soon_as_that_is_known() {
        let budget = Budget::new(2 * ONE);
        let mut first = budget.share(1).await.unwrap();
        let second = budget.share(1).await.unwrap();
        assert!(budget.share(1).now_or_never().is_none(), "it is spent");
        first.shrink(10 * UNIT);
        assert!(budget.share(1).now_or_never().is_none(), "first holds a little");
        assert_eq!(budget.free.available_permits(), ONE / UNIT - 11);
        drop((first, second));
        // What is larger than all of it waits for all of it, not for ever.
        let all = budget.share(100).await.unwrap();
        assert_eq!(budget.free.available_permits(), 0);
        drop(all);
        assert_eq!(budget.free.available_permits(), 2 * ONE / UNIT);
    }
}
