//! The queue of SealedEnvs to look at, and the workers that take them from it.
//!
//! kube's own controller would do, but for two things: it hands over everything by way of a timer wheel, which adds
//! one to two milliseconds to each change, and where many objects wait it takes any of them, so that one that has just
//! changed may wait behind all others. See docs/src/deviations.md.

mod line;

use std::fmt::Error;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::known::Known;
use line::Line;
pub use line::Why;

/// A queue. Clones share it.
#[derive(Clone, Default)]
pub struct Queue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    line: Mutex<Line<ObjectRef<Known>>>,
    /// There is something to do.
    more: Notify,
    /// There is a new appointment, which may be earlier than all others.
    appointment: Notify,
}

impl Queue {
    /// Asks for a look at an object.
    pub fn add(&self, reference: ObjectRef<Known>, why: Why) {
        if self.line().add(reference, why, Instant::now()) {
            self.0.more.notify_one();
        }
    }

    /// Waits for the next object. Nobody else gets it until [`Queue::done`]. Safe to drop and call again.
    async fn next(&self) -> ObjectRef<Known> {
        self.next_seen(|| self.line().take()).await
    }

    async fn next_seen<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut more = pin!(self.0.more.notified());
            // In line before the look: two workers that look before two objects come would share one permit, and one of
            // them sleep while an object waits.
            more.as_mut().enable();
            if let Some(reference) = look() {
                return reference;
            }
            more.await;
        }
    }

    fn done(&self, reference: &ObjectRef<Known>, again: Option<Duration>) {
        if self.line().done(reference, again, Instant::now()) {
            self.0.more.notify_one();
        }
        if again.is_some() {
            self.0.appointment.notify_one();
        }
    }

    async fn keep_appointments(&self) {
        loop {
            let next = self.line().next_due();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.appointment.notified() => continue,
            }
            let kept = self.line().keep_appointments(Instant::now());
            for _ in 0..kept {
                self.0.more.notify_one();
            }
        }
    }

    /// Works on what comes, with so many workers, until shutdown; then finishes what was begun. `work` says when to
    /// look at the object again without being asked.
    pub async fn run<W, F>(&self, workers: u16, shutdown: &Shutdown, work: W)
    where
        W: Fn(ObjectRef<Known>) -> F + Clone + Send + 'static,
        F: Future<Output = Option<Duration>> + Send,
    {
        let mut tasks = JoinSet::new();
        for _ in 0..workers.max(1) {
            let (queue, shutdown, work) = (self.clone(), shutdown.clone(), work.clone());
            tasks.spawn(async move {
                loop {
                    let reference = tokio::select! {
                        biased;
                        () = shutdown.triggered() => return,
                        reference = queue.next() => reference,
                    };
                    let again = work(reference.clone()).await;
                    queue.done(&reference, again);
                }
            });
        }
        let appointments = async {
            tokio::select! {
                () = shutdown.triggered() => {}
                () = self.keep_appointments() => {}
            }
        };
        tokio::join!(appointments, tasks.join_all());
    }

    fn line(&self) -> MutexGuard<'_, Line<ObjectRef<Known>>> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All queues, as metrics. Clones share them.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<Vec<Queue>>>);

impl Queues {
    /// A new one.
    pub fn open(&self) -> Queue {
        let queue = Queue::default();
        self.lock().push(queue.clone());
        queue
    }

