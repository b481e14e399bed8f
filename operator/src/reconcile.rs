//! One SealedEnv: look, decide, record, write, tell.

mod held_up;
mod look;
mod need;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource as _};
use sealedenv_crds::{SealedEnvSpec, SealedEnvStatus, condition};
use sealedenv_runtime::report::chain;
use sealedenv_seal::OpenPolicy;

use crate::apply::{self, WriteError};
use crate::clock::Clock;
use crate::delivery::book::Book;
use crate::digest::DigestKey;
use crate::files;
use crate::keys::Ring;
use crate::keys::store::Keys;
use crate::known::{Known, Waiting, Written};
use crate::leader::{Leadership, NotLeading};
use crate::metrics::{Metrics, Outcome};
use crate::notices::Notices;
use crate::opened::{Opened, is_quick, open_all};
use crate::plan::{self, Plan, Step, Subject};
use crate::reason::Reason;
use crate::repairs::Repairs;
use crate::secrets::{Secrets, Seen};
use crate::trail::{NotRecorded, Trail};
use held_up::{put_off, refused};
use look::{glance, look, observe, reread, whole};
use need::{is_overtaken, needs_content, needs_former};

/// How often a decision is made anew at once because the world moved meanwhile. Then the object waits its turn.
const ATTEMPTS: usize = 4;

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

async fn work_on(known: Arc<Known>, ctx: &Arc<Context>) -> Result<Done, ReconcileError> {
    let mut known = known;
    // Whether something was not as the cache says, so that the Secret has to be read.
    let mut stale = false;
    for _ in 0..ATTEMPTS {
        let ring = ctx.keys.ring();
        if !stale && is_settled(ctx, &known, &ring.fingerprint) {
            return Ok(settled(ctx, &known));
        }
        let overtaken = is_overtaken(&known, &glance(ctx, &known, &ring.fingerprint));
        if overtaken {
            ctx.waiting.forget(&known.reference());
        }
        let Some((fresh, spec, seen)) = whole(ctx, &known).await? else {
            return Ok(Done::gone());
        };
        known = fresh;
        if overtaken && !stale && is_settled(ctx, &known, &ring.fingerprint) {
            return Ok(settled(ctx, &known));
        }
        let status = ctx.written.latest(&known, seen);
        let (spec, opened) = open(ctx, &known, spec, &ring).await?;
        let subject = known.subject(&spec, &status);
        let mut observed = observe(ctx, &subject, &ring.fingerprint);
        if stale || needs_content(&subject, &observed, &opened) {
            observed.secret = look(ctx, &subject, plan::secret_name(&subject)).await?;
        }
        if let Some(former) = needs_former(&subject, &observed, &opened) {
            observed.former = look(ctx, &subject, former).await?;
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
                stale = true;
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

/// Opens the values, many of them on another thread: meanwhile leases are renewed and pods answered on this one.
async fn open(
    ctx: &Arc<Context>,
    known: &Arc<Known>,
    spec: SealedEnvSpec,
    ring: &Arc<Ring>,
) -> Result<(SealedEnvSpec, Opened), ReconcileError> {
    let (ctx, known, ring) = (Arc::clone(ctx), Arc::clone(known), Arc::clone(ring));
    let quick = is_quick(&spec);
    let open = move || {
        let mut opened =
            open_all(known.namespace(), known.name(), &spec, &ring.keyring, OpenPolicy::default());
        ctx.metrics.opened(&opened);
        files::add(&spec, &mut opened);
        (spec, opened)
    };
    if quick {
        return Ok(open());
    }
    tokio::task::spawn_blocking(open).await.map_err(|_| ReconcileError::Panicked)
}

fn settled(ctx: &Context, known: &Known) -> Done {
    ctx.waiting.forget(&known.reference());
    ctx.failures.reset(&known.reference());
    Done { outcome: Outcome::Unchanged, again: None }
}

fn is_settled(ctx: &Context, known: &Known, ring: &str) -> bool {
    // Neither values nor status are at hand, and neither is looked at.
    let none = SealedEnvStatus::default();
    let subject = known.subject(known.spec(), &none);
    plan::is_settled(&ctx.written.handled(known), &subject, &glance(ctx, known, ring))
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
