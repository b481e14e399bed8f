//! The volumes that a pod gets, and whether one that it has is the one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, EmptyDirVolumeSource, PodSpec, ProjectedVolumeSource, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sealedenv_crds::names;
use sha2::{Digest, Sha256};

use super::path::{MountPath, canonical};
use super::{Denied, wrap};
use crate::text::quoted;

/// Mode of the files in a Secret volume; see the module's choices.
const MODE: i32 = 0o444;

/// In the agent's containers only: the tokens that it shows to the operator, `NAME/token`.
pub(super) const TOKENS: &str = "sealedenvs-tokens";
/// In the agent's containers only: what it has to remember, which is public: whom to take for the operator.
pub(super) const STATE: &str = "sealedenvs-state";
/// In containers that get environment variables of files: the program that makes them. No SealedEnv's volume is called so:
/// theirs have another word in front.
pub(super) const PROGRAM: &str = "sealedenvs-program";

/// Room for the largest SealedEnv twice, each file on pages of its own: one version beside the other.
const FILES_LIMIT: &str = "36Mi";
const STATE_LIMIT: &str = "1Mi";
/// Room for the program twice, should it be put there again.
const PROGRAM_LIMIT: &str = "4Mi";

/// How long a token of the agent is good for, in seconds. The kubelet renews it after four fifths of that.
const TOKEN_LIFETIME: i64 = 3600;

/// One volume, and where the pod's containers have it.
pub(super) struct Wanted {
    pub(super) volume: String,
    pub(super) source: Source,
    pub(super) path: MountPath,
}

/// Where the content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The Secret of that name.
    Secret(String),
    /// The node plugin, which asks for the SealedEnv of that name.
    Csi(String),
    /// The agent, which asks for the SealedEnv of that name.
    Agent(String),
    /// A container of ours: the program that makes environment variables.
    Program,
}

impl Wanted {
    /// The folder of the program that makes environment variables.
    pub(super) fn program() -> Self {
        Self { volume: PROGRAM.to_owned(), source: Source::Program, path: MountPath::fixed(wrap::FOLDER) }
    }

    /// Whether it has files of a SealedEnv that are nowhere else.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Csi(_) | Source::Agent(_))
    }

    /// The SealedEnv, where the agent fetches it.
    pub(super) fn of_agent(&self) -> Option<&str> {
        match &self.source {
            Source::Agent(environment) => Some(environment),
            _ => None,
        }
    }

    /// The Secret, where it is one.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.source {
            Source::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// Whether the volume has a folder for the ServiceAccount token to be mounted on.
    pub(super) fn has_token_folder(&self) -> bool {
        self.is_in_memory() && canonical(self.path.as_str()) == names::DEFAULT_MOUNT_ROOT
    }

    /// Whether it is an `emptyDir`, which whoever mounts it otherwise could write.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self.source, Source::Agent(_) | Source::Program)
    }

    /// As a container of the pod has it.
    pub(super) fn mount(&self) -> VolumeMount {
        VolumeMount {
            name: self.volume.clone(),
            mount_path: self.path.as_str().to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }
    }

    fn make(&self) -> Volume {
        let mut volume = Volume { name: self.volume.clone(), ..Volume::default() };
        match &self.source {
            Source::Secret(secret) => {
                volume.secret = Some(SecretVolumeSource {
                    secret_name: Some(secret.clone()),
                    default_mode: Some(MODE),
                    optional: Some(false),
                    items: None,
                });
            }
            Source::Csi(environment) => {
                let mut attributes =
                    BTreeMap::from([(names::CSI_ENVIRONMENT.to_owned(), environment.clone())]);
                if self.has_token_folder() {
                    attributes.insert(names::CSI_TOKEN_FOLDER.to_owned(), "true".to_owned());
                }
                volume.csi = Some(CSIVolumeSource {
                    driver: names::CSI_DRIVER.to_owned(),
                    read_only: Some(true),
                    volume_attributes: Some(attributes),
                    ..CSIVolumeSource::default()
                });
            }
            Source::Agent(_) => volume.empty_dir = Some(memory(FILES_LIMIT)),
            Source::Program => volume.empty_dir = Some(memory(PROGRAM_LIMIT)),
        }
        volume
    }

    /// Whether a volume is what is wanted.
    fn is(&self, volume: &Volume) -> bool {
        match &self.source {
            // The whole Secret, and waiting for it.
            Source::Secret(secret) => volume.secret.as_ref().is_some_and(|source| {
                source.secret_name.as_ref() == Some(secret)
                    && source.optional != Some(true)
                    && source.items.as_ref().is_none_or(Vec::is_empty)
            }),
            Source::Csi(environment) => volume.csi.as_ref().is_some_and(|source| {
                let attribute = |name: &str| source.volume_attributes.as_ref()?.get(name).map(String::as_str);
                source.driver == names::CSI_DRIVER
                    && attribute(names::CSI_ENVIRONMENT) == Some(environment)
                    && (!self.has_token_folder() || attribute(names::CSI_TOKEN_FOLDER) == Some("true"))
            }),
            Source::Agent(_) | Source::Program => is_memory(volume),
        }
    }

    /// What it is, for people.
    fn content(&self) -> String {
        match &self.source {
            Source::Secret(secret) => format!("the Secret {}", quoted(secret)),
            Source::Csi(environment) => format!("the node plugin's of SealedEnv {}", quoted(environment)),
            Source::Agent(_) | Source::Program => "an emptyDir in memory".to_owned(),
        }
    }
}

