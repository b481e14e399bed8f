//! The key of the digests and its Secret: read or made at start, and put back when somebody deletes it.
//!
//! Replicas that start find it there. Without it they would wait for a leader to make one, or make another, under which
//! no digest compares with those that stand in status and trail.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use sealedenv_crds::names;

use super::store::{KeysError, api};
use crate::apply::wipe;
use crate::digest::DigestKey;
use crate::leader::Leadership;
use crate::notices::{Notices, Regarding};

pub(super) const FIELD: &str = "key";

const RESTORED: &str = "Secret sealedenv-digest-key was deleted by somebody else and is put back";

const ANOTHER: &str = "Secret sealedenv-digest-key does not hold the key of the digests that is in use. The operator goes on with the one in memory until it starts anew; delete the Secret to have that one put back";

/// The key as it is in the cluster, and as this process uses it.
pub(super) struct Digests {
    client: Client,
    namespace: String,
    leadership: Leadership,
    notices: Notices,
    /// The key in use: what was found or made at start, whatever the Secret becomes.
    used: OnceLock<Arc<DigestKey>>,
    /// The version of the Secret that was told not to hold it.
    told: Mutex<Option<String>>,
}

/// The Secret, as it was read.
struct Found {
    version: String,
    key: Option<DigestKey>,
}

impl Digests {
    pub(super) fn new(client: Client, namespace: String, leadership: Leadership, notices: Notices) -> Self {
        Self { client, namespace, leadership, notices, used: OnceLock::new(), told: Mutex::default() }
    }

    /// The key. The leader makes it when it is not there; to a standby it is then none.
    pub(super) async fn key(&self) -> Result<Option<Arc<DigestKey>>, KeysError> {
        // Another replica can be faster: then its key counts.
        for _ in 0..2 {
            if let Some(found) = self.read().await? {
                let key = Arc::new(found.key.ok_or(KeysError::DigestKey)?);
                return Ok(Some(Arc::clone(self.used.get_or_init(|| key))));
            }
            if !self.leadership.leads() {
                return Ok(None);
            }
            self.create(&DigestKey::generate().map_err(KeysError::Random)?).await?;
        }
        Err(KeysError::DigestKey)
    }

    /// Puts the key in use back when its Secret is gone. Another key under its name is neither used nor overwritten:
    /// whoever put it there is told. For the leader.
    pub(super) async fn keep(&self) -> Result<(), KeysError> {
        let Some(used) = self.used.get() else { return Ok(()) };
        match self.read().await? {
            None => {
                if self.create(used).await? {
                    tracing::warn!("{RESTORED}");
                    self.notices.normal(Regarding::sealing_key(), "DigestKeyRestored", RESTORED.to_owned());
                }
            }
            Some(Found { key: Some(key), .. }) if key.is(used) => {}
            Some(Found { version, .. }) => {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(version.clone());
                if told.as_ref() != Some(&version) {
                    tracing::error!("{ANOTHER}");
                    self.notices.warning(Regarding::sealing_key(), "DigestKeyChanged", ANOTHER.to_owned());
                }
            }
        }
        Ok(())
    }

    async fn read(&self) -> Result<Option<Found>, KeysError> {
        let found = self.secrets().get_opt(names::DIGEST_KEY_SECRET).await;
        let Some(mut secret) = found.map_err(api("reading the digest key"))? else { return Ok(None) };
        let bytes = secret.data.as_ref().and_then(|data| data.get(FIELD)).map(|b| b.0.as_slice());
        let key = bytes.and_then(DigestKey::read);
        wipe(&mut secret);
        Ok(Some(Found { version: secret.resource_version().unwrap_or_default(), key }))
    }

