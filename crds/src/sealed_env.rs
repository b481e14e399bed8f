//! `SealedEnv`: sealed and public values of one environment, and the Secret they become.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::RenderedFile;

/// An environment kept in git as sealed values. The operator opens them and writes a Secret.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "sealedenv.dev",
    version = "v1alpha1",
    kind = "SealedEnv",
    namespaced,
    shortname = "senv",
    category = "sealedenv-all",
    status = "SealedEnvStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Keys","type":"string","jsonPath":".status.keysReady"}"#,
    printcolumn = r#"{"name":"Delivery","type":"string","jsonPath":".spec.delivery"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[x_kube(validation = Rule::new("(has(self.data) && size(self.data) > 0) || (has(self.public) && size(self.public) > 0)").message("a SealedEnv needs at least one key in data or public"))]
#[x_kube(validation = Rule::new("!has(self.meta) || !has(self.public) || self.meta.all(k, !(k in self.public) || !has(self.meta[k].class) || self.meta[k].class != 'secret')").message("a key of class secret must not stand in public: seal it and put it in data"))]
#[x_kube(validation = Rule::new("!has(self.allow) || self.delivery == 'Memory'").message("allow is for delivery Memory: a Secret can be read by whoever may read Secrets"))]
#[x_kube(validation = Rule::new("!has(self.files) || self.files.all(p, !(has(self.data) && p.split('/')[0] in self.data) && !(has(self.public) && p.split('/')[0] in self.public))").message("a path in files has the name of a key: give the file another path"))]
#[x_kube(validation = Rule::new("!has(self.files) || self.delivery == 'Memory' || self.files.all(p, !p.contains('/'))").message("with delivery Secret a path in files is a key of the Secret and has no '/'"))]
#[x_kube(validation = Rule::new("!has(self.files) || self.delivery == 'Memory' || self.files.all(p, !has(self.files[p].mode))").message("mode in files is for delivery Memory: a Secret has no modes of its own, the volume that mounts it has"))]
#[serde(rename_all = "camelCase")]
pub struct SealedEnvSpec {
    /// Sealed values by key, each a text that starts with "sealed:v1:". Make one with "sealedenv value seal" or a whole manifest with "sealedenv manifest". Anything else is refused, so that a plain value cannot be stored here by mistake. A key that stands in data and in public is taken from data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1024))]
    #[x_kube(validation = Rule::new("self.all(k, self[k].startsWith('sealed:v1:'))").message("every value in data must be sealed: it starts with sealed:v1: (use sealedenv value seal; values that are not secret belong in public)"))]
    pub data: BTreeMap<String, String>,

    /// Values that are not secret, in plain text, by key. They stand in git and in this object as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1024))]
    pub public: BTreeMap<String, String>,

    /// What is known about each key apart from its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 2048))]
    pub meta: BTreeMap<String, KeyMeta>,

    /// How the values reach pods. Secret: the operator writes a Kubernetes Secret. Memory: no Secret is written; a pod that names this object in its spec gets files in memory, and no value ever stands in etcd.
    #[serde(default)]
    pub delivery: Delivery,

    /// Who may receive the values in Memory delivery. Any pod of the namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,

    /// The shape of the Secret that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretShape>,

    /// Files that are made from the values, by path, beside one for each key: a .env file, JSON, YAML, properties, a template, or a key under another name. With delivery Secret a file is an entry of the Secret, and its path is a name without "/". A path has letters, digits, "-", "_" and "." and may not begin with ".."; it must not be the name of a key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(p, p.size() <= 253 && p.matches('^([.]?[-_A-Za-z0-9][-._A-Za-z0-9]*)(/[.]?[-_A-Za-z0-9][-._A-Za-z0-9]*){0,7}$'))").message("a path in files has parts of letters, digits, '-', '_' and '.', at most 8, which are neither '.' nor begin with '..', and at most 253 characters"))]
    #[x_kube(validation = Rule::new("self.all(p, !self.exists(q, p.startsWith(q + '/')))").message("a path in files is a folder of another"))]
    pub files: BTreeMap<String, RenderedFile>,

    /// What happens to a key whose value cannot be opened, and to a file that cannot be made. KeepLast: its last good value stays. Omit: it is left out. Fail: nothing is written while any is bad. The others are never harmed.
    #[serde(default)]
    pub on_key_error: OnKeyError,

    /// What happens to the Secret when this object is deleted. Delete: it is deleted as well. Retain: it stays.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// True stops all work on this object; its Secret stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What is known about a key apart from its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyMeta {
    /// How well the value must be kept. The default is secret for a sealed value and public for a public one. A secret must never stand in public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,

    /// What the value is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Who to ask about it: a person or a team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub owner: Option<String>,
}

/// How well a value must be kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Keys, passwords, tokens.
    #[default]
    Secret,
    /// Internal names and addresses: not secret, not for everybody.
    Sensitive,
    /// Safe to commit in plain text.
    Public,
}

