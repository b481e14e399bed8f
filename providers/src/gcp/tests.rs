use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::By;
use crate::credential::Credential;
use crate::scripted::{Asked, Scripted, all_told, ask, given, told, transport};
use crate::transport::ANSWER;

const NAME: &str = "projects/shop/secrets/db/versions/latest";
const TOKEN: &str = "1/8xbJqaOZXSUZbHLl5EOtu1pxz3fmmetKx9W8CV4t79M";

/// As in <https://cloud.google.com/secret-manager/docs/reference/rest/v1/AccessSecretVersionResponse>.
fn sample() -> Value {
    json!({
        "name": "projects/123456789012/secrets/db/versions/5",
        "payload": {"data": "MTIzNDU2Nzg5", "dataCrc32c": "3808858755"},
    })
}

fn with(part: &str, value: Value) -> Value {
    let mut sample = sample();
    *sample.pointer_mut(part).unwrap() = value;
    sample
}

/// As in <https://cloud.google.com/apis/design/errors#http_mapping>.
fn error(code: u16, status: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message, "status": status}})
}

fn reply(status: u16, body: impl std::fmt::Display) -> Reply {
    let retry_after = Some(Duration::from_secs(7));
    Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Plain::from(body.to_string()) }
}

fn read(status: u16, body: impl std::fmt::Display) -> String {
    told(&reply::read(&reply(status, body), NAME))
}

#[test]
fn what_comes_is_held_against_its_checksum() {
    assert_eq!(read(200, sample()), "123456789 5");
    assert_eq!(
        read(200, sample().to_string().replace("Nzg5", "Nzg\\u0035")),
        "123456789 5",
        "however it is written"
    );
    assert_eq!(read(200, with("/payload/data", json!("MTIzNDU2Nzg4"))), "Malformed");
    for sum in [json!("1"), json!(""), json!("-3808858755"), json!(3_808_858_755_u64)] {
        assert_eq!(read(200, with("/payload/dataCrc32c", sum.clone())), "Malformed", "{sum}");
    }
    assert_eq!(
        read(200, with("/payload", json!({"data": "MTIzNDU2Nzg5"}))),
        "123456789 5",
        "there need be none"
    );
}

#[test]
fn each_answer_is_one_of_five_outcomes() {
    let version = "projects/123456789012/secrets/db/versions/5";
    for (status, body, expected) in [
        (200, with("/payload", json!({"data": ""})), "Malformed"),
        (200, with("/payload/data", json!(null)), "Malformed"),
        (200, with("/payload/data", json!("no base64")), "Malformed"),
        (200, with("/payload", json!({})), "Malformed"),
        (200, with("/name", json!("projects/1/secrets/other/versions/5")), "Malformed"),
        (200, with("/name", json!("projects/1/locations/l/secrets/db/versions/5")), "Malformed"),
        (200, with("/name", json!("projects/1/secrets/db/versions/latest")), "Malformed"),
        (200, with("/name", json!("secrets/db/versions/5")), "Malformed"),
        (200, json!([]), "Malformed"),
        (204, sample(), "Malformed"),
        (
            404,
            error(404, "NOT_FOUND", "Secret [projects/1/secrets/db] not found or has no versions."),
            "NotFound",
        ),
        (
            400,
            error(400, "FAILED_PRECONDITION", &format!("Secret Version [{version}] is in DESTROYED state.")),
            "NotFound",
        ),
        (
            400,
            error(400, "FAILED_PRECONDITION", &format!("Secret Version [{version}] is in DISABLED state.")),
            "Denied",
        ),
        (400, error(400, "FAILED_PRECONDITION", "something else"), "Malformed"),
        (400, error(400, "INVALID_ARGUMENT", "x"), "Malformed"),
        (401, error(401, "UNAUTHENTICATED", "x"), "Denied"),
        (
            403,
            error(403, "PERMISSION_DENIED", "Permission 'x' denied for resource 'y' (or it may not exist)."),
            "Denied",
        ),
        (403, json!("of a proxy"), "Denied"),
        (404, json!("<html>"), "Unavailable 7"),
        (404, error(404, "", "no route"), "Unavailable 7"),
        (409, error(409, "ABORTED", "x"), "Unavailable 7"),
        (429, error(429, "RESOURCE_EXHAUSTED", "x"), "Unavailable 7"),
        (499, error(499, "CANCELLED", "x"), "Unavailable 7"),
        (500, error(500, "INTERNAL", "x"), "Unavailable 7"),
        (503, json!(""), "Unavailable 7"),
        (418, json!(""), "Malformed"),
    ] {
        assert_eq!(read(status, &body), expected, "{status} {body}");
    }
}