/// Those that the pod lacks.
pub(super) fn absent(spec: &PodSpec, wanted: &[Wanted]) -> Result<Vec<Volume>, Denied> {
    let there = |name: &str| spec.volumes.iter().flatten().find(|volume| volume.name == name);
    let conflict = |volume: &str, content| Err(Denied::VolumeConflict { volume: volume.to_owned(), content });
    let mut absent = Vec::new();
    for wanted in wanted {
        match there(&wanted.volume) {
            None => absent.push(wanted.make()),
            Some(volume) if wanted.is(volume) => {}
            Some(_) => return conflict(&wanted.volume, wanted.content()),
        }
    }
    let of_agent: Vec<&str> = wanted.iter().filter_map(Wanted::of_agent).collect();
    if of_agent.is_empty() {
        return Ok(absent);
    }
    match there(TOKENS) {
        None => absent.push(tokens(&of_agent)),
        Some(volume) if of_agent.iter().all(|name| has_token(volume, name)) => {}
        Some(_) => return conflict(TOKENS, "of the agent's tokens".to_owned()),
    }
    match there(STATE) {
        None => absent.push(Volume {
            name: STATE.to_owned(),
            empty_dir: Some(on_disk(STATE_LIMIT)),
            ..Volume::default()
        }),
        // In memory as well, as webhooks before this one had it: nothing in it is secret.
        Some(volume) if volume.empty_dir.is_some() => {}
        Some(_) => return conflict(STATE, "an emptyDir".to_owned()),
    }
    Ok(absent)
}

/// Outlives a restart of the node, as the pod does. Nothing secret goes there.
fn on_disk(limit: &str) -> EmptyDirVolumeSource {
    EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(limit.to_owned())) }
}

fn memory(limit: &str) -> EmptyDirVolumeSource {
    EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: Some(Quantity(limit.to_owned())) }
}

fn is_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() == Some("Memory"))
}

/// A token for each SealedEnv. Their paths are what the operator knows by which SealedEnvs the pod's spec names.
fn tokens(environments: &[&str]) -> Volume {
    let source = |name: &&str| VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(names::GROUP.to_owned()),
            expiration_seconds: Some(TOKEN_LIFETIME),
            path: format!("{name}{}", names::AGENT_TOKEN_SUFFIX),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: TOKENS.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(environments.iter().map(source).collect()),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn has_token(volume: &Volume, environment: &str) -> bool {
    let sources = volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten();
    sources.filter_map(|source| source.service_account_token.as_ref()).any(|token| {
        token.audience.as_deref() == Some(names::GROUP)
            && token.path.strip_suffix(names::AGENT_TOKEN_SUFFIX) == Some(environment)
    })
}

/// `sealedenv-<name>`, or with a hash where the name is too long or has dots: a volume's name is a DNS label.
pub(super) fn volume_name(environment: &str) -> String {
    const LABEL: usize = 63;
    let name = format!("sealedenv-{environment}");
    if name.len() <= LABEL && !environment.contains('.') {
        return name;
    }
    let hash = Sha256::digest(environment.as_bytes());
    let hash = hex::encode(&hash[..8]);
    let readable: String = environment.chars().take(24).map(|c| if c == '.' { '-' } else { c }).collect();
    format!("sealedenv-{}-{hash}", readable.trim_end_matches('-'))
}