    /// Whether the Secret was made; false when there is one by now.
    async fn create(&self, key: &DigestKey) -> Result<bool, KeysError> {
        let mut secret = Secret {
            immutable: Some(true),
            data: Some([(FIELD.to_owned(), ByteString(key.expose().to_vec()))].into()),
            ..Secret::default()
        };
        secret.metadata.name = Some(names::DIGEST_KEY_SECRET.to_owned());
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        let created = self.secrets().create(&params, &secret).await;
        wipe(&mut secret);
        match created {
            Ok(mut created) => wipe(&mut created),
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
            Err(error) => return Err(api("creating the digest key")(error)),
        }
        Ok(true)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::leader::clock::Steady;

    /// An API server that keeps one Secret.
    #[derive(Clone, Default)]
    struct Server {
        secret: Arc<Mutex<Option<Value>>>,
        writes: Arc<Mutex<usize>>,
    }

    impl Server {
        async fn answer(self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let mut secret = self.secret.lock().unwrap();
            let (code, answer) = match (&parts.method, secret.clone()) {
                (&Method::GET, Some(secret)) => (200, secret),
                (&Method::GET, None) => {
                    (404, json!({"code": 404, "status": "Failure", "reason": "NotFound"}))
                }
                (&Method::POST, None) => {
                    let mut new: Value = serde_json::from_slice(&body).unwrap();
                    let mut writes = self.writes.lock().unwrap();
                    *writes += 1;
                    new["metadata"]["resourceVersion"] = writes.to_string().into();
                    *secret = Some(new.clone());
                    (201, new)
                }
                _ => (409, json!({"code": 409, "status": "Failure", "reason": "AlreadyExists"})),
            };
            let body = Body::from(answer.to_string().into_bytes());
            Ok(Response::builder().status(code).body(body).unwrap())
        }

        fn replica(&self, leadership: Leadership) -> (Digests, tokio::sync::mpsc::Receiver<impl Sized>) {
            let server = self.clone();
            let service = tower::service_fn(move |request| server.clone().answer(request));
            let (notices, warnings, _) = Notices::queues(8);
            (Digests::new(Client::new(service, "system"), "system".into(), leadership, notices), warnings)
        }

        fn put(&self, version: &str, key: &str) {
            let secret = json!({"metadata": {"resourceVersion": version}, "data": {FIELD: key}});
            *self.secret.lock().unwrap() = Some(secret);
        }

        fn key(&self) -> Option<Value> {
            self.secret.lock().unwrap().as_ref().map(|secret| secret["data"][FIELD].clone())
        }
    }

    #[tokio::test]
    async fn a_digest_key_that_was_deleted_is_put_back_and_a_new_replica_finds_it() {
        let server = Server::default();
        let (leader, _) = server.replica(Leadership::alone());
        leader.keep().await.unwrap();
        assert_eq!(server.key(), None, "before the start there is nothing to put back");
        let used = leader.key().await.unwrap().unwrap();
        let made = server.key();
        *server.secret.lock().unwrap() = None;
        leader.keep().await.unwrap();
        assert_eq!(server.key(), made);
        let (new, _) = server.replica(Leadership::elected(Steady::system()));
        assert!(new.key().await.unwrap().unwrap().is(&used));
        leader.keep().await.unwrap();
        assert_eq!(*server.writes.lock().unwrap(), 2, "one that is there is not written again");
    }

    #[tokio::test]
    async fn another_digest_key_is_told_of_once_and_neither_used_nor_overwritten() {
        let server = Server::default();
        let (leader, mut warnings) = server.replica(Leadership::alone());
        let used = leader.key().await.unwrap().unwrap();
        for (version, key) in [("7", "A".repeat(43) + "="), ("8", "c2hvcnQ=".to_owned())] {
            server.put(version, &key);
            for _ in 0..2 {
                leader.keep().await.unwrap();
            }
            assert_eq!(server.key(), Some(key.into()));
            assert!(warnings.try_recv().is_ok());
            assert!(warnings.try_recv().is_err(), "said once");
        }
        server.put("9", &("A".repeat(43) + "="));
        assert!(leader.key().await.unwrap().unwrap().is(&used), "in this process it is the same to its end");
    }
}
