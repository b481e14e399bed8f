//! Secrets of another namespace, or of another cluster, by the API of Kubernetes
//! (<https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/#get-read-the-specified-secret>).
//!
//! It asks as a ServiceAccount of the store's own namespace, and what that may read is for the API server to say: the
//! grant is a RoleBinding in the other namespace. docs/src/providers.md says why it is no list of ours.
//!
//! A path is `namespace/name`. What comes is the Secret's data as JSON, one text for each key.

mod reply;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use sealedenv_seal::Plain;

use crate::credential::{Credential, bearer, text};
use crate::provider::{Answering, Provider, each};
use crate::transport::{Question, Transport, base};
use crate::{Answer, Ask, Outcome};

/// An API server, as one ServiceAccount.
pub struct Kubernetes {
    transport: Transport,
    /// Without a slash at its end.
    address: String,
    token: Credential,
}

/// An API server that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address of an API server is https://HOST[:PORT]")]
pub struct KubernetesError;

impl Kubernetes {
    /// At that address, with a ServiceAccount's token. Asks nothing yet.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub fn new(transport: Transport, address: &Uri, token: Credential) -> Result<Self, KubernetesError> {
        let address = base(address).ok_or(KubernetesError)?;
        Ok(Self { transport, address, token })
    }

    async fn read(&self, ask: &Ask) -> Result<Answer, Answer> {
        let malformed = || Answer::here(Outcome::Malformed);
        let (namespace, name) = names(ask).ok_or_else(malformed)?;
        let token = text(&self.token).await.map_err(Answer::here)?;
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, bearer(&token).map_err(Answer::here)?),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let address = format!("{}/api/v1/namespaces/{namespace}/secrets/{name}", self.address);
        let address = address.parse().map_err(|_| malformed())?;
        let body = Plain::from(String::new());
        let reply = self.transport.ask(Question { method: Method::GET, address, headers, body }).await?;
        if reply.repeats(token.as_bytes()) {
            return Err(Outcome::Malformed.into());
        }
        Ok(reply::read(&reply, namespace, name).into())
    }
}

/// The namespace and the name of a Secret. None: the API has none of such names, or a version is asked for.
fn names(ask: &Ask) -> Option<(&str, &str)> {
    let (namespace, name) = ask.path.split_once('/')?;
    let is_label = |label: &str| {
        let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(of_label)
    };
    let is_namespace = namespace.len() <= 63 && is_label(namespace);
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    (is_namespace && is_name && ask.version.is_none()).then_some((namespace, name))
}

impl Provider for Kubernetes {
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>> {
        Box::pin(each(asks, async |ask| self.read(ask).await.unwrap_or_else(|answer| answer)))
    }
}

#[cfg(test)]
mod tests;
