//! Whatever is sent, there is an answer: never a panic, never another uid, never a patch that does not apply.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod served;

use axum::http::StatusCode;
use base64::Engine as _;
use proptest::prelude::*;
use sealedenv_audit::FailurePolicy;
use serde_json::{Value, json};
use served::{post, question, questions, read, serve};

const PATHS: [&str; 2] = ["/mutate-pods", "/validate-sealedenvs"];

fn check(path: &str, body: &[u8]) -> StatusCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (status, answer) = runtime.block_on(async {
        let served = serve(FailurePolicy::Closed);
        post(&served.router, path, body).await
    });
    if status != StatusCode::OK {
        assert_eq!(status, StatusCode::BAD_REQUEST);
        return status;
    }
    let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
    assert!(answer["response"]["allowed"].is_boolean(), "{answer}");
    // Numbers beyond what a `Value` holds may stand in an object; then the question cannot be compared here.
    if let Ok(question) = serde_json::from_slice::<Value>(body) {
        assert_eq!(answer["response"]["uid"], question["request"]["uid"]);
        if let Some(patch) = answer["response"]["patch"].as_str() {
            let patch = base64::prelude::BASE64_STANDARD.decode(patch).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            let mut object = question["request"]["object"].clone();
            json_patch::patch(&mut object, &patch).expect("the patch applies");
        }
    }
    status
}

fn bodies() -> Vec<String> {
    questions().iter().map(|path| read(path)["body"].to_string()).collect()
}

/// One place in a JSON document, changed to something else.
fn changed(document: &mut Value, mut place: usize, to: &Value) {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Object(map) => map.values().map(count).sum(),
            Value::Array(items) => items.iter().map(count).sum(),
            _ => 0,
        }
    }
    place %= count(document);
    let mut here = document;
    while place > 0 {
        place -= 1;
        let children: Box<dyn Iterator<Item = &mut Value>> = match here {
            Value::Object(map) => Box::new(map.values_mut()),
            Value::Array(items) => Box::new(items.iter_mut()),
            _ => unreachable!("a leaf has no places below it"),
        };
        let mut next = None;
        for child in children {
            let size = count(child);
            if place < size {
                next = Some(child);
                break;
            }
            place -= size;
        }
        here = next.expect("a place that was counted");
    }
    *here = to.clone();
}

fn odd_values() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("/"),
        json!("../../x"),
        json!("a\u{0}\u{202e}b"),
        json!("x".repeat(70_000)),
        json!("sealed:v1:AAAA"),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({"a": {"b": null}}),
        json!([{"name": "sealedenv-checkout"}]),
    ])
}

proptest! {
    // Found failures become named tests; no file of seeds is kept.
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(path in prop::sample::select(&PATHS[..]), body in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert_eq!(check(path, &body), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn questions_with_damaged_bytes(
        path in prop::sample::select(&PATHS[..]),
        body in prop::sample::select(bodies()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = body.into_bytes();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        check(path, &body);
    }

    #[test]
    fn questions_with_odd_values(
        path in prop::sample::select(&PATHS[..]),
        body in prop::sample::select(bodies()),
        changes in prop::collection::vec((any::<usize>(), odd_values()), 1..4),
    ) {
        let mut body: Value = serde_json::from_str(&body).unwrap();
        for (place, to) in &changes {
            changed(&mut body, *place, to);
        }
        check(path, body.to_string().as_bytes());
    }
}

#[test]
fn an_undamaged_question_is_answered() {
    let (path, body) = question("pod-of-a-deployment");
    assert_eq!(check(&path, body.as_bytes()), StatusCode::OK);
}
