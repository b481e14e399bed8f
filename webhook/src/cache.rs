//! What is known of the SealedEnvs of the cluster: that they exist, and two fields of each.
//!
//! Sealed data is not kept, nor even taken apart: it is skipped while the watch's answers are parsed. An object of an
//! unexpected shape counts as one that says nothing, so that it cannot stop the watch for the others.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use sealedenv_crds::SealedEnv;
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::relist::anew_after_errors;
use sealedenv_runtime::shutdown::Shutdown;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::inject::{Environments, Sighting};

/// Objects on one page of the first list. Each may be 1.5 MiB on the wire.
const PAGE: u32 = 50;

/// The SealedEnvs that exist. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Cache(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    /// By namespace, then by name. Nothing at all before the first list was complete.
    known: Option<HashMap<String, BTreeMap<String, Facts>>>,
    /// What a list that is under way has brought so far.
    listing: HashMap<String, BTreeMap<String, Facts>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    secret_name: Option<Box<str>>,
    delivery: Option<Box<str>>,
}

impl Environments for Cache {
    fn find(&self, namespace: &str, name: &str) -> Sighting {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &state.known else { return Sighting::Unknown };
        match known.get(namespace).and_then(|namespace| namespace.get(name)) {
            Some(facts) => Sighting::Present {
                secret_name: facts.secret_name.as_deref().map(str::to_owned),
                delivery: facts.delivery.as_deref().unwrap_or_default().to_owned(),
            },
            None => Sighting::Absent,
        }
    }
}

impl Cache {
    /// Follows the cluster until `shutdown`; opens `gate` once everything is known.
    ///
    /// Whatever goes wrong is tried again, with growing pauses; what was known stays known meanwhile.
    pub async fn follow(self, client: Client, gate: Gate, shutdown: Shutdown) {
        let api: Api<Stripped> = Api::all(client);
        let config = Config::default().page_size(PAGE);
        let watch = move || watcher::watcher(api.clone(), config.clone()).boxed();
        let events = anew_after_errors(watch).default_backoff();
        tokio::select! {
            () = shutdown.triggered() => {}
            () = self.follow_events(events, gate) => {}
        }
    }

    async fn follow_events(&self, events: impl Stream<Item = watcher::Result<Event<Stripped>>>, gate: Gate) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let complete = matches!(event, Event::InitDone);
                    self.apply(event);
                    if complete && !gate.is_open() {
                        tracing::info!("all SealedEnvs are known");
                        gate.set(true);
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot watch SealedEnvs; trying again"
                    );
                }
            }
        }
    }

    fn apply(&self, event: Event<Stripped>) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State { known, listing } = &mut *state;
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => insert(listing, object),
            Event::InitDone => *known = Some(std::mem::take(listing)),
            Event::Apply(object) => insert(known.get_or_insert_default(), object),
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                if let Some(names) = known.as_mut().and_then(|known| known.get_mut(&namespace)) {
                    names.remove(&object.name_any());
                    if names.is_empty() {
                        known.get_or_insert_default().remove(&namespace);
                    }
                }
            }
        }
    }
}

fn insert(known: &mut HashMap<String, BTreeMap<String, Facts>>, object: Stripped) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    known.entry(namespace).or_default().insert(name, object.facts());
}

/// A SealedEnv without anything that is not needed. What is not of the expected form counts as absent.
#[derive(Clone, Debug, Deserialize)]
struct Stripped {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Lenient<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    delivery: Lenient<Box<str>>,
    #[serde(default)]
    secret: Lenient<Shape>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Shape {
    #[serde(default)]
    name: Lenient<Box<str>>,
}

/// A `T`, or something else that is skipped.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Is(T),
    IsNot(IgnoredAny),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self::IsNot(IgnoredAny)
    }
}

impl<T> Lenient<T> {
    fn get(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::IsNot(_) => None,
        }
    }
}

