//! `SealingKey`: the public side of the cluster's keys.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The keys that open sealed values in this cluster. The identities stand in Secrets of the operator's namespace; this object shows their public side. Annotate it with sealedenv.dev/rotate and a new value to make a new current key; old keys stay accepted.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "sealedenv.dev",
    version = "v1alpha1",
    kind = "SealingKey",
    category = "sealedenv-all",
    status = "SealingKeyStatus",
    derive = "PartialEq",
    derive = "Default",
    validation = Rule::new("self.metadata.name == 'cluster'").message("this version knows one SealingKey, named cluster"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Current","type":"string","jsonPath":".status.current"}"#,
    printcolumn = r#"{"name":"Recipient","type":"string","priority":1,"jsonPath":".status.recipients[0]"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SealingKeySpec {}

/// The keys as the operator sees them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SealingKeyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The value of the annotation sealedenv.dev/requestedAt that was last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// The value of the annotation sealedenv.dev/rotate that was last served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rotation: Option<String>,

    /// Ready, Reconciling and Stalled, by the kstatus rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Fingerprint of the current key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,

    /// The recipients to seal to. Print them with "sealedenv recipients fetch".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,

    /// Every key that opens values in this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["fingerprint"]))]
    pub keys: Vec<SealingKeyEntry>,
}

/// One key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SealingKeyEntry {
    /// The first 16 hex digits of the SHA-256 of the recipient.
    pub fingerprint: String,
    /// The public recipient, age1….
    pub recipient: String,
    /// Current: new values are sealed to it. Accepted: values sealed to it still open.
    pub state: SealingKeyState,
    /// Secret in the operator's namespace that holds the identity.
    pub secret_name: String,
    /// When the key was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
}

/// What a key is used for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealingKeyState {
    /// New values are sealed to it.
    Current,
    /// Values sealed to it still open.
    Accepted,
}
