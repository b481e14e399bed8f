//! Gives a pod what its annotations ask for: the pure heart of the webhook.
//!
//! # Expected flow
//! [`inject`] reads the annotations, works out one volume per SealedEnv and one mount (and, if asked, one `envFrom`)
//! per container, compares that with what the pod has, and answers the difference as a JSON patch.
//!
//! # Guarantees
//! * **Idempotent:** injecting what was injected gives an empty patch. Another webhook may have added, renamed or
//!   reordered containers in between; then the patch holds what is missing, once.
//! * **Only adds** volumes, mounts and `envFrom` entries. It never touches a command, a security context, a
//!   container's own entries or an ephemeral container. Fields it does not know pass untouched, since the patch
//!   names only what is added.
//! * **All or nothing:** whatever could break a container or hide something is [`Denied`], for every selected
//!   container, before anything is patched.
//! * **Names only:** it cannot see a value, and looks at nothing but its arguments.
//!
//! # Choices
//! * *Mode 0444.* Files of a Secret volume belong to root. 0400 or 0440 would lock out a container that runs as
//!   another user without `fsGroup`, and the security context is not ours to change. Who can read them is decided by
//!   which containers mount the volume. There is no write bit, for the volume cannot be written.
//! * *`optional: false`.* When the Secret does not exist yet, kubelet keeps the pod waiting with the event
//!   `FailedMount … secret "x" not found` and goes on by itself once it does.
//! * *A volume of the node plugin* is read-only in the volume itself as well. Where it is mounted at `/run/secrets`, it is
//!   told to make the folder that the ServiceAccount token is mounted on: a real one, in the tmpfs.
//! * *Volume names* come from the SealedEnv's name alone, never from the pod's, which may not exist yet.

mod ask;
mod conflict;
mod path;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::{
    CSIVolumeSource, Container, EnvFromSource, Pod, PodSpec, SecretEnvSource, SecretVolumeSource, Volume,
    VolumeMount,
};
use sealedenv_crds::names;
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::ask::Ask;
use self::path::{MountPath, canonical, same_or_within};
use crate::text::quoted;

/// Mode of the files in a Secret volume; see the module's choices.
const MODE: i32 = 0o444;

/// Marks the pod that the API server shows for a static pod: it cannot be changed.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How values get into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A volume of the Secret that the operator writes.
    Secret,
    /// A volume of the node plugin: files in memory, without a Secret.
    Csi,
}

/// What is known of a SealedEnv without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It exists.
    Present {
        /// `spec.secret.name`, if it is set.
        secret_name: Option<String>,
        /// `spec.delivery` as it stands there; empty if it is not set.
        delivery: String,
    },
    /// It does not exist.
    Absent,
    /// Nothing is known yet: take the defaults.
    Unknown,
}

/// What is known of the SealedEnvs of the cluster.
pub trait Environments {
    /// What is known of one.
    fn find(&self, namespace: &str, name: &str) -> Sighting;
}

/// What is not in the pod itself.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The namespace the pod is made in. The pod's own may be empty at admission.
    pub namespace: &'a str,
    /// How values are delivered where neither the annotation nor the SealedEnv says.
    pub default_delivery: Delivery,
    /// What is known of SealedEnvs.
    pub environments: &'a dyn Environments,
}

