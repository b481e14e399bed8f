//! The containers that are added to a pod: the agent, which fetches files where no node plugin does, and the one that puts
//! the program for environment variables there.
//!
//! They meet the restricted Pod Security Standard, so that a namespace that enforces it admits the pod as before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sealedenv_crds::names;

use super::ask::Ask;
use super::on_change::OnChange;
use super::volumes::{PROGRAM as PROGRAM_VOLUME, STATE, Source, TOKENS, Wanted};
use super::{Denied, Request, wrap};
use crate::text::quoted;

/// Fetches before the others start.
pub(super) const INIT: &str = "sealedenv-agent";
/// Keeps up to date what was fetched.
const REFRESH: &str = "sealedenv-agent-refresh";
/// Puts the program for environment variables there, where no agent does.
const EXEC: &str = "sealedenv-exec";

/// Where the agent has the folders of SealedEnvs, by their names.
const FILES: &str = "/run/sealedenv/files";
/// Where the agent keeps what it has to remember.
const STATE_FOLDER: &str = "/run/sealedenv/state";
/// Where the agent has its tokens. Who has something mounted here is given no token for the API server; it needs none.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The image's user.
const USER: i64 = 65532;

/// What containers that are added run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As a pod's spec names it.
    pub reference: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// Where agents find the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The name in the operator's certificate, where it is not HOST.
    pub server_name: Option<String>,
}

/// Whether a container is one of those that are added. None of them gets files as the pod's own do.
pub(super) fn is_name_of_ours(name: &str) -> bool {
    [INIT, REFRESH, EXEC].contains(&name)
}

/// Whether the pod has one.
pub(super) fn has(spec: &PodSpec, name: &str) -> bool {
    spec.init_containers.iter().flatten().any(|container| container.name == name)
}

/// The containers that the pod is to have, in their order.
pub(super) fn containers(
    ask: &Ask,
    spec: &PodSpec,
    wanted: &[Wanted],
    request: &Request<'_>,
) -> Result<Vec<Container>, Denied> {
    let settings = request.settings;
    let of_agent: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.of_agent().is_some()).collect();
    let signal = ask.on_change.as_ref().filter(|asked| matches!(asked, OnChange::Signal(_)));
    if ask.on_change.is_some() {
        if of_agent.is_empty() {
            let why = "is obeyed by the agent, and no SealedEnv of this pod comes by it".to_owned();
            return Err(Denied::InvalidAnnotation { annotation: names::ON_CHANGE, why });
        }
        if signal.is_some() && spec.share_process_namespace != Some(true) {
            return Err(Denied::ProcessesNotShared);
        }
    }
    let program = wanted.iter().any(|wanted| wanted.source == Source::Program);
    if of_agent.is_empty() && !program {
        return Ok(Vec::new());
    }
    let asked = || ask.environments.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let Some(image) = &settings.image else { return Err(Denied::NoVariables { environment: asked() }) };
    let program = program.then(|| mounted(PROGRAM_VOLUME, wrap::FOLDER, false));
    if of_agent.is_empty() {
        let command = ["/sealedenv-exec", "--install", wrap::FOLDER];
        return Ok(vec![container(EXEC, image, &command, Vec::new(), program.into_iter().collect())]);
    }
    let Some(operator) = &settings.operator else {
        return Err(Denied::DeliveryUnavailable { asked: "agent".to_owned() });
    };
    let authorities = request.authorities.ok_or(Denied::NoAuthority)?;

    let shared = of_agent.iter().flat_map(|wanted| {
        let name = wanted.of_agent().unwrap_or_default();
        let place = wanted.has_token_folder().then(|| format!("--token-place={name}"));
        [format!("--sealedenv={name}")].into_iter().chain(place)
    });
    let shared: Vec<String> = shared.collect();
    let mut environment = vec![
        variable("SEALEDENV_OPERATOR", &operator.endpoint),
        variable("SEALEDENV_OPERATOR_CA", authorities),
    ];
    environment
        .extend(operator.server_name.iter().map(|name| variable("SEALEDENV_OPERATOR_SERVER_NAME", name)));
    let mut mounts = vec![mounted(TOKENS, TOKEN_FOLDER, true), mounted(STATE, STATE_FOLDER, false)];
    mounts.extend(of_agent.iter().map(|wanted| {
        mounted(&wanted.volume, &format!("{FILES}/{}", wanted.of_agent().unwrap_or_default()), false)
    }));

    let command = |what: &str| ["/sealedenv-agent".to_owned(), what.to_owned()].into_iter();
    let install = program.is_some().then(|| format!("--install-exec={}", wrap::FOLDER));
    let words: Vec<String> = command("init").chain(install).chain(shared.iter().cloned()).collect();
    let init_mounts = mounts.iter().cloned().chain(program).collect();
    let init = container(INIT, image, &words, environment.clone(), init_mounts);
    let on_change = ask.on_change.iter().flat_map(flags);
    let words: Vec<String> = command("refresh").chain(on_change).chain(shared).collect();
    let mut refresh = container(REFRESH, image, &words, environment, mounts);
    // A native sidecar: it starts when the files are there, and ends when the pod's containers have.
    refresh.restart_policy = Some("Always".to_owned());
    let mut both = vec![init, refresh];
    // A signal reaches processes of the same user only, and files that one of the two wrote are changed by the other.
    if let Some(user) = signal.and(user_of(spec)) {
        for context in both.iter_mut().filter_map(|container| container.security_context.as_mut()) {
            context.run_as_user = Some(user);
        }
    }
    Ok(both)
}