    /// How many objects wait in all of them, and for how long the one that waits longest has.
    pub fn depth_and_age(&self, now: Instant) -> (usize, Duration) {
        let each = self.lock().iter().map(|queue| queue.line().depth_and_age(now)).collect::<Vec<_>>();
        let age = each.iter().map(|(_, age)| *age).max().unwrap_or_default();
        (each.iter().map(|(depth, _)| depth).sum(), age)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

impl Collector for Queues {
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    fn reference(name: &str) -> ObjectRef<Known> {
        ObjectRef::new(name).within("shop")
    }

    /// Runs a queue in the background; each look takes a while on tokio's clock.
    struct Running {
        queue: Queue,
        shutdown: Shutdown,
        looks: Arc<Mutex<Vec<(String, Duration)>>>,
        task: tokio::task::JoinHandle<()>,
    }

    fn running(workers: u16, takes: Duration, again: Option<Duration>) -> Running {
        let (queue, shutdown, looks) = (Queue::default(), Shutdown::new(), Arc::<Mutex<Vec<_>>>::default());
        let start = Instant::now();
        let task = tokio::spawn({
            let (queue, shutdown, looks) = (queue.clone(), shutdown.clone(), Arc::clone(&looks));
            async move {
                let work = move |reference: ObjectRef<Known>| {
                    let looks = Arc::clone(&looks);
                    async move {
                        looks.lock().unwrap().push((reference.name, start.elapsed()));
                        tokio::time::sleep(takes).await;
                        again
                    }
                };
                queue.run(workers, &shutdown, work).await;
            }
        });
        Running { queue, shutdown, looks, task }
    }

    impl Running {
        fn looks(&self) -> Vec<(String, Duration)> {
            self.looks.lock().unwrap().clone()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn so_many_are_worked_on_at_once_as_there_are_workers() {
        let running = running(4, SECOND, None);
        for i in 0..12 {
            running.queue.add(reference(&i.to_string()), Why::Change);
        }
        tokio::time::sleep(SECOND * 10).await;
        let times: Vec<_> = running.looks().iter().map(|(_, at)| at.as_secs()).collect();
        assert_eq!(times, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_comes_again_when_it_is_due_and_at_once_when_asked_for() {
        let running = running(2, Duration::ZERO, Some(SECOND * 10));
        running.queue.add(reference("a"), Why::Change);
        tokio::time::sleep(SECOND * 25).await;
        running.queue.add(reference("a"), Why::Change);
        tokio::time::sleep(SECOND * 12).await;
        let times: Vec<_> = running.looks().iter().map(|(_, at)| at.as_secs()).collect();
        assert_eq!(times, [0, 10, 20, 25, 35], "the look at 25 took the place of that at 30");
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_appointment_is_not_held_up_by_a_later_one() {
        let (queue, shutdown) = (Queue::default(), Shutdown::new());
        let looks = Arc::new(AtomicUsize::new(0));
        let work = {
            let looks = Arc::clone(&looks);
            move |reference: ObjectRef<Known>| {
                looks.fetch_add(1, Ordering::SeqCst);
                let again = if reference.name == "late" { SECOND * 1000 } else { SECOND };
                async move { Some(again) }
            }
        };
        tokio::spawn({
            let (queue, shutdown) = (queue.clone(), shutdown.clone());
            async move { queue.run(1, &shutdown, work).await }
        });
        queue.add(reference("late"), Why::Change);
        tokio::time::sleep(SECOND).await;
        queue.add(reference("soon"), Why::Change);
        tokio::time::sleep(SECOND * 5).await;
        assert_eq!(looks.load(Ordering::SeqCst), 1 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn on_shutdown_what_was_begun_is_finished_and_nothing_else_is_begun() {
        let running = running(2, SECOND * 5, None);
        for name in ["a", "b", "c", "d"] {
            running.queue.add(reference(name), Why::Change);
        }
        tokio::time::sleep(SECOND).await;
        let start = Instant::now();
        running.shutdown.trigger();
        running.task.await.unwrap();
        assert_eq!(start.elapsed(), SECOND * 4);
        assert_eq!(running.looks.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn no_worker_sleeps_while_an_object_waits() {
        let queue = &Queue::default();
        let look = || queue.line().take();
        // What threads do at a bad moment: each of two workers has seen that nothing is there, and then two objects come.
        let mut second = pin!(queue.next_seen({
            let mut nobody_came_yet = true;
            move || {
                let seen = look();
                if std::mem::take(&mut nobody_came_yet) {
                    queue.add(reference("a"), Why::Change);
                    queue.add(reference("b"), Why::Change);
                }
                seen
            }
        }));
        let mut taken = Vec::new();
        let first = queue.next_seen(|| {
            let seen = look();
            if taken.is_empty() {
                taken.extend(second.as_mut().now_or_never().map(|reference| reference.name));
            }
            seen
        });
        let first = first.now_or_never().map(|reference| reference.name);
        taken.extend(first);
        assert_eq!(taken, ["a", "b"]);
    }

    #[tokio::test]
    async fn nothing_is_lost_between_many_askers_and_many_workers() {
        let (queue, shutdown) = (Queue::default(), Shutdown::new());
        let looks = Arc::new(AtomicUsize::new(0));
        let work = {
            let looks = Arc::clone(&looks);
            move |_| {
                looks.fetch_add(1, Ordering::SeqCst);
                async {
                    tokio::task::yield_now().await;
                    None
                }
            }
        };
        let ran = tokio::spawn({
            let (queue, shutdown) = (queue.clone(), shutdown.clone());
            async move { queue.run(16, &shutdown, work).await }
        });
        join_all((0..10).map(|asker| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for i in 0..500 {
                    queue.add(reference(&format!("{asker}-{i}")), Why::Change);
                    if i % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        }))
        .await;
        let all = async {
            while looks.load(Ordering::SeqCst) < 5000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SECOND * 60, all).await.expect("every object is looked at");
        shutdown.trigger();
        ran.await.unwrap();
    }

    #[test]
    fn the_metrics_tell_of_all_queues() {
        let queues = Queues::default();
        let (one, other) = (queues.open(), queues.open());
        one.add(reference("a"), Why::Change);
        other.add(reference("b"), Why::Routine);
        other.add(reference("c"), Why::Routine);
        let (depth, age) = queues.depth_and_age(Instant::now() + SECOND);
        assert_eq!(depth, 3);
        assert!(age >= SECOND);
    }
}
