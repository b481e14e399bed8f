//! The webhook's router over a small shop, and the questions in `tests/data/`.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use jiff::Timestamp;
use sealedenv_audit::{FailurePolicy, Log, Memory, MemorySink};
use sealedenv_webhook::authorities::Authorities;
use sealedenv_webhook::decision::Waiting;
use sealedenv_webhook::inject::{Delivery, Environments, Image, Operator, Settings, Sighting};
use sealedenv_webhook::metrics::Metrics;
use sealedenv_webhook::router::{Admission, router};
use sealedenv_webhook::trail::{Counters, Trail};
use sealedenv_webhook::waiting;
use serde_json::Value;
use tower::ServiceExt as _;

/// `checkout`, with the Secret of its name, `billing`, with the Secret `billing-v2`, and `memory`.
struct Shop;

impl Environments for Shop {
    fn find(&self, namespace: &str, name: &str) -> Sighting {
        let present = |secret: Option<&str>| Sighting::Present {
            secret_name: secret.map(str::to_owned),
            delivery: if name == "memory" { "Memory" } else { "Secret" }.to_owned(),
        };
        match (namespace, name) {
            ("shop", "checkout" | "memory") => present(None),
            ("shop", "billing") => present(Some("billing-v2")),
            _ => Sighting::Absent,
        }
    }
}

/// With the agent, and the node plugin where a pod does not say.
fn settings() -> Settings {
    Settings {
        default_delivery: Delivery::Secret,
        memory_delivery: Delivery::Csi,
        image: Some(Image {
            reference: "registry.example/sealedenv:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
        }),
        operator: Some(Operator {
            endpoint: "https://192.0.2.7:8443".to_owned(),
            server_name: Some("sealedenv-delivery.sealedenv-system.svc".to_owned()),
        }),
    }
}

pub(crate) struct Served {
    pub(crate) router: axum::Router,
    pub(crate) memory: Memory,
    pub(crate) waiting: tokio::sync::mpsc::Receiver<Waiting>,
}

pub(crate) fn serve(policy: FailurePolicy) -> Served {
    let (sink, memory) = MemorySink::new("memory");
    let log = Log::open(vec![Box::new(sink)], "webhook-0", policy).unwrap();
    let trail = Trail::new(log, Counters::default(), Timestamp::now);
    let (sender, waiting) = waiting::queue();
    let admission = Admission {
        environments: Arc::new(Shop),
        settings: Arc::new(settings()),
        authorities: Authorities::known("-----BEGIN CERTIFICATE-----\n"),
        trail,
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        waiting: sender,
    };
    Served { router: router(admission), memory, waiting }
}

pub(crate) async fn post(
    router: &axum::Router,
    path: &str,
    body: impl Into<Vec<u8>>,
) -> (StatusCode, Vec<u8>) {
    let body = body.into();
    let request = Request::post(path).header("content-length", body.len()).body(Body::from(body)).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
}

pub(crate) fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every question, by its file.
pub(crate) fn questions() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut questions: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_str().unwrap().ends_with(".expected.json"))
        .collect();
    questions.sort();
    assert!(questions.len() >= 40, "only {} reviews in {}", questions.len(), folder.display());
    questions
}

/// The path and the body of one question.
pub(crate) fn question(name: &str) -> (String, String) {
    let question = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.json")));
    (question["path"].as_str().unwrap().to_owned(), question["body"].to_string())
}
