//! Ways to become somebody in AWS.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use sealedenv_seal::Plain;

use super::sign::Keys;
use crate::Outcome;
use crate::credential::{Credential, text};
use crate::transport::{Reply, encoded};

/// How to become somebody in AWS. What a machine is by itself (its metadata service) is none of them: it is the operator's,
/// and not the store's.
#[derive(Clone)]
pub enum Login {
    /// An access key.
    Keys {
        /// Its id.
        id: Credential,
        /// The key.
        secret: Credential,
        /// The token of a session, for a key that ends. Somebody else looks after it.
        session: Option<Credential>,
    },
    /// A role that a ServiceAccount may assume (IAM roles for service accounts).
    WebIdentity {
        /// The role's ARN.
        role: String,
        /// What the session is called in AWS's own audit trail.
        name: String,
        /// The ServiceAccount's token, made for STS.
        token: Credential,
    },
}

/// An access key as it is at the moment.
pub(super) async fn keys(
    id: &Credential,
    secret: &Credential,
    session: Option<&Credential>,
) -> Result<Keys, Outcome> {
    let session = match session {
        Some(session) => Some(text(session).await?),
        None => None,
    };
    let (id, secret) = (text(id).await?, Plain::from(text(secret).await?));
    if id.is_empty() || secret.is_empty() {
        Err(Outcome::Malformed)
    } else {
        Ok(Keys { id, secret, session })
    }
}

/// The form that assumes a role. It is not signed: the token in it says who asks.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
pub(super) fn assume(role: &str, name: &str, token: &str) -> String {
    let (role, name, token) = (encoded(role), encoded(name), encoded(token));
    format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={role}&RoleSessionName={name}&WebIdentityToken={token}"
    )
}

/// The keys that a role gives, and for how long.
pub(super) fn assumed(reply: &Reply, now: Timestamp) -> Result<(Keys, Duration), Outcome> {
    let body = std::str::from_utf8(reply.body.expose()).unwrap_or_default();
    if reply.status != StatusCode::OK {
        return Err(refused(reply, body));
    }
    let element = |name| element(body, name).ok_or(Outcome::Malformed);
    let until: Timestamp = element("Expiration")?.parse().map_err(|_| Outcome::Malformed)?;
    let keys = Keys {
        id: element("AccessKeyId")?.to_owned(),
        secret: Plain::from(element("SecretAccessKey")?.to_owned()),
        session: Some(element("SessionToken")?.to_owned()),
    };
    Ok((keys, Duration::try_from(until.duration_since(now)).unwrap_or_default()))
}

fn refused(reply: &Reply, body: &str) -> Outcome {
    let away = Outcome::Unavailable { retry_after: reply.retry_after };
    match (reply.status.as_u16(), element(body, "Code")) {
        (429 | 500..=599, _) | (_, Some("IDPCommunicationError" | "Throttling" | "ThrottlingException")) => {
            away
        }
        // Something that stands before STS, in words of its own.
        (404, None) => away,
        (400 | 401 | 403, Some(_)) => Outcome::Denied,
        _ => Outcome::Malformed,
    }
}

/// The text of the one element of that name in an answer of STS. None of those that are looked for has any markup in it.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, after) = rest.split_once(&format!("</{name}>"))?;
    let is_text = !text.is_empty() && !text.contains(['<', '>', '&']);
    (is_text && !after.contains(&format!("<{name}>"))).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        let (status, body) = (StatusCode::from_u16(status).unwrap(), Plain::from(body.to_owned()));
        Reply { status, retry_after: None, body }
    }

    /// The sample response of <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>.
    const SAMPLE: &str = include_str!("assumed.xml");

    #[test]
    fn a_role_gives_keys_that_end() {
        let now: Timestamp = "2014-10-24T22:00:23Z".parse().unwrap();
        let (keys, lasts) = assumed(&reply(200, SAMPLE), now).ok().unwrap();
        assert_eq!(keys.id, "ASgeIAIOSFODNN7EXAMPLE");
        assert_eq!(keys.secret.expose(), b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY");
        assert_eq!(keys.session.as_deref(), Some("AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE"));
        assert_eq!(lasts, Duration::from_hours(1));
        let later = now + Duration::from_hours(2);
        assert_eq!(assumed(&reply(200, SAMPLE), later).ok().unwrap().1, Duration::ZERO, "our clock is ahead");
    }

    #[test]
    fn what_gives_no_keys_says_why_not() {
        let outcome =
            |status, body: &str| assumed(&reply(status, body), Timestamp::UNIX_EPOCH).err().unwrap().as_str();
        let error = |code: &str| {
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>x</Message></Error></ErrorResponse>"
            )
        };
        for (status, body, expected) in [
            (400, error("InvalidIdentityToken"), "Denied"),
            (400, error("ExpiredTokenException"), "Denied"),
            (403, error("AccessDenied"), "Denied"),
            (403, error("IDPRejectedClaim"), "Denied"),
            (400, error("IDPCommunicationError"), "Unavailable"),
            (400, error("Throttling"), "Unavailable"),
            (503, String::new(), "Unavailable"),
            (404, "no route".to_owned(), "Unavailable"),
            (400, "no".to_owned(), "Malformed"),
            (200, String::new(), "Malformed"),
            (200, SAMPLE.replace("AccessKeyId", "Other"), "Malformed"),
            (200, SAMPLE.replace("2014-10-24T23:00:23Z", "soon"), "Malformed"),
            (200, SAMPLE.replace("ASgeIAIOSFODNN7EXAMPLE", "a&amp;b"), "Malformed"),
            (200, SAMPLE.replace("ASgeIAIOSFODNN7EXAMPLE", ""), "Malformed"),
            (200, format!("{SAMPLE}<AccessKeyId>another</AccessKeyId>"), "Malformed"),
        ] {
            assert_eq!(outcome(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_is_asked_for_is_one_form() {
        assert_eq!(
            assume("arn:aws:iam::123456789012:role/a&b", "checkout", "e.y=+"),
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fa%26b\
             &RoleSessionName=checkout&WebIdentityToken=e.y%3D%2B"
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_keys_or_an_outcome(status in 100..600_u16, body in "(<(/?AccessKeyId|Code)>|[a<>&]){0,8}") {
            prop_assert!(assumed(&reply(status, &body), Timestamp::UNIX_EPOCH).is_err());
            if let Some(text) = element(&body, "Code") {
                prop_assert!(!text.is_empty() && !text.contains('<'));
            }
        }
    }
}
