//! Google Cloud's Secret Manager, by its REST API
//! (<https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access>).
//!
//! A path is a secret's name in the store's project, or its whole name, `projects/P/secrets/S`. A version is its number or
//! an alias; without one it is the newest, `latest`. What comes is held against the checksum that comes with it.

mod login;
mod name;
mod reply;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use sealedenv_seal::Plain;

use crate::credential::text;
use crate::provider::{Answering, Provider, each};
use crate::session::Sessions;
use crate::transport::{Question, Reply, Transport, base};
use crate::{Answer, Ask, Outcome};
use login::Token;

pub use login::Login;
pub use name::{Place, PlaceError};

const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// Secret Manager of one project, as one identity.
pub struct Gcp {
    transport: Transport,
    place: Place,
    /// Without a slash at its end.
    secrets: String,
    tokens: Option<String>,
    login: Login,
    session: Sessions<Token>,
}

/// Where Google is asked, if not where it usually is.
#[derive(Clone, Default)]
pub struct Endpoints {
    /// Of Secret Manager.
    pub secrets: Option<Uri>,
    /// Of what gives tokens.
    pub tokens: Option<Uri>,
}

/// Secret Manager that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint of Google Cloud is https://HOST[:PORT]")]
pub struct GcpError;

impl Gcp {
    /// Of that project. Asks nothing yet.
    ///
    /// # Errors
    /// [`GcpError`].
    pub fn new(
        transport: Transport,
        place: Place,
        endpoints: &Endpoints,
        login: Login,
    ) -> Result<Self, GcpError> {
        let given = |given: &Option<Uri>| given.as_ref().map(|uri| base(uri).ok_or(GcpError)).transpose();
        let secrets = given(&endpoints.secrets)?.unwrap_or_else(|| place.endpoint());
        let tokens = given(&endpoints.tokens)?;
        Ok(Self { transport, place, secrets, tokens, login, session: Sessions::default() })
    }

    async fn read(&self, ask: &Ask) -> Answer {
        let Some(name) = self.place.version(&ask.path, ask.version.as_deref()) else {
            return Answer::here(Outcome::Malformed);
        };
        match self.access(&name).await {
            Ok(reply) => reply::read(&reply, &name).into(),
            Err(answer) => answer,
        }
    }

    /// Asks as whoever it is. A token that is over is replaced once.
    async fn access(&self, name: &str) -> Result<Reply, Answer> {
        let token = self.session.get(self.login()).await?;
        let reply = self.access_as(&token, name).await?;
        if reply.status != StatusCode::UNAUTHORIZED || !self.session.refused(&token).await {
            return Ok(reply);
        }
        let token = self.session.get(self.login()).await?;
        self.access_as(&token, name).await
    }

    /// Asks with that token, and takes no answer that repeats it.
    async fn access_as(&self, token: &Token, name: &str) -> Result<Reply, Answer> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, token.header.clone())]);
        let address = format!("{}/v1/{name}:access", self.secrets);
        let reply = self.ask(Method::GET, &address, headers, String::new()).await?;
        if reply.repeats(token.text.expose()) { Err(Outcome::Malformed.into()) } else { Ok(reply) }
    }

    async fn login(&self) -> Result<(Token, std::time::Duration), Answer> {
        let base = self.tokens.as_deref().unwrap_or(self.login.endpoint());
        let address = format!("{base}{}", self.login.path());
        let (method, headers, body) = match &self.login {
            Login::ServiceAccount(key) => {
                let key = text(key).await.map_err(Answer::here)?;
                let form = login::assertion(&key, Timestamp::now()).map_err(Answer::here)?;
                (Method::POST, form_headers(), form)
            }
            Login::Federation { audience, token } => {
                let token = text(token).await.map_err(Answer::here)?;
                (Method::POST, form_headers(), login::exchange(audience, &token))
            }
            Login::Metadata => {
                let flavor = (METADATA_FLAVOR, HeaderValue::from_static("Google"));
                (Method::GET, HeaderMap::from_iter([flavor]), String::new())
            }
        };
        let reply = self.ask(method, &address, headers, body).await?;
        Ok(login::token(&reply)?)
    }

    async fn ask(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: String,
    ) -> Result<Reply, Answer> {
        let address = address.parse().map_err(|_| Answer::here(Outcome::Malformed))?;
        let question = Question { method, address, headers, body: Plain::from(body) };
        self.transport.ask(question).await.map_err(Answer::from)
    }
}

fn form_headers() -> HeaderMap {
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    HeaderMap::from_iter([(header::CONTENT_TYPE, form)])
}

impl Provider for Gcp {
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>> {
        Box::pin(each(asks, |ask| self.read(ask)))
    }
}

#[cfg(test)]
mod tests;
