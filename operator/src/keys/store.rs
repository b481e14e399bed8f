//! Key Secrets and the SealingKey: reading, making, telling. The digest key's Secret is looked after along with them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use sealedenv_audit::{Action, Actor, ActorKind, ObjectRef, Outcome, Record};
use sealedenv_crds::{SealingKey, SealingKeySpec, SealingKeyStatus, names};
use sealedenv_seal::{Identity, Keyring, Plain};
use serde_json::json;
use tokio::sync::watch;

use super::Ring;
use super::decide::{self, Generate, KeyFact, KeyReport, NoKey, Start};
use super::digests::{self, Digests};
use crate::apply::{merge_patch, plain, wipe};
use crate::arrival::Arrival;
use crate::clock::Clock;
use crate::controller::Extent;
use crate::digest::DigestKey;
use crate::leader::{Leadership, NotLeading};
use crate::metrics::Metrics;
use crate::notices::{Notices, Regarding};
use crate::trail::{NotRecorded, Trail};
use sealedenv_runtime::report::chain;

/// Why keys could not be loaded, made or told of.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There is no key to work with.
    #[error("{}", no_key(*.0))]
    NoKey(NoKey),
    /// The API server refused or did not answer.
    #[error("{doing}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The digest key's Secret does not hold a key.
    #[error(
        "reading Secret {}: it does not hold {} bytes under {}",
        names::DIGEST_KEY_SECRET,
        DigestKey::LEN,
        digests::FIELD
    )]
    DigestKey,
    /// It is for another replica to do.
    #[error("changing the sealing keys")]
    NotLeading(#[source] NotLeading),
    /// The system gave no random bytes.
    #[error("making a digest key")]
    Random(#[source] getrandom::Error),
}

impl KeysError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoKey(NoKey::GenerationOff) => Some(
                "restore a key Secret (label sealedenv.dev/sealing-key=cluster) into the operator's namespace, or start once with --generate-key=auto",
            ),
            Self::NoKey(NoKey::Lost) => Some(
                "restore the key Secrets (label sealedenv.dev/sealing-key=cluster) from a backup; if the key is lost for good and every value will be sealed anew, start once with --generate-key=always",
            ),
            Self::DigestKey => Some(
                "delete that Secret to have a new one made; digests in status and audit then change once",
            ),
            Self::Api { .. } | Self::NotLeading(_) | Self::Random(_) => None,
        }
    }
}

impl KeysError {
    /// Whether the same may succeed later without anybody's doing: the API server is away or busy, or leadership moved.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
            Self::NotLeading(_) => true,
            Self::NoKey(_) | Self::DigestKey | Self::Random(_) => false,
        }
    }
}

fn no_key(why: NoKey) -> &'static str {
    match why {
        NoKey::GenerationOff => "there is no sealing key, and making one is switched off",
        NoKey::Lost => "there is no sealing key, but sealed values or the SealingKey show that there was one",
    }
}

pub(super) fn api(doing: &'static str) -> impl FnOnce(kube::Error) -> KeysError {
    move |source| KeysError::Api { doing, source: Box::new(source) }
}

/// The keys of the cluster.
pub struct Keys {
    client: Client,
    namespace: String,
    clock: Clock,
    trail: Trail,
    notices: Notices,
    leadership: Leadership,
    metrics: Metrics,
    ring: RwLock<Arc<Ring>>,
    changed: watch::Sender<String>,
    /// The set of keys whose changes the trail was told of.
    told: Mutex<String>,
    /// Fingerprints of the keys that this process made, and has on record as such.
    made: Mutex<Vec<String>>,
    digests: Digests,
}

/// What was read from the key Secrets.
struct Loaded {
    keyring: Keyring,
    facts: Vec<KeyFact>,
    unusable: Vec<(String, String)>,
}

