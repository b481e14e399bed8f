//! Why the work on an object does not go on for now: a pause between repairs, or an API server that refuses.

use std::time::Duration;

use sealedenv_crds::SealedEnvStatus;

use super::{Context, Done, ReconcileError, write_status};
use crate::apply::{self, WriteError};
use crate::known::Known;
use crate::leader::NotLeading;
use crate::plan::{self, Subject};
use crate::reason::Reason;
use crate::repairs::Pause;

/// A Secret that the API server does not take is offered again this often: only a change of the spec can help, or
/// one of the cluster's policies, which is not watched.
const INVALID_RECHECK: Duration = Duration::from_mins(5);

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
pub(super) async fn put_off(
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
pub(super) async fn refused(
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
