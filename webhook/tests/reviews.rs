//! Every AdmissionReview in `tests/data/` gets the answer, and leaves the record, that stands beside it.
//!
//! `NAME.json` holds the path and the body that are posted; `NAME.expected.json` the HTTP status, the answer with its
//! patch decoded, and what is on the audit trail afterwards. After a deliberate change run the test with
//! `UPDATE_EXPECTED=1`, and read the difference.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod served;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use sealedenv_audit::{FailurePolicy, Memory};
use serde_json::{Value, json};
use served::{post, question, questions, read, serve};
use tower::ServiceExt as _;

/// The answer with its patch decoded; the text where it is not JSON.
fn readable(body: &[u8]) -> Value {
    let Ok(mut answer) = serde_json::from_slice::<Value>(body) else {
        return json!(String::from_utf8(body.to_vec()).unwrap());
    };
    if let Some(patch) = answer["response"].get_mut("patch") {
        let bytes = base64::prelude::BASE64_STANDARD.decode(patch.as_str().unwrap()).unwrap();
        *patch = serde_json::from_slice(&bytes).unwrap();
    }
    answer
}

/// The trail's lines without what differs from run to run.
fn records(memory: &Memory) -> Vec<Value> {
    memory
        .lines()
        .iter()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            for field in ["seq", "time", "writer", "prev"] {
                record.as_object_mut().unwrap().remove(field).unwrap();
            }
            record
        })
        .collect()
}

#[tokio::test]
async fn every_review_gets_the_answer_beside_it() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for path in questions() {
        let question = read(&path);
        let mut served = serve(FailurePolicy::Closed);
        let (status, body) =
            post(&served.router, question["path"].as_str().unwrap(), question["body"].to_string()).await;
        let found = json!({
            "status": status.as_u16(),
            "answer": readable(&body),
            "records": records(&served.memory),
            "events": served.waiting.try_recv().map(|waiting| waiting.absent).unwrap_or_default(),
        });
        assert!(!found.to_string().contains("hunter2"), "{} repeats a value: {found}", path.display());
        let beside = path.with_extension("expected.json");
        if update {
            std::fs::write(&beside, format!("{found:#}\n")).unwrap();
        } else if found != read(&beside) {
            wrong.push(format!("{}\nfound: {found:#}\nexpected: {:#}", path.display(), read(&beside)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn without_a_sink_nothing_is_given_and_refusals_stand() {
    let (path, inject) = question("pod-of-a-deployment");
    let (_, refused) = question("pod-flat-mount");
    let (_, nothing) = question("pod-not-annotated");
    let (_, dry_run) = question("pod-dry-run");
    for (policy, code) in [(FailurePolicy::Closed, Some(503)), (FailurePolicy::Open, None)] {
        let served = serve(policy);
        served.memory.fail(true);
        let answer = |body: String| {
            let (router, path) = (served.router.clone(), path.clone());
            async move { readable(&post(&router, &path, body).await.1)["response"].clone() }
        };
        let injected = answer(inject.clone()).await;
        assert_eq!(injected["allowed"], json!(code.is_none()), "{injected}");
        assert_eq!(injected["status"]["code"].as_u64(), code);
        assert_eq!(injected.get("patch").is_some(), code.is_none());
        assert_eq!(injected["uid"], "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4");
        assert_eq!(answer(refused.clone()).await["status"]["code"], 403);
        assert_eq!(answer(nothing.clone()).await["allowed"], true, "nothing is given, nothing is recorded");
        assert!(answer(dry_run.clone()).await.get("patch").is_some(), "a dry run needs no record");
        served.memory.fail(false);
        assert_eq!(answer(inject.clone()).await["allowed"], true, "it goes on by itself");
    }
}

#[tokio::test]
async fn bodies_are_bounded_before_they_are_read() {
    let served = serve(FailurePolicy::Closed);
    let send = |length: Option<&str>, body: Vec<u8>| {
        let mut request = Request::post("/mutate-pods");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        served.router.clone().oneshot(request.body(Body::from(body)).unwrap())
    };
    let max = sealedenv_webhook::router::MAX_BODY;
    assert_eq!(send(None, Vec::new()).await.unwrap().status(), StatusCode::LENGTH_REQUIRED);
    for length in ["-1", "x", "1 1", "99999999999999999999999"] {
        assert_eq!(
            send(Some(length), Vec::new()).await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{length}"
        );
    }
    let too_long = (max + 1).to_string();
    assert_eq!(send(Some(&too_long), Vec::new()).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let longer_than_said = send(Some("10"), vec![b' '; 11]).await.unwrap();
    assert_eq!(longer_than_said.status(), StatusCode::BAD_REQUEST);

    // The largest that is taken: two objects of 1.5 MiB, as an UPDATE at etcd's limit has.
    let (path, body) = question("sealedenv-made-good");
    let mut body: Value = serde_json::from_str(&body).unwrap();
    for object in ["object", "oldObject"] {
        body["request"][object]["metadata"]["annotations"] = json!({"x": "y".repeat((3 << 19) - 4096)});
    }
    let (status, answer) = post(&served.router, &path, body.to_string()).await;
    assert_eq!((status, &readable(&answer)["response"]["allowed"]), (StatusCode::OK, &json!(true)));
}

#[tokio::test]
async fn only_the_two_paths_answer_and_only_to_post() {
    let served = serve(FailurePolicy::Closed);
    for (request, status) in [
        (Request::get("/mutate-pods"), StatusCode::METHOD_NOT_ALLOWED),
        (Request::post("/"), StatusCode::NOT_FOUND),
        (Request::post("/mutate-pods/x"), StatusCode::NOT_FOUND),
        (Request::get("/metrics"), StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            served.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status(),
            status
        );
    }
}
