//! Kubernetes Events, told aside: telling never holds up or fails the work.
//!
//! An Event is a write as a Secret is one, and where thousands of objects are delivered at once the API server has better
//! to do than to take a thousand times "delivered". So warnings go out as they come, and what tells that all is well
//! goes out behind them, slowly.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sealedenv_crds::names;
use sealedenv_runtime::report::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::leader::NotLeading;
use crate::plan::{Notice, Subject};
use crate::reason::Reason;

/// Events of either type that wait to be sent. More are dropped: they tell what status and audit trail say as well.
const WAITING: usize = 1024;

/// So many Events that all is well may be sent at once after a rest.
const BURST: u32 = 25;

/// And then one in this time.
const PACE: Duration = Duration::from_millis(200);

/// The object an Event is about.
pub struct Regarding(ObjectReference);

impl Regarding {
    /// A SealedEnv.
    pub fn sealed_env(namespace: &str, name: &str, uid: &str) -> Self {
        Self(ObjectReference {
            api_version: Some(names::API_VERSION.to_owned()),
            kind: Some("SealedEnv".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        })
    }

    /// The SealingKey.
    pub fn sealing_key() -> Self {
        Self(ObjectReference {
            api_version: Some(names::API_VERSION.to_owned()),
            kind: Some("SealingKey".to_owned()),
            name: Some(names::CLUSTER_KEY.to_owned()),
            ..ObjectReference::default()
        })
    }
}

pub(crate) type Told = (ObjectReference, Event);

/// A handle for workers.
#[derive(Clone)]
pub struct Notices {
    warnings: mpsc::Sender<Told>,
    normal: mpsc::Sender<Told>,
}

impl Notices {
    /// Starts the sender. It ends when the last handle is dropped.
    pub fn start(client: Client, instance: Option<String>) -> Self {
        let (notices, warnings, normal) = Self::queues(WAITING);
        let recorder = Recorder::new(client, Reporter { controller: crate::ACTOR.to_owned(), instance });
        tokio::spawn(in_turn(warnings, normal, async move |(regarding, event): Told| {
            match recorder.publish(&event, &regarding).await {
                // The new leader tells what it does itself.
                Err(error) if !NotLeading::is_in(&error) => {
                    tracing::warn!(
                        namespace = regarding.namespace,
                        object = regarding.name,
                        error = chain(&error),
                        reason = event.reason,
                        "an Event was not sent"
                    );
                }
                _ => {}
            }
        }));
        notices
    }

    /// A handle whose Events go nowhere, for tests.
    pub fn nowhere() -> Self {
        Self::queues(1).0
    }

    pub(crate) fn queues(waiting: usize) -> (Self, mpsc::Receiver<Told>, mpsc::Receiver<Told>) {
        let ((warnings, first), (normal, second)) = (mpsc::channel(waiting), mpsc::channel(waiting));
        (Self { warnings, normal }, first, second)
    }

    /// Tells what a plan says.
    pub fn tell(&self, subject: &Subject<'_>, notices: Vec<Notice>) {
        for notice in notices {
            // What failed and is tried again is logged by who tries it again.
            if notice.warning && notice.reason != Reason::ApiError {
                let (reason, message) = (notice.reason.as_str(), notice.message.as_str());
                tracing::warn!(reason, message, "SealedEnv is told of");
            }
            let regarding = Regarding::sealed_env(subject.namespace, subject.name, subject.uid);
            self.send(regarding, notice.warning, notice.reason.as_str(), notice.message);
        }
    }

    /// Tells that something went as it should.
    pub fn normal(&self, regarding: Regarding, reason: &str, message: String) {
        self.send(regarding, false, reason, message);
    }

    /// Tells that something is wrong.
    pub fn warning(&self, regarding: Regarding, reason: &str, message: String) {
        self.send(regarding, true, reason, message);
    }

    fn send(&self, Regarding(object): Regarding, warning: bool, reason: &str, message: String) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(crate::plan::cut(message, 1000)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let queue = if warning { &self.warnings } else { &self.normal };
        if queue.try_send((object, event)).is_err() {
            tracing::debug!(reason, "an Event was dropped: too many wait");
        }
    }
}

/// Sends what is told until nobody can tell any more: a warning before all else, the rest at its pace.
async fn in_turn<T>(
    mut warnings: mpsc::Receiver<T>,
    mut normal: mpsc::Receiver<T>,
    mut send: impl AsyncFnMut(T),
) {
    let mut pace = Pace::new(Instant::now());
    loop {
        tokio::select! {
            biased;
            Some(warning) = warnings.recv() => send(warning).await,
            Some(one) = async { sleep_until(pace.next()).await; normal.recv().await } => {
                pace.take(Instant::now());
                send(one).await;
            }
            else => return,
        }
    }
}

/// When the next one may go: [`BURST`] at once after a rest, then one each [`PACE`].
struct Pace {
    /// The time up to which all turns are taken.
    taken: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { taken: now.checked_sub(PACE * BURST).unwrap_or(now) }
    }

    fn next(&self) -> Instant {
        self.taken + PACE
    }

    /// Takes a turn. Turns that nobody took are kept up to [`BURST`].
    fn take(&mut self, now: Instant) {
        let least = now.checked_sub(PACE * BURST).unwrap_or(now);
        self.taken = self.taken.max(least) + PACE;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let start = Instant::now() + PACE * BURST * 4;
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            assert!(pace.next() <= start);
            pace.take(start);
        }
        assert_eq!(pace.next(), start + PACE);
        pace.take(start + PACE);
        assert_eq!(pace.next(), start + PACE * 2);
        // However long nothing was told, no more than one burst is saved up.
        let later = start + PACE * BURST * 1000;
        for _ in 0..BURST {
            pace.take(later);
        }
        assert_eq!(pace.next(), later + PACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_overtakes_what_tells_that_all_is_well() {
        let (warnings, first) = mpsc::channel(WAITING);
        let (normal, second) = mpsc::channel(WAITING);
        for _ in 0..200 {
            normal.try_send("well").unwrap();
        }
        let sent = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sent);
        let start = Instant::now();
        let sender = tokio::spawn(in_turn(first, second, async move |one| {
            seen.lock().unwrap().push((one, start.elapsed()));
        }));
        tokio::time::sleep(PACE * 10 + PACE / 2).await;
        warnings.try_send("warning").unwrap();
        tokio::task::yield_now().await;
        {
            let sent = sent.lock().unwrap();
            let (last, before) = sent.split_last().unwrap();
            assert_eq!(last, &("warning", PACE * 10 + PACE / 2), "it waits for no turn");
            assert_eq!(before.len(), BURST as usize + 10);
        }
        drop((warnings, normal));
        sender.await.unwrap();
        assert_eq!(sent.lock().unwrap().len(), 201, "what waits is still sent when nobody can tell any more");
    }
}
