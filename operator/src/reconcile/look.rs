//! What is known of an object and its Secrets, and what a read shows.

use std::sync::Arc;

use kube::api::Api;
use sealedenv_crds::{SealedEnv, SealedEnvSpec, SealedEnvStatus};

use super::{Context, ReconcileError};
use crate::apply;
use crate::known::{Known, Values};
use crate::plan::{self, Observed, SecretFacts, Subject};
use crate::secrets::Id;

/// The Secret that the cache shows, for decisions that need neither values nor status.
pub(super) fn glance(ctx: &Context, known: &Known, ring: &str) -> Observed {
    observe(ctx, &known.subject(known.spec(), &SealedEnvStatus::default()), ring)
}

/// The Secrets that the cache shows.
pub(super) fn observe(ctx: &Context, subject: &Subject<'_>, ring: &str) -> Observed {
    let name = plan::secret_name(subject);
    let facts = |name: &str| -> Option<SecretFacts> {
        let seen = ctx.secrets.get(&(subject.namespace.to_owned(), name.to_owned()))?;
        Some(seen.facts(subject.name, subject.uid))
    };
    let former = subject.status.secret.as_ref().map(|s| s.name.as_str()).filter(|former| *former != name);
    Observed { secret: facts(name), former: former.and_then(facts), ring: ring.to_owned() }
}

/// Reads a Secret with its content.
pub(super) async fn look(
    ctx: &Context,
    subject: &Subject<'_>,
    name: &str,
) -> Result<Option<SecretFacts>, ReconcileError> {
    let id: Id = (subject.namespace.to_owned(), name.to_owned());
    match apply::read(&ctx.client, subject.namespace, name, subject.name, subject.uid).await? {
        None => {
            ctx.secrets.gone(&id);
            Ok(None)
        }
        Some((seen, facts)) => {
            // The watch may show it later than the status that comes of this.
            ctx.secrets.wrote(id, seen);
            Ok(Some(facts))
        }
    }
}

/// The object with its values and its status: those that came with the watch, or a read. None when it is gone.
pub(super) async fn whole(
    ctx: &Context,
    known: &Arc<Known>,
) -> Result<Option<(Arc<Known>, SealedEnvSpec, SealedEnvStatus)>, ReconcileError> {
    if let Some(values) = ctx.waiting.take(known) {
        let (spec, status) = values.restore(known.spec());
        return Ok(Some((Arc::clone(known), spec, status)));
    }
    Ok(read(ctx, known).await?.map(|(known, values)| {
        let (spec, status) = values.restore(known.spec());
        (Arc::new(known), spec, status)
    }))
}

pub(super) async fn reread(ctx: &Context, known: &Arc<Known>) -> Result<Option<Arc<Known>>, ReconcileError> {
    Ok(read(ctx, known).await?.map(|(known, values)| {
        ctx.waiting.keep(&known, values);
        Arc::new(known)
    }))
}

async fn read(ctx: &Context, known: &Known) -> Result<Option<(Known, Values)>, ReconcileError> {
    let envs: Api<SealedEnv> = Api::namespaced(ctx.client.clone(), known.namespace());
    let env = envs.get_opt(known.name()).await.map_err(|e| ReconcileError::Read(Box::new(e)))?;
    Ok(env.map(Known::strip))
}