impl Keys {
    /// No keys yet; [`Keys::start`] loads them. Only the replica that leads makes keys and tells of them.
    pub fn new(
        client: Client,
        namespace: String,
        clock: Clock,
        trail: Trail,
        notices: Notices,
        leadership: Leadership,
    ) -> Self {
        let digests = Digests::new(client.clone(), namespace.clone(), leadership.clone(), notices.clone());
        Self {
            digests,
            client,
            namespace,
            clock,
            trail,
            notices,
            leadership,
            metrics: Metrics::default(),
            ring: RwLock::new(Arc::new(Ring::new(Keyring::new(Vec::new())))),
            changed: watch::Sender::new(String::new()),
            told: Mutex::default(),
            made: Mutex::default(),
        }
    }

    pub(super) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Tells of the keys in these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The keys at this moment.
    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses another set of keys from now on, and tells who waits for that.
    pub fn replace(&self, ring: Ring) {
        let fingerprint = ring.fingerprint.clone();
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        self.changed.send_replace(fingerprint);
    }

    /// Tells when the set of keys changes.
    pub fn subscribe(&self) -> watch::Receiver<String> {
        self.changed.subscribe()
    }

    /// Decides whether the operator can start (I3), and loads the keys if so. `extents` is where sealed values are
    /// looked for that would show that a key was lost.
    ///
    /// Every replica decides by itself, before it stands for election: without a key none of them runs. Only the making
    /// of the first key is left to the leader; call this again until it says [`Start::Go`].
    ///
    /// # Errors
    /// [`KeysError::NoKey`] when there is no key to work with.
    pub async fn start(&self, generate: Generate, extents: &[Extent]) -> Result<Start, KeysError> {
        let loaded = self.load().await?;
        for (secret, why) in &loaded.unusable {
            tracing::error!(secret, why, "key Secret holds no usable identity");
        }
        if loaded.facts.is_empty() {
            let sealed_values = self.sealed_values_exist(extents).await?;
            let status = self.sealing_key().await?.and_then(|k| k.status).unwrap_or_default();
            let were_there = !status.keys.is_empty() || !loaded.unusable.is_empty();
            match decide::start(0, generate, sealed_values, were_there) {
                // Another replica can have made the first key, and somebody sealed to it, since the keys were listed.
                Start::Refuse(why) if self.load().await?.facts.is_empty() => {
                    return Err(KeysError::NoKey(why));
                }
                Start::MakeFirst if self.leadership.leads() => self.make(None, &[]).await?,
                Start::MakeFirst => return Ok(Start::MakeFirst),
                Start::Refuse(_) | Start::Go => {}
            }
        }
        self.sync().await?;
        Ok(Start::Go)
    }

    /// Brings ring, rotation, status and the key of the digests in line with what is in the cluster. Called whenever a
    /// key Secret, the digest key's Secret or the SealingKey changes, and when this replica begins to lead; calling it once more
    /// changes nothing. A standby only loads the ring.
    ///
    /// # Errors
    /// When the API server refuses; try again later.
    pub async fn sync(&self) -> Result<(), KeysError> {
        let loaded = self.load().await?;
        if !self.leadership.leads() {
            if !loaded.facts.is_empty() {
                self.use_ring(Ring::new(loaded.keyring), loaded.facts.len());
            }
            return Ok(());
        }
        // Neither is to wait for what is wrong with the other.
        let kept = self.digests.keep().await;
        self.lead(loaded).await.and(kept)
    }

