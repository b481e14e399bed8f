//! A SealedEnv as it comes off the wire. One that does not decode must not stop the watch, and those that do come in
//! thousands: what nobody asks for (`managedFields` is as long as the rest) is skipped.
//!
//! kube's `DeserializeGuard` does the first of these, over a tree of the whole object that it copies once more: that
//! was the most expensive thing the operator did to an object after opening it (docs/benchmarks.md).

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use sealedenv_crds::{SealedEnv, SealedEnvSpec, SealedEnvStatus};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A SealedEnv that was listed or watched; where it does not decode, its metadata.
#[derive(Clone, Debug)]
pub struct Arrival(pub Result<SealedEnv, Box<ObjectMeta>>);

/// The metadata that is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
}

/// The two that may not decode are taken as they are first; where they do decode, their texts are moved, not copied.
#[derive(Deserialize)]
struct Parts {
    metadata: Meta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            deletion_timestamp: meta.deletion_timestamp,
            annotations: meta.annotations,
            ..Self::default()
        }
    }
}

/// Reads metadata that is of interest.
pub(crate) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Meta::deserialize(deserializer).map(ObjectMeta::from)
}

impl<'de> Deserialize<'de> for Arrival {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
        let metadata = ObjectMeta::from(metadata);
        // A derived reader would take a list for a struct.
        let (Value::Object(_), Value::Object(_) | Value::Null) = (&spec, &status) else {
            return Ok(Self(Err(Box::new(metadata))));
        };
        // The decoder's own words are not kept: they may quote the value it stumbled on.
        let decoded = serde_json::from_value::<SealedEnvSpec>(spec)
            .and_then(|spec| Ok((spec, serde_json::from_value::<Option<SealedEnvStatus>>(status)?)));
        Ok(Self(match decoded {
            Ok((spec, status)) => Ok(SealedEnv { metadata, spec, status }),
            Err(_) => Err(Box::new(metadata)),
        }))
    }
}

impl Resource for Arrival {
    type DynamicType = ();
    type Scope = <SealedEnv as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        SealedEnv::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        SealedEnv::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        SealedEnv::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        SealedEnv::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(env) => env.meta(),
            Err(meta) => meta,
        }
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(env) => env.meta_mut(),
            Err(meta) => meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;
    use kube::api::{ObjectList, WatchEvent};
    use serde_json::json;

    fn object() -> Value {
        json!({
            "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
            "metadata": {
                "name": "checkout", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "annotations": {"sealedenv.dev/requestedAt": "now"}, "labels": {"a": "b"},
                "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {".": {}}}}],
            },
            "spec": {"data": {"A": "sealed:v1:x"}, "onKeyError": "Omit"},
            "status": {"observedGeneration": 2, "keysReady": "1/1"},
        })
    }

    #[test]
    fn what_is_of_interest_is_what_kube_would_read() {
        let Arrival(Ok(env)) = serde_json::from_str(&object().to_string()).unwrap() else {
            panic!("it decodes")
        };
        let whole: SealedEnv = serde_json::from_value(object()).unwrap();
        assert_eq!((&env.spec, &env.status), (&whole.spec, &whole.status));
        let mut metadata = whole.metadata;
        (metadata.creation_timestamp, metadata.labels, metadata.managed_fields) = (None, None, None);
        assert_eq!(env.metadata, metadata);
    }

    #[test]
    fn one_that_does_not_decode_leaves_its_metadata_and_its_neighbours() {
        let mut bad = object();
        bad["spec"]["data"] = json!("canary");
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [bad, object()]});
        let list: ObjectList<Arrival> = serde_json::from_str(&list.to_string()).unwrap();
        let Err(meta) = &list.items[0].0 else { panic!("it does not decode") };
        assert_eq!(
            (meta.name.as_deref(), meta.uid.as_deref(), meta.generation),
            (Some("checkout"), Some("u"), Some(3))
        );
        assert!(list.items[1].0.is_ok());
        for wrong in [json!(null), json!(7), json!([])] {
            let mut bad = object();
            bad["spec"] = wrong;
            bad["status"] = json!({});
            let event = json!({"type": "MODIFIED", "object": bad}).to_string();
            let WatchEvent::Modified(arrival) = serde_json::from_str::<WatchEvent<Arrival>>(&event).unwrap()
            else {
                panic!("another event")
            };
            assert!(arrival.0.is_err() && arrival.name_any() == "checkout");
        }
    }

    #[test]
    fn what_has_no_metadata_is_an_error() {
        for text in [r#"{"spec":{"data":{}}}"#, r#"{"metadata":7,"spec":{}}"#, r#""text""#] {
            assert!(serde_json::from_str::<Arrival>(text).is_err(), "{text}");
        }
    }
}
