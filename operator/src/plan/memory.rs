//! What is to be done about a SealedEnv whose values never become a Secret: nothing is written, and a Secret that was
//! written before it was one of these goes, once every key opens or has no value worth keeping (I4).

use std::collections::BTreeSet;

use sealedenv_crds::{DeletionPolicy, KeyState, OnKeyError};

use super::content::{self, Content, States};
use super::decide::Refusal;
use super::{Observed, Ownership, SecretFacts, Step, Subject, secret_name};
use crate::digest::DigestKey;
use crate::files;
use crate::opened::Opened;

/// What pods can have.
pub(crate) struct Ready {
    pub(crate) states: States,
    pub(crate) digest: String,
    /// Deletions of Secrets from before.
    pub(crate) steps: Vec<Step>,
    /// Whether one stays for now, since it may hold the only value of a key that does not open.
    pub(crate) spared: bool,
}

pub(crate) fn decide(
    subject: &Subject<'_>,
    observed: Observed,
    opened: Opened,
    digests: &DigestKey,
) -> Result<Ready, Refusal> {
    // There is no Secret that could keep a last good value; the pods do.
    let Content { values, states } = fold(opened, subject.spec.on_key_error)?;
    let keep = kept_by_pods(&states, subject.spec.on_key_error);
    let digest = digests.of_files(&values, &files::modes(subject.spec), &keep);
    let current = observed.secret.map(|secret| (secret_name(subject), secret));
    let former = subject.status.secret.as_ref().map(|written| written.name.as_str()).zip(observed.former);
    let left_over: Vec<Step> = (current.into_iter().chain(former))
        .filter(|(_, secret)| is_left_over(subject, secret))
        .map(|(name, secret)| Step::Delete { name: name.to_owned(), uid: secret.uid })
        .collect();
    let spared = !keep.is_empty() && !left_over.is_empty();
    let steps = if spared { Vec::new() } else { left_over };
    Ok(Ready { states, digest, steps, spared })
}

/// The values that are delivered, under the policy for keys that do not open. [`crate::delivery`] uses the same.
pub(crate) fn fold(opened: Opened, policy: OnKeyError) -> Result<Content, Refusal> {
    content::fold(opened, policy, &[], &BTreeSet::new()).map_err(|r| Refusal {
        reason: r.reason,
        message: r.message,
        requeue: None,
        states: r.states,
    })
}

/// The keys without a value now, whose last good one pods keep, where they have one.
pub(crate) fn kept_by_pods(states: &States, policy: OnKeyError) -> Vec<&str> {
    let missing = states.0.iter().filter(|(_, told)| told.state == KeyState::Missing);
    match policy {
        OnKeyError::KeepLast => missing.map(|(key, _)| key.as_str()).collect(),
        OnKeyError::Omit | OnKeyError::Fail => Vec::new(),
    }
}

/// Whether a Secret is ours to delete, since no value is to stand in etcd any more.
pub(crate) fn is_left_over(subject: &Subject<'_>, secret: &SecretFacts) -> bool {
    secret.ownership == Ownership::Ours
        && !secret.deleting
        && subject.spec.deletion_policy == DeletionPolicy::Delete
}