    /// Rotates where that is asked for, uses the keys, and tells of them.
    async fn lead(&self, mut loaded: Loaded) -> Result<(), KeysError> {
        let key = self.ensure_sealing_key().await?;
        let old = key.status.clone().unwrap_or_default();
        let annotation =
            |name| key.metadata.annotations.as_ref().and_then(|a| a.get(name)).map(String::as_str);
        let requested = annotation(names::ROTATE);
        if !loaded.facts.is_empty()
            && let Some(request) = decide::rotation(requested, &old, &loaded.facts)
        {
            self.make(Some(request), &loaded.facts).await?;
            loaded = self.load().await?;
        }
        let Loaded { keyring, facts, unusable } = loaded;
        let from_memory = facts.is_empty();
        self.metrics
            .keys(facts.len(), decide::current(&facts).and_then(|key| key.made_at.or(key.created_at)));
        if from_memory {
            // Whoever deleted the last key can still put it back; dropping it now would only hasten the harm.
            tracing::error!("no key Secret holds a usable identity; working on with the keys in memory");
        } else {
            let ring = Ring::new(keyring);
            self.tell(&ring.fingerprint, &old, &facts).await?;
            self.use_ring(ring, facts.len());
        }
        let report = KeyReport {
            generation: key.metadata.generation,
            keys: &facts,
            unusable: &unusable,
            from_memory,
            rotation: requested,
            requested_at: annotation(names::REQUESTED_AT),
        };
        let mut new = decide::status(self.clock.seconds(), &report, &old);
        if from_memory {
            (new.keys, new.current, new.recipients) =
                (old.keys.clone(), old.current.clone(), old.recipients.clone());
        }
        self.write_status(&key, &old, &new).await
    }

    fn use_ring(&self, ring: Ring, keys: usize) {
        if self.ring().fingerprint != ring.fingerprint {
            self.replace(ring);
            tracing::info!(keys, "keys loaded");
        }
    }

    /// Puts on record what the SealingKey does not show yet. It outlives this replica, so nothing is told twice after
    /// another one led; and `told` keeps a status that cannot be written from having it told again and again.
    async fn tell(&self, ring: &str, old: &SealingKeyStatus, facts: &[KeyFact]) -> Result<(), KeysError> {
        if *self.told.lock().unwrap_or_else(PoisonError::into_inner) == ring {
            return Ok(());
        }
        let records = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            let accepted = decide::accepted(facts, old, &made).map(|key| record(Action::KeyAccept, key));
            accepted.chain(decide::retired(facts, old).map(|key| record(Action::KeyRetire, key))).collect()
        };
        match self.trail.record(records).await {
            Ok(()) => {}
            Err(NotRecorded::NotLeading(source)) => return Err(KeysError::NotLeading(source)),
            Err(error) => tracing::error!(error = chain(&error), "a change of keys is not on record"),
        }
        ring.clone_into(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Makes a key, as a Secret that nothing changes.
    async fn make(&self, rotation: Option<&str>, others: &[KeyFact]) -> Result<(), KeysError> {
        let identity = Identity::generate();
        let fingerprint = identity.recipient().fingerprint().to_string();
        let action = if rotation.is_some() { Action::KeyRotate } else { Action::KeyCreate };
        // A key is not a release: rotation goes on while no sink takes records (I5), and says so.
        match self.trail.record(vec![record(action, &fingerprint)]).await {
            Ok(()) => {}
            Err(NotRecorded::NotLeading(source)) => return Err(KeysError::NotLeading(source)),
            Err(error) => {
                tracing::error!(error = chain(&error), fingerprint, "a new sealing key is not on record");
            }
        }

        let made_at = decide::made_at(self.clock.now(), others);
        let mut secret = self.key_secret(&identity, &fingerprint, rotation, made_at);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        let created = secrets.create(&params, &secret).await;
        wipe(&mut secret);
        let mut created = created.map_err(api("creating the Secret of a sealing key"))?;
        wipe(&mut created);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(fingerprint.clone());
        tracing::info!(fingerprint, rotation, "made a sealing key");
        let regarding = Regarding::sealing_key();
        let text = format!("key {fingerprint} is current; values sealed to older keys still open");
        self.notices.normal(regarding, "KeyCreated", text);
        Ok(())
    }

    fn key_secret(
        &self,
        identity: &Identity,
        fingerprint: &str,
        rotation: Option<&str>,
        now: Timestamp,
    ) -> Secret {
        let mut annotations = vec![(names::CREATED_AT.to_owned(), now.to_string())];
        annotations.extend(rotation.map(|r| (names::ROTATION.to_owned(), r.to_owned())));
        let text: Plain = identity.to_text();
        let mut secret = Secret {
            type_: Some(names::SEALING_KEY_SECRET_TYPE.to_owned()),
            immutable: Some(true),
            data: Some([(names::IDENTITY_FIELD.to_owned(), ByteString(text.expose().to_vec()))].into()),
            ..Secret::default()
        };
        secret.metadata.name = Some(format!("{}{fingerprint}", names::KEY_SECRET_PREFIX));
        secret.metadata.namespace = Some(self.namespace.clone());
        secret.metadata.annotations = Some(annotations.into_iter().collect());
        secret.metadata.labels = Some(
            [
                (names::SEALING_KEY.to_owned(), names::CLUSTER_KEY.to_owned()),
                (names::MANAGED_BY.to_owned(), names::MANAGED_BY_VALUE.to_owned()),
            ]
            .into(),
        );
        secret
    }

    async fn load(&self) -> Result<Loaded, KeysError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{}={}", names::SEALING_KEY, names::CLUSTER_KEY));
        let found = secrets.list(&params).await.map_err(api("listing the key Secrets"))?;
        let mut loaded = (Vec::new(), Vec::new(), Vec::new());
        for mut secret in found.items {
            let name = secret.name_any();
            let data = secret.data.take().unwrap_or_default();
            match identity(plain(data)) {
                Err(why) => loaded.2.push((name, why)),
                Ok(identity) => {
                    loaded.1.push(fact(&secret, &identity));
                    loaded.0.push(identity);
                }
            }
        }
        let facts = decide::distinct(loaded.1);
        Ok(Loaded { keyring: Keyring::new(loaded.0), facts, unusable: loaded.2 })
    }

