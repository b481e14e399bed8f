//! Who may have which SealedEnv: every rung of the ladder, in order. Pure.
//!
//! A rung is a name and a question to facts that were gathered; the first that answers with no ends the climb. Rungs
//! stand in one list, so that a test can take each away in turn and see that something gets through
//! (`tests::every_rung_is_needed`). docs/src/delivery.md has them in prose.
//!
//! Identity comes from the API server's answers only: the review of the token, and a read of the pod during the call.
//! Nothing that the caller says of itself is believed, and nothing that can be changed on a pod once it is there.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::core::v1::Volume;
use sealedenv_crds::{Delivery, SealedEnv, names};
use sealedenv_delivery::{AUDIENCE, Reason};

use super::asking::Asking;

/// How far the facts must be known for a rung to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The tokens were reviewed. Who fails here learns nothing but that, and costs no read.
    Caller,
    /// The pod was read.
    Pod,
    /// A SealedEnv is asked for by its name, and was not looked at yet.
    Name,
    /// It was read.
    Env,
    /// Its values are open, and the trail was asked to take the record.
    Release,
}

/// One rung.
pub struct Rung {
    /// When it is looked at.
    pub stage: Stage,
    /// What is missing where it does not pass: stable `PascalCase`, for log, trail and metrics.
    pub name: &'static str,
    /// What the caller is told, where it is told of one SealedEnv. Not used before [`Stage::Name`].
    pub reason: Reason,
    passes: fn(&Facts) -> bool,
}

/// What is known of a call. Later parts are filled in as it goes on.
pub struct Facts {
    /// The review of the pod's token.
    pub reviewed: Reviewed,
    /// The review of the node plugin's own token. None: an agent asks.
    pub plugin: Option<Reviewed>,
    /// The user name of the node plugin's ServiceAccount.
    pub plugin_user: String,
    /// Whether the namespace in the token is one that this operator serves.
    pub served: bool,
    /// The pod that the token names, as it is now.
    pub pod: Option<Asking>,
    /// The SealedEnv that is asked for.
    pub name: String,
    /// The SealedEnv of that name in the pod's namespace.
    pub env: Option<Arc<SealedEnv>>,
    /// Whether the trail took the record.
    pub recorded: bool,
}

/// What a review says, and what the token says by it.
pub struct Reviewed {
    /// The API server's answer.
    pub status: TokenReviewStatus,
    /// Read out of it.
    pub claims: Claims,
}

/// What a ServiceAccount token says, where it says it well-formed and once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the ServiceAccount, and so of the pod.
    pub namespace: Option<String>,
    /// Name of the ServiceAccount.
    pub account: Option<String>,
    /// Name of the pod that the token is bound to.
    pub pod: Option<String>,
    /// UID of that pod.
    pub uid: Option<String>,
    /// The node of that pod.
    pub node: Option<String>,
}

/// Every rung, in order.
pub const RUNGS: [Rung; 21] = [
    caller("Authenticated", |facts| is_authenticated(&facts.reviewed)),
    // A server that knows no audiences names none; a token for the API server is no token for us.
    caller("Audience", |facts| is_for_us(&facts.reviewed)),
    caller("ServiceAccount", |facts| facts.claims().account.is_some()),
    caller("BoundToPod", |facts| facts.claims().pod.is_some() && facts.claims().uid.is_some()),
    caller("PluginAuthenticated", |facts| facts.plugin.as_ref().is_none_or(is_authenticated)),
    caller("PluginAudience", |facts| facts.plugin.as_ref().is_none_or(is_for_us)),
    caller("PluginAccount", |facts| {
        facts.plugin.as_ref().is_none_or(|plugin| user(&plugin.status) == Some(&facts.plugin_user))
    }),
    caller("NamespaceServed", |facts| facts.served),
    pod("PodLives", |facts| facts.pod.is_some()),
    pod("PodUid", |facts| facts.of_pod(|pod| pod.metadata.uid.as_ref()) == facts.claims().uid.as_ref()),
    pod("PodNamespace", |facts| {
        facts.of_pod(|pod| pod.metadata.namespace.as_ref()) == facts.claims().namespace.as_ref()
    }),
    pod("PodAccount", |facts| {
        facts.of_pod(|pod| pod.spec.as_ref()?.service_account_name.as_ref())
            == facts.claims().account.as_ref()
    }),
    // A stolen node gets what its own pods may have, and nothing else.
    pod("PodOnNode", |facts| {
        facts.plugin.as_ref().is_none_or(|plugin| {
            let node = plugin.claims.node.as_ref();
            node.is_some() && facts.of_pod(|pod| pod.spec.as_ref()?.node_name.as_ref()) == node
        })
    }),
    pod("PodNotTerminating", |facts| facts.of_pod(|pod| pod.metadata.deletion_timestamp.as_ref()).is_none()),
    pod("PodNotFinished", |facts| {
        let phase = facts.of_pod(|pod| pod.status.as_ref()?.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    }),
    // Before anything is said of the SealedEnv: a pod cannot find out which others there are.
    Rung { stage: Stage::Name, name: "Named", reason: Reason::NotNamed, passes: Facts::is_named },
    env("Found", Reason::NotFound, |facts| facts.env.is_some()),
    env("InMemory", Reason::NotMemory, |facts| {
        facts.env.as_ref().is_none_or(|env| env.spec.delivery == Delivery::Memory)
    }),
    env("Active", Reason::Suspended, |facts| {
        facts.env.as_ref().is_none_or(|env| !env.spec.suspend && env.metadata.deletion_timestamp.is_none())
    }),
    env("Allowed", Reason::NotAllowed, |facts| {
        let allow = facts.env.as_ref().and_then(|env| env.spec.allow.as_ref());
        allow.is_none_or(|allow| {
            facts.claims().account.as_ref().is_some_and(|account| allow.service_accounts.contains(account))
        })
    }),
    Rung {
        stage: Stage::Release,
        name: "Recorded",
        reason: Reason::NotRecorded,
        passes: |facts| facts.recorded,
    },
];

const fn caller(name: &'static str, passes: fn(&Facts) -> bool) -> Rung {
    Rung { stage: Stage::Caller, name, reason: Reason::Unavailable, passes }
}

const fn pod(name: &'static str, passes: fn(&Facts) -> bool) -> Rung {
    Rung { stage: Stage::Pod, name, reason: Reason::Unavailable, passes }
}

const fn env(name: &'static str, reason: Reason, passes: fn(&Facts) -> bool) -> Rung {
    Rung { stage: Stage::Env, name, reason, passes }
}

/// Climbs. All rungs, except in the test that shows what each is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ladder {
    without: Option<&'static str>,
}

