//! The Secret as it should be, and what stands in the way.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sealedenv_crds::{Class, DeletionPolicy, Delivery, SealedEnvSpec, SecretRef, names};
use sealedenv_seal::Plain;

use super::{LiveSecret, SecretFacts, Subject};
use crate::reason::Reason;

/// Left by `kubectl apply` on a Secret: it holds every value in plain.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Secret to apply.
pub struct DesiredSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_: String,
    /// Its labels, ours among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, ours among them.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is immutable.
    pub immutable: bool,
    /// The SealedEnv, unless the Secret is to outlive it.
    pub owner: Option<OwnerReference>,
    /// Its values.
    pub content: BTreeMap<String, Plain>,
    /// What it is written over.
    pub over: Over,
}

/// What an apply expects to find, so that the API server refuses it when that is no longer true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// No Secret of that name.
    Nothing,
    /// This very Secret, in this very state.
    This {
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
        /// Keys that it has and should not, which somebody else put there.
        strip_keys: Vec<String>,
        /// Annotations that it has and should not.
        strip_annotations: Vec<String>,
    },
}

/// What in a spec is never allowed. The CRD's rules say the same; this holds when they are older or were bypassed.
pub(crate) fn problem(spec: &SealedEnvSpec) -> Option<String> {
    if let Some(shape) = &spec.secret {
        if let Some(type_) = shape.type_.as_deref().filter(|t| !names::SECRET_TYPES.contains(t)) {
            let type_: String = type_.chars().filter(|c| !c.is_control()).take(64).collect();
            return Some(format!(
                "Secret type {type_} is not allowed; use one of {}",
                names::SECRET_TYPES.join(", ")
            ));
        }
        for (what, keys) in [("label", &shape.labels), ("annotation", &shape.annotations)] {
            if let Some(key) = keys.keys().find(|k| names::is_reserved_metadata_key(k)) {
                let key: String = key.chars().filter(|c| !c.is_control()).take(80).collect();
                return Some(format!("{what} {key} is reserved and cannot be put on the Secret"));
            }
        }
    }
    if spec.allow.is_some() && spec.delivery != Delivery::Memory {
        return Some("allow is for delivery Memory: a Secret can be read by whoever may read Secrets".into());
    }
    let secret_in_plain = spec
        .meta
        .iter()
        .find(|(key, meta)| meta.class == Some(Class::Secret) && spec.public.contains_key(*key));
    if let Some((key, _)) = secret_in_plain {
        return Some(format!("{key} is of class secret and stands in public; seal it and put it in data"));
    }
    let file = sealedenv_render::shape(spec).into_iter().next()?;
    let path: String = file.path.chars().filter(|c| !c.is_control()).take(80).collect();
    Some(format!("file {path}: {}", file.fault))
}

impl DesiredSecret {
    pub(crate) fn new(subject: &Subject<'_>, name: &str, content: BTreeMap<String, Plain>) -> Self {
        let shape = subject.spec.secret.clone().unwrap_or_default();
        let mut labels = shape.labels;
        labels.insert(names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into());
        let mut annotations = shape.annotations;
        annotations.insert(names::OWNER.into(), subject.name.into());
        let owner = (subject.spec.deletion_policy == DeletionPolicy::Delete).then(|| OwnerReference {
            api_version: names::API_VERSION.into(),
            kind: "SealedEnv".into(),
            name: subject.name.into(),
            uid: subject.uid.into(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        });
        Self {
            namespace: subject.namespace.into(),
            name: name.into(),
            type_: shape.type_.unwrap_or_else(|| "Opaque".into()),
            labels,
            annotations,
            immutable: shape.immutable,
            owner,
            content,
            over: Over::Nothing,
        }
    }

    pub(crate) fn reference(&self) -> SecretRef {
        SecretRef {
            name: self.name.clone(),
            uid: None,
            resource_version: None,
            type_: Some(self.type_.clone()),
            immutable: self.immutable,
        }
    }

    /// Why Kubernetes or good sense forbids writing this over what stands there.
    pub(crate) fn obstacle(
        &self,
        written: Option<&SecretRef>,
        live: Option<&LiveSecret>,
        adopting: bool,
        digest: &str,
        subject: &Subject<'_>,
    ) -> Option<(Reason, String)> {
        let name = &self.name;
        let type_ = live.map(|l| l.type_.as_str()).or(written.and_then(|w| w.type_.as_deref()));
        if let Some(type_) = type_.filter(|t| *t != self.type_) {
            return Some((
                Reason::SecretTypeChanged,
                format!(
                    "Secret {name} has type {type_} and Kubernetes does not change it to {}; choose another secret.name, or delete the Secret when nothing uses it",
                    self.type_
                ),
            ));
        }
        let immutable = live.map_or_else(|| written.is_some_and(|w| w.immutable), |l| l.immutable);
        let same = match live {
            Some(live) => self.has_content_of(live),
            None => subject.status.digest.as_deref() == Some(digest),
        };
        if immutable && (!self.immutable || !same) {
            return Some((
                Reason::SecretImmutable,
                format!(
                    "Secret {name} is immutable and would change; choose another secret.name, or delete the Secret when nothing uses it"
                ),
            ));
        }
        if adopting && let Some(live) = live {
            let lost: Vec<_> =
                live.content.keys().filter(|k| !self.content.contains_key(*k)).cloned().collect();
            if !lost.is_empty() {
                return Some((
                    Reason::AdoptionWouldLoseKeys,
                    format!(
                        "Secret {name} has keys that the SealedEnv lacks, and adoption would remove them: {}",
                        lost.join(", ")
                    ),
                ));
            }
        }
        None
    }

    /// Whether a Secret that was read is already as it should be.
    pub(crate) fn is_met_by(&self, live: &LiveSecret) -> bool {
        let has = |have: &BTreeMap<String, String>, want: &BTreeMap<String, String>| {
            want.iter().all(|(k, v)| have.get(k) == Some(v))
        };
        self.has_content_of(live)
            && live.type_ == self.type_
            && live.immutable == self.immutable
            && live.owned == self.owner.is_some()
            && has(&live.labels, &self.labels)
            && has(&live.annotations, &self.annotations)
            && !live.annotations.contains_key(LAST_APPLIED)
    }

    fn has_content_of(&self, live: &LiveSecret) -> bool {
        live.content.len() == self.content.len()
            && live.content.iter().zip(&self.content).all(|((ln, lv), (n, v))| ln == n && lv.same_as(v))
    }

    /// Turns this into a write over a Secret that is there.
    pub(crate) fn over(mut self, seen: &SecretFacts, adopting: bool) -> Self {
        let (mut strip_keys, mut strip_annotations) = (Vec::new(), Vec::new());
        if let Some(live) = &seen.live {
            strip_annotations
                .extend(live.annotations.contains_key(LAST_APPLIED).then(|| LAST_APPLIED.to_owned()));
            if !adopting {
                strip_keys.extend(live.content.keys().filter(|k| !self.content.contains_key(*k)).cloned());
            }
        }
        self.over = Over::This {
            uid: seen.uid.clone(),
            resource_version: seen.resource_version.clone(),
            strip_keys,
            strip_annotations,
        };
        self
    }
}
