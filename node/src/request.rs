//! What the kubelet asks for, checked before anything is done about it. Pure.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealedenv_delivery::{AUDIENCE, Token, Wanted};
use sealedenv_volume::Ownership;
use serde::Deserialize;

use crate::target::Target;
use crate::wire::csi::{NodePublishVolumeRequest, VolumeCapability, volume_capability::AccessType};

/// What the kubelet's own attributes begin with.
const KUBELET: &str = "csi.storage.k8s.io/";
/// The tokens, as JSON: audience → token.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The SealedEnv that a volume is of.
const ENVIRONMENT: &str = "sealedenv";
const MODE: &str = "mode";
const OWNER: &str = "owner";
const SERVICE_ACCOUNT: &str = "serviceAccountDirectory";

/// The largest JSON of tokens that is read, in bytes: several tokens of the largest kind.
const MAX_TOKENS: usize = 64 << 10;

/// A publish that can be carried out.
pub struct Publish {
    /// The pod, for people: `namespace/name`.
    pub pod: String,
    /// The SealedEnv, of the pod's namespace.
    pub environment: String,
    /// The pod's token.
    pub token: Token,
    /// Whose the files are.
    pub ownership: Ownership,
    /// Whether the volume is to have a place for the ServiceAccount token.
    pub service_account_directory: bool,
}

/// Why a publish cannot be carried out. No message repeats what was given but the names of attributes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no capability, or it is not that of a file system.
    #[error(
        "the volume is files only: volume_capability must be a mount, without file system or mount flags"
    )]
    Capability,
    /// An attribute that is not known.
    #[error("attribute {0} is not known; known are sealedenv, mode, owner and serviceAccountDirectory")]
    Attribute(String),
    /// No SealedEnv is named.
    #[error("attribute sealedenv must name a SealedEnv of the pod's namespace")]
    Environment,
    /// The mode is none.
    #[error("attribute mode must be permission bits in octal, at most 0777")]
    Mode,
    /// The owner is none.
    #[error("attribute owner must be the number of a user")]
    Owner,
    /// The switch is none.
    #[error("attribute serviceAccountDirectory must be true or false")]
    ServiceAccountDirectory,
    /// The fsGroup is no number.
    #[error("volume_mount_group must be the number of a group")]
    Group,
    /// The kubelet does not say which pod it is.
    #[error(
        "the kubelet does not say which pod this is for: the CSIDriver object must have podInfoOnMount: true"
    )]
    PodInfo,
    /// A volume that is not part of a pod.
    #[error("only inline volumes of a pod are served, not persistent ones")]
    NotInline,
    /// There is no token.
    #[error(
        "there is no token of the pod for the audience {AUDIENCE}: the CSIDriver object must request one"
    )]
    NoToken,
    /// The tokens cannot be read.
    #[error("the tokens of the pod cannot be read")]
    Tokens,
    /// The path, the kubelet and the token name different pods.
    #[error("the target path, the kubelet and the token are not of one pod")]
    OtherPod,
}

impl Publish {
    /// Checks a request for a target.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn read(request: &NodePublishVolumeRequest, target: &Target) -> Result<Self, RequestError> {
        let group = mount_group(request.volume_capability.as_ref())?;
        let attributes = &request.volume_context;
        let known = [ENVIRONMENT, MODE, OWNER, SERVICE_ACCOUNT];
        if let Some(key) =
            attributes.keys().find(|key| !known.contains(&key.as_str()) && !key.starts_with(KUBELET))
        {
            return Err(RequestError::Attribute(shown(key)));
        }
        let environment = environment(request).ok_or(RequestError::Environment)?.to_owned();
        let mode = attributes.get(MODE).map(|text| mode(text).ok_or(RequestError::Mode)).transpose()?;
        let uid = attributes.get(OWNER).map(|text| id(text).ok_or(RequestError::Owner)).transpose()?;
        let service_account_directory = match attributes.get(SERVICE_ACCOUNT).map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(RequestError::ServiceAccountDirectory),
        };
        let pod = Pod::read(attributes)?;
        if attributes.get(EPHEMERAL).map(String::as_str) != Some("true") {
            return Err(RequestError::NotInline);
        }
        let token = token(&request.secrets, attributes)?;
        if pod.uid != target.pod_uid() || pod_of(&token).as_deref() != Some(pod.uid) {
            return Err(RequestError::OtherPod);
        }
        let ownership = Ownership {
            uid,
            gid: group,
            // Every container of the pod is in the fsGroup, so nobody else needs to read.
            mode: mode.unwrap_or(if group.is_some() { 0o440 } else { 0o444 }),
        };
        let pod = format!("{}/{}", pod.namespace, pod.name);
        Ok(Self { pod, environment, token, ownership, service_account_directory })
    }
}

