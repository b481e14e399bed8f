//! Which pods hold the values of a SealedEnv. Pure: from the SealedEnv and the pods of its namespace.
//!
//! Whether a pod asks for them stands in its spec. What it holds is known of Memory delivery, from the SealedEnv's status.
//! Files of a Secret are kept up to date by the kubelet; variables, and files mounted with a `subPath`, stay as they were
//! when the container started.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, KeyToPath, Pod, PodSpec, Volume};
use sealedenv_crds::{Delivery, SealedEnv, names};
use serde::Serialize;

/// A pod and one way in which it holds values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    /// Its name.
    pub(crate) pod: String,
    /// How the values are there.
    pub(crate) how: How,
    /// The containers that have them.
    pub(crate) containers: Vec<String>,
    /// The keys, where not all of them are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<BTreeSet<String>>,
    /// How they stand to what the SealedEnv is now.
    pub(crate) version: Version,
    /// Why the pod was refused them when it asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// Since when the pod has what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
}

/// How values are in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// Files in memory, from the node plugin.
    Csi,
    /// Files in memory, from the agent.
    Agent,
    /// Files of the Secret.
    Secret,
    /// Environment variables of the Secret.
    Variables,
}

/// How what a pod has stands to what the SealedEnv is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Version {
    /// The same. Files of a Secret follow within a minute or two.
    Current,
    /// Something older.
    Outdated,
    /// Nothing yet, or it is not known.
    Unknown,
}

/// The pods that hold values, or one of them.
pub(crate) fn holders(env: &SealedEnv, pods: &[Pod], key: Option<&str>) -> Vec<Holder> {
    let mut holders: Vec<Holder> =
        pods.iter().filter(|pod| !has_ended(pod)).flat_map(|pod| of_pod(env, pod)).collect();
    holders.retain(|holder| match (key, &holder.keys) {
        (Some(key), Some(keys)) => keys.contains(key),
        _ => true,
    });
    holders.sort_by(|a, b| (&a.pod, a.how).cmp(&(&b.pod, b.how)));
    holders
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn of_pod(env: &SealedEnv, pod: &Pod) -> Vec<Holder> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let name = env.metadata.name.as_deref().unwrap_or_default();
    if env.spec.delivery == Delivery::Memory {
        let volumes = spec.volumes.iter().flatten();
        let found = volumes.filter_map(|volume| Some((in_memory(volume, name)?, volume)));
        return found.map(|(how, volume)| memory_holder(env, pod, spec, how, volume)).collect();
    }
    let secret = env.spec.secret.as_ref().and_then(|secret| secret.name.as_deref()).unwrap_or(name);
    secret_holders(env, pod, spec, secret)
}

/// How a volume brings values into memory, if it does.
fn in_memory(volume: &Volume, name: &str) -> Option<How> {
    if let Some(csi) = volume.csi.as_ref().filter(|csi| csi.driver == names::CSI_DRIVER) {
        let named = csi.volume_attributes.as_ref()?.get(names::CSI_ENVIRONMENT)?;
        return (named == name).then_some(How::Csi);
    }
    let mut sources = volume.projected.as_ref()?.sources.iter().flatten();
    let path = format!("{name}/token");
    let names_it = sources.any(|source| {
        source
            .service_account_token
            .as_ref()
            .is_some_and(|token| token.audience.as_deref() == Some(names::GROUP) && token.path == path)
    });
    names_it.then_some(How::Agent)
}