    /// Looks only where the operator watches: it may have no rights elsewhere.
    async fn sealed_values_exist(&self, extents: &[Extent]) -> Result<bool, KeysError> {
        for extent in extents {
            let envs: Api<Arrival> = extent.api(&self.client);
            let mut params = ListParams::default().limit(100);
            loop {
                let page = envs.list(&params).await.map_err(api("looking for sealed values"))?;
                // One that does not decode may hold sealed values: it counts as if it did.
                if page.items.iter().any(|e| e.0.as_ref().map_or(true, |e| !e.spec.data.is_empty())) {
                    return Ok(true);
                }
                match page.metadata.continue_.filter(|c| !c.is_empty()) {
                    Some(next) => params = params.continue_token(&next),
                    None => break,
                }
            }
        }
        Ok(false)
    }

    async fn sealing_key(&self) -> Result<Option<SealingKey>, KeysError> {
        let keys: Api<SealingKey> = Api::all(self.client.clone());
        keys.get_opt(names::CLUSTER_KEY).await.map_err(api("reading the SealingKey"))
    }

    async fn ensure_sealing_key(&self) -> Result<SealingKey, KeysError> {
        if let Some(key) = self.sealing_key().await? {
            return Ok(key);
        }
        let keys: Api<SealingKey> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        let new = SealingKey::new(names::CLUSTER_KEY, SealingKeySpec::default());
        keys.create(&params, &new).await.map_err(api("creating the SealingKey"))
    }

    async fn write_status(
        &self,
        key: &SealingKey,
        old: &SealingKeyStatus,
        new: &SealingKeyStatus,
    ) -> Result<(), KeysError> {
        let value = |s| {
            serde_json::to_value(s)
                .map_err(|e| api("writing the SealingKey's status")(kube::Error::SerdeError(e)))
        };
        let Some(difference) = merge_patch(&value(old)?, &value(new)?) else { return Ok(()) };
        let patch = json!({ "metadata": { "uid": key.metadata.uid }, "status": difference });
        let keys: Api<SealingKey> = Api::all(self.client.clone());
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        keys.patch_status(names::CLUSTER_KEY, &params, &Patch::Merge(&patch))
            .await
            .map_err(api("writing the SealingKey's status"))?;
        Ok(())
    }

    /// The key of all digests. The leader makes it when it is not there; to a standby it is then none.
    ///
    /// # Errors
    /// When the API server refuses, or the Secret does not hold a key.
    pub async fn digest_key(&self) -> Result<Option<Arc<DigestKey>>, KeysError> {
        self.digests.key().await
    }
}

