//! Ways to log in to Vault.

use http::HeaderValue;
use serde_json::json;

use super::path::path;
use crate::Outcome;
use crate::credential::{Credential, header, text};

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