fn memory_holder(env: &SealedEnv, pod: &Pod, spec: &PodSpec, how: How, volume: &Volume) -> Holder {
    let status = env.status.clone().unwrap_or_default();
    let told = status.consumers.iter().find(|one| Some(&one.uid) == pod.metadata.uid.as_ref());
    let has = told.and_then(|one| one.digest.as_ref());
    let version = match has {
        None => Version::Unknown,
        digest if digest == status.digest.as_ref() => Version::Current,
        Some(_) => Version::Outdated,
    };
    // The agent writes into a volume beside that of its token.
    let mounted = match how {
        How::Agent => format!("sealedenv-{}", env.metadata.name.as_deref().unwrap_or_default()),
        _ => volume.name.clone(),
    };
    let mounts = |container: &Container| container.volume_mounts.iter().flatten().any(|m| m.name == mounted);
    Holder {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        how,
        containers: containers(spec).filter(|one| mounts(one)).map(|one| one.name.clone()).collect(),
        keys: None,
        version,
        refused: told.and_then(|one| one.refused.clone()),
        since: told.and_then(|one| one.since.as_ref()).map(|since| since.0),
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Keys of a Secret.
#[derive(Clone)]
enum Keys {
    All,
    These(BTreeSet<String>),
}

/// What one container has of the Secret, one way.
struct Part {
    how: How,
    container: String,
    keys: Keys,
    /// Whether the kubelet keeps it up to date.
    follows: bool,
}

fn secret_holders(env: &SealedEnv, pod: &Pod, spec: &PodSpec, secret: &str) -> Vec<Holder> {
    let mut parts = Vec::new();
    for container in containers(spec) {
        files(spec, container, secret, &mut parts);
        variables(container, secret, &mut parts);
    }
    let changed = changed(env);
    [How::Secret, How::Variables].into_iter().filter_map(|how| holder(pod, how, &parts, changed)).collect()
}

fn files(spec: &PodSpec, container: &Container, secret: &str, parts: &mut Vec<Part>) {
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name) else {
            continue;
        };
        let Some(keys) = keys_of(volume, secret) else { continue };
        let follows = mount.sub_path.is_none() && mount.sub_path_expr.is_none();
        parts.push(Part { how: How::Secret, container: container.name.clone(), keys, follows });
    }
}

/// The keys that a volume has of the Secret, if it has anything of it.
fn keys_of(volume: &Volume, secret: &str) -> Option<Keys> {
    if let Some(source) = volume.secret.as_ref().filter(|one| one.secret_name.as_deref() == Some(secret)) {
        return Some(picked(source.items.as_deref()));
    }
    let sources = volume.projected.as_ref()?.sources.iter().flatten();
    let mut found = sources.filter_map(|source| source.secret.as_ref()).filter(|one| one.name == secret);
    Some(picked(found.next()?.items.as_deref()))
}

fn picked(items: Option<&[KeyToPath]>) -> Keys {
    items.map_or(Keys::All, |items| Keys::These(items.iter().map(|item| item.key.clone()).collect()))
}

fn variables(container: &Container, secret: &str, parts: &mut Vec<Part>) {
    let part = |keys| Part { how: How::Variables, container: container.name.clone(), keys, follows: false };
    let mut all = container.env_from.iter().flatten().filter_map(|source| source.secret_ref.as_ref());
    if all.any(|reference| reference.name == secret) {
        parts.push(part(Keys::All));
    }
    let picked = container.env.iter().flatten().filter_map(|variable| {
        let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        (reference.name == secret).then(|| reference.key.clone())
    });
    let picked: BTreeSet<String> = picked.collect();
    if !picked.is_empty() {
        parts.push(part(Keys::These(picked)));
    }
}

/// When the content changed last.
fn changed(env: &SealedEnv) -> Option<Timestamp> {
    let keys = env.status.iter().flat_map(|status| &status.keys);
    keys.filter_map(|key| key.last_good_at.as_ref()).map(|at| at.0).max()
}

fn holder(pod: &Pod, how: How, parts: &[Part], changed: Option<Timestamp>) -> Option<Holder> {
    let parts: Vec<&Part> = parts.iter().filter(|part| part.how == how).collect();
    if parts.is_empty() {
        return None;
    }
    let mut containers: Vec<String> = parts.iter().map(|part| part.container.clone()).collect();
    containers.dedup();
    let mut keys = Some(BTreeSet::new());
    for part in &parts {
        match (&mut keys, &part.keys) {
            (Some(all), Keys::These(some)) => all.extend(some.iter().cloned()),
            _ => keys = None,
        }
    }
    let started = |container: &str| {
        let status = pod.status.as_ref()?;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        started_at(all.into_iter().find(|one: &&ContainerStatus| one.name == container)?)
    };
    let stays: Vec<&&Part> = parts.iter().filter(|part| !part.follows).collect();
    let since = stays.iter().filter_map(|part| started(&part.container)).min();
    let (version, since) = match (stays.is_empty(), since, changed) {
        (true, _, changed) => (Version::Current, changed),
        (false, Some(since), Some(changed)) if since < changed => (Version::Outdated, Some(since)),
        (false, Some(since), _) => (Version::Current, Some(since)),
        (false, None, _) => (Version::Unknown, None),
    };
    let pod = pod.metadata.name.clone().unwrap_or_default();
    Some(Holder { pod, how, containers, keys, version, refused: None, since })
}

fn started_at(container: &ContainerStatus) -> Option<Timestamp> {
    let state = container.state.as_ref()?;
    state.running.as_ref()?.started_at.as_ref().map(|at| at.0)
}

#[cfg(test)]
mod tests;
