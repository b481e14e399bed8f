//! What to do about one SealedEnv: a pure decision, from what is wanted and what was seen to a [`Plan`].
//!
//! Nothing here reads a clock, a key or an API. `apply` carries the plan out; `controller` feeds it. Every row of
//! the table in docs/src/reconcile.md is a test in `tests.rs`.

mod altered;
mod content;
mod decide;
pub(crate) mod memory;
mod settled;
mod shape;
mod status;
#[cfg(test)]
mod tests;
mod value_digests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sealedenv_audit::Record;
use sealedenv_crds::{Delivery, SealedEnvSpec, SealedEnvStatus};
use sealedenv_seal::Plain;

pub(crate) use decide::is_as_written;
pub(crate) use settled::handled_input;
pub use settled::{Handled, is_settled};
pub(crate) use shape::problem;
pub use shape::{DesiredSecret, Over};
pub(crate) use status::{conditions, cut, record};

use crate::digest::DigestKey;
use crate::opened::Opened;
use crate::reason::Reason;

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
    /// Whether the steps only undo what somebody else did, and nobody asked for anything. Such work can wait.
    pub repairs: bool,
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
/// - With `delivery: Memory` no step writes a value anywhere.
/// - Every step is preceded by a record (I5); records and notices hold names and digests only (I1).
///
/// # Assumptions
/// - `observed.secret` is what a read or the watch showed. It may be stale: each step carries a precondition that
///   makes the API server refuse it then.
/// - Where a value did not open and the Secret exists, `observed.secret.live` was read, so that the last good value
///   can be kept; and `observed.former.live`, since that Secret goes.
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
    let draft = status::Draft::new(now, subject, &observed.ring, &opened, digests.mark());
    if subject.spec.suspend {
        return draft.suspended();
    }
    if let Some(problem) = shape::problem(subject.spec) {
        return draft.refused(Reason::InvalidSpec, problem, None);
    }
    let decided = match subject.spec.delivery {
        Delivery::Secret => decide::decide(subject, observed, opened, digests).map(Decided::Secret),
        Delivery::Memory => memory::decide(subject, observed, opened, digests).map(Decided::Memory),
    };
    match decided {
        Ok(Decided::Secret(decision)) => draft.delivered(decision),
        Ok(Decided::Memory(ready)) => draft.in_memory(ready),
        Err(refusal) => draft.refused_with(&refusal.states, refusal.reason, refusal.message, refusal.requeue),
    }
}

enum Decided {
    Secret(decide::Decision),
    Memory(memory::Ready),
}

/// The status when a plan could not be carried out, for now: all else stays, so that work goes on where it stopped.
pub fn held_up(now: Timestamp, subject: &Subject<'_>, reason: Reason, message: String) -> SealedEnvStatus {
    let mut status = subject.status.clone();
    let wanted = conditions(reason, message);
    status.conditions =
        sealedenv_crds::condition::merge(now, Some(subject.generation), &subject.status.conditions, wanted);
    if reason.conditions().stalled {
        status.observed_generation = Some(subject.generation);
        status.last_handled_reconcile_at = subject.requested_at.map(ToOwned::to_owned);
    }
    status
}

impl Plan {
    fn nothing(status: SealedEnvStatus) -> Self {
        Self {
            status,
            steps: Vec::new(),
            records: Vec::new(),
            notices: Vec::new(),
            requeue: None,
            repairs: false,
        }
    }
}
