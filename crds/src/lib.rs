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
mod rendered_file;
#[allow(unreachable_pub)]
mod sealed_env;
#[allow(unreachable_pub)]
mod sealing_key;

pub use rendered_file::{FileFormat, RenderedFile};
pub use sealed_env::{
    Allow, Class, Consumer, DeletionPolicy, Delivery, KeyMeta, KeyState, KeyStatus, OnKeyError, SealedEnv,
    SealedEnvSpec, SealedEnvStatus, SecretRef, SecretShape, Source,
};
pub use sealing_key::{SealingKey, SealingKeyEntry, SealingKeySpec, SealingKeyState, SealingKeyStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;

/// Every CRD of the project as YAML, with the file name it is kept under in `crds/generated/`.
///
/// # Errors
/// When a CRD cannot be written as YAML, which would be a defect of the types.
pub fn manifests() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    let header = "# Generated from the types in crds/src by `cargo xtask gen`. Do not edit.\n";
    [("sealedenvs.yaml", SealedEnv::crd()), ("sealingkeys.yaml", SealingKey::crd())]
        .into_iter()
        .map(|(file, crd)| Ok((file, format!("{header}{}", serde_saphyr::to_string(&finished(crd))?))))
        .collect()
}

/// What the derive cannot say.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(root) = root else { continue };
        let Some(properties) = &mut root.properties else { continue };
        // The root is described as a Rust type; users of `kubectl explain` get the kind's own text instead.
        root.description = properties.get("spec").and_then(|spec| spec.description.clone());
        // kstatus takes an object without a status for done. With this one a new object is in progress until the
        // operator has spoken, so that Flux and Argo CD wait.
        if let Some(status) = properties.get_mut("status") {
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
        }
    }
    crd
}
