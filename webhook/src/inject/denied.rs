//! Why a pod is not let in, and what to do about it.

use sealedenv_crds::names;

/// Why a pod must not start as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An annotation cannot be obeyed.
    #[error("annotation {annotation} {why}")]
    InvalidAnnotation {
        /// Its key.
        annotation: &'static str,
        /// The rest of the sentence.
        why: String,
    },
    /// `sealedenv.dev/containers` names a container that the pod does not have.
    #[error("annotation {} names {container}, and the pod has no such container", names::CONTAINERS)]
    UnknownContainer {
        /// The name, quoted.
        container: String,
    },
    /// A way of delivery that this version does not have, or that is not turned on.
    #[error("delivery {asked} is not available here")]
    DeliveryUnavailable {
        /// What was asked for.
        asked: String,
    },
    /// Nobody has said yet how the agent is to recognise the operator.
    #[error(
        "the agent could not tell the operator from anybody else: its certificate authority is not known yet"
    )]
    NoAuthority,
    /// The SealedEnv is delivered in another way than the pod asks for.
    #[error("SealedEnv {environment} is delivered by {has}, and the pod asks for {asked}")]
    DeliveryMismatch {
        /// Name of the SealedEnv.
        environment: String,
        /// Its own `delivery`.
        has: &'static str,
        /// What was asked for.
        asked: &'static str,
    },
    /// Environment variables of values for which there is no Secret, and nothing that could make them.
    #[error(
        "SealedEnv {environment} has no Secret, and the webhook does not know the image that makes environment variables of files"
    )]
    NoVariables {
        /// Name of the SealedEnv.
        environment: String,
    },
    /// Environment variables of files are given to the program that a container's command names, and it names none.
    #[error(
        "container {container} has no command, and environment variables of values in memory are given to a command"
    )]
    CommandMissing {
        /// The container.
        container: String,
    },
    /// Nobody could send the signal that the pod asks for.
    #[error("the pod's containers do not share processes, so the agent cannot send them a signal")]
    ProcessesNotShared,
    /// A container has the name of one that is added, and is something else.
    #[error(
        "the pod has a container {container} already, and it is not the one that is added under this name"
    )]
    ContainerConflict {
        /// Its name.
        container: String,
    },
    /// The mount would cover the folder of the ServiceAccount token.
    #[error(
        "a read-only mount at {path} would keep the ServiceAccount token from being mounted, and the pod from starting"
    )]
    CoversToken {
        /// Where the mount would be.
        path: String,
    },
    /// A container has something at, above or below the path that does not go together with the mount.
    #[error("container {container} cannot have {path}: {why}")]
    PathConflict {
        /// The container.
        container: String,
        /// Where the mount would be.
        path: String,
        /// What is in the way.
        why: String,
    },
    /// The pod has a volume of the name that we use, with other content.
    #[error("the pod has a volume {volume} already, and it is not {content}")]
    VolumeConflict {
        /// Name of the volume.
        volume: String,
        /// What it should be.
        content: String,
    },
    /// A pod without a spec.
    #[error("the pod has no spec")]
    NoSpec,
}

impl Denied {
    /// A stable word for metrics and the audit trail.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidAnnotation { .. } => "InvalidAnnotation",
            Self::UnknownContainer { .. } => "UnknownContainer",
            Self::DeliveryUnavailable { .. } => "DeliveryUnavailable",
            Self::NoAuthority => "NoAuthority",
            Self::CommandMissing { .. } => "CommandMissing",
            Self::ProcessesNotShared => "ProcessesNotShared",
            Self::ContainerConflict { .. } => "ContainerConflict",
            Self::DeliveryMismatch { .. } => "DeliveryMismatch",
            Self::NoVariables { .. } => "NoVariables",
            Self::CoversToken { .. } => "CoversToken",
            Self::PathConflict { .. } => "PathConflict",
            Self::VolumeConflict { .. } => "VolumeConflict",
            Self::NoSpec => "NoSpec",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InvalidAnnotation { annotation, .. } => match *annotation {
                names::INJECT => {
                    "give the names of SealedEnvs of the pod's namespace, for example checkout,payments"
                }
                names::CONTAINERS => "give names of containers or init containers, for example app,migrate",
                names::DELIVERY => "leave the annotation out, or set it to secret, csi or agent",
                names::ON_CHANGE => {
                    "give for example signal=SIGHUP, or exec= and a program that is in the agent's image, for example exec=/bin/reload --quiet, or leave the annotation out"
                }
                names::MOUNT_PATH => {
                    "give a folder of its own, for example /app/secrets, or leave the annotation out"
                }
                _ => "correct the annotation or leave it out",
            },
            Self::UnknownContainer { .. } => {
                "name containers or init containers of this pod; ephemeral containers never get values"
            }
            Self::DeliveryUnavailable { .. } => {
                "leave the annotation sealedenv.dev/delivery out; the agent is there where the chart's agent.enabled is set"
            }
            Self::DeliveryMismatch { .. } => {
                "leave the annotation sealedenv.dev/delivery out, or change spec.delivery of the SealedEnv"
            }
            Self::NoVariables { .. } => {
                "read the files instead and leave sealedenv.dev/env out, or install the webhook by its chart, which names the image"
            }
            Self::NoAuthority => {
                "the operator publishes it when it first runs with the chart's delivery.enabled; try again, and see whether the operator is ready"
            }
            Self::CommandMissing { .. } => {
                "write the image's entrypoint as the container's command, or read the files and name only other containers in sealedenv.dev/containers"
            }
            Self::ProcessesNotShared => {
                "set shareProcessNamespace: true in the pod's spec, or leave sealedenv.dev/on-change out"
            }
            Self::ContainerConflict { .. } => "rename the pod's own container",
            Self::CoversToken { .. } => {
                "mount elsewhere, or set automountServiceAccountToken: false in the pod's spec if it needs no token"
            }
            Self::PathConflict { .. } => {
                "set sealedenv.dev/mount-path to a folder of its own, or narrow sealedenv.dev/containers"
            }
            Self::VolumeConflict { .. } => "rename the pod's own volume",
            Self::NoSpec => "send a complete pod",
        }
    }
}
