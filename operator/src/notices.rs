//! Kubernetes Events, told aside: telling never holds up or fails the work.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sealedenv_crds::names;
use sealedenv_runtime::report::chain;
use tokio::sync::mpsc;

use crate::leader::NotLeading;
use crate::plan::{Notice, Subject};

/// Events that wait to be sent. More are dropped: they tell what status and audit trail say as well.
const WAITING: usize = 1024;

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

/// A handle for workers.
#[derive(Clone)]
pub struct Notices(mpsc::Sender<(ObjectReference, Event)>);

impl Notices {
    /// Starts the sender. It ends when the last handle is dropped.
    pub fn start(client: Client, instance: Option<String>) -> Self {
        let (send, mut receive) = mpsc::channel::<(ObjectReference, Event)>(WAITING);
        let recorder = Recorder::new(client, Reporter { controller: crate::ACTOR.to_owned(), instance });
        tokio::spawn(async move {
            while let Some((regarding, event)) = receive.recv().await {
                match recorder.publish(&event, &regarding).await {
                    // The new leader tells what it does itself.
                    Err(error) if !NotLeading::is_in(&error) => tracing::warn!(
                        namespace = regarding.namespace,
                        object = regarding.name,
                        error = chain(&error),
                        reason = event.reason,
                        "an Event was not sent"
                    ),
                    _ => {}
                }
            }
        });
        Self(send)
    }

    /// A handle whose Events go nowhere, for tests.
    pub fn nowhere() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Tells what a plan says.
    pub fn tell(&self, subject: &Subject<'_>, notices: Vec<Notice>) {
        for notice in notices {
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
        if self.0.try_send((object, event)).is_err() {
            tracing::debug!(reason, "an Event was dropped: too many wait");
        }
    }
}
