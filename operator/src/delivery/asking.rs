//! The pod that asks, as far as the ladder looks at it.
//!
//! It is read in every call, and most of a pod is nobody's business here: its `managedFields` alone cost more to decode
//! than all that the ladder asks for.

use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// A pod.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Pod)]
pub struct Asking {
    /// What identifies it.
    #[serde(deserialize_with = "crate::arrival::metadata")]
    pub metadata: ObjectMeta,
    /// What cannot be changed on it.
    pub spec: Option<Spec>,
    /// How it is.
    pub status: Option<Status>,
}

/// Of its spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Whom it runs as.
    pub service_account_name: Option<String>,
    /// Where it runs.
    pub node_name: Option<String>,
    /// What names SealedEnvs.
    pub volumes: Option<Vec<Volume>>,
}

/// Of its status.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
}