/// How the values reach pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// A Kubernetes Secret is written; pods mount it from tmpfs.
    #[default]
    Secret,
    /// Nothing is written; pods get files in memory from the node plugin or the agent.
    Memory,
}

/// Who may receive the values in Memory delivery.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Names of ServiceAccounts of the namespace. Pods of others are refused.
    #[schemars(length(min = 1, max = 256))]
    pub service_accounts: Vec<String>,
}

/// The shape of the Secret that is written.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretShape {
    /// Name of the Secret. The default is the name of the SealedEnv.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,

    /// Type of the Secret: Opaque (the default), kubernetes.io/basic-auth, kubernetes.io/dockercfg, kubernetes.io/dockerconfigjson, kubernetes.io/ssh-auth or kubernetes.io/tls. Types that a controller acts on are refused.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self in ['Opaque', 'kubernetes.io/basic-auth', 'kubernetes.io/dockercfg', 'kubernetes.io/dockerconfigjson', 'kubernetes.io/ssh-auth', 'kubernetes.io/tls']").message("this Secret type is not allowed: use Opaque, kubernetes.io/basic-auth, dockercfg, dockerconfigjson, ssh-auth or tls"))]
    pub type_: Option<String>,

    /// Labels to put on the Secret. Keys of kubernetes.io, k8s.io and sealedenv.dev are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(k, !(k.lowerAscii().contains('kubernetes.io/') || k.lowerAscii().contains('k8s.io/') || k.lowerAscii().contains('sealedenv.dev/')))").message("labels of kubernetes.io, k8s.io and sealedenv.dev are reserved"))]
    pub labels: BTreeMap<String, String>,

    /// Annotations to put on the Secret. Keys of kubernetes.io, k8s.io and sealedenv.dev are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(k, !(k.lowerAscii().contains('kubernetes.io/') || k.lowerAscii().contains('k8s.io/') || k.lowerAscii().contains('sealedenv.dev/')))").message("annotations of kubernetes.io, k8s.io and sealedenv.dev are reserved"))]
    pub annotations: BTreeMap<String, String>,

    /// True makes the Secret immutable. Its content can then only change under a new name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

/// What happens to a key whose value cannot be opened.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnKeyError {
    /// Its last good value stays in the Secret.
    #[default]
    KeepLast,
    /// The key is left out of the Secret.
    Omit,
    /// Nothing is written while any key is bad.
    Fail,
}

/// What happens to the Secret when the SealedEnv is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The Secret is deleted too (by Kubernetes' garbage collector).
    #[default]
    Delete,
    /// The Secret stays.
    Retain,
}

/// What the operator last saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SealedEnvStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The value of the annotation sealedenv.dev/requestedAt that was last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// Ready, Reconciling and Stalled, by the kstatus rules; and DeliveryRefused while a pod is refused the values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// How many keys and files are delivered as the spec says, of how many: for example 3/4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_ready: Option<String>,

    /// Each key and each file, without its value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub keys: Vec<KeyStatus>,

    /// A keyed digest of what was delivered. Equal digests mean equal content; nothing else can be learned from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// Keyed digests of the last good values in the Secret, in the order of keys. They show whether somebody else changed a value since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_digests: Option<String>,

    /// The Secret that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,

    /// Pods that hold the values in memory, with delivery: Memory. At most 256 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub consumers: Vec<Consumer>,

    /// Fingerprint of the input that was handled: while it and the Secret stay as they are, there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// A pod that asked for the values in memory. Those that ended go after a while.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// UID of the pod.
    pub uid: String,
    /// Its name.
    pub pod: String,
    /// Digest of what it was given. The pod is up to date where it is that of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was given that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why it was refused when it asked last. What it was given before, it keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The Secret that was written, as it was after the write.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its resourceVersion after the last write: any other one means that somebody else changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Its type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Whether it is immutable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

/// One key or one file, without its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Name of the key, or path of the file.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Where its value comes from.
    pub source: Source,
    /// What was done with it.
    pub state: KeyState,
    /// Why it is not Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fingerprints of the recipients that the value is sealed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed_to: Vec<String>,
    /// When the value that is delivered now was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_at: Option<Time>,
    /// Somebody else changed this key in the Secret while its value cannot be opened. The last good value is lost, and what was put in its place stays. Seal the value again, or put the last good one into the Secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub altered: bool,
}

/// Where a value comes from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A sealed value of spec.data.
    Sealed,
    /// A plain value of spec.public.
    Public,
    /// A file of spec.files. It counts as secret.
    File,
}

/// What was done with a key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The Secret holds the value of the spec; in Memory delivery, pods can have it.
    Ready,
    /// The value cannot be opened, or the file not be made; the Secret still holds the last good one, or, where `altered` is true, what somebody else put in its place.
    KeptLast,
    /// The value cannot be opened; the Secret does not hold the key. In Memory delivery, pods that have its last good value keep it unless the policy says Omit.
    Missing,
    /// The value could be delivered but nothing was written, because of another key or of the object as a whole.
    NotWritten,
}
