//! One SealedEnv: look, decide, record, write, tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource as _};
use sealedenv_crds::{Delivery, OnKeyError, SealedEnv, SealedEnvSpec, SealedEnvStatus, condition};
use sealedenv_runtime::report::chain;
use sealedenv_seal::OpenPolicy;

use crate::apply::{self, WriteError};
use crate::clock::Clock;
use crate::delivery::book::Book;
use crate::digest::DigestKey;
use crate::files;
use crate::keys::store::Keys;
use crate::known::{Known, Values, Waiting, Written};
use crate::leader::{Leadership, NotLeading};
use crate::metrics::{Metrics, Outcome};
use crate::notices::Notices;
use crate::opened::{Opened, open_all};
use crate::plan::{self, Observed, Ownership, Plan, SecretFacts, Step, Subject};
use crate::reason::Reason;
use crate::repairs::{Pause, Repairs};
use crate::secrets::{Id, Secrets, Seen, later};
use crate::trail::{NotRecorded, Trail};

/// How often a decision is made anew at once because the world moved meanwhile. Then the object waits its turn.
const ATTEMPTS: usize = 4;

/// A Secret that the API server does not take is offered again this often: only a change of the spec can help, or
/// one of the cluster's policies, which is not watched.
const INVALID_RECHECK: Duration = Duration::from_mins(5);

/// What every worker has at hand.
pub struct Context {
    /// API client. It writes only while this replica leads.
    pub client: Client,
    /// Whether it does.
    pub leadership: Leadership,
    /// The clock.
    pub clock: Clock,
    /// The sealing keys.
    pub keys: Arc<Keys>,
    /// Key of the digests.
    pub digests: Arc<DigestKey>,
    /// Secrets by their metadata.
    pub secrets: Secrets,
    /// Values that came with the watch.
    pub waiting: Waiting,
    /// Statuses that the watch has not shown yet.
    pub written: Written,
    /// The audit trail.
    pub trail: Trail,
    /// Events.
    pub notices: Notices,
    /// Metrics.
    pub metrics: Metrics,
    /// Failures in a row by object, for the backoff.
    pub failures: crate::backoff::Failures,
    /// Repairs in a row by object, for their pauses.
    pub repairs: Repairs,
    /// Where it is noted which pods hold what.
    pub book: Book,
}

/// Why an object has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The object could not be read.
    #[error("reading the SealedEnv")]
    Read(#[source] Box<kube::Error>),
    /// A write was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It changed under every attempt.
    #[error("the objects kept changing during {ATTEMPTS} attempts")]
    Moving,
    /// No sink took the record, so nothing was released.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// The worker ended without an answer.
    #[error("the worker panicked")]
    Panicked,
}

/// Brings one SealedEnv, its Secret and its status in line.
///
/// # Expected flow
/// 1. If status and Secret metadata show that nothing is to do: done, without a request.
/// 2. Read the SealedEnv if the Secret is newer than what is known of it. Open the values; read the Secret where the decision needs its content.
/// 3. [`plan::plan`] decides. One repair of many in a row is put off.
/// 4. The audit trail takes the records. If it does not, nothing is written (I5).
/// 5. The steps are carried out, each with its precondition; a stale view goes back to 2.
/// 6. What differs in the status is written.
///
/// Says when to look again without being asked.
///
/// # Errors
/// [`ReconcileError`]; the caller retries with backoff. Nothing is half done that the next run does not finish.
pub async fn reconcile(known: Arc<Known>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
    let begun = Instant::now();
    let done = work_on(known, &ctx).await;
    let outcome = done.as_ref().map_or_else(Outcome::of_error, |done| done.outcome);
    ctx.metrics.ended(outcome, begun.elapsed());
    done.map(|done| done.again)
}

/// A reconcile that came to an end.
struct Done {
    outcome: Outcome,
    /// When to look again without being asked.
    again: Option<Duration>,
}

impl Done {
    fn gone() -> Self {
        Self { outcome: Outcome::Gone, again: None }
    }

    /// With this status written.
    fn with(status: &SealedEnvStatus, again: Option<Duration>) -> Self {
        let ready = condition::status_of(&status.conditions, condition::READY) == Some("True");
        Self { outcome: if ready { Outcome::Ready } else { Outcome::NotReady }, again }
    }
}

