use std::sync::Arc;

use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::By;
use crate::pick::{PickError, Pointer, pick};
use crate::scripted::{Scripted, all_told, ask, given, told, transport};
use crate::transport::{ANSWER, Reply};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6";

/// As the API server writes it.
fn sample() -> Value {
    json!({
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {
            "name": "smtp", "namespace": "platform", "uid": "0b1c2d3e", "resourceVersion": "4711",
            "creationTimestamp": "2026-11-29T12:00:00Z", "managedFields": [{"manager": "kubectl"}],
        },
        "data": {"password": "aHVudGVyMg==", "a/b~c": "eA==", "keystore": "/u3+7Q==", "nothing": ""},
        "type": "Opaque",
    })
}

fn with(part: &str, value: Value) -> Value {
    let mut sample = sample();
    *sample.pointer_mut(part).unwrap() = value;
    sample
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>
fn status(code: u16, reason: &str, kind: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "secrets \"smtp\" …", "details": {"name": "smtp", "kind": kind},
    })
}

fn reply(status: u16, body: impl std::fmt::Display) -> Reply {
    let retry_after = Some(std::time::Duration::from_secs(7));
    Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Plain::from(body.to_string()) }
}

fn read(status: u16, body: impl std::fmt::Display) -> String {
    told(&reply::read(&reply(status, body), "platform", "smtp"))
}

#[test]
fn a_key_is_text_or_no_value() {
    let Outcome::Found(found) = reply::read(&reply(200, sample()), "platform", "smtp") else {
        panic!("it is there")
    };
    assert_eq!(found.version.as_deref(), Some("4711"));
    let taken = |property: &str| {
        let value = pick(&found.content, Some(&Pointer::parse(property).unwrap()))?;
        Ok(String::from_utf8(value.expose().to_vec()).unwrap())
    };
    assert_eq!(taken("password"), Ok("hunter2".to_owned()));
    assert_eq!(taken("/a~1b~0c"), Ok("x".to_owned()));
    assert_eq!(taken("keystore"), Err(PickError::Empty));
    assert_eq!(taken("nothing"), Err(PickError::Empty));
    assert_eq!(taken("other"), Err(PickError::NotThere));
}

#[test]
fn each_answer_is_one_of_five_outcomes() {
    let mut none = sample();
    none.as_object_mut().unwrap().remove("data");
    for (code, body, expected) in [
        (200, none, "{} 4711"),
        (200, with("/kind", json!("ConfigMap")), "Malformed"),
        (200, with("/metadata/name", json!("other")), "Malformed"),
        (200, with("/metadata/namespace", json!("shop")), "Malformed"),
        (200, with("/data/password", json!("no base64")), "Malformed"),
        (200, with("/data/password", json!(1)), "Malformed"),
        (200, with("/data", json!([])), "Malformed"),
        (200, json!([]), "Malformed"),
        (201, sample(), "Malformed"),
        (404, status(404, "NotFound", "secrets"), "NotFound"),
        (404, status(404, "NotFound", "namespaces"), "Malformed"),
        (404, status(404, "Other", "secrets"), "Malformed"),
        (404, json!({"kind": "Status", "code": 404}), "Malformed"),
        (404, json!("404 page not found"), "Unavailable 7"),
        (
            404,
            json!({"kind": "Other", "reason": "NotFound", "details": {"kind": "secrets"}}),
            "Unavailable 7",
        ),
        (401, status(401, "Unauthorized", ""), "Denied"),
        (403, status(403, "Forbidden", "secrets"), "Denied"),
        (429, status(429, "TooManyRequests", ""), "Unavailable 7"),
        (500, status(500, "InternalError", ""), "Unavailable 7"),
        (503, json!(""), "Unavailable 7"),
        (400, status(400, "BadRequest", ""), "Malformed"),
    ] {
        assert_eq!(read(code, &body), expected, "{code} {body}");
    }
}

