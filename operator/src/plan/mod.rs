//! What to do about one SealedEnv: a pure decision, from what is wanted and what was seen to a [`Plan`].
//!
//! Nothing here reads a clock, a key or an API. `apply` carries the plan out; `controller` feeds it. Every row of
//! the table in docs/src/reconcile.md is a test in `tests.rs`.

mod content;
mod shape;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sealedenv_audit::{Action as AuditAction, Record};
use sealedenv_crds::{DeletionPolicy, SealedEnvSpec, SealedEnvStatus, names};
use sealedenv_seal::Plain;

pub use shape::{DesiredSecret, Over};
pub(crate) use status::{conditions, cut, record};

use crate::digest::DigestKey;
use crate::opened::Opened;
use crate::reason::Reason;
use content::Content;

/// A Secret of somebody else is looked at again this often: it is not watched.
const FOREIGN_RECHECK: Duration = Duration::from_secs(300);

/// The object a plan is made for.
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// The annotation `sealedenv.dev/requestedAt`.
    pub requested_at: Option<&'a str>,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    /// What is wanted. `data` and `public` may be empty in [`is_settled`], which does not need them.
    pub spec: &'a SealedEnvSpec,
    /// Fingerprint of the spec, see [`crate::digest::input`].
    pub input: &'a str,
    /// What was written last.
    pub status: &'a SealedEnvStatus,
}

/// What was seen in the cluster.
#[derive(Default)]
pub struct Observed {
    /// The Secret under the name that is wanted now.
    pub secret: Option<SecretFacts>,
    /// The Secret under the name of `status.secret`, when that is another one.
    pub former: Option<SecretFacts>,
    /// Fingerprint of the set of keys that values are opened with.
    pub ring: String,
}

/// A Secret as its metadata shows it, with its content only where that was read.
pub struct SecretFacts {
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Whose it is.
    pub ownership: Ownership,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    /// What stands in it; read only when the decision needs it.
    pub live: Option<LiveSecret>,
}

/// Whose a Secret is, seen from one SealedEnv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This SealedEnv's.
    Ours,
    /// Another SealedEnv's, by name.
    Another(String),
    /// Not ours.
    Foreign {
        /// Whether its owner annotated it `sealedenv.dev/adopt: "true"`.
        adoptable: bool,
    },
}

/// The content and shape of a Secret that was read.
#[derive(Default)]
pub struct LiveSecret {
    /// Its type.
    pub type_: String,
    /// Whether it is immutable.
    pub immutable: bool,
    /// Whether it is owned by this SealedEnv, so that it would be garbage-collected with it.
    pub owned: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its values.
    pub content: BTreeMap<String, Plain>,
}

/// What to do.
pub struct Plan {
    /// The status to write, if it differs from what stands there. Where [`Step::Apply`] is done, the writer fills in
    /// the Secret's new UID and resourceVersion.
    pub status: SealedEnvStatus,
    /// What to write, in this order.
    pub steps: Vec<Step>,
    /// What the audit trail must take before the first step.
    pub records: Vec<Record>,
    /// What to tell the user as Events.
    pub notices: Vec<Notice>,
    /// When to look again without being asked.
    pub requeue: Option<Duration>,
}

/// One write.
pub enum Step {
    /// Server-side apply of the Secret.
    Apply(Box<DesiredSecret>),
    /// Deletion of the Secret under a former name.
    Delete {
        /// Its name.
        name: String,
        /// Only this very Secret.
        uid: String,
    },
}

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether something is wrong.
    pub warning: bool,
    /// The stable reason.
    pub reason: Reason,
    /// The text.
    pub message: String,
}