async fn work_on(known: Arc<Known>, ctx: &Context) -> Result<Done, ReconcileError> {
    let mut known = known;
    let mut secret: Option<Look> = None;
    for _ in 0..ATTEMPTS {
        let ring = ctx.keys.ring();
        if secret.is_none() && is_settled(ctx, &known, &ring.fingerprint) {
            return Ok(settled(ctx, &known));
        }
        let overtaken = is_overtaken(ctx, &known);
        if overtaken {
            ctx.waiting.forget(&known.reference());
        }
        let Some((fresh, spec, seen)) = whole(ctx, &known).await? else {
            return Ok(Done::gone());
        };
        known = fresh;
        if overtaken && secret.is_none() && is_settled(ctx, &known, &ring.fingerprint) {
            return Ok(settled(ctx, &known));
        }
        let status = ctx.written.latest(&known, seen);
        let subject = known.subject(&spec, &status);
        let mut opened =
            open_all(subject.namespace, subject.name, &spec, &ring.keyring, OpenPolicy::default());
        ctx.metrics.opened(&opened);
        files::add(&spec, &mut opened);
        let mut observed = observe(ctx, &subject, &ring.fingerprint);
        if secret.is_some() || needs_content(&subject, &observed, &opened) {
            look(ctx, &subject, &mut observed).await?;
        }
        if needs_former(&subject, &observed, &opened) {
            look_at_former(ctx, &subject, &mut observed).await?;
        }
        let plan = plan::plan(ctx.clock.seconds(), &subject, observed, opened, &ctx.digests);
        if plan.repairs
            && let Some(pause) = ctx.repairs.pause(&known.reference())
        {
            return put_off(ctx, &known, &subject, pause).await;
        }
        match carry_out(ctx, &known, &subject, plan).await {
            Ok(done) => {
                ctx.failures.reset(&known.reference());
                return Ok(done);
            }
            Err(ReconcileError::Write(WriteError::Stale)) => {
                // Something is not as we knew it: decide again on a fresh read.
                secret = Some(Look);
                ctx.waiting.forget(&known.reference());
                known = match reread(ctx, &known).await? {
                    Some(known) => known,
                    None => return Ok(Done::gone()),
                };
            }
            Err(ReconcileError::Write(WriteError::Secret { name, source })) => {
                return refused(ctx, &known, &subject, name, source).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ReconcileError::Moving)
}

/// Says in the status, and where it is news in an Event, why the work does not go on for now.
async fn hold_up(
    ctx: &Context,
    known: &Known,
    subject: &Subject<'_>,
    reason: Reason,
    message: String,
) -> Result<SealedEnvStatus, ReconcileError> {
    let status = plan::held_up(ctx.clock.seconds(), subject, reason, message.clone());
    let news = status.conditions != subject.status.conditions;
    write_status(ctx, known, subject, &status).await?;
    if news {
        ctx.notices.tell(subject, vec![plan::Notice { warning: true, reason, message }]);
    }
    Ok(status)
}

/// Tells that the Secret is not put right yet.
async fn put_off(
    ctx: &Context,
    known: &Known,
    subject: &Subject<'_>,
    pause: Pause,
) -> Result<Done, ReconcileError> {
    let reason = Reason::RepairPaused;
    // The same text for the whole pause: every change that is seen meanwhile comes here.
    let message = format!(
        "Secret {} is changed or deleted again and again by somebody else ({} repairs in a row); the next repair waits up to {} s",
        plan::secret_name(subject),
        pause.repairs,
        pause.whole().as_secs(),
    );
    let status = hold_up(ctx, known, subject, reason, message).await?;
    Ok(Done::with(&status, Some(pause.left)))
}

/// Tells that the API server does not take the Secret. Its own words are not repeated: they may quote the content.
async fn refused(
    ctx: &Context,
    known: &Known,
    subject: &Subject<'_>,
    name: String,
    source: Box<kube::Error>,
) -> Result<Done, ReconcileError> {
    if NotLeading::is_in(&*source) {
        return Err(WriteError::Secret { name, source }.into());
    }
    if let kube::Error::Api(status) = &*source
        && status.code == 403
        && status.message.contains("because it is being terminated")
    {
        // The namespace goes, and the object with it.
        return Ok(Done::gone());
    }
    let answer = match &*source {
        kube::Error::Api(status) => Some((status.code, apply::word(&status.reason))),
        _ => None,
    };
    let invalid = matches!(answer, Some((400 | 422, _)));
    let (reason, message) = match &answer {
        Some((code, why)) if invalid => (
            Reason::SecretRefused,
            format!(
                "the API server does not take Secret {name} ({code} {why}): check that the keys are those its type asks for"
            ),
        ),
        Some((code, why)) => (
            Reason::ApiError,
            format!("the API server refused to write Secret {name} ({code} {why}); it is tried again"),
        ),
        None => (
            Reason::ApiError,
            format!("the API server did not answer when Secret {name} was written; it is tried again"),
        ),
    };
    let status = hold_up(ctx, known, subject, reason, message).await?;
    if invalid {
        let again = crate::backoff::jitter(INVALID_RECHECK, subject.uid);
        return Ok(Done::with(&status, Some(again)));
    }
    let error = match answer {
        Some((code, why)) => WriteError::Refused { name, code, why },
        None => WriteError::Secret { name, source },
    };
    Err(error.into())
}

fn settled(ctx: &Context, known: &Known) -> Done {
    ctx.waiting.forget(&known.reference());
    ctx.failures.reset(&known.reference());
    Done { outcome: Outcome::Unchanged, again: None }
}

fn is_settled(ctx: &Context, known: &Known, ring: &str) -> bool {
    // Neither values nor status are at hand, and neither is looked at.
    let none = SealedEnvStatus::default();
    let subject = known.subject(&known.spec, &none);
    plan::is_settled(&ctx.written.handled(known), &subject, &observe(ctx, &subject, ring))
}

/// Whether the Secret was written later than what is known of the SealedEnv. Then another replica may have handled a
/// newer one, while our watch of SealedEnvs lagged behind that of Secrets: acting on what we know would bring an older
/// value back. A read tells.
fn is_overtaken(ctx: &Context, known: &Known) -> bool {
    let none = SealedEnvStatus::default();
    let observed = observe(ctx, &known.subject(&known.spec, &none), "");
    let seen = observed.secret.as_ref().map(|secret| secret.resource_version.as_str());
    let ours = known.meta().resource_version.as_deref();
    matches!((seen, ours), (Some(seen), Some(ours)) if later(seen, ours))
}

/// Marks that the Secret has to be read, whatever the cache says.
struct Look;

fn observe(ctx: &Context, subject: &Subject<'_>, ring: &str) -> Observed {
    let name = plan::secret_name(subject);
    let facts = |name: &str| -> Option<SecretFacts> {
        let seen = ctx.secrets.get(&(subject.namespace.to_owned(), name.to_owned()))?;
        Some(seen.facts(subject.name, subject.uid))
    };
    let former = subject.status.secret.as_ref().map(|s| s.name.as_str()).filter(|former| *former != name);
    Observed { secret: facts(name), former: former.and_then(facts), ring: ring.to_owned() }
}

/// Whether the decision needs what stands in the Secret.
fn needs_content(subject: &Subject<'_>, observed: &Observed, opened: &Opened) -> bool {
    let Some(seen) = &observed.secret else { return false };
    // It goes or stays, whatever stands in it.
    if subject.spec.delivery == Delivery::Memory {
        return false;
    }
    let written = subject.status.secret.as_ref();
    let as_written = written.is_some_and(|w| w.resource_version.as_deref() == Some(&seen.resource_version));
    let asked = subject.status.last_handled_reconcile_at.as_deref() != subject.requested_at;
    !as_written || keeps_last(subject, opened) || asked || seen.ownership != Ownership::Ours
}

/// Whether the Secret of a former name, which goes, may hold the last good value of a key.
fn needs_former(subject: &Subject<'_>, observed: &Observed, opened: &Opened) -> bool {
    subject.spec.delivery == Delivery::Secret
        && keeps_last(subject, opened)
        && observed.former.as_ref().is_some_and(|former| former.ownership == Ownership::Ours)
}

fn keeps_last(subject: &Subject<'_>, opened: &Opened) -> bool {
    subject.spec.on_key_error == OnKeyError::KeepLast && opened.0.values().any(|k| k.value.is_err())
}

async fn look(ctx: &Context, subject: &Subject<'_>, observed: &mut Observed) -> Result<(), ReconcileError> {
    observed.secret = read_secret(ctx, subject, plan::secret_name(subject)).await?;
    Ok(())
}

async fn look_at_former(
    ctx: &Context,
    subject: &Subject<'_>,
    observed: &mut Observed,
) -> Result<(), ReconcileError> {
    if let Some(former) = &subject.status.secret {
        observed.former = read_secret(ctx, subject, &former.name).await?;
    }
    Ok(())
}

async fn read_secret(
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
async fn whole(
    ctx: &Context,
    known: &Arc<Known>,
) -> Result<Option<(Arc<Known>, SealedEnvSpec, SealedEnvStatus)>, ReconcileError> {
    if let Some(values) = ctx.waiting.take(known) {
        let (spec, status) = values.restore(&known.spec);
        return Ok(Some((Arc::clone(known), spec, status)));
    }
    Ok(read(ctx, known).await?.map(|(known, values)| {
        let (spec, status) = values.restore(&known.spec);
        (Arc::new(known), spec, status)
    }))
}

async fn reread(ctx: &Context, known: &Arc<Known>) -> Result<Option<Arc<Known>>, ReconcileError> {
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

async fn carry_out(
    ctx: &Context,
    known: &Known,
    subject: &Subject<'_>,
    plan: Plan,
) -> Result<Done, ReconcileError> {
    let Plan { mut status, steps, records, notices, requeue, repairs } = plan;
    if let Err(error) = ctx.trail.record(records).await {
        if matches!(error, NotRecorded::NotLeading(_)) {
            return Err(error.into());
        }
        ctx.metrics.audit_failed();
        let message = "no audit sink takes records, so nothing is released; it is tried again".to_owned();
        let waiting = plan::held_up(ctx.clock.seconds(), subject, Reason::AuditUnavailable, message);
        write_status(ctx, known, subject, &waiting).await?;
        return Err(error.into());
    }
    for step in &steps {
        match step {
            Step::Apply(desired) => {
                let seen: Seen = apply::apply(&ctx.client, desired).await?;
                if let Some(secret) = &mut status.secret {
                    secret.uid = Some(seen.uid.clone());
                    secret.resource_version = Some(seen.resource_version.clone());
                }
                ctx.secrets.wrote((desired.namespace.clone(), desired.name.clone()), seen);
            }
            Step::Delete { name, uid } => {
                apply::delete(&ctx.client, subject.namespace, name, uid).await?;
                ctx.secrets.gone(&(subject.namespace.to_owned(), name.clone()));
            }
        }
    }
    if repairs {
        ctx.repairs.made(&known.reference());
    }
    write_status(ctx, known, subject, &status).await?;
    ctx.notices.tell(subject, notices);
    let again = requeue.map(|after| crate::backoff::jitter(after, subject.uid));
    Ok(Done::with(&status, again))
}

async fn write_status(
    ctx: &Context,
    known: &Known,
    subject: &Subject<'_>,
    status: &SealedEnvStatus,
) -> Result<(), ReconcileError> {
    let (namespace, name, uid) = (subject.namespace, subject.name, subject.uid);
    let written = apply::write_status(&ctx.client, namespace, name, uid, subject.status, status).await?;
    if let Some(version) = written {
        ctx.written.note(known, version, status.clone());
    }
    Ok(())
}

/// Forgets an object that is gone.
pub fn forget(ctx: &Context, reference: &ObjectRef<Known>) {
    ctx.waiting.forget(reference);
    ctx.written.forget(reference);
    ctx.failures.reset(reference);
    ctx.repairs.forget(reference);
}

/// When to try again after a failure.
pub fn retry(known: &Known, error: &ReconcileError, ctx: &Context) -> Option<Duration> {
    if NotLeading::is_in(error) {
        // Another replica goes on with it. Should we lead again, every object is looked at anyway.
        tracing::debug!("left to the leader");
        return None;
    }
    let after = ctx.failures.next(&known.reference(), known.meta().uid.as_deref().unwrap_or_default());
    ctx.metrics.failed(error);
    tracing::warn!(
        error = chain(error),
        retry_seconds = after.as_secs_f32(),
        "SealedEnv will be tried again"
    );
    Some(after)
}
