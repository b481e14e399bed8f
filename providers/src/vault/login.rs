//! Ways to log in to Vault.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sealedenv_seal::Plain;
use serde_json::json;

use super::path::path;
use crate::Outcome;

/// Longest time for a credential, which comes from the cluster and says nothing of the store.
pub(super) const CREDENTIAL: Duration = Duration::from_secs(5);

/// Gives a credential each time that it is needed: what is read from a Secret, or a ServiceAccount's token that was just
/// made. None: it cannot be had at the moment.
pub type Credential = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Plain>> + Send>> + Send + Sync>;

/// How to become somebody in Vault.
#[derive(Clone)]
pub enum Login {
    /// A token that somebody else looks after.
    Token(Credential),
    /// A ServiceAccount's token, made for Vault's audience.
    Kubernetes {
        /// Where the method is mounted; `kubernetes` by default.
        mount: String,
        /// The role.
        role: String,
        /// The token.
        jwt: Credential,
    },
    /// A role's two identifiers.
    AppRole {
        /// Where the method is mounted; `approle` by default.
        mount: String,
        /// The first, which is no secret.
        role_id: String,
        /// The second, which is one.
        secret_id: Credential,
    },
}

/// What a login takes.
pub(super) enum Step {
    Token(HeaderValue),
    Ask { path: String, body: String },
}

impl Login {
    /// Whether the token comes from a login, and is nobody else's.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self, Self::Token(_))
    }

    pub(super) async fn request(&self) -> Result<Step, Outcome> {
        const AWAY: Outcome = Outcome::Unavailable { retry_after: None };
        let text = async |credential: &Credential| {
            let plain = tokio::time::timeout(CREDENTIAL, credential()).await.ok().flatten().ok_or(AWAY)?;
            let text = String::from_utf8(plain.expose().to_vec()).map_err(|_| Outcome::Malformed)?;
            Ok::<_, Outcome>(text.trim().to_owned())
        };
        let ask = |mount: &str, body: String| {
            let path = path(&format!("auth/{mount}/login")).ok_or(Outcome::Malformed)?;
            Ok(Step::Ask { path, body })
        };
        match self {
            Self::Token(token) => header(&text(token).await?).map(Step::Token),
            Self::Kubernetes { mount, role, jwt } => {
                ask(mount, json!({ "role": role, "jwt": text(jwt).await? }).to_string())
            }
            Self::AppRole { mount, role_id, secret_id } => {
                ask(mount, json!({ "role_id": role_id, "secret_id": text(secret_id).await? }).to_string())
            }
        }
    }
}

/// A token as a header, which neither logs nor prints show.
pub(super) fn header(token: &str) -> Result<HeaderValue, Outcome> {
    let mut value = HeaderValue::from_str(token).map_err(|_| Outcome::Malformed)?;
    value.set_sensitive(true);
    Ok(value)
}