#[test]
fn a_version_is_the_one_that_was_asked_for() {
    let of = |asked: &str| told(&reply::read(&reply(200, sample()), &NAME.replace("latest", asked)));
    assert_eq!([of("5"), of("latest"), of("blue")], ["123456789 5", "123456789 5", "123456789 5"]);
    assert_eq!(of("4"), "Malformed");
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome(status in 100..600_u16, body: Vec<u8>, word in "[A-Z_]{0,10}") {
        let reply = Reply { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: Plain::from(body) };
        prop_assert!(!matches!(reply::read(&reply, NAME), Outcome::Found(_) | Outcome::NotFound));
        prop_assert!(login::token(&reply).is_err());
        prop_assert_ne!(read(status, error(status, &word, "")), "NotFound");
    }

    #[test]
    fn any_content_comes_as_it_is(content in prop::collection::vec(any::<u8>(), 1..60)) {
        let data = base64::engine::general_purpose::STANDARD.encode(&content);
        let body = json!({"name": "projects/1/secrets/db/versions/5", "payload": {"data": data}});
        let Outcome::Found(found) = reply::read(&reply(200, body), NAME) else { panic!("it is there") };
        prop_assert_eq!(found.content.expose(), content.as_slice());
    }
}

/// The private key of RFC 7515, A.2, which everybody has.
fn key() -> String {
    let key = include_str!("rfc7515-a2.txt");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}-----END PRIVATE KEY-----\n");
    json!({
        "type": "service_account",
        "client_email": "checkout@shop.iam.gserviceaccount.com",
        "private_key": pem,
        "private_key_id": "rfc7515-a2",
        "token_uri": "https://elsewhere.test/token",
    })
    .to_string()
}

#[test]
fn an_assertion_says_who_asks_and_is_signed() {
    let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
    let form = login::assertion(&key(), now).ok().unwrap();
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = form.strip_prefix(grant).unwrap();
    let parts: Vec<&str> = assertion.split('.').collect();
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(json(parts[0]), json!({"alg": "RS256", "typ": "JWT", "kid": "rfc7515-a2"}));
    assert_eq!(
        json(parts[1]),
        json!({
            "iss": "checkout@shop.iam.gserviceaccount.com",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": 1_795_953_600,
            "exp": 1_795_957_200,
        })
    );
    assert_eq!(parts.len(), 3);
    for broken in ["", "{}", &key().replace("PRIVATE", "PUBLIC"), &key().replace("client_email", "email")] {
        assert_eq!(login::assertion(broken, now).err().unwrap().as_str(), "Malformed", "{broken}");
    }
}

#[test]
fn a_token_lasts_as_long_as_it_says() {
    let given = |lasts: u64| {
        let body = json!({"access_token": TOKEN, "token_type": "Bearer", "expires_in": lasts});
        login::token(&reply(200, body)).ok().unwrap()
    };
    let (token, lasts) = given(3599);
    assert_eq!((token.text.expose(), lasts), (TOKEN.as_bytes(), Duration::from_secs(3599)));
    assert_eq!(token.header, format!("Bearer {TOKEN}"));
    assert!(token.header.is_sensitive());
    assert_eq!(given(u64::MAX).1, Duration::from_hours(12));
    let outcome = |status, body: Value| login::token(&reply(status, body)).err().unwrap().as_str();
    for (status, body, expected) in [
        (200, json!({"access_token": "", "expires_in": 1}), "Malformed"),
        (200, json!({"access_token": "a\nb", "expires_in": 1}), "Malformed"),
        (200, json!({"access_token": "a"}), "Malformed"),
        (400, json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}), "Denied"),
        (401, json!({"error": "invalid_client"}), "Denied"),
        (403, json!({"error": "access_denied"}), "Denied"),
        (400, json!({"error": "temporarily_unavailable"}), "Unavailable"),
        (503, json!({"error": "invalid_grant"}), "Unavailable"),
        (429, json!({}), "Unavailable"),
        (404, json!("no service account"), "Unavailable"),
        (400, json!("no"), "Malformed"),
    ] {
        assert_eq!(outcome(status, body.clone()), expected, "{status} {body}");
    }
}

fn store(server: &Scripted, login: Login) -> Gcp {
    let address = server.address.parse::<Uri>().unwrap();
    let endpoints = Endpoints { secrets: Some(address.clone()), tokens: Some(address) };
    Gcp::new(transport(), Place::new("shop", None).unwrap(), &endpoints, login).unwrap()
}

fn owned(text: String) -> Credential {
    Arc::new(move || {
        let text = text.clone();
        Box::pin(async move { Some(Plain::from(text)) })
    })
}

/// Gives tokens, and one secret to who has one of them.
fn answer(asked: &Asked) -> (u16, String) {
    if asked.line.ends_with("/token") {
        return (200, json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}).to_string());
    }
    if asked.headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return (401, error(401, "UNAUTHENTICATED", "").to_string());
    }
    match asked.line.as_str() {
        "GET /v1/projects/shop/secrets/db/versions/latest:access"
        | "GET /v1/projects/shop/secrets/db/versions/5:access" => (200, sample().to_string()),
        _ => (404, error(404, "NOT_FOUND", "").to_string()),
    }
}

