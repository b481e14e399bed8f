//! Ways to become somebody in Google Cloud.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use sealedenv_seal::Plain;
use serde::Deserialize;
use serde_json::json;

use crate::Outcome;
use crate::credential::{Credential, bearer};
use crate::transport::{Reply, encoded};

/// What a token is good for. Google has no narrower one for this API; what it may is the identity's.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Who an assertion is for, wherever it is sent. A key says where it is to be sent, too, and is not asked: it is a user's
/// input.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// How long an assertion may be used, and the token that it gives.
const LASTS: i64 = 3600;

/// How to become somebody in Google Cloud.
#[derive(Clone)]
pub enum Login {
    /// The key of a service account, as Google gives it: JSON.
    ServiceAccount(Credential),
    /// A ServiceAccount of Kubernetes that Google trusts (workload identity federation).
    Federation {
        /// The provider's name, `//iam.googleapis.com/projects/…/workloadIdentityPools/…/providers/…`.
        audience: String,
        /// The ServiceAccount's token, made for that audience.
        token: Credential,
    },
    /// What this machine is by itself. That is the operator's identity, and its address is one that the guard refuses,
    /// unless an administrator lets stores have both.
    Metadata,
}

/// A token for the API.
pub(super) struct Token {
    pub text: Plain,
    pub header: HeaderValue,
}

/// The key of a service account.
#[derive(Deserialize)]
struct Key {
    client_email: String,
    #[serde(rename = "private_key")]
    pem: String,
    #[serde(default, rename = "private_key_id")]
    id: String,
}

/// What gives tokens answers.
#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: u64,
}

/// What it answers where it says no (RFC 6749, 5.2).
#[derive(Deserialize)]
struct No {
    error: String,
}

impl Login {
    pub(super) fn endpoint(&self) -> &'static str {
        match self {
            Self::ServiceAccount(_) => "https://oauth2.googleapis.com",
            Self::Federation { .. } => "https://sts.googleapis.com",
            Self::Metadata => "http://metadata.google.internal",
        }
    }

    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::ServiceAccount(_) => "/token",
            Self::Federation { .. } => "/v1/token",
            Self::Metadata => "/computeMetadata/v1/instance/service-accounts/default/token",
        }
    }
}

/// The form that asks for a token with a key.
/// <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>
pub(super) fn assertion(key: &str, now: Timestamp) -> Result<String, Outcome> {
    let key: Key = serde_json::from_str(key).map_err(|_| Outcome::Malformed)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(key.pem.as_bytes()).map_err(|_| Outcome::Malformed)?;
    let now = now.as_second();
    let head = json!({"alg": "RS256", "typ": "JWT", "kid": key.id});
    let claims = json!({
        "iss": key.client_email, "scope": SCOPE, "aud": AUDIENCE, "iat": now, "exp": now + LASTS,
    });
    let text = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = rs256(der.secret_pkcs8_der(), text.as_bytes()).ok_or(Outcome::Malformed)?;
    let grant = encoded("urn:ietf:params:oauth:grant-type:jwt-bearer");
    Ok(format!("grant_type={grant}&assertion={text}.{signature}"))
}

/// The form that asks for a token with another.
/// <https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>
pub(super) fn exchange(audience: &str, token: &str) -> String {
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", audience),
        ("scope", SCOPE),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", token),
    ];
    fields.map(|(name, value)| format!("{name}={}", encoded(value))).join("&")
}

/// A signature as a JWT has it (RFC 7518, 3.3).
fn rs256(key: &[u8], text: &[u8]) -> Option<String> {
    let key = RsaKeyPair::from_pkcs8(key).ok()?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).ok()?;
    Some(URL_SAFE_NO_PAD.encode(signature))
}

/// A token, and for how long.
pub(super) fn token(reply: &Reply) -> Result<(Token, Duration), Outcome> {
    if reply.status != StatusCode::OK {
        return Err(refused(reply));
    }
    let given: Given = serde_json::from_slice(reply.body.expose()).map_err(|_| Outcome::Malformed)?;
    let header = bearer(&given.access_token)?;
    let lasts = Duration::from_secs(given.expires_in.min(LASTS.unsigned_abs() * 12));
    Ok((Token { text: Plain::from(given.access_token), header }, lasts))
}

fn refused(reply: &Reply) -> Outcome {
    let error = serde_json::from_slice::<No>(reply.body.expose()).ok().map(|no| no.error);
    match (reply.status.as_u16(), error.as_deref()) {
        (429 | 500..=599, _) | (404, None) | (_, Some("temporarily_unavailable")) => {
            Outcome::Unavailable { retry_after: reply.retry_after }
        }
        (400 | 401 | 403, Some(_)) => Outcome::Denied,
        _ => Outcome::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        let key: String = include_str!("rfc7515-a2.txt").lines().collect();
        let key = STANDARD.decode(key).unwrap();
        // RFC 7515, A.2.
        let text = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                    cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8\
                         W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvk\
                         SjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCn\
                         vWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        assert_eq!(rs256(&key, text.as_bytes()).as_deref(), Some(signature));
        assert_eq!(rs256(b"no key", text.as_bytes()), None);
    }
}
