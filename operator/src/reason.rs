//! Every reason the operator gives, in conditions and Events. They are API: alerts and scripts match on them.

use sealedenv_crds::condition::Status;

/// Why an object is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All keys are delivered.
    Delivered,
    /// The Secret was changed or deleted by somebody else and has been put right.
    Repaired,
    /// The last good value of a key that does not open was changed or removed by somebody else, and is lost.
    KeptValueChanged,
    /// The Secret is changed or deleted again and again; the next repair waits a while.
    RepairPaused,
    /// Some keys cannot be opened.
    KeysNotOpened,
    /// No key can be opened, so nothing is written.
    NothingOpened,
    /// The spec asks for something that is never allowed.
    InvalidSpec,
    /// The object does not decode as this version of the API.
    Undecodable,
    /// A Secret of that name exists and is not ours.
    SecretNotOurs,
    /// A Secret of that name belongs to another SealedEnv.
    SecretOwnedByAnother,
    /// Adopting the Secret would remove keys that it has.
    AdoptionWouldLoseKeys,
    /// The Secret is immutable and its content would change.
    SecretImmutable,
    /// The Secret has another type, which Kubernetes does not change.
    SecretTypeChanged,
    /// The values together are more than a Secret can hold.
    TooLarge,
    /// The Secret is being deleted; work goes on when it is gone.
    SecretDeleting,
    /// Work is switched off on this object.
    Suspended,
    /// No audit sink took the record, so nothing was released.
    AuditUnavailable,
    /// The API server does not take the Secret as it is, for example a TLS Secret without a certificate.
    SecretRefused,
    /// The API server refused a write, or did not answer; it is tried again.
    ApiError,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 19] = [
        Self::Delivered,
        Self::Repaired,
        Self::KeptValueChanged,
        Self::RepairPaused,
        Self::KeysNotOpened,
        Self::NothingOpened,
        Self::InvalidSpec,
        Self::Undecodable,
        Self::SecretNotOurs,
        Self::SecretOwnedByAnother,
        Self::AdoptionWouldLoseKeys,
        Self::SecretImmutable,
        Self::SecretTypeChanged,
        Self::TooLarge,
        Self::SecretDeleting,
        Self::Suspended,
        Self::AuditUnavailable,
        Self::SecretRefused,
        Self::ApiError,
    ];

    /// The reason that a text names.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Repaired => "Repaired",
            Self::KeptValueChanged => "KeptValueChanged",
            Self::RepairPaused => "RepairPaused",
            Self::KeysNotOpened => "KeysNotOpened",
            Self::NothingOpened => "NothingOpened",
            Self::InvalidSpec => "InvalidSpec",
            Self::Undecodable => "Undecodable",
            Self::SecretNotOurs => "SecretNotOurs",
            Self::SecretOwnedByAnother => "SecretOwnedByAnother",
            Self::AdoptionWouldLoseKeys => "AdoptionWouldLoseKeys",
            Self::SecretImmutable => "SecretImmutable",
            Self::SecretTypeChanged => "SecretTypeChanged",
            Self::TooLarge => "TooLarge",
            Self::SecretDeleting => "SecretDeleting",
            Self::Suspended => "Suspended",
            Self::AuditUnavailable => "AuditUnavailable",
            Self::SecretRefused => "SecretRefused",
            Self::ApiError => "ApiError",
        }
    }

    /// What the reason means for `Ready`, and which of `Reconciling` and `Stalled` goes with it.
    pub fn conditions(self) -> Meaning {
        match self {
            Self::Delivered | Self::Repaired => {
                Meaning { ready: Status::True, reconciling: false, stalled: false }
            }
            // What passes by itself is work in progress, not a fault: a GitOps tool must wait, not fail.
            Self::RepairPaused | Self::SecretDeleting | Self::AuditUnavailable | Self::ApiError => {
                Meaning { ready: Status::Unknown, reconciling: true, stalled: false }
            }
            Self::Suspended => Meaning { ready: Status::Unknown, reconciling: false, stalled: false },
            Self::KeptValueChanged
            | Self::KeysNotOpened
            | Self::NothingOpened
            | Self::InvalidSpec
            | Self::Undecodable
            | Self::SecretNotOurs
            | Self::SecretOwnedByAnother
            | Self::AdoptionWouldLoseKeys
            | Self::SecretImmutable
            | Self::SecretTypeChanged
            | Self::SecretRefused
            | Self::TooLarge => Meaning { ready: Status::False, reconciling: false, stalled: true },
        }
    }
}

/// What a reason means in kstatus terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Status of `Ready`.
    pub ready: Status,
    /// Whether `Reconciling` is there.
    pub reconciling: bool,
    /// Whether `Stalled` is there.
    pub stalled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reason that is added and not listed does not compile here: list it, and raise the number.
    fn listed(reason: Reason) -> usize {
        use Reason::{
            AdoptionWouldLoseKeys, ApiError, AuditUnavailable, Delivered, InvalidSpec, KeptValueChanged,
            KeysNotOpened, NothingOpened, RepairPaused, Repaired, SecretDeleting, SecretImmutable,
            SecretNotOurs, SecretOwnedByAnother, SecretRefused, SecretTypeChanged, Suspended, TooLarge,
            Undecodable,
        };
        match reason {
            Delivered
            | Repaired
            | KeptValueChanged
            | RepairPaused
            | KeysNotOpened
            | NothingOpened
            | InvalidSpec
            | Undecodable
            | SecretNotOurs
            | SecretOwnedByAnother
            | AdoptionWouldLoseKeys
            | SecretImmutable
            | SecretTypeChanged
            | TooLarge
            | SecretDeleting
            | Suspended
            | AuditUnavailable
            | SecretRefused
            | ApiError => 19,
        }
    }

    #[test]
    fn every_reason_is_listed_once_and_found_by_its_text() {
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(texts.len(), listed(Reason::Delivered));
        for reason in Reason::ALL {
            assert_eq!(Reason::of(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::of("delivered"), None);
    }
}
