//! Conditions, by the kstatus rules that Flux, Argo CD and `kubectl wait` read.
//!
//! `Ready` is `True` when the object does what its spec says, `False` for a fault, `Unknown` while working.
//! `Reconciling` and `Stalled` are present only when `True`: kstatus reads `Reconciling=True` as in progress and
//! `Stalled=True` as failed, so that a pipeline fails fast on what only a human can mend.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Whether the object does what its spec says.
pub const READY: &str = "Ready";
/// Present and `True` while work goes on or will be retried by itself.
pub const RECONCILING: &str = "Reconciling";
/// Present and `True` when only a change of the object, of a key or of the cluster can help.
pub const STALLED: &str = "Stalled";
/// Present and `True` while a pod that wants the values in memory is refused them; what it has, it keeps. It says
/// nothing of the object's own state, so `Ready` does not follow it.
pub const DELIVERY_REFUSED: &str = "DeliveryRefused";

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

impl Status {
    /// The text Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition as the writer wants it, before it is merged with what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Condition type, for example [`READY`].
    pub type_: &'static str,
    /// Its status.
    pub status: Status,
    /// A stable `PascalCase` reason.
    pub reason: &'static str,
    /// A sentence for people. Names and hints only, never a value.
    pub message: String,
}

/// The conditions to write: those wanted, each with the transition time it already had when its status did
/// not change. A type that is not wanted any more is left out.
pub fn merge(
    now: Timestamp,
    generation: Option<i64>,
    current: &[Condition],
    wanted: Vec<Wanted>,
) -> Vec<Condition> {
    wanted
        .into_iter()
        .map(|w| {
            let since = current
                .iter()
                .find(|c| c.type_ == w.type_ && c.status == w.status.as_str())
                .map_or_else(|| Time(now), |c| c.last_transition_time.clone());
            Condition {
                last_transition_time: since,
                message: w.message,
                observed_generation: generation,
                reason: w.reason.to_owned(),
                status: w.status.as_str().to_owned(),
                type_: w.type_.to_owned(),
            }
        })
        .collect()
}

/// The status of one condition type, if it is there.
pub fn status_of<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a str> {
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str())
}
