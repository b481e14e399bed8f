//! Follows the key Secrets, the digest key's Secret and the SealingKey, so that an added key is used, a rotation is served and
//! a deleted digest key comes back without a restart.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use sealedenv_crds::{SealingKey, names};
use sealedenv_runtime::shutdown::Shutdown;

use super::store::Keys;
use crate::leader::NotLeading;
use crate::watching::watch;
use sealedenv_runtime::report::chain;

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// Calls [`Keys::sync`] after every change, and when this replica begins to lead, until shutdown. Only metadata is watched:
/// keys are read when they are needed, and an identity is cached nowhere but in the ring.
pub async fn follow(keys: Arc<Keys>, shutdown: Shutdown) {
    let changes = changes(keys.client(), keys.namespace());
    tokio::pin!(changes);
    let mut roles = keys.leadership().roles();
    let mut retry = false;
    loop {
        let changed = tokio::select! {
            () = shutdown.triggered() => return,
            changed = changes.next() => changed,
            role = roles.changed() => role.ok(),
            () = tokio::time::sleep(RETRY), if retry => Some(()),
        };
        if changed.is_none() {
            return;
        }
        retry = match keys.sync().await {
            Ok(()) => false,
            // Leadership was lost meanwhile: its change comes next.
            Err(error) if NotLeading::is_in(&error) => false,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the sealing keys are not in line yet");
                true
            }
        };
    }
}

fn changes(client: &Client, namespace: &str) -> impl Stream<Item = ()> + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let of_keys =
        watcher::Config::default().labels(&format!("{}={}", names::SEALING_KEY, names::CLUSTER_KEY));
    let secrets = watch(secrets, of_keys).touched_objects().filter_map(told);
    let keys: Api<PartialObjectMeta<SealingKey>> = Api::all(client.clone());
    let keys = watch(keys, watcher::Config::default()).touched_objects().filter_map(told);
    let secrets = stream::select(secrets, {
        let named = format!("metadata.name={}", names::DIGEST_KEY_SECRET);
        let of_digests: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
        watch(of_digests, watcher::Config::default().fields(&named)).touched_objects().filter_map(told)
    });
    // Changes that came together need one look.
    stream::select(secrets, keys).ready_chunks(64).map(drop)
}

async fn told<T>(event: Result<T, watcher::Error>) -> Option<()> {
    match event {
        Ok(_) => Some(()),
        Err(error) => {
            tracing::warn!(error = chain(&error), "a watch of the sealing keys is interrupted");
            None
        }
    }
}
