//! Gives a pod what its annotations ask for: the pure heart of the webhook.
//!
//! # Expected flow
//! [`inject`] reads the annotations, works out one volume per SealedEnv and one mount (and, if asked, one `envFrom` or
//! a program in front of the command) per container, and the containers that fill the volumes where no node plugin does;
//! compares that with what the pod has, and answers the difference as a JSON patch.
//!
//! # Guarantees
//! * **Idempotent:** injecting what was injected gives an empty patch. Another webhook may have added, renamed or
//!   reordered containers in between; then the patch holds what is missing, once.
//! * **Only adds** volumes, mounts, `envFrom` entries, words in front of a command, and containers of its own. It never
//!   touches a security context, arguments, a container's own entries or an ephemeral container. Fields it does not know
//!   pass untouched, since the patch names only what is added.
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
//! * *Containers of its own* come first among the init containers that the pod has at that time, so that the others find
//!   their files. They are not moved when another webhook puts something before them later: that one has its reasons.
//! * *Volume names* come from the SealedEnv's name alone, never from the pod's, which may not exist yet.

mod agent;
mod ask;
mod conflict;
mod denied;
mod on_change;
mod path;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod volumes;
mod wrap;

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::{Container, EnvFromSource, Pod, PodSpec, SecretEnvSource};
use sealedenv_crds::names;
use serde_json::Value;

pub use self::agent::{Image, Operator};
use self::ask::Ask;
pub use self::denied::Denied;
use self::path::{MountPath, canonical, same_or_within};
use self::volumes::{Source, Wanted, volume_name};
use crate::text::quoted;

/// Marks the pod that the API server shows for a static pod: it cannot be changed.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How values get into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A volume of the Secret that the operator writes.
    Secret,
    /// A volume of the node plugin: files in memory, without a Secret.
    Csi,
    /// Files in memory that containers of the pod itself fetch.
    Agent,
}

/// What the webhook was told when it was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How values are delivered where neither the pod nor the SealedEnv says.
    pub default_delivery: Delivery,
    /// How values in memory are delivered where the pod does not say.
    pub memory_delivery: Delivery,
    /// What containers that are added run.
    pub image: Option<Image>,
    /// Where agents find the operator. None: there are no agents.
    pub operator: Option<Operator>,
}

