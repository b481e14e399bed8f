//! HashiCorp Vault and OpenBao, by their HTTP API: KV of both versions, any other path that is read, leases.
//!
//! A token that expired gives the same answer as one that may not. So after a refusal it logs in anew, once, and asks
//! again; only then it is a refusal.

mod login;
mod reply;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use sealedenv_seal::Plain;
use serde_json::json;
use tokio::sync::Mutex;

use crate::provider::{Answering, Provider, Renewed};
use crate::transport::{Fault, Question, Reply, Transport};
use crate::{Ask, Lease, Outcome};

pub use login::{Credential, Login};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault answers nothing to who might have been led to it by somebody else's server.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// One Vault, as one role.
pub struct Vault {
    transport: Transport,
    /// Without a slash at its end.
    address: String,
    namespace: Option<HeaderValue>,
    login: Login,
    token: Mutex<Option<HeaderValue>>,
}

/// A Vault that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The address has a query, or cannot be the beginning of one.
    #[error("the address of a Vault is https://HOST[:PORT]")]
    Address,
    /// The namespace cannot stand in a header.
    #[error("the namespace of a Vault is letters, digits, /, - and _")]
    Namespace,
}

impl Vault {
    /// At that address, in that namespace of it (Vault Enterprise, OpenBao). Asks nothing yet.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn new(
        transport: Transport,
        address: &Uri,
        namespace: Option<&str>,
        login: Login,
    ) -> Result<Self, VaultError> {
        if address.query().is_some() || address.authority().is_none() {
            return Err(VaultError::Address);
        }
        let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_');
        let namespace = namespace
            .map(|name| {
                let value = HeaderValue::from_str(name).ok().filter(|_| name.bytes().all(of_name));
                value.ok_or(VaultError::Namespace)
            })
            .transpose()?;
        let address = address.to_string().trim_end_matches('/').to_owned();
        Ok(Self { transport, address, namespace, login, token: Mutex::new(None) })
    }

    async fn read(&self, ask: &Ask) -> Outcome {
        let Some(path) = path(&ask.path) else { return Outcome::Malformed };
        let version = match ask.version.as_deref().map(str::parse::<u64>) {
            None => String::new(),
            Some(Ok(version)) => format!("?version={version}"),
            Some(Err(_)) => return Outcome::Malformed,
        };
        match self.call(Method::GET, &format!("{path}{version}"), None).await {
            Ok(reply) => reply::read(&reply),
            Err(outcome) => outcome,
        }
    }

    /// Asks as whoever it is logged in as.
    async fn call(&self, method: Method, path: &str, body: Option<&str>) -> Result<Reply, Outcome> {
        let token = self.token().await?;
        let reply = self.ask(&method, path, body, Some(&token)).await?;
        if reply.status != StatusCode::FORBIDDEN {
            return Ok(reply);
        }
        {
            let mut kept = self.token.lock().await;
            if kept.as_ref() == Some(&token) {
                *kept = None;
            }
        }
        let token = self.token().await?;
        self.ask(&method, path, body, Some(&token)).await
    }

    /// The token, after a login where there is none. Others wait for the one login that is under way.
    async fn token(&self) -> Result<HeaderValue, Outcome> {
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref() {
            return Ok(token.clone());
        }
        let token = match self.login.request().await? {
            login::Step::Token(token) => token,
            login::Step::Ask { path, body } => {
                let reply = self.ask(&Method::POST, &path, Some(&body), None).await?;
                reply::token(&reply)?
            }
        };
        *kept = Some(token.clone());
        Ok(token)
    }

    async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&str>,
        token: Option<&HeaderValue>,
    ) -> Result<Reply, Outcome> {
        let address = format!("{}/v1/{path}", self.address).parse().map_err(|_| Outcome::Malformed)?;
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(token) = token {
            headers.insert(TOKEN, token.clone());
        }
        let body = Plain::from(body.unwrap_or_default().to_owned());
        let question = Question { method: method.clone(), address, headers, body };
        self.transport.ask(question).await.map_err(Outcome::from)
    }
}

impl Provider for Vault {
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(asks.len());
            for ask in asks {
                outcomes.push(self.read(ask).await);
            }
            outcomes
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Renewed> {
        Box::pin(async move {
            let body = json!({ "lease_id": lease.id }).to_string();
            reply::renewed(&self.call(Method::PUT, "sys/leases/renew", Some(&body)).await?)
        })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Result<(), Outcome>> {
        Box::pin(async move {
            let body = json!({ "lease_id": lease.id }).to_string();
            reply::done(&self.call(Method::PUT, "sys/leases/revoke", Some(&body)).await?)
        })
    }
}

/// A path of the API, made safe for an address: no way out of it, no query.
fn path(text: &str) -> Option<String> {
    let leads_out = |segment: &str| matches!(segment, "" | "." | "..");
    if text.len() > MAX_PATH || text.split('/').any(leads_out) {
        return None;
    }
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~@:+=,".contains(&byte);
    let safe = |byte: u8| if of_path(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Some(text.bytes().map(safe).collect())
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(_) => Self::Denied,
            Fault::Question | Fault::TooLarge | Fault::Redirect => Self::Malformed,
            Fault::Unreachable | Fault::Untrusted | Fault::Late | Fault::Broken => {
                Self::Unavailable { retry_after: None }
            }
        }
    }
}

#[cfg(test)]
mod tests;
