//! What the answers of Secrets Manager mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use sealedenv_seal::Plain;
use serde::Deserialize;

use crate::transport::Reply;
use crate::{Ask, Outcome, Read};

/// The label that a secret's newest version has.
const CURRENT: &str = "AWSCURRENT";

/// What one call for many answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Batch {
    #[serde(default)]
    secret_values: Vec<Value>,
    #[serde(default)]
    errors: Vec<Error>,
}

/// A version of a secret. `SecretString` and `SecretBinary`: one of them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Value {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
    #[serde(default)]
    version_stages: Vec<String>,
    secret_string: Option<Text>,
    secret_binary: Option<Text>,
}

/// A text that is wiped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Text(Plain);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Plain::from(text))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Error {
    secret_id: String,
    #[serde(rename = "ErrorCode")]
    word: String,
    #[serde(default)]
    message: String,
}

/// What AWS says where it says no.
#[derive(Deserialize)]
struct No {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(default, alias = "Message")]
    message: String,
}

/// Whether a version is named by its id, which is a UUID, and not by a label.
pub(super) fn is_version_id(version: &str) -> bool {
    let is_of = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_alphanumeric(),
    };
    version.len() == 36 && version.bytes().enumerate().all(is_of)
}

/// One secret that was asked for.
pub(super) fn one(reply: &Reply, ask: &Ask) -> Outcome {
    match read::<Value>(reply) {
        Ok(value) if value.is_of(&ask.path) => value.outcome(ask.version.as_deref()),
        Ok(_) => Outcome::Malformed,
        Err(outcome) => outcome,
    }
}

/// Secrets that were asked for at once.
pub(super) fn batch(reply: &Reply) -> Result<Batch, Outcome> {
    read(reply)
}

impl Batch {
    /// What came of one of them. None: nothing is said of it.
    pub(super) fn take(&mut self, path: &str) -> Option<Outcome> {
        if let Some(at) = self.secret_values.iter().position(|value| value.is_of(path)) {
            return Some(self.secret_values.swap_remove(at).outcome(None));
        }
        let error = self.errors.iter().find(|error| error.secret_id == path)?;
        said(&error.word, &error.message)
    }
}

impl Value {
    /// By its name, or by its ARN, with the six characters that AWS gives it or without.
    fn is_of(&self, path: &str) -> bool {
        let is_suffix = |rest: &str| rest.len() == 7 && rest.starts_with('-');
        path == self.name || path == self.arn || self.arn.strip_prefix(path).is_some_and(is_suffix)
    }

    fn outcome(self, version: Option<&str>) -> Outcome {
        let has = |label: &str| self.version_stages.iter().any(|stage| stage == label);
        let is_it = match version {
            None => self.version_stages.is_empty() || has(CURRENT),
            Some(version) if is_version_id(version) => self.version_id == version,
            Some(version) => has(version),
        };
        let content = match (self.secret_string, self.secret_binary) {
            (Some(Text(text)), None) => Some(text),
            (None, Some(Text(bytes))) => STANDARD.decode(bytes.expose()).ok().map(Plain::from),
            _ => None,
        };
        match content.filter(|content| is_it && !content.is_empty()) {
            Some(content) => Outcome::Found(Read { content, version: Some(self.version_id), lease: None }),
            None => Outcome::Malformed,
        }
    }
}

fn read<'a, T: Deserialize<'a>>(reply: &'a Reply) -> Result<T, Outcome> {
    match reply.status {
        StatusCode::OK => serde_json::from_slice(reply.body.expose()).map_err(|_| Outcome::Malformed),
        _ => Err(refused(reply)),
    }
}

/// A status that is none of success. AWS has few of them, and says the rest by a word.
fn refused(reply: &Reply) -> Outcome {
    let away = || Outcome::Unavailable { retry_after: reply.retry_after };
    let said = no(reply).and_then(|no| said(no.word(), &no.message));
    match (said, reply.status.as_u16()) {
        // A 404 without a word is of something that stands before AWS.
        (Some(Outcome::Unavailable { .. }), _) | (_, 429 | 500..=599) | (None, 404) => away(),
        (Some(outcome), _) => outcome,
        (None, 401 | 403) => Outcome::Denied,
        (None, _) => Outcome::Malformed,
    }
}

/// Whether AWS says no because of the keys that it was asked with.
pub(super) fn is_about_keys(reply: &Reply) -> bool {
    no(reply).is_some_and(|no| is_of_keys(no.word()))
}

/// Whether a refusal is about what may be done, and not about how it was asked. Also one without a word may be.
pub(super) fn is_about_rights(reply: &Reply) -> bool {
    no(reply).is_none_or(|no| matches!(no.word(), "AccessDeniedException" | "AccessDenied" | "NotAuthorized"))
}

fn no(reply: &Reply) -> Option<No> {
    if reply.status == StatusCode::OK {
        return None;
    }
    serde_json::from_slice(reply.body.expose()).ok()
}

impl No {
    /// Some of its servers write a name space before it, or an address behind it.
    fn word(&self) -> &str {
        let word = self.kind.rsplit('#').next().unwrap_or_default();
        word.split(':').next().unwrap_or_default()
    }
}

/// What an error means. None: one that is not known.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html>, and those of `GetSecretValue`.
fn said(word: &str, message: &str) -> Option<Outcome> {
    let outcome = match word {
        "ResourceNotFoundException" => Outcome::NotFound,
        // AWS has one word for whatever the state of a secret does not allow. Only a deletion is an answer.
        "InvalidRequestException" if is_deleted(message) => Outcome::NotFound,
        "InvalidRequestException" | "InvalidParameterException" | "ValidationException" => Outcome::Malformed,
        "AccessDeniedException"
        | "AccessDenied"
        | "NotAuthorized"
        | "OptInRequired"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        // The key that the secret is encrypted with is disabled, or not for who asks. The store itself is well.
        | "DecryptionFailure" => Outcome::Denied,
        word if is_of_keys(word) => Outcome::Denied,
        "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "InternalFailure"
        | "InternalServiceError"
        | "InternalServiceErrorException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Outcome::Unavailable { retry_after: None },
        _ => return None,
    };
    Some(outcome)
}

fn is_deleted(message: &str) -> bool {
    ["marked for deletion", "marked deleted", "scheduled for deletion"]
        .iter()
        .any(|words| message.contains(words))
}

/// Whether it is about the keys that were asked with, and others may be better.
fn is_of_keys(word: &str) -> bool {
    matches!(
        word,
        "ExpiredToken" | "ExpiredTokenException" | "UnrecognizedClientException" | "InvalidClientTokenId"
    )
}
