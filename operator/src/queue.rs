//! What waits for a worker: how many objects, and since when the oldest.
//!
//! The queue itself is kube's, and it merges requests for one object. This keeps the same set beside it: an object
//! is in it from the first request that nobody has taken up to the moment when a worker takes it up. An object
//! that waits for its next try after a failure is not in it.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::ObjectRef;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::known::Known;

/// So many objects may wait before requests for very many are held back: enough that no worker is ever idle.
const FEW: usize = 64;
/// How long it is waited before another look at the queue, and how often.
const PAUSE: Duration = Duration::from_millis(2);
const MOST_PAUSES: u32 = 500;

/// Objects that wait. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pending(Arc<Mutex<HashMap<ObjectRef<Known>, Instant>>>);

impl Pending {
    /// Somebody asked for the object.
    pub fn add(&self, reference: &ObjectRef<Known>, now: Instant) {
        self.lock().entry(reference.clone()).or_insert(now);
    }

    /// A worker has it, or it is gone.
    pub fn remove(&self, reference: &ObjectRef<Known>) {
        let mut waiting = self.lock();
        waiting.remove(reference);
        // After a start with very many objects, their room is not kept.
        if waiting.capacity() > 4096 && waiting.len() < waiting.capacity() / 8 {
            waiting.shrink_to_fit();
        }
    }

    /// How many wait, and for how long the oldest has.
    pub fn depth_and_age(&self, now: Instant) -> (usize, Duration) {
        let waiting = self.lock();
        let oldest = waiting.values().min().map(|since| now.saturating_duration_since(*since));
        (waiting.len(), oldest.unwrap_or_default())
    }

    /// Passes requests on as fast as workers take them up, so that behind a look at very many objects what changes
    /// meanwhile waits for few of them only.
    pub fn few_at_a_time<R: Send>(
        self,
        requests: impl Stream<Item = R> + Send,
    ) -> impl Stream<Item = R> + Send {
        requests.then(move |request| {
            let pending = self.clone();
            async move {
                // Bounded: the queue is a courtesy, and workers that are stuck are no reason to forget a request.
                for _ in 0..MOST_PAUSES {
                    if pending.lock().len() < FEW {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                request
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<Known>, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Pending {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (depth, age) = self.depth_and_age(Instant::now());
        let metric = encoder.encode_descriptor(
            "queue_depth",
            "SealedEnvs that wait for a worker.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(depth).unwrap_or(i64::MAX)).encode(metric)?;
        let metric = encoder.encode_descriptor(
            "queue_oldest_age",
            "Time for which the SealedEnv that waits longest has waited for a worker; 0 where none waits.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(age.as_secs_f64()).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, stream};

    #[test]
    fn an_object_waits_once_and_from_its_first_request() {
        let (pending, start) = (Pending::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|name| ObjectRef::<Known>::new(name).within("shop"));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pending.depth_and_age(at(0)), (0, Duration::ZERO));
        pending.add(&a, at(1));
        pending.add(&b, at(2));
        pending.add(&a, at(3));
        assert_eq!(pending.depth_and_age(at(5)), (2, Duration::from_secs(4)));
        pending.remove(&a);
        assert_eq!(pending.depth_and_age(at(5)), (1, Duration::from_secs(3)));
        pending.remove(&b);
        pending.remove(&b);
        assert_eq!(pending.depth_and_age(at(5)), (0, Duration::ZERO));
    }

    #[tokio::test]
    async fn requests_for_very_many_come_as_they_are_taken_up() {
        let pending = Pending::default();
        let all = (0..1000).map(|i| ObjectRef::<Known>::new(&i.to_string()));
        let mut requests = std::pin::pin!(pending.clone().few_at_a_time(stream::iter(all)));
        let mut waiting = Vec::new();
        while let Some(Some(reference)) = requests.next().now_or_never() {
            pending.add(&reference, Instant::now());
            waiting.push(reference);
        }
        assert_eq!(waiting.len(), FEW);
        pending.remove(&waiting[0]);
        assert!(requests.next().await.is_some(), "one was taken up: the next one comes");
        assert_eq!(waiting.len() + 1 + requests.count().await, 1000, "none is forgotten");
    }

    #[test]
    fn room_for_many_is_given_back() {
        let (pending, now) = (Pending::default(), Instant::now());
        let all: Vec<_> = (0..10_000).map(|i| ObjectRef::<Known>::new(&i.to_string())).collect();
        for one in &all {
            pending.add(one, now);
        }
        for one in &all {
            pending.remove(one);
        }
        assert!(pending.lock().capacity() <= 4096);
    }
}