/// What to do to the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to add; empty when the pod asks for nothing or has everything.
    pub patch: Patch,
    /// The SealedEnvs that the pod asked for.
    pub environments: Vec<String>,
    /// Those of them that do not exist, so that the pod will wait.
    pub absent: Vec<String>,
    /// Sentences for whoever made the request.
    pub warnings: Vec<String>,
}

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
    /// A way of delivery that this version does not have.
    #[error("delivery {asked} is not available in this version")]
    DeliveryUnavailable {
        /// What was asked for.
        asked: String,
    },
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
    /// Environment variables of values for which there is no Secret.
    #[error(
        "SealedEnv {environment} has no Secret, and so cannot become environment variables in this version"
    )]
    NoVariables {
        /// Name of the SealedEnv.
        environment: String,
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
                names::DELIVERY => "leave the annotation out, or set it to secret or csi",
                names::MOUNT_PATH => {
                    "give a folder of its own, for example /app/secrets, or leave the annotation out"
                }
                _ => "correct the annotation or leave it out",
            },
            Self::UnknownContainer { .. } => {
                "name containers or init containers of this pod; ephemeral containers never get values"
            }
            Self::DeliveryUnavailable { .. } => {
                "this version delivers through Kubernetes Secrets and through its node plugin: leave the annotation out, or set it to secret or csi"
            }
            Self::DeliveryMismatch { .. } => {
                "leave the annotation sealedenv.dev/delivery out, or change spec.delivery of the SealedEnv"
            }
            Self::NoVariables { .. } => {
                "read the files instead and leave sealedenv.dev/env out, or give the SealedEnv delivery Secret"
            }
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

/// What one SealedEnv adds to a pod.
struct Wanted {
    volume: String,
    source: Source,
    path: MountPath,
}

/// Where the files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The Secret of that name.
    Secret(String),
    /// The node plugin, which asks for the SealedEnv of that name.
    Csi(String),
}

/// Works out what a pod that is being created gets. See the module for what it guarantees.
///
/// # Errors
/// [`Denied`]: the pod must not be created like this.
pub fn inject(pod: &Pod, request: &Request<'_>) -> Result<Outcome, Denied> {
    let nothing = BTreeMap::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&nothing);
    let Some(ask) = Ask::read(annotations)? else { return Ok(Outcome::default()) };
    if annotations.contains_key(MIRROR) {
        let warning = "a static pod cannot be given a SealedEnv: the API server only mirrors it".to_owned();
        return Ok(Outcome { warnings: vec![warning], ..Outcome::default() });
    }
    let spec = pod.spec.as_ref().ok_or(Denied::NoSpec)?;
    check_containers(&ask, spec)?;

    let mut outcome = Outcome { warnings: misspelt(annotations), ..Outcome::default() };
    let wanted = wanted(&ask, request, &mut outcome)?;
    if spec.automount_service_account_token != Some(false) {
        wanted.iter().try_for_each(leaves_the_token_alone)?;
    }
    let mut patch = Vec::new();
    let absent = absent_volumes(spec, &wanted)?;
    append(
        &mut patch,
        &["spec", "volumes"],
        spec.volumes.is_some(),
        absent.iter().map(|wanted| volume(wanted)),
    );
    for (kind, index, container) in containers(spec).filter(|(_, _, container)| is_selected(&ask, container))
    {
        let at = |field| ["spec".to_owned(), kind.to_owned(), index.to_string(), String::from(field)];
        let mut mounts = Vec::new();
        for one in &wanted {
            if conflict::check(spec, container, one, &wanted)? == conflict::Verdict::Free {
                mounts.push(mount(one));
            }
        }
        append(&mut patch, &at("volumeMounts"), container.volume_mounts.is_some(), mounts);
        if ask.variables {
            let secrets = wanted.iter().filter_map(|wanted| match &wanted.source {
                Source::Secret(secret) => Some(secret),
                // Refused before.
                Source::Csi(_) => None,
            });
            let sources = secrets.filter(|secret| !has_variables(container, secret)).map(|s| variables(s));
            append(&mut patch, &at("envFrom"), container.env_from.is_some(), sources);
        }
    }
    outcome.patch = Patch(patch);
    outcome.environments = ask.environments;
    Ok(outcome)
}

fn check_containers(ask: &Ask, spec: &PodSpec) -> Result<(), Denied> {
    let missing = ask
        .containers
        .iter()
        .flatten()
        .find(|name| !containers(spec).any(|(_, _, container)| container.name == **name));
    missing.map_or(Ok(()), |name| Err(Denied::UnknownContainer { container: quoted(name) }))
}

