//! How the operator watches: anew after every interruption.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use sealedenv_runtime::relist::anew_after_errors;
use serde::de::DeserializeOwned;

/// Events of a kind, beginning with all that there is, and again so after an error. Pauses after errors grow.
pub(crate) fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    anew_after_errors(move || watcher(api.clone(), config.clone()).boxed()).default_backoff()
}