#[tokio::test]
async fn each_login_gives_a_token_that_is_used_until_its_end() {
    let audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k";
    let federation =
        Login::Federation { audience: audience.to_owned(), token: given("token-of-a-service-account") };
    for (login, line) in [
        (Login::ServiceAccount(owned(key())), "POST /token"),
        (federation, "POST /v1/token"),
        (Login::Metadata, "GET /computeMetadata/v1/instance/service-accounts/default/token"),
    ] {
        let server = Scripted::new(answer).await;
        let store = store(&server, login);
        let asks = [ask("db", None), ask("db", Some("5")), ask("db", Some("4")), ask("d b", None)];
        let answers = store.fetch(&asks).await;
        assert_eq!(all_told(&answers), ["123456789 5", "123456789 5", "NotFound", "Malformed"]);
        assert_eq!((answers[2].by, answers[3].by), (By::Store, By::Here));
        let asked = server.asked();
        assert_eq!((asked.len(), asked[0].line.as_str()), (4, line));
        store.session.age(Duration::from_mins(1)).await;
        store.fetch(&asks[2..3]).await;
        assert_eq!(server.asked().len(), 1, "only a refusal is about the token");
        assert!(!asked[0].headers.contains_key("authorization"));
        match asked[0].line.as_str() {
            "POST /token" => assert!(asked[0].body.starts_with("grant_type=")),
            "POST /v1/token" => {
                let audience = crate::transport::encoded(audience);
                assert!(asked[0].body.contains(&format!("&audience={audience}&scope=https%3A%2F%2F")));
                assert!(asked[0].body.ends_with("&subject_token=token-of-a-service-account"));
            }
            _ => assert_eq!(asked[0].headers["metadata-flavor"], "Google"),
        }
    }
}

#[tokio::test]
async fn this_machines_own_identity_is_refused_unless_an_administrator_allows_it() {
    let server = Scripted::new(answer).await;
    let mut store = store(&server, Login::Metadata);
    store.tokens = None;
    let answers = store.fetch(&[ask("db", None)]).await;
    assert_eq!((answers[0].outcome.as_str(), answers[0].by, answers[0].again), ("Denied", By::Here, None));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_token_that_is_over_is_replaced_once() {
    let server = Scripted::new(|asked| {
        if asked.line.ends_with("/token") {
            answer(asked)
        } else {
            (401, error(401, "UNAUTHENTICATED", "").to_string())
        }
    })
    .await;
    let store = store(&server, Login::Metadata);
    assert_eq!(all_told(&store.fetch(&[ask("db", None)]).await), ["Denied"]);
    assert_eq!(server.asked().len(), 2, "it has only just come");
    store.session.age(Duration::from_mins(1)).await;
    assert_eq!(all_told(&store.fetch(&[ask("db", None)]).await), ["Denied"]);
    assert_eq!(server.asked().len(), 3, "once with the old, a token, once with the new");
}

#[tokio::test]
async fn a_login_that_is_denied_makes_a_pause_for_all() {
    let server = Scripted::new(|_| (400, json!({"error": "invalid_grant"}).to_string())).await;
    let store = store(&server, Login::ServiceAccount(owned(key())));
    for calls in [1, 0] {
        let answers = store.fetch(&[ask("db", None), ask("other", None)]).await;
        assert_eq!(all_told(&answers), ["Denied", "Denied"]);
        assert!(answers.iter().all(|answer| answer.again.is_some()));
        assert_eq!(server.asked().len(), calls);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_had_or_is_none_asks_for_nothing() {
    let server = Scripted::new(answer).await;
    let gone: Credential = Arc::new(|| Box::pin(async { None }));
    for (key, expected) in
        [(gone, "Unavailable"), (given("{}"), "Malformed"), (given("hunter2"), "Malformed")]
    {
        let answers = store(&server, Login::ServiceAccount(key)).fetch(&[ask("db", None)]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (expected, By::Here));
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_token_is_never_an_answer() {
    let server = Scripted::new(|asked| {
        if asked.line.ends_with("/token") {
            answer(asked)
        } else {
            (200, with("/name", json!(TOKEN)).to_string())
        }
    })
    .await;
    let store = store(&server, Login::Metadata);
    let name = store.place.version("db", None).unwrap();
    assert!(store.access(&name).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn all_of_a_fetch_has_one_deadline() {
    let never: Credential = Arc::new(|| Box::pin(std::future::pending()));
    let server = Scripted::new(answer).await;
    let asks: Vec<Ask> = (0..5).map(|at| ask(&format!("s{at}"), None)).collect();
    let start = Instant::now();
    let answers = store(&server, Login::ServiceAccount(never)).fetch(&asks).await;
    assert_eq!((start.elapsed(), all_told(&answers)), (ANSWER, vec!["Unavailable".to_owned(); 5]));
}

#[test]
fn an_endpoint_is_one() {
    let new = |address: &str| {
        let endpoints = Endpoints { secrets: Some(address.parse().unwrap()), tokens: None };
        Gcp::new(transport(), Place::new("shop", None).unwrap(), &endpoints, Login::Metadata).err()
    };
    assert_eq!(new("https://secretmanager.test"), None);
    assert_eq!(new("https://secretmanager.test/v1"), Some(GcpError));
}
