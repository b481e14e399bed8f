//! What a store is asked with, which is never in a spec: what is read from a Secret, or a token that was just made.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sealedenv_seal::Plain;

use crate::Outcome;
use crate::provider::AWAY;

/// Gives a credential each time that it is needed: what is read from a Secret, or a ServiceAccount's token that was just
/// made. None: it cannot be had at the moment.
pub type Credential = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Plain>> + Send>> + Send + Sync>;

/// Longest time for a credential, which comes from the cluster and says nothing of the store.
const LONGEST: Duration = Duration::from_secs(5);

/// Its text, without the line's end that files have.
pub(crate) async fn text(credential: &Credential) -> Result<String, Outcome> {
    let plain = tokio::time::timeout(LONGEST, credential()).await.ok().flatten().ok_or(AWAY)?;
    let text = std::str::from_utf8(plain.expose()).map_err(|_| Outcome::Malformed)?;
    Ok(text.trim().to_owned())
}

/// A token as a header, which neither logs nor prints show.
pub(crate) fn header(token: &str) -> Result<HeaderValue, Outcome> {
    let mut value = HeaderValue::from_str(token).map_err(|_| Outcome::Malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token as most of them are sent (RFC 6750).
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, Outcome> {
    if token.is_empty() { Err(Outcome::Malformed) } else { header(&format!("Bearer {token}")) }
}
