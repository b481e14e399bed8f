//! Whether the Secret is written, and over what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealedenv_audit::Action as AuditAction;
use sealedenv_crds::{DeletionPolicy, SecretRef, names};

use super::altered::Traces;
use super::content::{self, Content, Refused, States};
use super::{DesiredSecret, Observed, Ownership, SecretFacts, Step, Subject, handled_input, secret_name};
use crate::digest::DigestKey;
use crate::opened::Opened;
use crate::reason::Reason;

/// A Secret of somebody else is looked at again this often: it is not watched.
pub(crate) const FOREIGN_RECHECK: Duration = Duration::from_mins(5);

/// A Secret that is being deleted is looked at again this soon, should the watch not show its end.
const DELETING_RECHECK: Duration = Duration::from_secs(5);

/// Why nothing is written.
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) requeue: Option<Duration>,
    /// What the Secret holds of each key nevertheless.
    pub(crate) states: States,
}

/// What is to be written, and what the Secret will hold.
pub(crate) struct Decision {
    pub(crate) content: States,
    pub(crate) digest: String,
    pub(crate) secret: SecretRef,
    pub(crate) steps: Vec<Step>,
    /// What is audited about the write, if there is one.
    pub(crate) write: Option<(AuditAction, Option<Reason>)>,
    pub(crate) written_keys: Vec<String>,
}

pub(crate) fn decide(
    subject: &Subject<'_>,
    observed: Observed,
    opened: Opened,
    digests: &DigestKey,
) -> Result<Decision, Refusal> {
    let Observed { secret, former, .. } = observed;
    let name = secret_name(subject);
    let held = content::held(subject, secret.as_ref());
    if let Some(seen) = &secret {
        hands_off(seen, name, &opened, &held)?;
    }

    let read = secret.iter().chain(&former).filter_map(|s| s.live.as_ref());
    let last: Vec<_> = read.map(|live| &live.content).collect();
    let folded = content::fold(opened, subject.spec.on_key_error, &last, &held);
    let untouched = secret.as_ref().is_some_and(|secret| is_as_written(subject, secret));
    let traces = Traces { subject, digests, last: &last, untouched };
    let Content { values, states } = match folded {
        Ok(mut content) => {
            traces.note(&mut content.states, &content.values);
            content
        }
        Err(Refused { reason, message, mut states }) => {
            traces.note(&mut states, &BTreeMap::new());
            return Err(Refusal { reason, message, requeue: None, states });
        }
    };
    let digest = digests.of(&values);
    let desired = DesiredSecret::new(subject, name, values);
    let mut decision = Decision {
        content: states,
        secret: desired.reference(),
        steps: Vec::new(),
        write: None,
        written_keys: desired.content.keys().cloned().collect(),
        digest,
    };
    match secret {
        None => create(subject, desired, &mut decision),
        Some(seen) => update(subject, &seen, desired, &mut decision).map_err(|(reason, message)| {
            let states = std::mem::take(&mut decision.content).turned_away();
            Refusal { reason, message, requeue: None, states }
        })?,
    }
    remove_former(subject, former, &mut decision);
    Ok(decision)
}

/// Whether nobody wrote to the wanted Secret since the status was written.
pub(crate) fn is_as_written(subject: &Subject<'_>, seen: &SecretFacts) -> bool {
    let written = subject.status.secret.as_ref().filter(|w| w.name == secret_name(subject));
    written.is_some_and(|w| w.resource_version.as_deref() == Some(seen.resource_version.as_str()))
}

/// Refuses a Secret that is not to be touched, now or ever.
fn hands_off(
    seen: &SecretFacts,
    name: &str,
    opened: &Opened,
    held: &BTreeSet<String>,
) -> Result<(), Refusal> {
    let (reason, message, after) = match &seen.ownership {
        Ownership::Another(owner) => {
            let message =
                format!("Secret {name} belongs to SealedEnv {owner}; give one of them another secret.name");
            (Reason::SecretOwnedByAnother, message, FOREIGN_RECHECK)
        }
        Ownership::Foreign { adoptable: false } => {
            let message = format!(
                "Secret {name} exists and was not made by this SealedEnv; it is left alone. Annotate the Secret with {}: \"true\" to hand it over, or choose another secret.name",
                names::ADOPT
            );
            (Reason::SecretNotOurs, message, FOREIGN_RECHECK)
        }
        Ownership::Ours | Ownership::Foreign { adoptable: true } if seen.deleting => {
            let message = format!("Secret {name} is being deleted; it is written again when it is gone");
            (Reason::SecretDeleting, message, DELETING_RECHECK)
        }
        Ownership::Ours | Ownership::Foreign { adoptable: true } => return Ok(()),
    };
    Err(Refusal { reason, message, requeue: Some(after), states: States::unwritten(opened, held) })
}

fn create(subject: &Subject<'_>, desired: DesiredSecret, decision: &mut Decision) {
    let written = subject.status.secret.as_ref().filter(|w| w.name == desired.name);
    // It was there and nobody asked us to remove it: then somebody else did.
    let repair = written.is_some_and(|w| w.uid.is_some());
    decision.write = Some(if repair { REPAIR } else { CHANGE });
    decision.steps.push(Step::Apply(Box::new(desired)));
}

const REPAIR: (AuditAction, Option<Reason>) = (AuditAction::Repair, Some(Reason::Repaired));
const CHANGE: (AuditAction, Option<Reason>) = (AuditAction::Reconcile, None);

fn update(
    subject: &Subject<'_>,
    seen: &SecretFacts,
    desired: DesiredSecret,
    decision: &mut Decision,
) -> Result<(), (Reason, String)> {
    let adopting = seen.ownership != Ownership::Ours;
    let written = subject.status.secret.as_ref().filter(|w| w.name == desired.name);
    if let Some(obstacle) = desired.obstacle(written, seen.live.as_ref(), adopting, &decision.digest, subject)
    {
        return Err(obstacle);
    }
    decision.secret.uid = Some(seen.uid.clone());
    decision.secret.resource_version = Some(seen.resource_version.clone());
    let same_content = subject.status.digest.as_deref() == Some(decision.digest.as_str());
    let known = is_as_written(subject, seen);
    let in_place = if let Some(live) = &seen.live {
        !adopting && desired.is_met_by(live)
    } else {
        // Not read: then it is as we wrote it, or it is written again. A changed shape is written too.
        let same_spec = handled_input(subject.status).is_some_and(|(input, _)| input == subject.input);
        known && same_content && same_spec
    };
    if !in_place {
        // An edit by somebody else, as opposed to a change of the spec: what is wanted is what was wanted, but the
        // Secret is not what came of it.
        decision.write = Some(if !adopting && !known && same_content { REPAIR } else { CHANGE });
        decision.steps.push(Step::Apply(Box::new(desired.over(seen, adopting))));
    }
    Ok(())
}

/// The Secret under a former name goes after the new one is there, unless it is to outlive its SealedEnv.
fn remove_former(subject: &Subject<'_>, former: Option<SecretFacts>, decision: &mut Decision) {
    let (Some(former), Some(written)) = (former, subject.status.secret.as_ref()) else { return };
    if former.ownership == Ownership::Ours
        && !former.deleting
        && subject.spec.deletion_policy == DeletionPolicy::Delete
    {
        decision.steps.push(Step::Delete { name: written.name.clone(), uid: former.uid });
        decision.write = decision.write.or(Some(CHANGE));
    }
}
