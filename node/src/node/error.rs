//! What can go wrong, and what the kubelet is told of it.

use sealedenv_delivery::client::FetchError as ClientError;
use sealedenv_delivery::{Reason, Refused};
use sealedenv_runtime::report;
use sealedenv_volume::WriteError;
use tonic::{Code, Status};

use crate::mount::MountError;
use crate::place::PlaceError;
use crate::publish::Foreign;
use crate::request::RequestError;
use crate::source::FetchError;
use crate::target::NoTarget;

/// Why a call of the kubelet failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No volume is named.
    #[error("volume_id must be given")]
    NoVolume,
    /// The target is none.
    #[error(transparent)]
    Target(#[from] NoTarget),
    /// The request cannot be carried out as it is.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something is at the target that is not ours.
    #[error("the target is not touched")]
    Foreign(#[from] Foreign),
    /// The directory above the target is missing: the pod is gone.
    #[error("the directory of the volume is not there")]
    Gone,
    /// The operator was asked and gave nothing.
    #[error("asking the operator for the files")]
    Fetch(#[from] FetchError),
    /// The operator said no.
    #[error("the operator does not deliver it ({}): {}", .0.reason.as_str(), .0.message)]
    Refused(Refused),
    /// The target could not be looked at or changed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Something could not be mounted or unmounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The files could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl NodeError {
    fn code(&self) -> Code {
        match self {
            Self::NoVolume | Self::Target(_) | Self::Request(_) => Code::InvalidArgument,
            Self::Foreign(_) | Self::Gone | Self::Write(WriteError::Conflict(_)) => Code::FailedPrecondition,
            Self::Fetch(FetchError::Client(ClientError::Unauthenticated(_))) => Code::Unauthenticated,
            Self::Fetch(FetchError::Client(ClientError::Denied(_))) => Code::PermissionDenied,
            Self::Fetch(FetchError::Client(ClientError::Malformed(_))) => Code::Internal,
            Self::Fetch(_) => Code::Unavailable,
            Self::Refused(refused) => match refused.reason {
                Reason::NotNamed | Reason::NotAllowed => Code::PermissionDenied,
                Reason::NotFound => Code::NotFound,
                Reason::NotMemory | Reason::Suspended | Reason::NotOpened | Reason::TooLarge => {
                    Code::FailedPrecondition
                }
                _ => Code::Unavailable,
            },
            Self::Write(WriteError::Full(_)) => Code::ResourceExhausted,
            Self::Place(_) | Self::Mount(_) | Self::Write(_) => Code::Internal,
        }
    }
}

impl NodeError {
    /// What people who own the pod may read: nothing of the plugin's files, nor of how the operator is reached. The log
    /// has all of it.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Fetch(FetchError::Client(error)) => format!("{self}: {error}"),
            Self::Fetch(_) => format!("{self}: the node plugin cannot; its log says why"),
            _ => report::chain(self),
        }
    }
}

impl From<NodeError> for Status {
    /// The kubelet shows the message in an Event of the pod.
    fn from(error: NodeError) -> Self {
        Self::new(error.code(), error.told())
    }
}
