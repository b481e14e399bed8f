//! By whom agents recognise the operator: the certificate authorities of its delivery API, which it publishes in a
//! ConfigMap of its own namespace. A pod elsewhere cannot mount that, so the webhook writes them into the pod. They are
//! public.

use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client};
use sealedenv_crds::names;
use sealedenv_runtime::certificate::{read_bundle, to_pem};
use sealedenv_runtime::relist::anew_after_errors;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;

/// The longest bundle that is written into pods, in bytes: far more than there can be of ours.
const LONGEST: usize = 32 << 10;

/// The authorities, as PEM. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Arc<RwLock<Option<Arc<str>>>>);

impl Authorities {
    /// As if these had been published.
    pub fn known(pem: &str) -> Self {
        Self(Arc::new(RwLock::new(Some(pem.into()))))
    }

    /// What is known of them.
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the ConfigMap in the operator's namespace until `shutdown`. What goes wrong is tried again.
    pub async fn follow(self, client: Client, namespace: String, shutdown: Shutdown) {
        let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
        let config = Config::default().fields(&format!("metadata.name={}", names::DELIVERY_CA_BUNDLE));
        let watch = move || watcher::watcher(api.clone(), config.clone()).boxed();
        let events = anew_after_errors(watch).default_backoff();
        tokio::select! {
            () = shutdown.triggered() => {}
            () = self.follow_events(events) => {}
        }
    }

    async fn follow_events(&self, events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>) {
        let mut events = std::pin::pin!(events);
        // Of a list that is under way.
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(map)) => listed = bundle(&map),
                Ok(Event::InitDone) => self.set(listed.take()),
                Ok(Event::Apply(map)) => self.set(bundle(&map)),
                Ok(Event::Delete(_)) => self.set(None),
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot watch the operator's authorities; trying again"
                    );
                }
            }
        }
    }

    fn set(&self, bundle: Option<Arc<str>>) {
        if bundle.is_none() {
            tracing::warn!("the operator's authorities are not known: pods with the agent are not let in");
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = bundle;
    }
}

/// The certificates in a ConfigMap, and nothing else that may stand there.
fn bundle(map: &ConfigMap) -> Option<Arc<str>> {
    let text = map.data.as_ref()?.get(names::CA_BUNDLE_FIELD)?;
    if text.len() > LONGEST {
        return None;
    }
    let bundle: String = read_bundle(text.as_bytes()).iter().map(|certificate| to_pem(certificate)).collect();
    (!bundle.is_empty()).then(|| bundle.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use sealedenv_runtime::certificate::Authority;
    use serde_json::json;
    use std::time::Duration;

    fn authority() -> String {
        Authority::generate("test", Timestamp::now(), Duration::from_hours(1)).unwrap().pem()
    }

    fn map(text: &str) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "x"}, "data": {"ca.crt": text}})).unwrap()
    }

    async fn follow(known: &Authorities, events: Vec<watcher::Result<Event<ConfigMap>>>) -> Option<String> {
        known.follow_events(futures::stream::iter(events)).await;
        known.get().map(|pem| pem.to_string())
    }

    #[tokio::test]
    async fn they_are_what_was_published_last() {
        let known = Authorities::default();
        let (first, second) = (authority(), authority());
        let list = |text: Option<&str>| {
            let map = text.map(|text| Ok(Event::InitApply(map(text))));
            [Ok(Event::Init)].into_iter().chain(map).chain([Ok(Event::InitDone)]).collect::<Vec<_>>()
        };
        assert_eq!(follow(&known, list(None)).await, None);
        assert_eq!(follow(&known, vec![Ok(Event::Apply(map(&first)))]).await, Some(first.clone()));
        let failed = vec![Err(watcher::Error::NoResourceVersion), Ok(Event::Init)];
        assert_eq!(follow(&known, failed).await, Some(first.clone()), "what was known stays known");
        let both = format!("{first}{second}");
        assert_eq!(follow(&known, list(Some(&both))).await, Some(both));
        assert_eq!(follow(&known, vec![Ok(Event::Delete(map(&first)))]).await, None);
    }

    #[test]
    fn only_certificates_get_into_pods() {
        let pem = authority();
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(bundle(&map(&format!("# note\n{pem}{key}"))).as_deref(), Some(pem.as_str()));
        for text in ["", "hello", &key, &format!("{pem}{}", "#".repeat(LONGEST))] {
            assert_eq!(bundle(&map(text)), None, "{text}");
        }
        assert_eq!(bundle(&ConfigMap::default()), None);
    }
}