impl Ladder {
    /// A ladder that lacks a rung.
    #[cfg(test)]
    pub(crate) fn without(name: &'static str) -> Self {
        Self { without: Some(name) }
    }

    /// Looks at the rungs of a stage.
    ///
    /// # Errors
    /// The first that the facts do not pass.
    pub fn climb(self, stage: Stage, facts: &Facts) -> Result<(), &'static Rung> {
        let missing = (RUNGS.iter())
            .filter(|rung| rung.stage == stage && self.without != Some(rung.name))
            .find(|rung| !(rung.passes)(facts));
        missing.map_or(Ok(()), Err)
    }
}

impl Facts {
    /// What the pod's token says.
    pub fn claims(&self) -> &Claims {
        &self.reviewed.claims
    }

    fn of_pod<'a, T>(&'a self, get: impl FnOnce(&'a Asking) -> Option<T>) -> Option<T> {
        self.pod.as_ref().and_then(get)
    }

    /// Whether the pod's spec names the SealedEnv for this kind of caller. What stands there cannot be changed once the
    /// pod is there, unlike an annotation. The two kinds are told apart so that somebody who stole another node's
    /// tokens cannot leave the node plugin's out and ask as an agent.
    fn is_named(&self) -> bool {
        let volumes = self.of_pod(|pod| pod.spec.as_ref()?.volumes.as_deref()).unwrap_or_default();
        let names = if self.plugin.is_some() { csi_names } else { agent_names };
        volumes.iter().flat_map(names).any(|name| name == self.name)
    }
}

/// An inline volume of our CSI driver: its attribute names one SealedEnv.
fn csi_names(volume: &Volume) -> Vec<&str> {
    let ours = volume.csi.as_ref().filter(|csi| csi.driver == names::CSI_DRIVER);
    let attributes = ours.and_then(|csi| csi.volume_attributes.as_ref());
    attributes.and_then(|all| all.get(names::CSI_ENVIRONMENT)).map(String::as_str).into_iter().collect()
}

/// A projected token for our audience: its path is the name of a SealedEnv, and `/token`.
fn agent_names(volume: &Volume) -> Vec<&str> {
    let sources = volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten();
    let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    tokens
        .filter(|token| token.audience.as_deref() == Some(AUDIENCE))
        .filter_map(|token| token.path.strip_suffix(names::AGENT_TOKEN_SUFFIX))
        .collect()
}

impl From<TokenReviewStatus> for Reviewed {
    fn from(status: TokenReviewStatus) -> Self {
        Self { claims: Claims::of(&status), status }
    }
}

impl Claims {
    /// Reads a review. What is there twice, or not as it should be, is not there.
    pub fn of(review: &TokenReviewStatus) -> Self {
        let extra = |key: &str| {
            let values = review.user.as_ref()?.extra.as_ref()?.get(key)?;
            match values.as_slice() {
                [one] if is_segment(one) => Some(one.clone()),
                _ => None,
            }
        };
        let account = user(review).and_then(|name| {
            let (namespace, account) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
            (is_segment(namespace) && is_segment(account)).then(|| (namespace.to_owned(), account.to_owned()))
        });
        let (namespace, account) = account.unzip();
        Self {
            namespace,
            account,
            pod: extra("authentication.kubernetes.io/pod-name"),
            uid: extra("authentication.kubernetes.io/pod-uid"),
            node: extra("authentication.kubernetes.io/node-name"),
        }
    }
}

/// What can be one segment of an API path: it goes into the address of a read.
fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && text.bytes().any(|b| b != b'.')
}

fn user(review: &TokenReviewStatus) -> Option<&String> {
    review.user.as_ref()?.username.as_ref()
}

fn is_authenticated(review: &Reviewed) -> bool {
    let review = &review.status;
    review.authenticated == Some(true) && review.error.as_ref().is_none_or(String::is_empty)
}

fn is_for_us(review: &Reviewed) -> bool {
    review.status.audiences.iter().flatten().any(|audience| audience == AUDIENCE)
}

#[cfg(test)]
mod tests;