/// Whether there is nothing to do, decided without opening anything and without a request to the API.
///
/// This is what makes a restart free: the status says which input was handled and which Secret, at which
/// resourceVersion, came of it.
pub fn is_settled(subject: &Subject<'_>, observed: &Observed) -> bool {
    let status = subject.status;
    if subject.deleting {
        return true;
    }
    let same_input = match handled_input(status) {
        Some((input, unopened_with)) => {
            input == subject.input && unopened_with.is_none_or(|ring| ring == observed.ring)
        }
        None => false,
    };
    if !same_input
        || status.observed_generation != Some(subject.generation)
        || status.last_handled_reconcile_at.as_deref() != subject.requested_at
        || status::is_working(status)
    {
        return false;
    }
    if subject.spec.suspend {
        return true;
    }
    match (&status.secret, &observed.secret) {
        (Some(written), Some(seen)) => {
            written.name == secret_name(subject)
                && seen.ownership == Ownership::Ours
                && !seen.deleting
                && written.resource_version.as_deref() == Some(seen.resource_version.as_str())
        }
        _ => false,
    }
}

/// The input that was handled, and the key set with which a part of it did not open.
fn handled_input(status: &SealedEnvStatus) -> Option<(&str, Option<&str>)> {
    let handled = status.input.as_deref()?;
    Some(handled.split_once('/').map_or((handled, None), |(input, ring)| (input, Some(ring))))
}

/// Name of the Secret that a SealedEnv writes.
pub fn secret_name<'a>(subject: &Subject<'a>) -> &'a str {
    subject.spec.secret.as_ref().and_then(|s| s.name.as_deref()).unwrap_or(subject.name)
}

/// Decides what to do about one SealedEnv.
///
/// # Guarantees
/// - The same input gives the same plan, and a plan that has been carried out gives an empty one (I7).
/// - A key that cannot be opened never changes another key, and never removes its own last good value unless the
///   policy says `Omit` (I4).
/// - No step touches a Secret that is not this SealedEnv's, unless its owner asked for the adoption.
/// - Every step is preceded by a record (I5); records and notices hold names and digests only (I1).
///
/// # Assumptions
/// - `observed.secret` is what a read or the watch showed. It may be stale: each step carries a precondition that
///   makes the API server refuse it then.
/// - Where a value did not open and the Secret exists, `observed.secret.live` was read, so that the last good value
///   can be kept.
pub fn plan(
    now: Timestamp,
    subject: &Subject<'_>,
    observed: Observed,
    opened: Opened,
    digests: &DigestKey,
) -> Plan {
    if subject.deleting {
        return Plan::nothing(subject.status.clone());
    }
    let draft = status::Draft::new(now, subject, &observed.ring, &opened);
    if subject.spec.suspend {
        return draft.suspended();
    }
    if let Some(problem) = shape::problem(subject.spec) {
        return draft.refused(Reason::InvalidSpec, problem, None);
    }
    match decide(subject, observed, opened, digests) {
        Ok(decision) => draft.delivered(decision),
        Err(refusal) => draft.refused_with(refusal.states, refusal.reason, refusal.message, refusal.requeue),
    }
}

/// The status while no audit sink takes records: all else stays, so that work goes on where it stopped.
pub fn audit_unavailable(now: Timestamp, subject: &Subject<'_>) -> SealedEnvStatus {
    let mut status = subject.status.clone();
    let message = "no audit sink takes records, so nothing is released; it is tried again".to_owned();
    let wanted = conditions(Reason::AuditUnavailable, message);
    status.conditions =
        sealedenv_crds::condition::merge(now, Some(subject.generation), &subject.status.conditions, wanted);
    status
}

/// Why nothing is written.
struct Refusal {
    reason: Reason,
    message: String,
    requeue: Option<Duration>,
    /// What the Secret holds of each key nevertheless.
    states: content::States,
}

/// What is to be written, and what the Secret will hold.
pub(crate) struct Decision {
    content: content::States,
    digest: String,
    secret: sealedenv_crds::SecretRef,
    steps: Vec<Step>,
    /// What is audited about the write, if there is one.
    write: Option<(AuditAction, Option<Reason>)>,
    written_keys: Vec<String>,
}

