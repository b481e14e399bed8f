//! HashiCorp Vault and OpenBao, by their HTTP API: KV of both versions, any other path that is read, leases.
//!
//! A token that expired gives the same answer as one that may not, but for a word since 1.17. So after a refusal it logs in
//! anew, once, and asks again, but not where it has only just logged in ([`session`]). The token itself is never an answer,
//! and it is given back by [`Provider::close`].

mod login;
mod path;
mod reply;
mod session;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use sealedenv_seal::Plain;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::provider::{AWAY, Answering, Provider, Renewed, each};
use crate::transport::{ANSWER, Question, Reply, Transport, base};
use crate::{Answer, Ask, Lease, Outcome};
use path::{RESERVED, Whose, path, whose};
use session::{Refused, Session, With};

pub use login::Login;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault answers nothing to who might have been led to it by somebody else's server.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

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
    /// The namespace cannot stand in a header, or Vault lets none have such a name.
    #[error(
        "the namespace of a Vault is letters, digits, /, - and _, and none of auth, sys, identity, cubbyhole"
    )]
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
        let address = base(address).ok_or(VaultError::Address)?;
        let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_');
        let namespace = namespace
            .map(|name| {
                let is_reserved = name.split('/').any(|part| RESERVED.contains(&part));
                let value = HeaderValue::from_str(name).ok();
                value.filter(|_| !is_reserved && name.bytes().all(of_name)).ok_or(VaultError::Namespace)
            })
            .transpose()?;
        Ok(Self { transport, address, namespace, login, session: Mutex::default() })
    }

    async fn read(&self, ask: &Ask) -> Answer {
        // First, for it bounds the path.
        let Some(path) = path(&ask.path) else { return Answer::here(Outcome::Malformed) };
        let whose = whose(&ask.path);
        if whose == Whose::Vault {
            return Answer::here(Outcome::Denied);
        }
        let version = match ask.version.as_deref().map(str::parse::<u64>) {
            None => None,
            // To Vault 0 is the newest, which is no version that somebody asked for.
            Some(Ok(0) | Err(_)) => return Answer::here(Outcome::Malformed),
            Some(Ok(version)) => Some(version),
        };
        let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
        let (reply, token) = match self.call(Method::GET, &format!("{path}{query}"), None).await {
            Ok(answered) => answered,
            Err(answer) => return answer,
        };
        let outcome = reply::read(&reply, version);
        if matches!(&outcome, Outcome::Found(read) if read.lease.is_some()) {
            self.session.lock().await.leased(&token);
        }
        if matches!(outcome, Outcome::Found(_)) && whose == Whose::Either && !reply::is_of_kv(&reply) {
            return Outcome::Denied.into();
        }
        outcome.into()
    }

    /// Asks as whoever it is logged in as. The token that was taken for it, too.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Result<(Reply, HeaderValue), Answer> {
        let token = self.token().await?;
        let reply = self.ask_as(&method, path, body, &token).await?;
        if reply.status != StatusCode::FORBIDDEN || !self.is_over(&token).await? {
            return Ok((reply, token));
        }
        let token = self.token().await?;
        Ok((self.ask_as(&method, path, body, &token).await?, token))
    }

    /// Whether to ask again, with another token than the one that was refused.
    async fn is_over(&self, token: &HeaderValue) -> Result<bool, Answer> {
        let refused = self.session.lock().await.refused(token, Instant::now());
        if refused != Refused::Unclear {
            return Ok(refused == Refused::Token);
        }
        // Not by `ask_as`: the answer repeats the token, and is thrown away.
        let reply = self.ask(&Method::GET, "auth/token/lookup-self", None, Some(token)).await?;
        let is_over = reply.status == StatusCode::FORBIDDEN;
        if is_over {
            self.session.lock().await.is_over(token);
        }
        Ok(is_over)
    }

    /// The token, after a login where there is none. Others wait for the one login that is under way.
    async fn token(&self) -> Result<HeaderValue, Answer> {
        let mut session = self.session.lock().await;
        match session.with(Instant::now()) {
            With::Token(token) => return Ok(token),
            With::Nothing(pause) => return Err(Answer::here(Outcome::Denied).again(pause)),
            With::Closed => return Err(Answer::here(AWAY)),
            With::Login => {}
        }
        let token = match self.login.request().await.map_err(Answer::here)? {
            login::Step::Token(token) => token,
            login::Step::Ask { path, body } => {
                let reply = self.ask(&Method::POST, &path, Some(&body), None).await?;
                let token = reply::token(&reply).map_err(|outcome| match outcome {
                    // It says nothing of the path, so that is asked for again when a login is tried again.
                    Outcome::Denied => Answer::from(outcome).again(session.denied(Instant::now())),
                    other => other.into(),
                });
                token?
            }
        };
        let replaced = session.logged_in(token.clone(), Instant::now());
        drop(session);
        // What it gives is worth nothing to us any more, and should be worth nothing to anybody. If this fails, it ends
        // when its time is over. One that somebody else looks after is theirs.
        if let (Some(replaced), true) = (replaced, self.login.is_ours()) {
            let _best_effort = self.give_back(&replaced).await;
        }
        Ok(token)
    }

    async fn give_back(&self, token: &HeaderValue) -> Result<(), Outcome> {
        let reply = self.ask(&Method::POST, "auth/token/revoke-self", None, Some(token)).await;
        reply::done(&reply.map_err(|answer| answer.outcome)?)
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
        if reply.repeats(token.as_bytes()) { Err(Outcome::Malformed.into()) } else { Ok(reply) }
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
        Box::pin(each(asks, |ask| self.read(ask)))
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Renewed> {
        Box::pin(async move { reply::renewed(&self.tell("sys/leases/renew", lease).await?) })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Result<(), Outcome>> {
        Box::pin(async move { reply::done(&self.tell("sys/leases/revoke", lease).await?) })
    }

    fn close(&self) -> Answering<'_, Result<(), Outcome>> {
        Box::pin(async move {
            // A login that is under way ends first, by the time of whoever waits for it.
            let token = self.session.lock().await.close();
            match token.filter(|_| self.login.is_ours()) {
                Some(token) => self.give_back(&token).await,
                None => Ok(()),
            }
        })
    }
}

impl Vault {
    async fn tell(&self, path: &str, lease: &Lease) -> Result<Reply, Outcome> {
        let body = json!({ "lease_id": lease.id }).to_string();
        let call = self.call(Method::PUT, path, Some(&body));
        let answered = timeout_at(Instant::now() + ANSWER, call).await.map_err(|_| AWAY)?;
        answered.map(|(reply, _)| reply).map_err(|answer| answer.outcome)
    }
}

#[cfg(test)]
mod tests;