impl Stripped {
    fn facts(self) -> Facts {
        let spec = self.spec.get().unwrap_or_default();
        Facts {
            secret_name: spec.secret.get().and_then(|shape| shape.name.get()),
            delivery: spec.delivery.get(),
        }
    }
}

impl Resource for Stripped {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        SealedEnv::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        SealedEnv::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        SealedEnv::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        SealedEnv::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_runtime::readiness::Readiness;
    use serde_json::{Value, json};

    fn object(namespace: &str, name: &str, spec: &Value) -> Stripped {
        let object = json!({
            "apiVersion": "sealedenv.dev/v1alpha1",
            "kind": "SealedEnv",
            "metadata": {"namespace": namespace, "name": name},
            "spec": spec
        });
        serde_json::from_value(object).unwrap()
    }

    fn present(secret_name: Option<&str>, delivery: &str) -> Sighting {
        Sighting::Present { secret_name: secret_name.map(str::to_owned), delivery: delivery.to_owned() }
    }

    async fn follow(cache: &Cache, gate: &Gate, events: Vec<watcher::Result<Event<Stripped>>>) {
        cache.follow_events(futures::stream::iter(events), gate.clone()).await;
    }

    #[tokio::test]
    async fn it_knows_what_the_watch_said_last() {
        let (cache, gate) = (Cache::default(), Readiness::new().gate("cache"));
        let env = |name: &str, spec: Value| object("shop", name, &spec);
        let listed = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(env("a", json!({"delivery": "Secret", "data": {"K": "sealed:v1:x"}})))),
            Ok(Event::InitApply(env("b", json!({"secret": {"name": "b2", "type": "Opaque"}})))),
        ];
        follow(&cache, &gate, listed).await;
        assert_eq!(cache.find("shop", "a"), Sighting::Unknown, "the list is not complete");
        assert!(!gate.is_open());
        follow(&cache, &gate, vec![Ok(Event::InitDone)]).await;
        assert!(gate.is_open());
        assert_eq!(cache.find("shop", "a"), present(None, "Secret"));
        assert_eq!(cache.find("shop", "b"), present(Some("b2"), ""));
        assert_eq!(cache.find("other", "a"), Sighting::Absent);

        let changes = vec![
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Apply(env("a", json!({"delivery": "Memory"})))),
            Ok(Event::Apply(env("c", json!({})))),
            Ok(Event::Delete(env("b", json!({})))),
            Ok(Event::Delete(object("nowhere", "b", &json!({})))),
        ];
        follow(&cache, &gate, changes).await;
        assert_eq!(cache.find("shop", "a"), present(None, "Memory"));
        assert_eq!(cache.find("shop", "c"), present(None, ""));
        assert_eq!(cache.find("shop", "b"), Sighting::Absent);

        // A new list counts only when it is complete, and then it alone.
        follow(&cache, &gate, vec![Ok(Event::Init), Ok(Event::InitApply(env("d", json!({}))))]).await;
        assert_eq!(cache.find("shop", "d"), Sighting::Absent);
        assert_eq!(cache.find("shop", "c"), present(None, ""));
        follow(&cache, &gate, vec![Ok(Event::InitDone)]).await;
        assert_eq!(cache.find("shop", "d"), present(None, ""));
        assert_eq!(cache.find("shop", "c"), Sighting::Absent);
    }

    #[test]
    fn an_object_of_any_shape_is_read() {
        for spec in [
            json!(null),
            json!(5),
            json!([]),
            json!("x"),
            json!({"delivery": 7, "secret": "x"}),
            json!({"delivery": {}, "secret": {"name": ["x"]}}),
            json!({"secret": null, "data": {"A": {"deep": [1]}}}),
        ] {
            assert_eq!(object("shop", "a", &spec).facts(), Facts::default(), "{spec}");
        }
        let without: Stripped = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(without.facts(), Facts::default());
        let half = object("shop", "a", &json!({"delivery": 7, "secret": {"name": "x", "immutable": "?"}}));
        assert_eq!(half.facts().secret_name.as_deref(), Some("x"));
    }
}
