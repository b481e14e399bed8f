//! Carries out writes. Every one has a precondition, so that a decision made on a stale view is refused by the API
//! server instead of harming what is there now.

use std::collections::BTreeMap;

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PartialObjectMeta, Patch, PatchParams, Preconditions, Request};
use kube::core::response::reason;
use kube::{Client, Resource as _, ResourceExt as _};
use sealedenv_crds::{SealedEnv, SealedEnvStatus, names};
use sealedenv_seal::Plain;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use zeroize::Zeroize as _;

use crate::plan::{DesiredSecret, LiveSecret, Over, SecretFacts};
use crate::secrets::Seen;

/// No object ever has this resourceVersion: etcd's first write is revision 2. An apply that carries it creates an
/// object, and is refused where one exists. Without it, a server-side apply would merge our keys into a Secret
/// that somebody else made a moment ago.
const NEVER_A_VERSION: &str = "1";

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What was found is not what the decision was made on: look again and decide again.
    #[error("the object changed since it was looked at")]
    Stale,
    /// The API server refused or did not answer.
    #[error("writing Secret {name}")]
    Secret {
        /// The Secret.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The API server refused. Its words are left out: they may quote what stands in the Secret.
    #[error("writing Secret {name}: the API server answered {code} {why}")]
    Refused {
        /// The Secret.
        name: String,
        /// HTTP status.
        code: u16,
        /// Its word for it, such as `Forbidden`, as [`word`] gives it.
        why: &'static str,
    },
    /// The API server refused or did not answer.
    #[error("writing the status")]
    Status(#[source] Box<kube::Error>),
}

/// Whether an error of the API says that a precondition did not hold.
fn is_stale(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.code == 404)
}

/// The API server's word for why it refused, if it is one of Kubernetes' own. An admission webhook of somebody else can
/// put anything there, also what stands in the Secret.
pub(crate) fn word(reason: &str) -> &'static str {
    const KNOWN: [&str; 19] = [
        reason::UNAUTHORIZED,
        reason::FORBIDDEN,
        reason::NOT_FOUND,
        reason::ALREADY_EXISTS,
        reason::CONFLICT,
        reason::GONE,
        reason::INVALID,
        reason::SERVER_TIMEOUT,
        reason::STORAGE_READ_ERROR,
        reason::TIMEOUT,
        reason::TOO_MANY_REQUESTS,
        reason::BAD_REQUEST,
        reason::METHOD_NOT_ALLOWED,
        reason::NOT_ACCEPTABLE,
        reason::REQUEST_ENTITY_TOO_LARGE,
        reason::UNSUPPORTED_MEDIA_TYPE,
        reason::INTERNAL_ERROR,
        reason::EXPIRED,
        reason::SERVICE_UNAVAILABLE,
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Other")
}

/// Applies a Secret. Returns its metadata afterwards.
pub(crate) async fn apply(client: &Client, desired: &DesiredSecret) -> Result<Seen, WriteError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &desired.namespace);
    let fail = |error: kube::Error| {
        if is_stale(&error) {
            return WriteError::Stale;
        }
        WriteError::Secret { name: desired.name.clone(), source: Box::new(error) }
    };
    // Forced, for a hand edit takes the field over; only ever on a Secret that is ours or was handed to us, since
    // UID and resourceVersion are those of the one that was looked at.
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let body = SecretBody::of(desired);
    let mut written =
        secrets.patch_metadata(&desired.name, &params, &Patch::Apply(&body)).await.map_err(fail)?;
    if let Over::This { strip_keys, strip_annotations, .. } = &desired.over
        && !(strip_keys.is_empty() && strip_annotations.is_empty())
    {
        let nulls = |keys: &[String]| {
            keys.iter().map(|k| (k.clone(), Value::Null)).collect::<serde_json::Map<_, _>>()
        };
        let patch = json!({
            "metadata": {
                "resourceVersion": written.resource_version(),
                "annotations": nulls(strip_annotations),
            },
            "data": nulls(strip_keys),
        });
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        written =
            secrets.patch_metadata(&desired.name, &params, &Patch::Merge(&patch)).await.map_err(fail)?;
    }
    Ok(Seen::of(written.meta()))
}

/// Deletes a Secret if it is still the very one.
pub(crate) async fn delete(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), WriteError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match secrets.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) if is_stale(&error) => Err(WriteError::Stale),
        Err(error) => Err(WriteError::Secret { name: name.to_owned(), source: Box::new(error) }),
    }
}

/// Reads a Secret with its content.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    env: &str,
    env_uid: &str,
) -> Result<Option<(Seen, SecretFacts)>, WriteError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = secrets
        .get_opt(name)
        .await
        .map_err(|e| WriteError::Secret { name: name.to_owned(), source: Box::new(e) })?;
    Ok(found.map(|secret| {
        let seen = Seen::of(secret.meta());
        let mut facts = seen.facts(env, env_uid);
        facts.live = Some(LiveSecret {
            owned: seen.owner_uid.as_deref() == Some(env_uid),
            type_: secret.type_.unwrap_or_else(|| "Opaque".into()),
            immutable: secret.immutable.unwrap_or_default(),
            labels: secret.metadata.labels.unwrap_or_default(),
            annotations: secret.metadata.annotations.unwrap_or_default(),
            content: plain(secret.data.unwrap_or_default()),
        });
        (seen, facts)
    }))
}

/// Takes values out of what the API client decoded, leaving no copy behind.
pub(crate) fn plain(data: BTreeMap<String, ByteString>) -> BTreeMap<String, Plain> {
    data.into_iter().map(|(key, ByteString(bytes))| (key, Plain::new(bytes))).collect()
}