fn is_selected(ask: &Ask, container: &Container) -> bool {
    ask.containers.as_ref().is_none_or(|names| names.contains(&container.name))
}

/// Containers and init containers (native sidecars are init containers), each with its field and its index in it.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| ("initContainers", i, c));
    let main = spec.containers.iter().enumerate().map(|(i, c)| ("containers", i, c));
    init.chain(main)
}

fn misspelt(annotations: &BTreeMap<String, String>) -> Vec<String> {
    ask::unknown(annotations)
        .take(4)
        .map(|key| format!("annotation {} is not known and was not obeyed", quoted(key)))
        .collect()
}

/// What each SealedEnv adds; notes which of them do not exist.
fn wanted(ask: &Ask, request: &Request<'_>, outcome: &mut Outcome) -> Result<Vec<Wanted>, Denied> {
    let single = ask.environments.len() == 1;
    let mut all = Vec::new();
    for name in &ask.environments {
        let sighting = request.environments.find(request.namespace, name);
        let delivery = delivery(ask, name, &sighting, request.default_delivery)?;
        if sighting == Sighting::Absent {
            outcome.absent.push(name.clone());
            outcome.warnings.push(waiting(request.namespace, name));
        }
        let source = match (delivery, sighting) {
            (Delivery::Secret, Sighting::Present { secret_name: Some(secret), .. }) => Source::Secret(secret),
            (Delivery::Secret, _) => Source::Secret(name.clone()),
            (Delivery::Csi, _) if ask.variables => {
                return Err(Denied::NoVariables { environment: quoted(name) });
            }
            (Delivery::Csi, _) => Source::Csi(name.clone()),
        };
        let path = match &ask.mount_path {
            Some(path) if single => path.clone(),
            Some(path) => path.join(name),
            None => MountPath::under_default_root(name),
        };
        all.push(Wanted { volume: volume_name(name), source, path });
    }
    Ok(all)
}

/// The delivery of the SealedEnv, if it is known; or else the annotation's, or the cluster's default.
fn delivery(ask: &Ask, name: &str, sighting: &Sighting, default: Delivery) -> Result<Delivery, Denied> {
    let has = match sighting {
        Sighting::Present { delivery, .. } => match delivery.as_str() {
            "" | "Secret" => Some(Delivery::Secret),
            "Memory" => Some(Delivery::Csi),
            other => return Err(Denied::DeliveryUnavailable { asked: quoted(other) }),
        },
        Sighting::Absent | Sighting::Unknown => None,
    };
    match (has, ask.delivery) {
        // The pod would wait for ever: for a Secret that nobody writes, or for a node plugin that is given nothing.
        (Some(has), Some(asked)) if has != asked => Err(Denied::DeliveryMismatch {
            environment: quoted(name),
            has: if has == Delivery::Secret { "Secret" } else { "Memory" },
            asked: if asked == Delivery::Secret { "secret" } else { "csi" },
        }),
        (Some(has), _) => Ok(has),
        (None, asked) => Ok(asked.unwrap_or(default)),
    }
}

fn waiting(namespace: &str, name: &str) -> String {
    format!(
        "SealedEnv {namespace}/{name} does not exist: the pod will wait, with the event FailedMount, until its values are there"
    )
}

fn leaves_the_token_alone(wanted: &Wanted) -> Result<(), Denied> {
    let ours = canonical(wanted.path.as_str());
    let covers = same_or_within(path::TOKEN, &ours) || same_or_within(&ours, path::TOKEN);
    if covers && !wanted.has_token_folder() {
        return Err(Denied::CoversToken { path: wanted.path.as_str().to_owned() });
    }
    Ok(())
}

