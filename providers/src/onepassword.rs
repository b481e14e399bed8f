//! 1Password, by the REST API of a Connect server: fields of items, `op://vault/item/[section/]field`.
//!
//! Written to <https://developer.1password.com/docs/connect/api-reference>, and to the OpenAPI description that it links to
//! (1Password/connect, docs/openapi/spec.yaml). An item is read once for all keys that take fields out of it:
//! [`reference()`] says what is asked and what is picked.
//!
//! Vaults and items are named by their titles or by their ids, which are 26 lower-case letters and digits. By ids an item
//! costs one call, by titles three: Connect lists what has a title, and says no title when it gives an item by its id. So
//! nothing is remembered between calls, and a title always means what it means now. A title that two have is refused,
//! never guessed.
//!
//! Files of items are not read. A one-time password changes by itself, and is no value to deliver.

mod reference;
mod reply;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use sealedenv_seal::Plain;

use crate::credential::{Credential, bearer, text};
use crate::provider::{Answering, Provider, each};
use crate::transport::{Question, Reply, Transport, base, encoded};
use crate::{Answer, Ask, Outcome};

pub use reference::{Reference, ReferenceError, reference};

/// A Connect server, with a token that says which vaults it gives.
pub struct OnePassword {
    transport: Transport,
    /// Without a slash at its end.
    address: String,
    token: Credential,
}

/// A Connect server that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address of a 1Password Connect server is https://HOST[:PORT]")]
pub struct OnePasswordError;

/// As whom a fetch asks.
struct Session<'a> {
    store: &'a OnePassword,
    token: String,
    authorization: HeaderValue,
}

impl OnePassword {
    /// At that address. Asks nothing yet.
    ///
    /// # Errors
    /// [`OnePasswordError`].
    pub fn new(transport: Transport, address: &Uri, token: Credential) -> Result<Self, OnePasswordError> {
        let address = base(address).ok_or(OnePasswordError)?;
        Ok(Self { transport, address, token })
    }

    async fn read(&self, ask: &Ask) -> Result<Reply, Answer> {
        let (vault, item) = reference::names(&ask.path).ok_or(Answer::here(Outcome::Malformed))?;
        let token = text(&self.token).await.map_err(Answer::here)?;
        let authorization = bearer(&token).map_err(Answer::here)?;
        let session = Session { store: self, token, authorization };
        let vault = session.vault(vault).await?;
        let item = session.item(&vault, item).await?;
        session.get(&format!("vaults/{vault}/items/{item}")).await
    }
}

impl Session<'_> {
    /// The id of a vault. One that the token does not give is not told apart from one that is not there.
    async fn vault(&self, name: &str) -> Result<String, Answer> {
        if reference::is_id(name) {
            return Ok(name.to_owned());
        }
        let reply = self.get(&format!("vaults?filter={}", encoded(&format!("name eq \"{name}\"")))).await?;
        let found = reply::named(&reply, name)?;
        found.ok_or(Outcome::Denied.into())
    }

    /// The id of an item.
    async fn item(&self, vault: &str, name: &str) -> Result<String, Answer> {
        if reference::is_id(name) {
            return Ok(name.to_owned());
        }
        let filter = encoded(&format!("title eq \"{name}\""));
        let reply = self.get(&format!("vaults/{vault}/items?filter={filter}")).await?;
        let found = reply::named(&reply, name)?;
        found.ok_or(Outcome::NotFound.into())
    }

    /// Asks, and takes no answer that repeats the token.
    async fn get(&self, path: &str) -> Result<Reply, Answer> {
        let address = format!("{}/v1/{path}", self.store.address);
        let address = address.parse().map_err(|_| Answer::here(Outcome::Malformed))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let body = Plain::from(String::new());
        let question = Question { method: Method::GET, address, headers, body };
        let reply = self.store.transport.ask(question).await?;
        if reply.repeats(self.token.as_bytes()) { Err(Outcome::Malformed.into()) } else { Ok(reply) }
    }
}

impl Provider for OnePassword {
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>> {
        Box::pin(each(asks, async |ask| match self.read(ask).await {
            Ok(reply) => reply::item(&reply, ask).into(),
            Err(answer) => answer,
        }))
    }
}

#[cfg(test)]
mod tests;
