//! Keeps the status of SealedEnvs told about the pods that hold them.
//!
//! Every replica answers pods, so every replica tells: with a write that holds only on the version that was read, on the
//! part of the status that nobody else decides. What comes within a few seconds goes into one write. Nothing depends on
//! it: what is lost is told when the pod asks again, a minute later.

mod pages;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use sealedenv_crds::{SealedEnv, SealedEnvStatus};
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::pages::{LOOK, Page, Pages};
use super::consumers::{Seen, Tally, after, newly_refused, tally};
use super::metrics::Deliveries;
use crate::apply::merge_patch;
use crate::clock::Clock;
use crate::notices::{Notices, Regarding};

/// What may wait to be noted. More is dropped.
const WAITING: usize = 4096;

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// A pod asks every minute. One that was heard of within this time is there.
const QUIET: Duration = Duration::from_mins(3);

/// Longest time for one SealedEnv.
const WRITE: Duration = Duration::from_secs(20);

/// Tries of a write that somebody else was faster than.
const TRIES: usize = 4;

/// Field manager of these writes.
const MANAGER: &str = "sealedenv-delivery";

/// Reason of the Events.
const REFUSED: &str = "DeliveryRefused";

/// A handle for who answers pods.
#[derive(Clone)]
pub struct Book(mpsc::Sender<News>);

/// What it is told.
enum News {
    Answered(Note),
    /// A SealedEnv whose status tells of pods. They may all be gone, and then none of them asks.
    Listed(Env, Tally),
}

/// A pod was answered.
struct Note {
    env: Env,
    seen: Seen,
    is_told: bool,
}

/// A SealedEnv by its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Env {
    namespace: String,
    name: String,
}

