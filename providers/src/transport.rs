//! Asks over HTTP, within the guard: where to, how long, how much.
//!
//! A redirect is no answer, and is not followed. The name of a host is looked up here, and the connection is made to the
//! very number that the guard was asked about.

mod connect;
mod repeats;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use sealedenv_seal::Plain;

use crate::guard::{Policy, Refused};
use crate::pick::MAX_ANSWER;
use connect::{ConnectFault, Connector};

pub use connect::{Lookup, system_lookup};

/// Longest time for a question and its answer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// Largest headers of an answer, in bytes.
const HEADERS: usize = 64 << 10;

/// A client of one store.
#[derive(Clone)]
pub struct Transport {
    client: Client<Connector, Full<Bytes>>,
    policy: Arc<Policy>,
}

/// What is asked.
pub struct Question {
    /// `GET`, or what the store's API wants.
    pub method: Method,
    /// Where.
    pub address: Uri,
    /// Credentials among them; those are marked as sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Plain,
}

/// What was answered.
pub struct Reply {
    /// The status. Never a redirect.
    pub status: StatusCode,
    /// When to ask again, where it says so in seconds (RFC 9110, 10.2.3).
    pub retry_after: Option<Duration>,
    /// The body, whole.
    pub body: Plain,
}

/// Why there is no reply. Nothing of what the other side said is in it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The guard refuses the address.
    #[error("the store's address is refused")]
    Refused(#[from] Refused),
    /// The question cannot be written.
    #[error("the question is no HTTP request")]
    Question,
    /// Its host is not known, or nothing listens there.
    #[error("the store cannot be reached")]
    Unreachable,
    /// TLS failed: the certificate is of nobody who is trusted, or not for that host.
    #[error(
        "the store is not trusted: its certificate is of another host, or of an authority that is not trusted"
    )]
    Untrusted,
    /// It took too long.
    #[error("the store did not answer within {} s", ANSWER.as_secs())]
    Late,
    /// The connection broke in the middle of an answer.
    #[error("the store's answer broke off")]
    Broken,
    /// It answered more than is taken.
    #[error("the store's answer is larger than is taken")]
    TooLarge,
    /// It wants us to ask elsewhere.
    #[error("the store sends to another address, which is not followed")]
    Redirect,
}

/// Transport that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("setting up TLS")]
pub struct SetupError(#[from] rustls::Error);

impl Transport {
    /// For a store that proves to be itself by one of those `roots`.
    ///
    /// # Errors
    /// [`SetupError`], never with the built-in provider.
    pub fn new(policy: Arc<Policy>, roots: RootCertStore, lookup: Lookup) -> Result<Self, SetupError> {
        let connector = Connector::new(Arc::clone(&policy), roots, lookup)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(HEADERS)
            .build(connector);
        Ok(Self { client, policy })
    }

    /// Asks once. Nothing is repeated and no redirect followed.
    ///
    /// # Errors
    /// [`Fault`]. A status that says no is a [`Reply`].
    pub async fn ask(&self, question: Question) -> Result<Reply, Fault> {
        // Also before a connection that is there already is used.
        self.policy.target(&question.address)?;
        tokio::time::timeout(ANSWER, self.exchange(question)).await.map_err(|_| Fault::Late)?
    }

    async fn exchange(&self, question: Question) -> Result<Reply, Fault> {
        let Question { method, address, headers, body } = question;
        let mut request = Request::builder()
            .method(method)
            .uri(address)
            .body(Full::new(Bytes::copy_from_slice(body.expose())))
            .map_err(|_| Fault::Question)?;
        *request.headers_mut() = headers;
        let response = self.client.request(request).await.map_err(|error| fault_of(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Fault::Redirect);
        }
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| {
            let seconds = value.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        });
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => Fault::TooLarge,
            Err(_) => Fault::Broken,
        })?;
        Ok(Reply { status, retry_after, body: Plain::from(Vec::from(body.to_bytes())) })
    }
}

/// An address that paths can be written behind: `https://HOST[:PORT]`, without a slash at its end. None: it has a path or a
/// query of its own, or no host.
pub(crate) fn base(address: &Uri) -> Option<String> {
    let is_bare = matches!(address.path(), "" | "/") && address.query().is_none();
    (is_bare && address.authority().is_some()).then(|| address.to_string().trim_end_matches('/').to_owned())
}

/// A part of a path or of a query, in which nothing means anything.
pub(crate) fn encoded(text: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let safe = |byte: u8| if is_safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(safe).collect()
}

/// Finds our own fault in the client's chain of errors.
fn fault_of(error: &hyper_util::client::legacy::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref::<ConnectFault>() {
            return match fault {
                ConnectFault::Refused(refused) => Fault::Refused(*refused),
                ConnectFault::Unreachable => Fault::Unreachable,
                ConnectFault::Untrusted => Fault::Untrusted,
            };
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large) {
            return Fault::TooLarge;
        }
        cause = error.source();
    }
    if error.is_connect() { Fault::Unreachable } else { Fault::Broken }
}

#[cfg(test)]
mod tests;
