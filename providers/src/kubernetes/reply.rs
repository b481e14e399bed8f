//! What an API server's answers mean.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use sealedenv_seal::Plain;
use serde::{Deserialize, Serialize, Serializer};

use crate::transport::Reply;
use crate::{Outcome, Read};

#[derive(Deserialize)]
struct Secret<'a> {
    kind: &'a str,
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(default, borrow)]
    data: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    namespace: &'a str,
    name: &'a str,
    resource_version: &'a str,
}

/// What it says where it says no.
#[derive(Deserialize)]
struct Status<'a> {
    kind: &'a str,
    #[serde(default)]
    reason: Cow<'a, str>,
    details: Option<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    /// The resource, in lower case and plural.
    kind: Option<Cow<'a, str>>,
}

/// A value as it is written into JSON. Null: its bytes are no text.
struct Text(Plain);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        std::str::from_utf8(self.0.expose()).ok().serialize(to)
    }
}

/// The Secret that was asked for.
pub(super) fn read(reply: &Reply, namespace: &str, name: &str) -> Outcome {
    if reply.status != StatusCode::OK {
        return refused(reply);
    }
    let Ok(secret) = serde_json::from_slice::<Secret<'_>>(reply.body.expose()) else {
        return Outcome::Malformed;
    };
    let Metadata { namespace: of, name: called, resource_version } = secret.metadata;
    let text = |value: &str| STANDARD.decode(value).ok().map(|bytes| Text(Plain::from(bytes)));
    let data: Option<BTreeMap<_, _>> =
        secret.data.iter().map(|(key, value)| Some((key, text(value)?))).collect();
    let content = data.and_then(|data| serde_json::to_vec(&data).ok());
    match content.filter(|_| secret.kind == "Secret" && (of, called) == (namespace, name)) {
        Some(content) => {
            let version = Some(resource_version.to_owned());
            Outcome::Found(Read { content: Plain::from(content), version, lease: None })
        }
        None => Outcome::Malformed,
    }
}

/// A status that is none of success.
fn refused(reply: &Reply) -> Outcome {
    let away = Outcome::Unavailable { retry_after: reply.retry_after };
    let status = serde_json::from_slice::<Status<'_>>(reply.body.expose()).ok();
    match (reply.status.as_u16(), status.filter(|status| status.kind == "Status")) {
        (404, Some(status)) if status.is_of_a_secret() => Outcome::NotFound,
        (401 | 403, _) => Outcome::Denied,
        // A 404 that is no Status is of something that stands before the API server.
        (429 | 500..=599, _) | (404, None) => away,
        _ => Outcome::Malformed,
    }
}

impl Status<'_> {
    fn is_of_a_secret(&self) -> bool {
        let kind = self.details.as_ref().and_then(|details| details.kind.as_deref());
        self.reason == "NotFound" && kind == Some("secrets")
    }
}
