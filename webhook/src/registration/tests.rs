//! Two configurations in a mock API server, and everything that others may do to them meanwhile.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use sealedenv_runtime::certificate::{Authority, read_bundle, to_pem};
use sealedenv_runtime::readiness::Readiness;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::rotation::Plan;

/// Serves the two configurations, patches them as the API server would, and does what the test asks for in between.
#[derive(Clone)]
struct Server(Arc<Mutex<State>>);

struct State {
    configurations: [Value; 2],
    writes: usize,
    /// Done to a configuration before the next write reaches it.
    interference: Vec<fn(&mut Value)>,
    missing: bool,
}

const KINDS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

fn configuration(kind: &str) -> Value {
    let service =
        |name: &str| json!({"name": name, "namespace": "sealedenv-system", "path": "/x", "port": 443});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "sealedenv", "resourceVersion": "1"},
        "webhooks": [
            {
                "name": "ours.sealedenv.dev",
                "clientConfig": {"service": service("sealedenv-webhook")},
                "admissionReviewVersions": ["v1"], "sideEffects": "None"
            },
            {
                "name": "theirs.example.com",
                "clientConfig": {"service": service("other")},
                "admissionReviewVersions": ["v1"], "sideEffects": "None"
            }
        ]
    })
}

impl Server {
    fn new() -> Self {
        let configurations =
            ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"].map(configuration);
        Self(Arc::new(Mutex::new(State {
            configurations,
            writes: 0,
            interference: Vec::new(),
            missing: false,
        })))
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, body) = server.answer(&parts.method, &parts, &body);
                let response =
                    Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        Client::new(answer, "default")
    }

    fn answer(&self, method: &Method, parts: &http::request::Parts, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.0.lock().unwrap();
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
            (StatusCode::from_u16(code).unwrap(), status)
        };
        let index = KINDS
            .iter()
            .position(|kind| {
                parts.uri.path() == format!("/apis/admissionregistration.k8s.io/v1/{kind}/sealedenv")
            })
            .expect("nothing but the two configurations is asked for");
        if state.missing {
            return failure(404, "NotFound");
        }
        if method == Method::GET {
            return (StatusCode::OK, state.configurations[index].clone());
        }
        assert_eq!(method, Method::PATCH);
        assert_eq!(parts.headers["content-type"], "application/strategic-merge-patch+json");
        assert!(parts.uri.query().unwrap().contains("fieldManager=sealedenv-webhook"));
        if let Some(interfere) = state.interference.pop() {
            interfere(&mut state.configurations[index]);
            bump(&mut state.configurations[index]);
        }
        let patch: Value = serde_json::from_slice(body).unwrap();
        let configuration = &mut state.configurations[index];
        if patch["metadata"]["resourceVersion"] != configuration["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        for changed in patch["webhooks"].as_array().unwrap() {
            assert_eq!(changed.as_object().unwrap().len(), 2, "only name and clientConfig: {changed}");
            assert_eq!(changed["clientConfig"].as_object().unwrap().len(), 1, "only the caBundle: {changed}");
            let entry = configuration["webhooks"].as_array_mut().unwrap();
            let entry = entry.iter_mut().find(|entry| entry["name"] == changed["name"]).unwrap();
            entry["clientConfig"]["caBundle"] = changed["clientConfig"]["caBundle"].clone();
        }
        bump(configuration);
        let answer = configuration.clone();
        state.writes += 1;
        (StatusCode::OK, answer)
    }

    fn bundle(&self, kind: usize, entry: usize) -> Vec<CertificateDer<'static>> {
        let state = self.0.lock().unwrap();
        let bundle = &state.configurations[kind]["webhooks"][entry]["clientConfig"]["caBundle"];
        let bytes: ByteString = serde_json::from_value(bundle.clone()).unwrap_or_default();
        read_bundle(&bytes.0)
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    fn change(&self, change: impl Fn(&mut Value)) {
        let mut state = self.0.lock().unwrap();
        for configuration in &mut state.configurations {
            change(configuration);
            bump(configuration);
        }
    }
}

