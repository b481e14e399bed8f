//! SealedEnvs that do not decode, for example after a CRD was changed by hand: each is reported on itself, and the
//! watch goes on for all others.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams};
use sealedenv_audit::{Action, Actor, ActorKind, ObjectRef, Outcome, Record};
use sealedenv_crds::{SealedEnv, condition, names};
use sealedenv_runtime::report::chain;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::known::Known;
use crate::leader::NotLeading;
use crate::notices::Regarding;
use crate::plan::conditions;
use crate::reason::Reason;
use crate::reconcile::Context;

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
}

impl Undecodable {
    /// Starts the reporter.
    pub fn start(ctx: std::sync::Arc<Context>) -> Self {
        let (send, mut receive) = mpsc::channel::<ObjectMeta>(WAITING);
        tokio::spawn(async move {
            let mut told: HashMap<String, Option<i64>> = HashMap::new();
            // What a standby has seen, for the time when it leads.
            let mut left: HashMap<String, ObjectMeta> = HashMap::new();
            let mut roles = ctx.leadership.roles();
            loop {
                let batch: Vec<ObjectMeta> = tokio::select! {
                    meta = receive.recv() => match meta {
                        Some(meta) => vec![meta],
                        None => return,
                    },
                    Ok(()) = roles.changed() => left.drain().map(|(_, meta)| meta).collect(),
                };
                for meta in batch {
                    let uid = meta.uid.clone().unwrap_or_default();
                    if !ctx.leadership.leads() {
                        if left.len() < WAITING {
                            left.insert(uid, meta);
                        }
                        continue;
                    }
                    // Writing the status makes another watch event: once per generation is enough.
                    if told.get(&uid) == Some(&meta.generation) {
                        continue;
                    }
                    match report(&ctx, &meta).await {
                        Ok(()) => drop(told.insert(uid, meta.generation)),
                        Err(error) if NotLeading::is_in(&error) => drop(left.insert(uid, meta)),
                        Err(error) => tracing::warn!(
                            namespace = meta.namespace,
                            name = meta.name,
                            error = chain(&error),
                            "an undecodable SealedEnv was not reported"
                        ),
                    }
                }
            }
        });
        Self(send)
    }

    /// Reports one. The decoder's own error is not repeated anywhere: it may quote the value it stumbled on.
    pub fn report(&self, object: ObjectMeta) {
        if self.0.try_send(object).is_err() {
            tracing::debug!("a report of an undecodable SealedEnv was dropped: too many wait");
        }
    }
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

async fn report(ctx: &Context, meta: &ObjectMeta) -> Result<(), ReportError> {
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let resource = ApiResource::erase::<SealedEnv>(&());
    let envs: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource);
    let Some(found) = envs.get_opt(name).await.map_err(ReportError::Read)? else { return Ok(()) };
    let old = found.data.get("status").cloned().unwrap_or(Value::Null);
    let current =
        old.get("conditions").cloned().and_then(|c| serde_json::from_value(c).ok()).unwrap_or_else(Vec::new);
    let conditions = verdict(ctx.clock.seconds(), meta.generation, &current);
    if conditions == current {
        return Ok(());
    }
    tracing::error!(namespace, name, "a SealedEnv does not decode");
    let record = Record::new(
        Action::Reconcile,
        Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() },
        Outcome::Refused,
    );
    let record = record.reason(Reason::Undecodable.as_str()).object(ObjectRef {
        kind: "SealedEnv".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
        uid: meta.uid.clone(),
        generation: meta.generation,
    });
    if let Err(error) = ctx.trail.record(vec![record]).await {
        tracing::error!(error = chain(&error), "the refusal of an undecodable SealedEnv is not on record");
    }
    let status = json!({
        "observedGeneration": meta.generation,
        "conditions": serde_json::to_value(&conditions).map_err(ReportError::Encode)?,
    });
    let patch = json!({ "metadata": { "uid": meta.uid }, "status": status });
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    envs.patch_status(name, &params, &Patch::Merge(&patch)).await.map_err(ReportError::Write)?;
    let regarding = Regarding::sealed_env(namespace, name, meta.uid.as_deref().unwrap_or_default());
    ctx.notices.warning(regarding, Reason::Undecodable.as_str(), MESSAGE.to_owned());
    Ok(())
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