impl Settings {
    /// As the webhook is told nothing.
    pub fn secrets_only() -> Self {
        Self {
            default_delivery: Delivery::Secret,
            memory_delivery: Delivery::Csi,
            image: None,
            operator: None,
        }
    }
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
    /// What the webhook was told.
    pub settings: &'a Settings,
    /// The authorities that the operator's certificate may come from, PEM, if they are known.
    pub authorities: Option<&'a str>,
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
    let added = agent::containers(&ask, spec, &wanted, request)?;
    agent::check(spec, &added)?;
    let mut patch = Vec::new();
    let volumes = volumes::absent(spec, &wanted)?;
    append(&mut patch, &["spec", "volumes"], spec.volumes.is_some(), volumes);
    for (kind, index, container) in containers(spec).filter(|(_, _, container)| is_selected(&ask, container))
    {
        let at = |field| ["spec".to_owned(), kind.to_owned(), index.to_string(), String::from(field)];
        let mut mounts = Vec::new();
        for one in &wanted {
            if conflict::check(spec, container, one, &wanted)? == conflict::Verdict::Free {
                mounts.push(one.mount());
            }
        }
        append(&mut patch, &at("volumeMounts"), container.volume_mounts.is_some(), mounts);
        if ask.variables {
            let secrets = wanted.iter().filter_map(Wanted::secret);
            let sources = secrets.filter(|secret| !has_variables(container, secret)).map(variables);
            append(&mut patch, &at("envFrom"), container.env_from.is_some(), sources);
            if let Some(command) = wrap::command(container, &wanted)? {
                // In the place of the command that is there, which it holds.
                patch.push(add(PointerBuf::from_tokens(at("command")), Value::from(command)));
            }
        }
    }
    // Behind all that counts containers as they are.
    let missing = added.iter().filter(|ours| !agent::has(spec, &ours.name));
    let missing = missing.filter_map(|ours| serde_json::to_value(ours).ok()).collect::<Vec<_>>();
    if !missing.is_empty() {
        if spec.init_containers.is_some() {
            let first = PointerBuf::from_tokens(["spec", "initContainers", "0"]);
            patch.extend(missing.into_iter().rev().map(|container| add(first.clone(), container)));
        } else {
            patch.push(add(PointerBuf::from_tokens(["spec", "initContainers"]), Value::Array(missing)));
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
    !agent::is_name_of_ours(&container.name)
        && ask.containers.as_ref().is_none_or(|names| names.contains(&container.name))
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
        let delivery = delivery(ask, name, &sighting, request.settings)?;
        if sighting == Sighting::Absent {
            outcome.absent.push(name.clone());
            outcome.warnings.push(waiting(request.namespace, name, delivery));
        }
        if ask.variables && delivery != Delivery::Secret && request.settings.image.is_none() {
            return Err(Denied::NoVariables { environment: quoted(name) });
        }
        let source = match (delivery, sighting) {
            (Delivery::Secret, Sighting::Present { secret_name: Some(secret), .. }) => Source::Secret(secret),
            (Delivery::Secret, _) => Source::Secret(name.clone()),
            (Delivery::Csi, _) => Source::Csi(name.clone()),
            (Delivery::Agent, _) => Source::Agent(name.clone()),
        };
        let path = match &ask.mount_path {
            Some(path) if single => path.clone(),
            Some(path) => path.join(name),
            None => MountPath::under_default_root(name),
        };
        all.push(Wanted { volume: volume_name(name), source, path });
    }
    if ask.variables && all.iter().any(Wanted::is_in_memory) {
        let program = Wanted::program();
        let (theirs, ours) = (|one: &Wanted| canonical(one.path.as_str()), canonical(program.path.as_str()));
        if all.iter().any(|one| same_or_within(&theirs(one), &ours) || same_or_within(&ours, &theirs(one))) {
            let why = format!("must leave {} to the program that makes environment variables", quoted(&ours));
            return Err(Denied::InvalidAnnotation { annotation: names::MOUNT_PATH, why });
        }
        all.push(program);
    }
    Ok(all)
}

/// The delivery of the SealedEnv, if it is known; or else the annotation's, or the cluster's default.
fn delivery(ask: &Ask, name: &str, sighting: &Sighting, settings: &Settings) -> Result<Delivery, Denied> {
    let memory = match ask.delivery {
        Some(Delivery::Agent) if settings.operator.is_none() => {
            return Err(Denied::DeliveryUnavailable { asked: "agent".to_owned() });
        }
        Some(asked @ (Delivery::Csi | Delivery::Agent)) => asked,
        Some(Delivery::Secret) | None => settings.memory_delivery,
    };
    let has = match sighting {
        Sighting::Present { delivery, .. } => match delivery.as_str() {
            "" | "Secret" => Delivery::Secret,
            "Memory" => memory,
            other => return Err(Denied::DeliveryUnavailable { asked: quoted(other) }),
        },
        Sighting::Absent | Sighting::Unknown => return Ok(ask.delivery.unwrap_or(settings.default_delivery)),
    };
    match ask.delivery {
        // The pod would wait for ever: for a Secret that nobody writes, or for files that nobody is given.
        Some(asked) if has != asked => Err(Denied::DeliveryMismatch {
            environment: quoted(name),
            has: if has == Delivery::Secret { "Secret" } else { "Memory" },
            asked: match asked {
                Delivery::Secret => "secret",
                Delivery::Csi => "csi",
                Delivery::Agent => "agent",
            },
        }),
        _ => Ok(has),
    }
}

fn waiting(namespace: &str, name: &str, delivery: Delivery) -> String {
    let sign = match delivery {
        Delivery::Secret | Delivery::Csi => "with the event FailedMount".to_owned(),
        Delivery::Agent => format!("in its init container {}", agent::INIT),
    };
    format!(
        "SealedEnv {namespace}/{name} does not exist: the pod will wait, {sign}, until its values are there"
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
