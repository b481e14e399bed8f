//! An AdmissionReview, as anybody who reaches the webhook's port can send it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sealedenv_webhook::decision::{Decision, Kind, on_pod, on_sealed_env};
use sealedenv_webhook::inject::{Environments, Settings, Sighting};
use sealedenv_webhook::review::{self, Answer, Verdict};
use serde_json::Value;

use crate::{Seed, files};

/// `checkout`, with the Secret of its name, and `billing`, with the Secret `billing-v2`, as in the webhook's own tests.
struct Shop;

impl Environments for Shop {
    fn find(&self, namespace: &str, name: &str) -> Sighting {
        let present = |secret: Option<&str>| Sighting::Present {
            secret_name: secret.map(str::to_owned),
            delivery: "Secret".to_owned(),
        };
        match (namespace, name) {
            ("shop", "checkout") => present(None),
            ("shop", "billing") => present(Some("billing-v2")),
            ("", _) => Sighting::Unknown,
            _ => Sighting::Absent,
        }
    }
}

/// # Panics
/// Unless every question that names itself is answered under its own name, a patch applies and asks for nothing more
/// when it was applied, and a refusal says why in bounds.
pub fn run(data: &[u8]) {
    let request = match review::read(data) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.to_string().len() < 300);
            if let Some(uid) = error.uid.clone() {
                let answer = Answer::refused(400, error.to_string());
                check_answer(&answer, &uid);
            }
            return;
        }
    };
    for decide_on_pod in [true, false] {
        let decision = if decide_on_pod { as_pod(&request) } else { on_sealed_env(&request) };
        check_answer(&decision.answer, &request.uid);
        match &decision.answer.verdict {
            Verdict::Changed(patch) => {
                assert!(decide_on_pod && decision.kind == Kind::Injected, "a change that is no injection");
                assert!(
                    request.dry_run == Some(true) || decision.record.is_some(),
                    "given, and not on record"
                );
                // A number that no `Value` holds may stand in the object; then it cannot be patched here.
                let object = request.object.expect("a patch of nothing").get();
                if let Ok(mut object) = serde_json::from_str::<Value>(object) {
                    json_patch::patch(&mut object, patch).expect("the patch applies");
                    check_again(data, &object);
                }
            }
            Verdict::Allowed => {
                assert!(matches!(decision.kind, Kind::Unchanged | Kind::Valid), "{:?}", decision.kind);
            }
            Verdict::Refused { code, .. } => {
                assert!(
                    matches!((code, decision.kind), (400, Kind::Malformed) | (403, Kind::Refused)),
                    "{code}"
                );
            }
        }
    }
}

fn as_pod(request: &review::Request<'_>) -> Decision {
    on_pod(request, &Settings::secrets_only(), None, &Shop)
}

/// What is sent back is JSON under the same uid.
fn check_answer(answer: &Answer, uid: &str) {
    let bytes = answer.write(uid);
    let reply: Value = serde_json::from_slice(&bytes).expect("an answer is JSON");
    let response = &reply["response"];
    assert_eq!(response["uid"], uid);
    let allowed = response["allowed"].as_bool().expect("allowed or not");
    match &answer.verdict {
        Verdict::Refused { message, .. } => {
            assert!(!allowed && response["status"]["message"] == message.as_str());
            assert!(message.len() < 16 << 10, "a message of {} bytes", message.len());
        }
        Verdict::Allowed => assert!(allowed && response.get("patch").is_none()),
        Verdict::Changed(patch) => {
            let sent = BASE64_STANDARD.decode(response["patch"].as_str().expect("a patch")).expect("base64");
            let sent: json_patch::Patch = serde_json::from_slice(&sent).expect("a patch is JSON");
            assert!(allowed && sent == *patch);
        }
    }
}

/// The same question about the object as it is after the patch is answered with no change.
fn check_again(data: &[u8], object: &Value) {
    let Ok(mut question) = serde_json::from_slice::<Value>(data) else { return };
    question["request"]["object"] = object.clone();
    let question = question.to_string();
    let Ok(request) = review::read(question.as_bytes()) else { return };
    let decision = as_pod(&request);
    assert_eq!(decision.answer.verdict, Verdict::Allowed, "injected twice");
}

/// The questions of the webhook's tests.
pub fn seeds() -> Vec<Seed> {
    files("webhook/tests/data", ".json")
        .into_iter()
        .filter(|(name, _)| !name.ends_with(".expected.json"))
        .filter_map(|(name, question)| {
            let question: Value = serde_json::from_slice(&question).ok()?;
            Some((name, question["body"].to_string().into_bytes()))
        })
        .collect()
}
