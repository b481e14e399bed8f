//! SealedEnvs that do not decode, for example after a CRD was changed by hand: each is reported on itself, and the
//! watch goes on for all others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams};
use sealedenv_audit::{Action, Actor, ActorKind, ObjectRef, Outcome, Record};
use sealedenv_crds::{SealedEnv, condition, names};
use sealedenv_runtime::report::chain;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::known::Known;
use crate::leader::NotLeading;
use crate::notices::Regarding;
use crate::plan::conditions;
use crate::reason::Reason;
use crate::reconcile::Context;
use crate::trail::NotRecorded;

/// Objects that wait to be reported. More are dropped, and reported when the watch shows them again.
const WAITING: usize = 1024;

const MESSAGE: &str = "the object does not decode as a SealedEnv of this version, so nothing is done; its Secret stays as it is. Check it with sealedenv validate, and that the CRDs are those of the operator's version";

/// Takes objects that did not decode.
#[derive(Clone)]
pub struct Undecodable(mpsc::Sender<ObjectMeta>);

/// Why a report was not made.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("reading the object")]
    Read(#[source] kube::Error),
    #[error("writing its status")]
    Write(#[source] kube::Error),
    #[error("encoding its status")]
    Encode(#[source] serde_json::Error),
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

impl Undecodable {
    /// Starts the reporter.
    pub fn start(ctx: Arc<Context>) -> Self {
        let (send, receive) = mpsc::channel(WAITING);
        let reporter = Reporter {
            ctx,
            recorded: HashMap::new(),
            told: HashMap::new(),
            left: HashMap::new(),
            again: HashMap::new(),
        };
        tokio::spawn(reporter.run(receive));
        Self(send)
    }

    /// Reports one. The decoder's own error is not repeated anywhere: it may quote the value it stumbled on.
    pub fn report(&self, object: ObjectMeta) {
        if self.0.try_send(object).is_err() {
            tracing::debug!("a report of an undecodable SealedEnv was dropped: too many wait");
        }
    }
}

/// Reports one object after the other, and again what failed.
struct Reporter {
    ctx: Arc<Context>,
    /// The generation whose refusal is on record, by UID: it is once, however often the status is tried.
    recorded: HashMap<String, Option<i64>>,
    /// The generation that was reported, by UID. Writing the status makes another watch event: once is enough.
    told: HashMap<String, Option<i64>>,
    /// What a standby has seen, for the time when it leads.
    left: HashMap<String, ObjectMeta>,
    /// What failed, and when it is tried again.
    again: HashMap<String, (Instant, ObjectMeta)>,
}

impl Reporter {
    async fn run(mut self, mut receive: mpsc::Receiver<ObjectMeta>) {
        let mut roles = self.ctx.leadership.roles();
        loop {
            let due = self.again.values().map(|(due, _)| *due).min();
            let batch: Vec<ObjectMeta> = tokio::select! {
                meta = receive.recv() => match meta {
                    Some(meta) => vec![meta],
                    None => return,
                },
                Ok(()) = roles.changed() => self.left.drain().map(|(_, meta)| meta).collect(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let now = Instant::now();
                    self.again.extract_if(|_, (due, _)| *due <= now).map(|(_, (_, meta))| meta).collect()
                }
            };
            for meta in batch {
                self.attempt(meta).await;
            }
        }
    }

    async fn attempt(&mut self, meta: ObjectMeta) {
        let uid = meta.uid.clone().unwrap_or_default();
        // What was seen last counts.
        self.again.remove(&uid);
        if !self.ctx.leadership.leads() {
            if self.left.len() < WAITING {
                self.left.insert(uid, meta);
            }
            return;
        }
        if self.told.get(&uid) == Some(&meta.generation) {
            return;
        }
        let reference = reference(&meta);
        match self.tell(&meta).await {
            Ok(told) => {
                self.ctx.failures.reset(&reference);
                if told {
                    self.told.insert(uid, meta.generation);
                }
            }
            Err(error) if NotLeading::is_in(&error) => drop(self.left.insert(uid, meta)),
            Err(error) if self.again.len() < WAITING => {
                let after = self.ctx.failures.next(&reference, &uid);
                tracing::warn!(
                    namespace = meta.namespace,
                    name = meta.name,
                    error = chain(&error),
                    retry_seconds = after.as_secs_f32(),
                    "the report of an undecodable SealedEnv will be tried again"
                );
                self.again.insert(uid, (Instant::now() + after, meta));
            }
            Err(error) => tracing::warn!(
                namespace = meta.namespace,
                name = meta.name,
                error = chain(&error),
                "the report of an undecodable SealedEnv is given up until the watch shows it again: too many wait"
            ),
        }
    }

    /// Says in the status that an object does not decode. False when it is another one by now: the watch tells of that.
    async fn tell(&mut self, meta: &ObjectMeta) -> Result<bool, ReportError> {
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let resource = ApiResource::erase::<SealedEnv>(&());
        let envs: Api<DynamicObject> = Api::namespaced_with(self.ctx.client.clone(), namespace, &resource);
        let Some(found) = envs.get_opt(name).await.map_err(ReportError::Read)? else { return Ok(false) };
        // It may decode by now. The UID is the object's, and the version all of it.
        if found.metadata.uid != meta.uid || found.metadata.resource_version != meta.resource_version {
            return Ok(false);
        }
        let old = found.data.get("status").cloned().unwrap_or(Value::Null);
        let current = old
            .get("conditions")
            .cloned()
            .and_then(|c| serde_json::from_value(c).ok())
            .unwrap_or_else(Vec::new);
        let conditions = verdict(self.ctx.clock.seconds(), meta.generation, &current);
        if conditions == current {
            return Ok(true);
        }
        let uid = meta.uid.as_deref().unwrap_or_default();
        if self.recorded.get(uid) != Some(&meta.generation) {
            self.ctx.trail.record(vec![refusal(meta)]).await?;
            self.recorded.insert(uid.to_owned(), meta.generation);
            tracing::error!(namespace, name, "a SealedEnv does not decode");
        }
        let status = json!({
            "observedGeneration": meta.generation,
            "conditions": serde_json::to_value(&conditions).map_err(ReportError::Encode)?,
        });
        let patch = json!({
            "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
            "status": status,
        });
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        match envs.patch_status(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
            Err(error) => return Err(ReportError::Write(error)),
        }
        let regarding = Regarding::sealed_env(namespace, name, uid);
        self.ctx.notices.warning(regarding, Reason::Undecodable.as_str(), MESSAGE.to_owned());
        Ok(true)
    }
}

fn reference(meta: &ObjectMeta) -> Reference {
    Reference::new(meta.name.as_deref().unwrap_or_default())
        .within(meta.namespace.as_deref().unwrap_or_default())
}

/// The conditions of an object that does not decode.
pub fn verdict(now: Timestamp, generation: Option<i64>, current: &[Condition]) -> Vec<Condition> {
    condition::merge(now, generation, current, conditions(Reason::Undecodable, MESSAGE.into()))
}

type Reference = kube::runtime::reflector::ObjectRef<Known>;

/// Which objects do not decode right now. Each change says by how many there are more.
#[derive(Default)]
pub struct Broken {
    now: HashSet<Reference>,
    listing: HashSet<Reference>,
}

impl Broken {
    /// A list begins.
    pub fn relist(&mut self) {
        self.listing.clear();
    }

    /// The list shows one that does not decode.
    pub fn listed(&mut self, reference: Reference) {
        self.listing.insert(reference);
    }

    /// The list is complete, and it alone counts.
    pub fn relisted(&mut self) -> i64 {
        let before = count(&self.now);
        self.now = std::mem::take(&mut self.listing);
        count(&self.now) - before
    }

    /// One does not decode, or does, or is gone.
    pub fn is(&mut self, reference: Reference, broken: bool) -> i64 {
        if broken { i64::from(self.now.insert(reference)) } else { -i64::from(self.now.remove(&reference)) }
    }
}

fn count(references: &HashSet<Reference>) -> i64 {
    i64::try_from(references.len()).unwrap_or(i64::MAX)
}

fn refusal(meta: &ObjectMeta) -> Record {
    let record = Record::new(
        Action::Reconcile,
        Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() },
        Outcome::Refused,
    );
    record.reason(Reason::Undecodable.as_str()).object(ObjectRef {
        kind: "SealedEnv".to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone(),
        generation: meta.generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_object_counts_once_and_no_longer_than_it_is_there() {
        let mut broken = Broken::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| Reference::new(name).within("shop"));
        broken.relist();
        broken.listed(a.clone());
        broken.listed(b.clone());
        assert_eq!(broken.relisted(), 2);
        assert_eq!(broken.is(a.clone(), true), 0, "known");
        assert_eq!(broken.is(c.clone(), true), 1);
        assert_eq!(broken.is(a.clone(), false), -1, "mended");
        assert_eq!(broken.is(a, false), 0);
        broken.relist();
        broken.listed(b.clone());
        assert_eq!(broken.is(c, false), -1, "deleted during the list");
        assert_eq!(broken.relisted(), 0, "b was known");
        broken.relist();
        assert_eq!(broken.relisted(), -1, "b went while the watch was down");
    }
}