/// The SealedEnv that a request names, if that is a name at all.
pub(crate) fn environment(request: &NodePublishVolumeRequest) -> Option<&str> {
    request.volume_context.get(ENVIRONMENT).map(String::as_str).filter(|name| is_name(name))
}

struct Pod<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

impl<'a> Pod<'a> {
    fn read(attributes: &'a HashMap<String, String>) -> Result<Self, RequestError> {
        let get = |key| attributes.get(key).map(String::as_str).filter(|text| is_name(text));
        match (get(POD_NAMESPACE), get(POD_NAME), get(POD_UID)) {
            (Some(namespace), Some(name), Some(uid)) => Ok(Self { namespace, name, uid }),
            _ => Err(RequestError::PodInfo),
        }
    }
}

fn mount_group(capability: Option<&VolumeCapability>) -> Result<Option<u32>, RequestError> {
    let Some(AccessType::Mount(mount)) = capability.and_then(|capability| capability.access_type.as_ref())
    else {
        return Err(RequestError::Capability);
    };
    if !matches!(mount.fs_type.as_str(), "" | "tmpfs") || !mount.mount_flags.is_empty() {
        return Err(RequestError::Capability);
    }
    if mount.volume_mount_group.is_empty() {
        return Ok(None);
    }
    id(&mount.volume_mount_group).map(Some).ok_or(RequestError::Group)
}

/// A name as Kubernetes has them. Which of them there is, is for others to say.
fn is_name(name: &str) -> bool {
    sealedenv_delivery::check(&[Wanted { name: name.to_owned(), held: None }]).is_ok()
}

fn mode(text: &str) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777)
}

/// A user or group: the largest number means "none" to the kernel.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// A name for a message: short, and nothing in it that a terminal or a log would obey.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(63).collect::<String>())
}

#[derive(Deserialize)]
struct Requested {
    token: String,
}

/// The token for us: from `secrets`, where Kubernetes 1.35 puts it, or else from the attributes.
fn token(
    secrets: &HashMap<String, String>,
    attributes: &HashMap<String, String>,
) -> Result<Token, RequestError> {
    let json = secrets.get(TOKENS).or_else(|| attributes.get(TOKENS)).ok_or(RequestError::NoToken)?;
    if json.len() > MAX_TOKENS {
        return Err(RequestError::Tokens);
    }
    // The parser's errors repeat what they read, so they go no further.
    let mut tokens: BTreeMap<String, Requested> =
        serde_json::from_str(json).map_err(|_| RequestError::Tokens)?;
    let requested = tokens.remove(AUDIENCE).ok_or(RequestError::NoToken)?;
    Token::new(requested.token).map_err(|_| RequestError::Tokens)
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    pod: PodClaim,
}

#[derive(Deserialize)]
struct PodClaim {
    uid: String,
}

/// The pod that a token says it is bound to. Nobody has verified it: the operator asks the API server.
fn pod_of(token: &Token) -> Option<String> {
    let claims = token.expose().split('.').nth(1)?;
    let claims = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(claims).ok()?);
    Some(serde_json::from_slice::<Claims>(&claims).ok()?.kubernetes.pod.uid)
}

#[cfg(test)]
mod tests;
