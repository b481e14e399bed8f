//! The Lease in the operator's namespace: read, watched, written. Each write has the version it was decided on as its
//! precondition.

use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use sealedenv_crds::names;
use sealedenv_runtime::report::chain;
use serde_json::{Value, json};

use super::decide::Seen;

/// Why the Lease was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It is not what was seen any more, or is there already.
    #[error("the Lease changed meanwhile")]
    Conflict,
    /// The API server refused or did not answer.
    #[error("reaching the Lease {}", names::LEASE)]
    Api(#[source] Box<kube::Error>),
    /// There was no answer in time.
    #[error("the API server did not answer about the Lease {} in time", names::LEASE)]
    Late,
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 || status.code == 404 => Self::Conflict,
            _ => Self::Api(Box::new(error)),
        }
    }
}

/// The Lease, for one replica.
pub struct LeaseApi {
    api: Api<Lease>,
    me: String,
    lasts: Duration,
    answer: Duration,
}

impl LeaseApi {
    /// The Lease of a namespace. `me` is what stands in it while we hold it, `lasts` for how long it then lasts, and an
    /// answer about it may take as long as `answer`.
    pub fn new(client: Client, namespace: &str, me: String, lasts: Duration, answer: Duration) -> Self {
        Self { api: Api::namespaced(client, namespace), me, lasts, answer }
    }

    /// How it stands; none when it is not there.
    pub(super) async fn read(&self) -> Result<Option<Seen>, LeaseError> {
        let read = self.in_time(self.api.get_opt(names::LEASE)).await?;
        Ok(read.as_ref().map(seen))
    }

    /// Every state of it that a watch shows. Its errors are for the log only: [`LeaseApi::read`] is there as well.
    pub(super) fn watch(&self) -> impl Stream<Item = Option<Seen>> + Send + use<> {
        watch_object(self.api.clone(), names::LEASE).default_backoff().filter_map(async |event| match event {
            Ok(lease) => Some(lease.as_ref().map(seen)),
            Err(error) => {
                tracing::debug!(error = chain(&error), "the watch of the Lease is interrupted");
                None
            }
        })
    }

    pub(super) async fn create(&self) -> Result<Seen, LeaseError> {
        let mut lease = Lease { spec: Some(self.held(0)), ..Lease::default() };
        lease.metadata.name = Some(names::LEASE.to_owned());
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        self.in_time(self.api.create(&params, &lease)).await.map(|l| seen(&l))
    }

    pub(super) async fn take(&self, version: &str, transitions: i32) -> Result<Seen, LeaseError> {
        self.patch(version, &json!(self.held(transitions))).await
    }

    pub(super) async fn renew(&self, version: &str) -> Result<Seen, LeaseError> {
        let renewed = json!({"renewTime": now(), "leaseDurationSeconds": self.seconds()});
        self.patch(version, &renewed).await
    }

    pub(super) async fn release(&self, version: &str) -> Result<Seen, LeaseError> {
        self.patch(version, &json!({"holderIdentity": null, "renewTime": now()})).await
    }

    async fn patch(&self, version: &str, spec: &Value) -> Result<Seen, LeaseError> {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        self.in_time(self.api.patch(names::LEASE, &params, &Patch::Merge(&patch))).await.map(|l| seen(&l))
    }

    async fn in_time<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        match tokio::time::timeout(self.answer, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LeaseError::Late),
        }
    }

    /// The times in it are for people: no replica reckons with them.
    fn held(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(self.seconds()),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.lasts.as_secs()).unwrap_or(i32::MAX)
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// What matters of a Lease. Anybody may have edited it: nothing in it is taken for granted.
fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.filter(|h| !h.is_empty()),
        lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_lease_is_read_without_trust() {
        let lease = |spec: Value| -> Lease {
            serde_json::from_value(json!({"metadata": {"resourceVersion": "7"}, "spec": spec})).unwrap()
        };
        let odd =
            seen(&lease(json!({"holderIdentity": "", "leaseDurationSeconds": -5, "leaseTransitions": -1})));
        assert_eq!(odd, Seen { version: "7".into(), holder: None, lasts: Duration::ZERO, transitions: -1 });
        let held = seen(&lease(json!({"holderIdentity": "a_1", "leaseDurationSeconds": 15})));
        assert_eq!((held.holder.as_deref(), held.lasts), (Some("a_1"), Duration::from_secs(15)));
        assert_eq!(seen(&Lease::default()).holder, None);
    }
}