impl Wanted {
    /// Whether the volume has a folder for the ServiceAccount token to be mounted on.
    fn has_token_folder(&self) -> bool {
        matches!(self.source, Source::Csi(_)) && canonical(self.path.as_str()) == names::DEFAULT_MOUNT_ROOT
    }
}

/// `sealedenv-<name>`, or with a hash where the name is too long or has dots: a volume's name is a DNS label.
fn volume_name(environment: &str) -> String {
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

/// Those whose volume the pod lacks.
fn absent_volumes<'a>(spec: &PodSpec, wanted: &'a [Wanted]) -> Result<Vec<&'a Wanted>, Denied> {
    let mut absent = Vec::new();
    for wanted in wanted {
        match spec.volumes.iter().flatten().find(|volume| volume.name == wanted.volume) {
            None => absent.push(wanted),
            Some(volume) if holds(volume, wanted) => {}
            Some(_) => {
                let content = match &wanted.source {
                    Source::Secret(secret) => format!("the Secret {}", quoted(secret)),
                    Source::Csi(environment) => {
                        format!("the node plugin's of SealedEnv {}", quoted(environment))
                    }
                };
                return Err(Denied::VolumeConflict { volume: wanted.volume.clone(), content });
            }
        }
    }
    Ok(absent)
}

/// Whether a volume is what is wanted.
fn holds(volume: &Volume, wanted: &Wanted) -> bool {
    match &wanted.source {
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
                && (!wanted.has_token_folder() || attribute(names::CSI_TOKEN_FOLDER) == Some("true"))
        }),
    }
}

fn volume(wanted: &Wanted) -> Volume {
    let mut volume = Volume { name: wanted.volume.clone(), ..Volume::default() };
    match &wanted.source {
        Source::Secret(secret) => {
            volume.secret = Some(SecretVolumeSource {
                secret_name: Some(secret.clone()),
                default_mode: Some(MODE),
                optional: Some(false),
                items: None,
            });
        }
        Source::Csi(environment) => {
            let mut attributes = BTreeMap::from([(names::CSI_ENVIRONMENT.to_owned(), environment.clone())]);
            if wanted.has_token_folder() {
                attributes.insert(names::CSI_TOKEN_FOLDER.to_owned(), "true".to_owned());
            }
            volume.csi = Some(CSIVolumeSource {
                driver: names::CSI_DRIVER.to_owned(),
                read_only: Some(true),
                volume_attributes: Some(attributes),
                ..CSIVolumeSource::default()
            });
        }
    }
    volume
}

fn mount(wanted: &Wanted) -> VolumeMount {
    VolumeMount {
        name: wanted.volume.clone(),
        mount_path: wanted.path.as_str().to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn variables(secret: &str) -> EnvFromSource {
    EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: secret.to_owned(), optional: Some(false) }),
        ..EnvFromSource::default()
    }
}

fn has_variables(container: &Container, secret: &str) -> bool {
    container.env_from.iter().flatten().any(|source| {
        source.prefix.as_deref().unwrap_or_default().is_empty()
            && (source.secret_ref.as_ref())
                .is_some_and(|theirs| theirs.name == secret && theirs.optional != Some(true))
    })
}

/// Adds items at the end of a list, or the list with the items where there is none.
fn append<T: serde::Serialize>(
    patch: &mut Vec<PatchOperation>,
    list: &[impl AsRef<str>],
    exists: bool,
    items: impl IntoIterator<Item = T>,
) {
    // The types are plain structs of strings, numbers and lists: writing them as JSON cannot fail.
    let items = items.into_iter().filter_map(|item| serde_json::to_value(item).ok()).collect::<Vec<_>>();
    if items.is_empty() {
        return;
    }
    let list = || list.iter().map(AsRef::as_ref);
    if exists {
        let end = PointerBuf::from_tokens(list().chain(["-"]));
        patch.extend(items.into_iter().map(|value| add(end.clone(), value)));
    } else {
        patch.push(add(PointerBuf::from_tokens(list()), Value::Array(items)));
    }
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}