#[test]
fn a_path_is_a_namespace_and_a_name() {
    for (path, expected) in [
        ("platform/smtp", true),
        ("platform/smtp.example.com", true),
        ("p-1/0", true),
        ("smtp", false),
        ("/smtp", false),
        ("platform/", false),
        ("platform/smtp/x", false),
        ("platform/..", false),
        ("../smtp", false),
        ("platform/.smtp", false),
        ("platform/-smtp", false),
        ("platform/smtp-", false),
        ("plat.form/smtp", false),
        ("platform/Smtp", false),
        ("platform/smtp?x", false),
        ("platform/a%2fb", false),
    ] {
        assert_eq!(names(&ask(path, None)).is_some(), expected, "{path}");
    }
    let long = |namespace: usize, name: usize| format!("{}/{}", "a".repeat(namespace), "b".repeat(name));
    assert!(names(&ask(&long(63, 253), None)).is_some());
    assert!(names(&ask(&long(64, 253), None)).is_none() && names(&ask(&long(63, 254), None)).is_none());
    assert_eq!(names(&ask("platform/smtp", Some("1"))), None, "there are no versions");
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome(code in 100..600_u16, body: Vec<u8>, reason in "[a-zA-Z]{0,8}") {
        let body = Plain::from(body);
        let reply = Reply { status: StatusCode::from_u16(code).unwrap(), retry_after: None, body };
        prop_assert!(!matches!(reply::read(&reply, "a", "b"), Outcome::Found(_) | Outcome::NotFound));
        prop_assert_ne!(read(code, status(code, &reason, "pods")), "NotFound");
    }

    #[test]
    fn any_path_is_one_of_the_api(path in "[a-z./?%#-]{0,12}") {
        if let Some((namespace, name)) = names(&ask(&path, None)) {
            let whole: Uri = format!("https://a.test/api/v1/namespaces/{namespace}/secrets/{name}").parse().unwrap();
            prop_assert_eq!(whole.path().split('/').count(), 7);
            prop_assert!(whole.query().is_none());
        }
    }

    #[test]
    fn any_text_comes_as_it_is(text in "\\PC{1,20}") {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(&text);
        let expected = format!("{} 4711", json!({"key": text}));
        prop_assert_eq!(read(200, with("/data", json!({"key": data}))), expected);
    }
}

/// An API server with one Secret, which one ServiceAccount may read.
async fn server() -> Scripted {
    Scripted::new(|asked| {
        let (code, body) = match (asked.headers["authorization"].as_str(), asked.line.as_str()) {
            (token, _) if token != format!("Bearer {TOKEN}") => (401, status(401, "Unauthorized", "")),
            (_, "GET /api/v1/namespaces/platform/secrets/smtp") => (200, sample()),
            (_, "GET /api/v1/namespaces/platform/secrets/gone") => (404, status(404, "NotFound", "secrets")),
            _ => (403, status(403, "Forbidden", "secrets")),
        };
        (code, body.to_string())
    })
    .await
}

fn store(server: &Scripted, token: Credential) -> Kubernetes {
    Kubernetes::new(transport(), &server.address.parse().unwrap(), token).unwrap()
}

#[tokio::test]
async fn what_is_granted_is_read_and_nothing_else() {
    let server = server().await;
    let store_of = |token| store(&server, token);
    let asks = ["platform/smtp", "platform/gone", "platform/other", "shop/smtp"].map(|path| ask(path, None));
    let outcomes =
        |answers: &[Answer]| answers.iter().map(|answer| answer.outcome.as_str()).collect::<Vec<_>>();
    let answers = store_of(given(TOKEN)).fetch(&asks).await;
    assert_eq!(outcomes(&answers), ["Found", "NotFound", "Denied", "Denied"]);
    assert_eq!(server.asked()[0].headers["accept"], "application/json");
    let answers = store_of(given("of-somebody-else")).fetch(&asks).await;
    assert_eq!(outcomes(&answers), ["Denied"; 4]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_not() {
    let server = server().await;
    let gone: Credential = Arc::new(|| Box::pin(async { None }));
    for (token, path, expected) in [
        (gone, "platform/smtp", "Unavailable"),
        (given(""), "platform/smtp", "Malformed"),
        (given("a\nb"), "platform/smtp", "Malformed"),
        (given(TOKEN), "platform/../smtp", "Malformed"),
    ] {
        let answers = store(&server, token).fetch(&[ask(path, None)]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (expected, By::Here), "{path}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_token_is_never_an_answer() {
    let server = Scripted::new(|_| (200, with("/type", json!(TOKEN)).to_string())).await;
    let answers = store(&server, given(TOKEN)).fetch(&[ask("platform/smtp", None)]).await;
    assert_eq!(all_told(&answers), ["Malformed"]);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_fetch_has_one_deadline() {
    let never: Credential = Arc::new(|| Box::pin(std::future::pending()));
    let asks: Vec<Ask> = (0..5).map(|at| ask(&format!("a/s{at}"), None)).collect();
    let start = Instant::now();
    let answers = store(&server().await, never).fetch(&asks).await;
    assert_eq!((start.elapsed(), all_told(&answers)), (ANSWER, vec!["Unavailable".to_owned(); 5]));
}

#[test]
fn an_address_is_one() {
    let new = |address: &str| Kubernetes::new(transport(), &address.parse().unwrap(), given(TOKEN)).err();
    assert_eq!(new("https://kubernetes.default.svc"), None);
    assert_eq!(new("https://kubernetes.default.svc/api"), Some(KubernetesError));
}