/// What the agent is told to do when files changed. It need not take words apart.
fn flags(on_change: &OnChange) -> Vec<String> {
    match on_change {
        OnChange::Signal(signal) => vec![format!("--on-change-signal={signal}")],
        OnChange::Exec { program, arguments } => {
            let program = format!("--on-change-exec={}", wrap::literal(program));
            let argument = |word: &String| format!("--on-change-argument={}", wrap::literal(word));
            [program].into_iter().chain(arguments.iter().map(argument)).collect()
        }
    }
}

/// The user that the pod's containers run as where they do not say, if it is not root.
fn user_of(spec: &PodSpec) -> Option<i64> {
    spec.security_context.as_ref()?.run_as_user.filter(|user| *user != 0)
}

/// Refuses a pod with a container that has one of our names and is something else.
pub(super) fn check(spec: &PodSpec, added: &[Container]) -> Result<(), Denied> {
    let conflict = |name: &str| Err(Denied::ContainerConflict { container: quoted(name) });
    for ours in added {
        if spec.containers.iter().any(|theirs| theirs.name == ours.name) {
            return conflict(&ours.name);
        }
        let theirs = spec.init_containers.iter().flatten().find(|theirs| theirs.name == ours.name);
        // Not the image: another webhook may have it come from a mirror.
        if theirs.is_some_and(|theirs| {
            theirs.command != ours.command
                || theirs.args.is_some()
                || theirs.restart_policy != ours.restart_policy
        }) {
            return conflict(&ours.name);
        }
    }
    Ok(())
}

fn container(
    name: &str,
    image: &Image,
    command: &[impl ToString],
    env: Vec<EnvVar>,
    mounts: Vec<VolumeMount>,
) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image.reference.clone()),
        image_pull_policy: Some(image.pull_policy.clone()),
        command: Some(command.iter().map(ToString::to_string).collect()),
        env: (!env.is_empty()).then_some(env),
        volume_mounts: Some(mounts),
        resources: Some(resources()),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// Little, and a limit: files are charged to who writes them, and the largest SealedEnv fits in twice.
fn resources() -> ResourceRequirements {
    let of = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    let (requests, limits): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (of(&[("cpu", "10m"), ("memory", "16Mi")]), of(&[("memory", "64Mi")]));
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

/// What the restricted Pod Security Standard asks for, and a file system that nobody writes.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn mounted(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}