#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error("reading the SealedEnv")]
    Read(#[source] kube::Error),
    #[error("looking for a pod")]
    Pod(#[source] kube::Error),
    #[error("writing the status")]
    Write(#[source] kube::Error),
    #[error("reading a status made here")]
    Status(#[source] serde_json::Error),
    #[error("others wrote the status at the same time, again and again")]
    Conflicts,
    #[error("the API server took longer than {} s", WRITE.as_secs())]
    Time,
}

/// What writes.
struct Writer {
    client: Client,
    clock: Clock,
    notices: Notices,
    metrics: Deliveries,
}

impl Book {
    /// Starts it, with a client that writes without leadership.
    pub fn start(
        client: Client,
        clock: Clock,
        notices: Notices,
        metrics: Deliveries,
        shutdown: Shutdown,
    ) -> (Self, JoinHandle<()>) {
        let (send, news) = mpsc::channel(WAITING);
        let writer = Writer { client, clock, notices, metrics };
        (Self(send), tokio::spawn(writer.run(news, shutdown)))
    }

    /// One that tells nobody, for tests.
    pub fn nowhere() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Notes what a pod was answered about a SealedEnv that was just read.
    pub(super) fn note(&self, env: &SealedEnv, seen: Seen) {
        let is_told = seen.is_told(env.status.as_ref());
        let env = Env { namespace: env.namespace().unwrap_or_default(), name: env.name_any() };
        // Full: the pod asks again.
        let _ = self.0.try_send(News::Answered(Note { env, seen, is_told }));
    }

    /// Sees to it that pods in the status of a SealedEnv are looked for, whether any asks here or not.
    pub(crate) fn listed(&self, env: &SealedEnv) {
        let Some(status) = env.status.as_ref().filter(|status| !status.consumers.is_empty()) else { return };
        let tally = tally(status);
        let env = Env { namespace: env.namespace().unwrap_or_default(), name: env.name_any() };
        // Full: it comes again with the next change, or when a pod of it asks.
        let _ = self.0.try_send(News::Listed(env, tally));
    }
}

impl Writer {
    async fn run(self, mut news: mpsc::Receiver<News>, shutdown: Shutdown) {
        let mut pages = Pages::default();
        let mut batch = Vec::new();
        loop {
            let next = pages.next().map(|(env, due)| (env.clone(), due));
            let due = async {
                match &next {
                    Some((_, due)) => sleep_until(*due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.triggered() => return,
                () = due => {
                    if let Some((env, _)) = next {
                        self.turn(&mut pages, &env).await;
                        self.metrics.pods(pages.sum());
                    }
                }
                // Behind what is due, which many notes would hold up for ever.
                taken = news.recv_many(&mut batch, WAITING) => {
                    if taken == 0 {
                        return;
                    }
                    let now = Instant::now();
                    batch.drain(..).for_each(|news| match news {
                        News::Answered(note) => pages.take(note, now),
                        News::Listed(env, tally) => pages.list(env, tally, now),
                    });
                    self.metrics.pods(pages.sum());
                }
            }
        }
    }

    /// Writes what is new of one SealedEnv. Its page goes where nobody holds it any more.
    async fn turn(&self, pages: &mut Pages, env: &Env) {
        let Some(page) = pages.get_mut(env) else { return };
        let now = Instant::now();
        // Also where news never end, as of pods that a CronJob makes.
        let look = now - page.looked >= LOOK;
        let told = timeout(WRITE, self.tell(env, page, look)).await.unwrap_or(Err(TellError::Time));
        match told {
            Ok(Some(status)) if !status.consumers.is_empty() => {
                if look {
                    page.looked = now;
                }
                page.due = page.looked + LOOK;
                page.news.clear();
                page.heard.retain(|uid, _| status.consumers.iter().any(|one| one.uid == *uid));
                pages.count(env, tally(&status));
            }
            Ok(_) => pages.remove(env),
            Err(error) => {
                page.due = Instant::now() + AGAIN;
                tracing::warn!(
                    namespace = env.namespace,
                    name = env.name,
                    error = chain(&error),
                    "the status does not tell which pods hold the values"
                );
            }
        }
    }

    /// The status as it stands afterwards; none where the SealedEnv is gone.
    async fn tell(&self, env: &Env, page: &Page, look: bool) -> Result<Option<SealedEnvStatus>, TellError> {
        let envs: Api<SealedEnv> = Api::namespaced(self.client.clone(), &env.namespace);
        for _ in 0..TRIES {
            let Some(found) = envs.get_opt(&env.name).await.map_err(TellError::Read)? else {
                return Ok(None);
            };
            let old = found.status.clone().unwrap_or_default();
            let gone = if look { self.gone(env, page, &old).await? } else { BTreeSet::new() };
            let generation = found.metadata.generation;
            let new = after(&old, page.news.values(), &gone, generation, self.clock.now());
            let json = |status: &SealedEnvStatus| serde_json::to_value(status).map_err(TellError::Status);
            let Some(change) = merge_patch(&json(&old)?, &json(&new)?) else { return Ok(Some(old)) };
            let meta = &found.metadata;
            let patch = json!({
                "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
                "status": change,
            });
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match envs.patch_status(&env.name, &params, &Patch::Merge(&patch)).await {
                Ok(_) => {
                    self.report(env, &found, newly_refused(&old, &new));
                    return Ok(Some(new));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(TellError::Write(error)),
            }
        }
        Err(TellError::Conflicts)
    }

    fn report<'a>(&self, env: &Env, found: &SealedEnv, refused: impl Iterator<Item = (&'a str, &'a str)>) {
        let uid = found.metadata.uid.as_deref().unwrap_or_default();
        for (pod, reason) in refused {
            let regarding = Regarding::sealed_env(&env.namespace, &env.name, uid);
            let message = format!("refused to pod {pod} ({reason}); it keeps what it has been given");
            self.notices.warning(regarding, REFUSED, message);
        }
    }

    /// UIDs of pods in the status that are not there any more.
    async fn gone(
        &self,
        env: &Env,
        page: &Page,
        status: &SealedEnvStatus,
    ) -> Result<BTreeSet<String>, TellError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &env.namespace);
        let now = Instant::now();
        let mut gone = BTreeSet::new();
        for consumer in &status.consumers {
            if page.heard.get(&consumer.uid).is_some_and(|at| now - *at < QUIET) {
                continue;
            }
            let found = pods.get_metadata_opt(&consumer.pod).await.map_err(TellError::Pod)?;
            if found.and_then(|pod| pod.metadata.uid).as_ref() != Some(&consumer.uid) {
                gone.insert(consumer.uid.clone());
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
