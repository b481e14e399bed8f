//! What a call asks the API server: whose the tokens are, the pod, the SealedEnv. Each anew in each call.

use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use kube::Client;
use kube::api::Api;
use sealedenv_crds::SealedEnv;
use sealedenv_delivery::server::Call;

use super::asking::Asking;
use super::ladder::{Claims, Facts, Reviewed};
use super::review::review;
use crate::arrival::Arrival;
use crate::controller::Extent;

/// Longest time for one question.
const READS: Duration = Duration::from_secs(2);

/// What looks.
pub(super) struct Looks {
    pub(super) client: Client,
    /// Whose pods are served.
    pub(super) extents: Vec<Extent>,
    /// User name of the node plugin's ServiceAccount.
    pub(super) plugin_user: String,
}

/// Nothing could be established.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error("reviewing a token")]
    Review(#[source] kube::Error),
    #[error("reading the pod")]
    Pod(#[source] kube::Error),
    #[error("reading the SealedEnv")]
    Env(#[source] kube::Error),
    #[error("the SealedEnv does not decode")]
    Undecodable,
    #[error("the API server took longer than {} s", READS.as_secs())]
    Time,
}

impl Looks {
    /// What the tokens of a call say: all that is known of it at first.
    pub(super) async fn reviewed(&self, call: &Call) -> Result<Facts, LookError> {
        let client = &self.client;
        let reviews = futures::future::try_join(review(client, &call.pod), async {
            OptionFuture::from(call.node.as_ref().map(|token| review(client, token))).await.transpose()
        });
        let (reviewed, plugin) = in_time(reviews).await?.map_err(LookError::Review)?;
        let (reviewed, plugin) = (Reviewed::from(reviewed), plugin.map(Reviewed::from));
        let namespace = reviewed.claims.namespace.as_ref();
        let served = namespace.is_some_and(|namespace| self.extents.iter().any(|e| e.has(namespace)));
        Ok(Facts {
            reviewed,
            plugin,
            plugin_user: self.plugin_user.clone(),
            served,
            pod: None,
            name: String::new(),
            env: None,
            recorded: false,
        })
    }

    /// The pod that the token names.
    pub(super) async fn pod(&self, claims: &Claims) -> Result<Option<Asking>, LookError> {
        let (Some(namespace), Some(name)) = (&claims.namespace, &claims.pod) else { return Ok(None) };
        let pods: Api<Asking> = Api::namespaced(self.client.clone(), namespace);
        in_time(pods.get_opt(name)).await?.map_err(LookError::Pod)
    }

    /// The SealedEnv that is asked for.
    pub(super) async fn env(&self, facts: &Facts) -> Result<Option<Arc<SealedEnv>>, LookError> {
        let Some(namespace) = &facts.claims().namespace else { return Ok(None) };
        let envs: Api<Arrival> = Api::namespaced(self.client.clone(), namespace);
        let found = in_time(envs.get_opt(&facts.name)).await?.map_err(LookError::Env)?;
        found.map(|Arrival(env)| env.map(Arc::new).map_err(|_| LookError::Undecodable)).transpose()
    }
}

async fn in_time<T>(question: impl Future<Output = T>) -> Result<T, LookError> {
    tokio::time::timeout(READS, question).await.map_err(|_| LookError::Time)
}