fn bump(configuration: &mut Value) {
    let version: u64 = configuration["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    configuration["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

fn registration() -> Registration {
    Registration {
        configuration: "sealedenv".to_owned(),
        service: "sealedenv-webhook".to_owned(),
        namespace: "sealedenv-system".to_owned(),
    }
}

fn authority() -> CertificateDer<'static> {
    let week = Duration::from_hours(7 * 24);
    Authority::generate(crate::bundle::COMMON_NAME, Timestamp::now(), week).unwrap().der().clone()
}

#[tokio::test]
async fn it_writes_our_entries_once_and_leaves_others_alone() {
    let (server, ours, other) = (Server::new(), authority(), authority());
    let publish = |authority: &CertificateDer<'static>| {
        let (client, authorities) = (server.client(), [authority.clone()]);
        async move { registration().publish(&client, &authorities).await.unwrap() }
    };
    publish(&ours).await;
    publish(&other).await;
    for kind in [0, 1] {
        assert_eq!(server.bundle(kind, 0), [ours.clone(), other.clone()]);
        assert!(server.bundle(kind, 1).is_empty(), "another Service's entry");
    }
    assert_eq!(server.writes(), 4);
    publish(&ours).await;
    assert_eq!(server.writes(), 4, "nothing is written when nothing is missing");
}

#[tokio::test]
async fn who_wrote_in_between_is_not_undone() {
    let (server, ours) = (Server::new(), authority());
    server.0.lock().unwrap().interference = vec![|configuration| {
        let other = ByteString(to_pem(&authority()).into_bytes());
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(other);
    }];
    registration().publish(&server.client(), std::slice::from_ref(&ours)).await.unwrap();
    let bundle = server.bundle(0, 0);
    assert_eq!((bundle.len(), &bundle[1]), (2, &ours), "the other's and ours");
    assert_eq!(server.bundle(1, 0), [ours]);
}

#[tokio::test]
async fn it_says_what_is_wrong() {
    let server = Server::new();
    let publish = || async { registration().publish(&server.client(), &[authority()]).await.unwrap_err() };

    server.0.lock().unwrap().interference = vec![|_| {}; ATTEMPTS];
    assert!(matches!(publish().await, RegisterError::Contended { .. }));

    server.change(|configuration| {
        configuration["webhooks"][0]["clientConfig"]["service"]["namespace"] = json!("elsewhere");
    });
    let error = publish().await;
    assert_eq!(
        error.to_string(),
        "the MutatingWebhookConfiguration sealedenv has no entry that calls the Service sealedenv-system/sealedenv-webhook"
    );

    server.0.lock().unwrap().missing = true;
    let error = publish().await;
    assert_eq!(error.to_string(), "cannot read the MutatingWebhookConfiguration sealedenv");
}

#[tokio::test(start_paused = true)]
async fn it_keeps_our_authority_there_whatever_happens() {
    let server = Server::new();
    server.0.lock().unwrap().missing = true;
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let gate = readiness.gate("certificate");
    let plan = Plan::new("sealedenv-webhook", "sealedenv-system", Duration::from_hours(24));
    let keeping = tokio::spawn(registration().keep(
        server.client(),
        Rotation::new(plan),
        Certificates::new(),
        CertificateMetrics::default(),
        gate.clone(),
        shutdown.clone(),
    ));
    // Time is the test's own: it passes when every task waits.
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!gate.is_open(), "there is no configuration yet");

    server.0.lock().unwrap().missing = false;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(gate.is_open());
    let published = server.bundle(0, 0);
    assert_eq!((published.len(), server.writes()), (1, 2));

    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(server.writes(), 2, "nothing is written while nothing changes");

    // Somebody installs the chart's configurations anew.
    server.change(|configuration| {
        configuration["webhooks"][0]["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    });
    tokio::time::sleep(PERIOD * 2).await;
    assert_eq!((server.bundle(0, 0), server.bundle(1, 0)), (published.clone(), published));
    assert!(gate.is_open());

    shutdown.trigger();
    keeping.await.unwrap();
}
