//! The Kubernetes API types of the group `sealedenv.dev`.
//!
//! - [`SealedEnv`] (namespaced): sealed and public values of one environment, and the Secret they become.
//! - [`SealingKey`] (cluster-scoped): the public side of the cluster's keys; read it to learn what to seal to.
//! - [`names`]: every label, annotation and well-known name, in one place.
//! - [`condition`]: the condition types and the kstatus rules they follow.
//!
//! The types are the single source of the CRD files in `crds/generated/`: `cargo xtask gen` writes them, and a
//! test fails when they differ. Doc comments on fields are user text, since `kubectl explain` prints them.
//!
//! This crate decides nothing and does no I/O. It cannot hold an opened value.

pub mod condition;
pub mod names;
// KubeSchema expands to a private copy of each struct, which the lint then reports.
#[allow(unreachable_pub)]
mod sealed_env;
#[allow(unreachable_pub)]
mod sealing_key;

pub use sealed_env::{
    Class, DeletionPolicy, Delivery, KeyMeta, KeyState, KeyStatus, OnKeyError, SealedEnv, SealedEnvSpec,
    SealedEnvStatus, SecretRef, SecretShape, Source,
};
pub use sealing_key::{SealingKey, SealingKeyEntry, SealingKeySpec, SealingKeyState, SealingKeyStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// Every CRD of the project as YAML, with the file name it is kept under in `crds/generated/`.
///
/// # Errors
/// When a CRD cannot be written as YAML, which would be a defect of the types.
pub fn manifests() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    let header = "# Generated from the types in crds/src by `cargo xtask gen`. Do not edit.\n";
    [("sealedenvs.yaml", SealedEnv::crd()), ("sealingkeys.yaml", SealingKey::crd())]
        .into_iter()
        .map(|(file, crd)| Ok((file, format!("{header}{}", serde_saphyr::to_string(&described(crd))?))))
        .collect()
}

/// The derive describes the root as a Rust type; users of `kubectl explain` get the kind's own text instead.
fn described(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(root) = root {
            let spec = root.properties.as_ref().and_then(|p| p.get("spec"));
            root.description = spec.and_then(|s| s.description.clone());
        }
    }
    crd
}
