//! Tells people about pods that wait for a SealedEnv that does not exist.
//!
//! At admission most pods have no name yet, so the Event is about the pod's controller: the ReplicaSet, Job or
//! StatefulSet that makes it. On the pod itself kubelet reports `FailedMount … secret "x" not found`. Events are only
//! an aid: they are made after the answer, never for a dry run, and when one cannot be made nothing else suffers.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sealedenv_runtime::shutdown::Shutdown;
use tokio::sync::mpsc;

use crate::decision::Waiting;

/// Pods that may wait for their Event; beyond it some get none.
const QUEUE: usize = 64;

/// A queue, and its other end for [`report`].
pub fn queue() -> (mpsc::Sender<Waiting>, mpsc::Receiver<Waiting>) {
    mpsc::channel(QUEUE)
}

/// Makes an Event for each pod in the queue, until `shutdown`.
pub async fn report(client: Client, instance: String, queue: mpsc::Receiver<Waiting>, shutdown: Shutdown) {
    let reporter = Reporter { controller: "sealedenv-webhook".to_owned(), instance: Some(instance) };
    let recorder = Recorder::new(client, reporter);
    tokio::select! {
        () = shutdown.triggered() => {}
        () = report_on(&recorder, queue) => {}
    }
}

async fn report_on(recorder: &Recorder, mut queue: mpsc::Receiver<Waiting>) {
    while let Some(waiting) = queue.recv().await {
        let (event, about) = event(waiting);
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot make an Event");
        }
    }
}

fn event(waiting: Waiting) -> (Event, ObjectReference) {
    let Waiting { namespace, owner, absent } = waiting;
    let names: Vec<_> = absent.iter().take(8).map(|name| format!("{namespace}/{name}")).collect();
    let note = format!(
        "a pod of this {} waits for SealedEnv {}, which does not exist; it starts by itself once the Secret is there",
        owner.kind,
        names.join(", ")
    );
    let event = Event {
        type_: EventType::Warning,
        reason: "SealedEnvMissing".to_owned(),
        note: Some(note),
        action: "Inject".to_owned(),
        secondary: None,
    };
    let about = ObjectReference {
        api_version: Some(owner.api_version),
        kind: Some(owner.kind),
        name: Some(owner.name),
        namespace: Some(namespace),
        uid: Some(owner.uid),
        ..ObjectReference::default()
    };
    (event, about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    #[test]
    fn the_event_is_about_the_controller_and_names_what_is_missing() {
        let owner = OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "app-7d9f".to_owned(),
            uid: "u1".to_owned(),
            ..OwnerReference::default()
        };
        let waiting =
            Waiting { namespace: "shop".to_owned(), owner, absent: vec!["a".to_owned(), "b".to_owned()] };
        let (event, about) = event(waiting);
        assert!(event.note.unwrap().contains("SealedEnv shop/a, shop/b,"));
        assert_eq!((about.kind.as_deref(), about.uid.as_deref()), (Some("ReplicaSet"), Some("u1")));
        assert_eq!((about.name.as_deref(), about.namespace.as_deref()), (Some("app-7d9f"), Some("shop")));
    }
}