fn decide(
    subject: &Subject<'_>,
    observed: Observed,
    opened: Opened,
    digests: &DigestKey,
) -> Result<Decision, Refusal> {
    let name = secret_name(subject);
    let holds = content::held(subject, observed.secret.as_ref());
    let refuse = |states: content::States, reason, message: String, requeue| {
        Err(Refusal { reason, message, requeue, states })
    };
    let nothing_changes = |opened: &Opened| content::States::unwritten(opened, &holds);

    match observed.secret.as_ref().map(|s| &s.ownership) {
        Some(Ownership::Another(owner)) => {
            let message =
                format!("Secret {name} belongs to SealedEnv {owner}; give one of them another secret.name");
            return refuse(
                nothing_changes(&opened),
                Reason::SecretOwnedByAnother,
                message,
                Some(FOREIGN_RECHECK),
            );
        }
        Some(Ownership::Foreign { adoptable: false }) => {
            let message = format!(
                "Secret {name} exists and was not made by this SealedEnv; it is left alone. Annotate the Secret with {}: \"true\" to hand it over, or choose another secret.name",
                names::ADOPT
            );
            return refuse(nothing_changes(&opened), Reason::SecretNotOurs, message, Some(FOREIGN_RECHECK));
        }
        _ => {}
    }
    if observed.secret.as_ref().is_some_and(|s| s.deleting) {
        let message = format!("Secret {name} is being deleted; it is written again when it is gone");
        return refuse(
            nothing_changes(&opened),
            Reason::SecretDeleting,
            message,
            Some(Duration::from_secs(5)),
        );
    }

    let secret = observed.secret;
    let last = secret.as_ref().and_then(|s| s.live.as_ref()).map(|l| &l.content);
    let content = match content::fold(opened, subject.spec.on_key_error, last, &holds) {
        Ok(content) => content,
        Err(refused) => {
            return refuse(refused.states, refused.reason, refused.message, None);
        }
    };
    let Content { values, states } = content;
    let digest = digests.of(&values);
    let desired = DesiredSecret::new(subject, name, values);
    let written = subject.status.secret.as_ref().filter(|w| w.name == name);

    let mut steps = Vec::new();
    let mut write = None;
    let mut reference = desired.reference();
    let written_keys = desired.content.keys().cloned().collect();
    match secret {
        None => {
            let repair = written.is_some_and(|w| w.uid.is_some());
            write = Some(if repair {
                (AuditAction::Repair, Some(Reason::Repaired))
            } else {
                (AuditAction::Reconcile, None)
            });
            steps.push(Step::Apply(Box::new(desired)));
        }
        Some(seen) => {
            let adopting = seen.ownership != Ownership::Ours;
            if let Some((reason, message)) =
                desired.obstacle(written, seen.live.as_ref(), adopting, &digest, subject)
            {
                return refuse(states, reason, message, None);
            }
            reference.uid = Some(seen.uid.clone());
            reference.resource_version = Some(seen.resource_version.clone());
            let same_content = subject.status.digest.as_deref() == Some(digest.as_str());
            let known = written
                .is_some_and(|w| w.resource_version.as_deref() == Some(seen.resource_version.as_str()));
            let in_place = match &seen.live {
                Some(live) => !adopting && desired.is_met_by(live),
                // Not read: then it is as we wrote it, or it is written again. A changed shape is written too.
                None => {
                    let same_spec =
                        handled_input(subject.status).is_some_and(|(input, _)| input == subject.input);
                    known && same_content && same_spec
                }
            };
            if !in_place {
                // Somebody else's edit, as opposed to a change of the spec: the input that was handled is still
                // the input, but the Secret is not what came of it.
                let edited = !adopting && !known && same_content;
                write = Some(if edited {
                    (AuditAction::Repair, Some(Reason::Repaired))
                } else {
                    (AuditAction::Reconcile, None)
                });
                steps.push(Step::Apply(Box::new(desired.over(&seen, adopting))));
            }
        }
    }
    if let (Some(former), Some(written)) = (observed.former, subject.status.secret.as_ref())
        && former.ownership == Ownership::Ours
        && !former.deleting
        && subject.spec.deletion_policy == DeletionPolicy::Delete
    {
        steps.push(Step::Delete { name: written.name.clone(), uid: former.uid });
        write = write.or(Some((AuditAction::Reconcile, None)));
    }
    Ok(Decision { content: states, digest, secret: reference, steps, write, written_keys })
}

impl Plan {
    fn nothing(status: SealedEnvStatus) -> Self {
        Self { status, steps: Vec::new(), records: Vec::new(), notices: Vec::new(), requeue: None }
    }
}
