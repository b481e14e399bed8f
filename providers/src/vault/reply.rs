//! What Vault's answers mean.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use sealedenv_seal::Plain;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::login::header;
use crate::transport::Reply;
use crate::{Lease, Outcome, Read};

/// What every answer of Vault looks like.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    data: Option<Map<String, Value>>,
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

/// A path that was read.
pub(super) fn read(reply: &Reply) -> Outcome {
    let answer = match answer(reply) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let lease = answer.lease();
    let Some(mut data) = answer.data else { return Outcome::Malformed };
    // The second version of KV has what it keeps a level deeper, beside what it says of it.
    let (kept, version) = match (data.get("data"), data.get("metadata")) {
        (Some(Value::Object(_)), Some(Value::Object(about))) if data.len() == 2 => {
            let version = about.get("version").and_then(Value::as_u64).map(|version| version.to_string());
            (data.remove("data"), version)
        }
        // A version that was deleted.
        (Some(Value::Null), Some(Value::Object(_))) if data.len() == 2 => return Outcome::NotFound,
        _ => (Some(Value::Object(data)), None),
    };
    let content = kept.unwrap_or_default().to_string();
    Outcome::Found(Read { content: Plain::from(content), version, lease })
}

/// A login.
pub(super) fn token(reply: &Reply) -> Result<HeaderValue, Outcome> {
    // Vault says 400 where the credentials are wrong.
    if reply.status == StatusCode::BAD_REQUEST {
        return Err(Outcome::Denied);
    }
    match answer(reply)?.auth {
        Some(auth) if !auth.client_token.is_empty() => header(&auth.client_token),
        _ => Err(Outcome::Malformed),
    }
}

/// A lease that was made longer.
pub(super) fn renewed(reply: &Reply) -> Result<Lease, Outcome> {
    // A lease that is over is a bad request to Vault.
    if reply.status == StatusCode::BAD_REQUEST {
        return Err(Outcome::NotFound);
    }
    answer(reply)?.lease().ok_or(Outcome::Malformed)
}

/// Something that is answered without content.
pub(super) fn done(reply: &Reply) -> Result<(), Outcome> {
    match reply.status {
        // The last two: it is over already.
        StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Ok(()),
        _ => Err(refused(reply)),
    }
}

impl Answer {
    fn lease(&self) -> Option<Lease> {
        (!self.lease_id.is_empty()).then(|| Lease {
            id: self.lease_id.clone(),
            lasts: Duration::from_secs(self.lease_duration),
            renewable: self.renewable,
        })
    }
}

fn answer(reply: &Reply) -> Result<Answer, Outcome> {
    if reply.status != StatusCode::OK {
        return Err(refused(reply));
    }
    serde_json::from_slice(reply.body.expose()).map_err(|_| Outcome::Malformed)
}

/// A status that is none of success. 404 also stands for a path that nothing is mounted at.
fn refused(reply: &Reply) -> Outcome {
    match reply.status.as_u16() {
        404 => Outcome::NotFound,
        401 | 403 => Outcome::Denied,
        // 412: a replica that is behind; 472, 473: a standby that serves nobody.
        412 | 429 | 472 | 473 | 500..=599 => Outcome::Unavailable { retry_after: reply.retry_after },
        _ => Outcome::Malformed,
    }
}