/// A record about a sealing key.
fn record(action: Action, fingerprint: &str) -> Record {
    let actor = Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() };
    let object = ObjectRef {
        kind: "SealingKey".to_owned(),
        namespace: None,
        name: names::CLUSTER_KEY.to_owned(),
        uid: None,
        generation: None,
    };
    Record::new(action, actor, Outcome::Ok).object(object).recipients([fingerprint])
}

/// The identity of a key Secret, or why it is not usable. The reason holds nothing of the content.
fn identity(mut data: std::collections::BTreeMap<String, Plain>) -> Result<Identity, String> {
    let text = data
        .remove(names::IDENTITY_FIELD)
        .ok_or_else(|| format!("it has no data key {}", names::IDENTITY_FIELD))?;
    let text = std::str::from_utf8(text.expose()).map_err(|_| "it is not text".to_owned())?;
    Identity::parse(text.trim()).map_err(|e| e.to_string())
}

fn fact(secret: &Secret, identity: &Identity) -> KeyFact {
    let annotation = |name| secret.metadata.annotations.as_ref().and_then(|a| a.get(name));
    let recipient = identity.recipient();
    KeyFact {
        fingerprint: recipient.fingerprint().to_string(),
        recipient: recipient.to_string(),
        secret_name: secret.name_any(),
        made_at: annotation(names::CREATED_AT).and_then(|t| t.parse().ok()),
        created_at: secret.metadata.creation_timestamp.as_ref().map(|t| t.0),
        rotation: annotation(names::ROTATION).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::client::Body;
    use sealedenv_audit::{FailurePolicy, Log, MemorySink};
    use serde_json::Value;

    use super::*;

    const DIGEST_KEY: &str = "/api/v1/namespaces/system/secrets/sealedenv-digest-key";

    #[tokio::test]
    async fn a_status_that_cannot_be_written_does_not_keep_the_digest_key_from_coming_back() {
        let made = Arc::new(Mutex::new(0));
        let there = Arc::new(Mutex::new(false));
        let service = tower::service_fn({
            let (made, there) = (Arc::clone(&made), Arc::clone(&there));
            move |request: Request<Body>| {
                let is_there = *there.lock().unwrap();
                let (code, answer) = match (request.method(), request.uri().path()) {
                    (&Method::GET, DIGEST_KEY) if !is_there => {
                        (404, json!({"code": 404, "reason": "NotFound"}))
                    }
                    (&Method::GET, DIGEST_KEY) => (200, json!({"data": {"key": "A".repeat(43) + "="}})),
                    (&Method::GET, path) if path.ends_with("/secrets") => {
                        (200, json!({"metadata": {}, "items": []}))
                    }
                    (&Method::GET, path) if path.ends_with("/sealingkeys/cluster") => (
                        200,
                        json!({"apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealingKey",
                            "metadata": {"name": "cluster"}, "spec": {}}),
                    ),
                    (&Method::POST, _) => {
                        *made.lock().unwrap() += 1;
                        *there.lock().unwrap() = true;
                        (201, Value::Object(serde_json::Map::new()))
                    }
                    _ => (500, json!({"code": 500, "reason": "InternalError"})),
                };
                let body = Body::from(answer.to_string().into_bytes());
                std::future::ready(Response::builder().status(code).body(body))
            }
        });
        let (sink, _) = MemorySink::new("memory");
        let log = Log::open(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap();
        let (clock, leadership) = (Clock::system(), Leadership::alone());
        let trail = Trail::new(Arc::new(log), clock.clone(), leadership.clone());
        let client = Client::new(service, "system");
        let keys = Keys::new(client, "system".into(), clock, trail, Notices::nowhere(), leadership);
        keys.digest_key().await.unwrap();
        *there.lock().unwrap() = false;
        let error = keys.sync().await.unwrap_err();
        assert_eq!(error.to_string(), "writing the SealingKey's status");
        assert_eq!(*made.lock().unwrap(), 2, "put back all the same");
    }
}
