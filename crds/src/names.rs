//! Every name that stands in the API: group, labels, annotations, well-known objects.

/// The API group.
pub const GROUP: &str = "sealedenv.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every kind here.
pub const API_VERSION: &str = "sealedenv.dev/v1alpha1";

/// Field manager of the operator's server-side applies.
pub const FIELD_MANAGER: &str = "sealedenv-operator";

/// Label that marks what the operator wrote, with [`MANAGED_BY_VALUE`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on our objects.
pub const MANAGED_BY_VALUE: &str = "sealedenv";
/// On a Secret: the name of the SealedEnv of the same namespace that it belongs to.
pub const OWNER: &str = "sealedenv.dev/sealedenv";
/// On a foreign Secret, set by its owner to `"true"`: a SealedEnv of that name may take it over.
pub const ADOPT: &str = "sealedenv.dev/adopt";
/// On any of our kinds: a new value asks for a reconcile; status answers in `lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "sealedenv.dev/requestedAt";

/// On a SealingKey: a new value makes a new current key.
pub const ROTATE: &str = "sealedenv.dev/rotate";
/// Label on a Secret in the operator's namespace that holds one identity; its value names the SealingKey.
pub const SEALING_KEY: &str = "sealedenv.dev/sealing-key";
/// Type of such a Secret.
pub const SEALING_KEY_SECRET_TYPE: &str = "sealedenv.dev/sealing-key";
/// Data key of such a Secret: the identity as text, `AGE-SECRET-KEY-1…`.
pub const IDENTITY_FIELD: &str = "identity";
/// On a key Secret: the rotation request that made it, so that a request is never served twice.
pub const ROTATION: &str = "sealedenv.dev/rotation";
/// On a key Secret: when the key was made, RFC 3339. Survives backup and restore, unlike `creationTimestamp`.
pub const CREATED_AT: &str = "sealedenv.dev/created-at";
/// Name of a key Secret before the fingerprint.
pub const KEY_SECRET_PREFIX: &str = "sealedenv-key-";
/// The one SealingKey of this version.
pub const CLUSTER_KEY: &str = "cluster";
/// Secret in the operator's namespace with the key of the digests in status and audit.
pub const DIGEST_KEY_SECRET: &str = "sealedenv-digest-key";
/// Name of the Lease, in the operator's namespace, that says which replica of the operator works.
pub const LEASE: &str = "sealedenv-operator";

/// On a pod: the SealedEnvs it wants, comma-separated.
pub const INJECT: &str = "sealedenv.dev/inject";
/// On a pod: the containers that get them, comma-separated; all when absent.
pub const CONTAINERS: &str = "sealedenv.dev/containers";
/// On a pod: how the values reach it.
pub const DELIVERY: &str = "sealedenv.dev/delivery";
/// On a pod: `"true"` adds environment variables as well as files.
pub const ENV: &str = "sealedenv.dev/env";
/// On a pod: what to do when files changed, `signal=SIGHUP`. The agent does it.
pub const ON_CHANGE: &str = "sealedenv.dev/on-change";
/// On a pod: where the files stand instead of `/run/secrets/<name>`.
pub const MOUNT_PATH: &str = "sealedenv.dev/mount-path";

/// Where a pod finds its files unless [`MOUNT_PATH`] says otherwise: `/run/secrets/<name>/KEY`.
pub const DEFAULT_MOUNT_ROOT: &str = "/run/secrets";

/// The CSI driver of Memory delivery.
pub const CSI_DRIVER: &str = "csi.sealedenv.dev";
/// In the `volumeAttributes` of an inline volume of [`CSI_DRIVER`]: the SealedEnv.
pub const CSI_ENVIRONMENT: &str = "sealedenv";
/// In the same: `"true"` for a folder that the pod's own ServiceAccount token can be mounted on.
pub const CSI_TOKEN_FOLDER: &str = "serviceAccountDirectory";
/// What the path of a projected token for the agent has behind the name of the SealedEnv.
pub const AGENT_TOKEN_SUFFIX: &str = "/token";
/// Label on a Secret in the operator's namespace that holds one certificate authority of the delivery API, and its key.
pub const DELIVERY_CA: &str = "sealedenv.dev/delivery-ca";
/// Name of such a Secret before the second it was made in.
pub const DELIVERY_CA_SECRET: &str = "sealedenv-delivery-ca";
/// ConfigMap in the operator's namespace with the certificates of those authorities, for clients.
pub const DELIVERY_CA_BUNDLE: &str = "sealedenv-delivery-ca";
/// Field of that ConfigMap.
pub const CA_BUNDLE_FIELD: &str = "ca.crt";

/// Secret types that a SealedEnv may ask for. Never one that a controller acts on: a
/// `kubernetes.io/service-account-token` Secret, say, is filled with a token by the control plane.
pub const SECRET_TYPES: [&str; 6] = [
    "Opaque",
    "kubernetes.io/basic-auth",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/ssh-auth",
    "kubernetes.io/tls",
];

/// Whether a label or annotation key is reserved: a user may not put it on the Secret.
///
/// Keys of `kubernetes.io`, `k8s.io` and our own group steer controllers. The comparison ignores case.
pub fn is_reserved_metadata_key(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix).to_ascii_lowercase();
    ["kubernetes.io", "k8s.io", GROUP]
        .iter()
        .any(|domain| prefix == *domain || prefix.ends_with(&format!(".{domain}")))
}

/// Whether a name can be a key of a Secret: what Kubernetes allows, and never a name that the kubelet's
/// atomic writer uses.
pub fn is_valid_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && key != "."
        && !key.starts_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_found_in_any_case_and_under_any_subdomain() {
        for key in [
            "kubernetes.io/x",
            "app.kubernetes.io/name",
            "Kubernetes.IO/x",
            "node.k8s.io/x",
            "sealedenv.dev/adopt",
            "a.sealedenv.dev/x",
        ] {
            assert!(is_reserved_metadata_key(key), "{key}");
        }
        for key in
            ["team", "example.com/team", "mykubernetes.io/x", "notk8s.io/x", "reloader.stakater.com/match"]
        {
            assert!(!is_reserved_metadata_key(key), "{key}");
        }
    }

    #[test]
    fn keys_are_what_a_secret_allows() {
        for key in ["A", "tls.crt", ".dockerconfigjson", "a-b_c.d", &"x".repeat(253)] {
            assert!(is_valid_key(key), "{key}");
        }
        for key in ["", ".", "..", "..data", "..2026_01", "a b", "a/b", "ä", "a\nb", &"x".repeat(254)] {
            assert!(!is_valid_key(key), "{key:?}");
        }
    }
}
