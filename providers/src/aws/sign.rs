//! Signature version 4 of AWS, of questions whose path is `/` and that have no query. Pure: the time is passed in.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>. Of its rules only those are
//! here that such questions need; it is held to AWS's own vectors.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ring::{digest, hmac};
use sealedenv_seal::Plain;

/// Who asks.
pub(super) struct Keys {
    /// The access key's id, which is no secret.
    pub id: String,
    /// The access key itself.
    pub secret: Plain,
    /// The token of a session, for keys that end.
    pub session: Option<String>,
}

/// What a signature is good for.
pub(super) struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// Headers by their names in lower case.
pub(super) type Headers = BTreeMap<&'static str, String>;

/// The headers of a question, with those that make it a signed one. `host` has to be among them.
pub(super) fn signed(
    keys: &Keys,
    scope: &Scope<'_>,
    at: Timestamp,
    method: &str,
    mut headers: Headers,
    body: &[u8],
) -> Headers {
    let time = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = at.strftime("%Y%m%d").to_string();
    headers.insert("x-amz-date", time.clone());
    if let Some(token) = &keys.session {
        headers.insert("x-amz-security-token", token.clone());
    }
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}:{}", value.trim())).collect();
    let lines = lines.join("\n");
    let names = headers.keys().copied().collect::<Vec<_>>().join(";");
    let request = format!("{method}\n/\n\n{lines}\n\n{names}\n{}", sha256(body));
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{place}\n{}", sha256(request.as_bytes()));
    let first = Plain::from([b"AWS4", keys.secret.expose()].concat());
    let key = [date.as_str(), scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(first, |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &text).expose());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{place}, SignedHeaders={names}, Signature={signature}",
        keys.id
    );
    headers.insert("authorization", authorization);
    headers
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn hmac(key: &Plain, text: &str) -> Plain {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), text.as_bytes());
    Plain::from(tag.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// One of AWS's signing test suite (awslabs/aws-c-auth, tests/aws-signing-test-suite), of those that have no path and no
    /// query, made one file.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        name: String,
        method: String,
        session_token: Option<String>,
        headers: BTreeMap<String, String>,
        body: String,
        authorization: String,
    }

    #[test]
    fn signatures_are_those_of_the_vectors() {
        let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
        assert_eq!(vectors.len(), 8);
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        for mut vector in vectors {
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned();
            let session = vector.session_token;
            let keys = Keys { id: "AKIDEXAMPLE".into(), secret: Plain::from(secret), session };
            let scope = Scope { region: "us-east-1", service: "service" };
            let mut given = Headers::new();
            for name in ["content-length", "content-type", "host", "my-header1", "x-amz-content-sha256"] {
                given.extend(vector.headers.get(name).map(|value| (name, value.clone())));
            }
            let signed = signed(&keys, &scope, at, &vector.method, given, vector.body.as_bytes());
            vector.headers.insert("authorization".into(), vector.authorization);
            let signed: BTreeMap<String, String> =
                signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(signed, vector.headers, "{}", vector.name);
        }
    }
}
