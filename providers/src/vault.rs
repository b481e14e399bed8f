//! HashiCorp Vault and OpenBao, by their HTTP API: KV of both versions, any other path that is read, leases.
//!
//! A token that expired gives the same answer as one that may not. So after a refusal it logs in anew, once, and asks
//! again, but not where it has only just logged in ([`session`]). The token itself is never an answer.

mod login;
mod path;
mod reply;
mod session;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use sealedenv_seal::Plain;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::provider::{Answering, Provider, Renewed};
use crate::transport::{ANSWER, Fault, Question, Reply, Transport};
use crate::{Answer, Ask, Lease, Outcome};
use path::{is_reserved, path};
use session::{Session, With};

pub use login::{Credential, Login};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault answers nothing to who might have been led to it by somebody else's server.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Nothing came in time.
const LATE: Outcome = Outcome::Unavailable { retry_after: None };

/// One Vault, as one role.
pub struct Vault {
    transport: Transport,
    /// Without a slash at its end.
    address: String,
    namespace: Option<HeaderValue>,
    login: Login,
    session: Mutex<Session>,
}

/// A Vault that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The address has a path or a query, or cannot be the beginning of one.
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
        let is_bare = matches!(address.path(), "" | "/") && address.query().is_none();
        if !is_bare || address.authority().is_none() {
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
        Ok(Self { transport, address, namespace, login, session: Mutex::default() })
    }

    async fn read(&self, ask: &Ask) -> Answer {
        if is_reserved(&ask.path) {
            return Answer::here(Outcome::Denied);
        }
        let Some(path) = path(&ask.path) else { return Answer::here(Outcome::Malformed) };
        let version = match ask.version.as_deref().map(str::parse::<u64>) {
            None => None,
            // To Vault 0 is the newest, which is no version that somebody asked for.
            Some(Ok(0) | Err(_)) => return Answer::here(Outcome::Malformed),
            Some(Ok(version)) => Some(version),
        };
        let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
        match self.call(Method::GET, &format!("{path}{query}"), None).await {
            Ok(reply) => reply::read(&reply, version).into(),
            Err(answer) => answer,
        }
    }

    /// Asks as whoever it is logged in as.
    async fn call(&self, method: Method, path: &str, body: Option<&str>) -> Result<Reply, Answer> {
        let token = self.token().await?;
        let reply = self.ask_as(&method, path, body, &token).await?;
        if reply.status != StatusCode::FORBIDDEN || !self.session.lock().await.refused(&token, Instant::now())
        {
            return Ok(reply);
        }
        let token = self.token().await?;
        self.ask_as(&method, path, body, &token).await
    }

    /// The token, after a login where there is none. Others wait for the one login that is under way.
    async fn token(&self) -> Result<HeaderValue, Answer> {
        let mut session = self.session.lock().await;
        match session.with(Instant::now()) {
            With::Token(token) => return Ok(token),
            With::Nothing => return Err(Answer::here(Outcome::Denied)),
            With::Login => {}
        }
        let (token, is_ours) = match self.login.request().await.map_err(Answer::here)? {
            login::Step::Token(token) => (token, false),
            login::Step::Ask { path, body } => {
                let reply = self.ask(&Method::POST, &path, Some(&body), None).await?;
                let token = reply::token(&reply).inspect_err(|outcome| {
                    if matches!(outcome, Outcome::Denied) {
                        session.denied(Instant::now());
                    }
                });
                (token?, true)
            }
        };
        let replaced = session.logged_in(token.clone(), Instant::now());
        drop(session);
        // What it gives is worth nothing to us any more, and should be worth nothing to anybody. If this fails, it ends
        // when its time is over. One that somebody else looks after is theirs.
        if let (Some(replaced), true) = (replaced, is_ours) {
            let _best_effort = self.ask(&Method::POST, "auth/token/revoke-self", None, Some(&replaced)).await;
        }
        Ok(token)
    }

    /// Asks with that token, and takes no answer that repeats it.
    async fn ask_as(
        &self,
        method: &Method,
        path: &str,
        body: Option<&str>,
        token: &HeaderValue,
    ) -> Result<Reply, Answer> {
        let reply = self.ask(method, path, body, Some(token)).await?;
        if reply::repeats(&reply, token) { Err(Outcome::Malformed.into()) } else { Ok(reply) }
    }

    async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&str>,
        token: Option<&HeaderValue>,
    ) -> Result<Reply, Answer> {
        let address =
            format!("{}/v1/{path}", self.address).parse().map_err(|_| Answer::here(Outcome::Malformed))?;
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
        self.transport.ask(question).await.map_err(Answer::from)
    }
}

impl Provider for Vault {
    /// All of it, credentials and logins too, within the time of one call.
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>> {
        Box::pin(async move {
            let deadline = Instant::now() + ANSWER;
            let mut answers = Vec::with_capacity(asks.len());
            for ask in asks {
                answers.push(timeout_at(deadline, self.read(ask)).await.unwrap_or_else(|_| LATE.into()));
            }
            answers
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Renewed> {
        Box::pin(async move { reply::renewed(&self.tell("sys/leases/renew", lease).await?) })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Result<(), Outcome>> {
        Box::pin(async move { reply::done(&self.tell("sys/leases/revoke", lease).await?) })
    }
}

impl Vault {
    async fn tell(&self, path: &str, lease: &Lease) -> Result<Reply, Outcome> {
        let body = json!({ "lease_id": lease.id }).to_string();
        let call = self.call(Method::PUT, path, Some(&body));
        let reply = timeout_at(Instant::now() + ANSWER, call).await.map_err(|_| LATE)?;
        reply.map_err(|answer| answer.outcome)
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(_) => Self::here(Outcome::Denied),
            Fault::Question => Self::here(Outcome::Malformed),
            Fault::TooLarge | Fault::Redirect => Outcome::Malformed.into(),
            Fault::Unreachable | Fault::Untrusted | Fault::Late | Fault::Broken => LATE.into(),
        }
    }
}

#[cfg(test)]
mod tests;
