//! What Vault's answers mean.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use sealedenv_seal::Plain;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::credential::header;
use crate::transport::Reply;
use crate::{Lease, Outcome, Read};

/// What every answer of Vault looks like. What is kept stays as it was written: a number that is read and written again
/// loses digits.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    auth: Option<Auth>,
    /// What kind of engine it is of. Vault says so since 1.16, OpenBao does not.
    mount_type: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

/// What the second version of KV answers, and nothing else beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: About,
}

#[derive(Deserialize)]
struct About {
    version: Option<u64>,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// What Vault says where it has nothing, or no way to it.
#[derive(Deserialize)]
struct No {
    errors: Option<Vec<Value>>,
    #[serde(default)]
    warnings: Option<Vec<Value>>,
}

impl Versioned<'_> {
    fn is_gone(&self) -> bool {
        self.data.get() == "null" && (self.metadata.destroyed || !self.metadata.deletion_time.is_empty())
    }
}

/// A path that was read, in the version that was asked for.
pub(super) fn read(reply: &Reply, asked: Option<u64>) -> Outcome {
    let answer = match answer(reply) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let lease = answer.lease();
    let Some(data) = answer.data.filter(|data| data.get().starts_with('{')) else {
        return Outcome::Malformed;
    };
    // The second version of KV has what it keeps a level deeper, beside what it says of it.
    let (kept, version) = match serde_json::from_str::<Versioned<'_>>(data.get()) {
        Ok(versioned) if versioned.is_gone() => return Outcome::NotFound,
        Ok(versioned) if versioned.data.get().starts_with('{') => {
            (versioned.data, versioned.metadata.version)
        }
        Ok(versioned) if versioned.data.get() == "null" => return Outcome::Malformed,
        _ => (data, None),
    };
    // A store that does not know of versions answers with what it has.
    if asked.is_some() && asked != version {
        return Outcome::Malformed;
    }
    let version = version.map(|version| version.to_string());
    Outcome::Found(Read { content: Plain::from(kept.get().to_owned()), version, lease })
}

/// Whether an answer is one of KV, whose names below it are its users' own and none of Vault's. Where nothing says so it is
/// told by the form that only its second version has.
pub(super) fn is_of_kv(reply: &Reply) -> bool {
    let Ok(answer) = answer(reply) else { return false };
    let versioned = answer.data.and_then(|data| serde_json::from_str::<Versioned<'_>>(data.get()).ok());
    match &answer.mount_type {
        Some(kind) => kind == "kv",
        None => versioned.is_some_and(|versioned| versioned.metadata.version.is_some()),
    }
}

/// A login.
pub(super) fn token(reply: &Reply) -> Result<HeaderValue, Outcome> {
    // Vault says 400 where the credentials are wrong.
    if reply.status == StatusCode::BAD_REQUEST {
        return Err(Outcome::Denied);
    }
    // A method that is not there is no secret that is not there.
    let answer = answer(reply).map_err(|outcome| match outcome {
        Outcome::NotFound => Outcome::Unavailable { retry_after: reply.retry_after },
        other => other,
    });
    match answer?.auth {
        Some(auth) if !auth.client_token.is_empty() => header(&auth.client_token),
        _ => Err(Outcome::Malformed),
    }
}

/// A lease that was made longer.
pub(super) fn renewed(reply: &Reply) -> Result<Lease, Outcome> {
    // A lease that is over is a bad request to Vault, as many other things are.
    let is_over = |error: &Value| {
        error.as_str().is_some_and(|text| text.contains("lease not found") || text.contains("lease expired"))
    };
    if reply.status == StatusCode::BAD_REQUEST {
        let errors = no(reply).and_then(|no| no.errors).unwrap_or_default();
        return Err(if errors.iter().any(is_over) { Outcome::NotFound } else { Outcome::Malformed });
    }
    answer(reply)?.lease().ok_or(Outcome::Malformed)
}

/// Something that is answered without content.
pub(super) fn done(reply: &Reply) -> Result<(), Outcome> {
    match reply.status {
        // Vault has it in its queue, and goes on until it is done (it means to say 202, and says 204). One that it does
        // not know is also done.
        StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => Ok(()),
        _ => Err(refused(reply)),
    }
}

impl Answer<'_> {
    fn lease(&self) -> Option<Lease> {
        (!self.lease_id.is_empty()).then(|| Lease {
            id: self.lease_id.clone(),
            lasts: Duration::from_secs(self.lease_duration),
            renewable: self.renewable,
        })
    }
}

fn answer(reply: &Reply) -> Result<Answer<'_>, Outcome> {
    if reply.status != StatusCode::OK {
        return Err(refused(reply));
    }
    serde_json::from_slice(reply.body.expose()).map_err(|_| Outcome::Malformed)
}

/// A status that is none of success.
fn refused(reply: &Reply) -> Outcome {
    match reply.status.as_u16() {
        404 => nothing(reply),
        401 | 403 => Outcome::Denied,
        // 412: a replica that is behind; 472, 473: a standby that serves nobody.
        412 | 429 | 472 | 473 | 500..=599 => Outcome::Unavailable { retry_after: reply.retry_after },
        _ => Outcome::Malformed,
    }
}

/// What a 404 means. Vault also says it with a reason: nothing is mounted there, or the path is not one of the engine's.
/// That is a mistake of who asks and not a value that is missing. And whatever else stands before Vault says it while Vault
/// is away.
fn nothing(reply: &Reply) -> Outcome {
    let answer = serde_json::from_slice::<Answer<'_>>(reply.body.expose()).ok();
    let data = answer.and_then(|answer| answer.data).map(RawValue::get);
    let is_gone = data
        .and_then(|data| serde_json::from_str::<Versioned<'_>>(data).ok())
        .is_some_and(|versioned| versioned.is_gone());
    let is_some = |list: Option<&Vec<Value>>| list.map(|list| !list.is_empty());
    match no(reply) {
        _ if is_gone => Outcome::NotFound,
        Some(no) if is_some(no.errors.as_ref()) == Some(true) => Outcome::Denied,
        Some(no) if is_some(no.warnings.as_ref()) == Some(true) => Outcome::Denied,
        Some(no) if no.errors.is_some() => Outcome::NotFound,
        _ => Outcome::Unavailable { retry_after: reply.retry_after },
    }
}

fn no(reply: &Reply) -> Option<No> {
    serde_json::from_slice(reply.body.expose()).ok()
}