/// Writes what differs between two statuses, if anything. Returns the object's new resourceVersion.
pub(crate) async fn write_status(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    old: &SealedEnvStatus,
    new: &SealedEnvStatus,
) -> Result<Option<String>, WriteError> {
    let fail =
        |e: kube::Error| if is_stale(&e) { WriteError::Stale } else { WriteError::Status(Box::new(e)) };
    let internal = |e: serde_json::Error| WriteError::Status(Box::new(kube::Error::SerdeError(e)));
    let (old, new) =
        (serde_json::to_value(old).map_err(internal)?, serde_json::to_value(new).map_err(internal)?);
    let Some(difference) = merge_patch(&old, &new) else { return Ok(None) };
    let patch = json!({ "metadata": { "uid": uid }, "status": difference });
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let request = Request::new(SealedEnv::url_path(&(), Some(namespace)));
    let mut request = request
        .patch_subresource("status", name, &params, &Patch::Merge(&patch))
        .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
    // Only the resourceVersion of the answer is wanted, not the sealed data.
    request.headers_mut().insert(
        http::header::ACCEPT,
        http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    );
    let answer: PartialObjectMeta<SealedEnv> = client.request(request).await.map_err(fail)?;
    Ok(answer.resource_version())
}

/// The JSON merge patch (RFC 7396) that turns one value into another; none when they are equal.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Value::Null));
            let changed = new
                .iter()
                .filter_map(|(k, v)| Some((k.clone(), merge_patch(old.get(k).unwrap_or(&Value::Null), v)?)));
            Some(Value::Object(gone.chain(changed).collect()))
        }
        (_, new) => Some(new.clone()),
    }
}

/// A Secret as it goes over the wire. It borrows the values, so that no printable copy of them ever exists.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretBody<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: SecretMetadata<'a>,
    r#type: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    immutable: bool,
    data: BTreeMap<&'a str, Encoded<'a>>,
}

/// The API client wants it for its own logs; it gets the name and nothing else.
impl std::fmt::Debug for SecretBody<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret {}/{}", self.metadata.namespace, self.metadata.name)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretMetadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    resource_version: &'a str,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[OwnerReference]>::is_empty")]
    owner_references: &'a [OwnerReference],
}

struct Encoded<'a>(&'a Plain);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0.expose(), &BASE64_STANDARD))
    }
}

impl<'a> SecretBody<'a> {
    fn of(desired: &'a DesiredSecret) -> Self {
        let (uid, resource_version) = match &desired.over {
            Over::Nothing => (None, NEVER_A_VERSION),
            Over::This { uid, resource_version, .. } => (Some(uid.as_str()), resource_version.as_str()),
        };
        Self {
            api_version: "v1",
            kind: "Secret",
            metadata: SecretMetadata {
                name: &desired.name,
                namespace: &desired.namespace,
                uid,
                resource_version,
                labels: &desired.labels,
                annotations: &desired.annotations,
                owner_references: desired.owner.as_slice(),
            },
            r#type: &desired.type_,
            immutable: desired.immutable,
            data: desired.content.iter().map(|(key, value)| (key.as_str(), Encoded(value))).collect(),
        }
    }
}

/// Wipes the values of a decoded Secret that is not needed any more.
pub(crate) fn wipe(secret: &mut Secret) {
    for ByteString(bytes) in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_turns_old_into_new_and_says_nothing_twice() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": true});
        let new = json!({"a": 1, "b": {"c": [2], "f": "y"}, "g": null});
        let patch = merge_patch(&old, &new);
        assert_eq!(patch, Some(json!({"b": {"c": [2], "d": null, "f": "y"}, "e": null})));
        assert_eq!(merge_patch(&new, &new), None);
        assert_eq!(merge_patch(&json!({}), &json!({"k": {}})), Some(json!({"k": {}})));
    }

    #[test]
    fn a_secret_body_prints_no_value() {
        let canary = "canary-91d2";
        let desired = DesiredSecret {
            namespace: "shop".into(),
            name: "s".into(),
            type_: "Opaque".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            immutable: false,
            owner: None,
            content: [("A".to_owned(), Plain::from(canary.as_bytes().to_vec()))].into(),
            over: Over::Nothing,
        };
        assert_eq!(format!("{:?}", SecretBody::of(&desired)), "Secret shop/s");
    }

    #[test]
    fn a_secret_goes_out_with_its_precondition() {
        let mut desired = DesiredSecret {
            namespace: "shop".into(),
            name: "s".into(),
            type_: "Opaque".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            immutable: false,
            owner: None,
            content: [("A".to_owned(), Plain::from(vec![0xff, 0x00]))].into(),
            over: Over::Nothing,
        };
        let body = serde_json::to_value(SecretBody::of(&desired)).unwrap();
        assert_eq!(body["data"], json!({"A": "/wA="}));
        assert_eq!(body["metadata"]["resourceVersion"], NEVER_A_VERSION);
        assert!(body["metadata"].get("uid").is_none() && body["metadata"].get("ownerReferences").is_none());
        desired.over = Over::This {
            uid: "u".into(),
            resource_version: "7".into(),
            strip_keys: Vec::new(),
            strip_annotations: Vec::new(),
        };
        let body = serde_json::to_value(SecretBody::of(&desired)).unwrap();
        assert_eq!(
            (&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]),
            (&json!("u"), &json!("7"))
        );
    }
}
