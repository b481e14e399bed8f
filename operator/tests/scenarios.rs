//! Reconciles against a mock API server that expects exact calls: one too many fails, one too few fails.

// A helper of a test may fail the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use sealedenv_audit::{FailurePolicy, FileSink, Log, Memory, MemorySink, Rotation};
use sealedenv_crds::{OnKeyError, SealedEnv, SealedEnvSpec, SecretShape};
use sealedenv_operator::backoff::Failures;
use sealedenv_operator::clock::Clock;
use sealedenv_operator::delivery::book::Book;
use sealedenv_operator::digest::DigestKey;
use sealedenv_operator::keys::{Ring, store::Keys};
use sealedenv_operator::known::{Known, Waiting, Written};
use sealedenv_operator::leader::Leadership;
use sealedenv_operator::leader::clock::{Steady, Tick};
use sealedenv_operator::metrics::Metrics;
use sealedenv_operator::notices::Notices;
use sealedenv_operator::reconcile::{Context, ReconcileError, reconcile, retry};
use sealedenv_operator::repairs::Repairs;
use sealedenv_operator::secrets::Secrets;
use sealedenv_operator::trail::Trail;
use sealedenv_runtime::log::{Format, subscriber};
use sealedenv_seal::{Identity, Keyring, Plain, Scope, seal};
use serde_json::{Value, json};
use tower_test::mock::{Handle, pair};

type Server = Handle<Request<Body>, Response<Body>>;

const SECRET: &str = "/api/v1/namespaces/shop/secrets/checkout";
const STATUS: &str = "/apis/sealedenv.dev/v1alpha1/namespaces/shop/sealedenvs/checkout/status";
const ENV: &str = "/apis/sealedenv.dev/v1alpha1/namespaces/shop/sealedenvs/checkout";

struct Bench {
    ctx: Arc<Context>,
    server: Server,
    env: SealedEnv,
    /// What the steady clock shows.
    time: Arc<Mutex<Duration>>,
}

/// A SealedEnv with one value, a key that opens it, and nothing else in the cluster.
fn bench(log: Log) -> Bench {
    let (service, server) = pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "default");
    let clock = Clock::from_fn(|| "2026-01-01T00:00:00Z".parse().unwrap());
    let leadership = Leadership::alone();
    let trail = Trail::new(Arc::new(log), clock.clone(), leadership.clone());
    let keys = Keys::new(
        client.clone(),
        "system".into(),
        clock.clone(),
        trail.clone(),
        Notices::nowhere(),
        leadership.clone(),
    );
    let identity = Identity::generate();
    let scope = Scope::strict("shop", "checkout", "TOKEN").unwrap();
    let sealed = seal(&scope, &[identity.recipient()], &Plain::from(b"hunter2".to_vec())).unwrap();
    keys.replace(Ring::new(Keyring::new(vec![identity])));

    let mut env = SealedEnv::new("checkout", SealedEnvSpec::default());
    env.metadata.namespace = Some("shop".into());
    env.metadata.uid = Some("env-uid".into());
    env.metadata.resource_version = Some("10".into());
    env.metadata.generation = Some(1);
    env.spec.data.insert("TOKEN".into(), sealed.to_string());
    let time = Arc::new(Mutex::new(Duration::ZERO));
    let steady = Steady::from_fn({
        let time = Arc::clone(&time);
        move || Tick::after(*time.lock().unwrap())
    });
    let ctx = Arc::new(Context {
        client,
        leadership,
        clock,
        keys: Arc::new(keys),
        digests: Arc::new(DigestKey::new([1; 32])),
        secrets: Secrets::default(),
        waiting: Waiting::new(1 << 20),
        written: Written::default(),
        trail,
        notices: Notices::nowhere(),
        metrics: Metrics::default(),
        failures: Failures::default(),
        repairs: Repairs::new(steady),
        book: Book::nowhere(),
    });
    Bench { ctx, server, env, time }
}

fn recorded() -> (Log, Memory) {
    let (sink, memory) = MemorySink::new("memory");
    (Log::open(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap(), memory)
}

impl Bench {
    /// As the watch would bring it.
    fn arrive(&self) -> Arc<Known> {
        let (known, values) = Known::strip(self.env.clone());
        self.ctx.waiting.keep(&known, values);
        Arc::new(known)
    }

    /// Reconciles while the server expects exactly these calls.
    async fn run(&mut self, calls: Vec<Call>) -> Result<(), ReconcileError> {
        let known = self.arrive();
        let ctx = Arc::clone(&self.ctx);
        let worker = tokio::spawn(async move { reconcile(known, ctx).await.map(drop) });
        let expected = calls.len();
        for (i, call) in calls.into_iter().enumerate() {
            let next = tokio::time::timeout(Duration::from_secs(10), self.server.next_request()).await;
            let (request, answer) =
                next.unwrap_or_else(|_| panic!("call {i} did not come")).expect("the client is there");
            let (parts, body) = request.into_parts();
            assert_eq!((parts.method.as_str(), parts.uri.path()), (call.method, call.path), "call {i}");
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (code, reply) = (call.answer)(parts.uri.query().unwrap_or_default(), &body);
            let response = Response::builder().status(code).body(Body::from(reply.to_string().into_bytes()));
            answer.send_response(response.unwrap());
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), worker).await;
        ended.unwrap_or_else(|_| panic!("more than {expected} calls")).expect("no panic")
    }
}

type Answer = Box<dyn Fn(&str, &Value) -> (u16, Value) + Send>;

/// One call that is expected, with the answer to it.
struct Call {
    method: &'static str,
    path: &'static str,
    answer: Answer,
}

fn call(
    method: &'static str,
    path: &'static str,
    answer: impl Fn(&str, &Value) -> (u16, Value) + Send + 'static,
) -> Call {
    Call { method, path, answer: Box::new(answer) }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code}),
    )
}

fn written_secret(version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
        "name": "checkout", "namespace": "shop", "uid": "secret-uid", "resourceVersion": version,
        "labels": {"app.kubernetes.io/managed-by": "sealedenv"}, "annotations": {"sealedenv.dev/sealedenv": "checkout"},
    }})
}

fn written_env() -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "env-uid", "resourceVersion": "12"}})
}

fn apply_secret() -> Call {
    call("PATCH", SECRET, |query, body| {
        assert!(query.contains("fieldManager=sealedenv-operator") && query.contains("force=true"), "{query}");
        assert_eq!(body["data"], json!({"TOKEN": "aHVudGVyMg=="}));
        assert_eq!(body["metadata"]["resourceVersion"], "1", "only if there is none");
        (200, written_secret("11"))
    })
}

fn write_status(reason: &'static str) -> Call {
    call("PATCH", STATUS, move |_, body| {
        assert_eq!(body["metadata"]["uid"], "env-uid");
        assert_eq!(body["status"]["conditions"][0]["reason"], reason, "{body}");
        assert!(!body.to_string().contains("hunter2"));
        (200, written_env())
    })
}

#[tokio::test]
async fn a_first_apply_is_two_writes_and_no_read() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    let lines = memory.lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(r#""action":"reconcile""#) && !lines[0].contains("hunter2"), "{}", lines[0]);
}

#[tokio::test]
async fn what_was_done_is_not_done_again() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    bench.run(Vec::new()).await.unwrap();
    assert_eq!(memory.lines().len(), 1);
}

/// Somebody deletes the Secret, and the watch shows it.
fn delete_by_hand(bench: &Bench) {
    bench.ctx.secrets.gone(&("shop".into(), "checkout".into()));
}

fn count(memory: &Memory, action: &str) -> usize {
    memory.lines().iter().filter(|line| line.contains(&format!(r#""action":"{action}""#))).count()
}

#[tokio::test]
async fn a_secret_that_is_deleted_in_a_loop_is_repaired_at_a_slowing_pace() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    for _ in 0..5 {
        delete_by_hand(&bench);
        bench.run(vec![apply_secret()]).await.unwrap();
    }
    delete_by_hand(&bench);
    bench.run(vec![write_status("RepairPaused")]).await.unwrap();
    bench.run(Vec::new()).await.unwrap();
    assert_eq!(count(&memory, "repair"), 5, "what is put off is no release");

    *bench.time.lock().unwrap() += Duration::from_secs(1);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    assert_eq!(count(&memory, "repair"), 6);
    delete_by_hand(&bench);
    *bench.time.lock().unwrap() += Duration::from_secs(1);
    bench.run(vec![write_status("RepairPaused")]).await.unwrap();
    assert_eq!(count(&memory, "repair"), 6, "the pause has grown");
}

#[tokio::test]
async fn what_somebody_asks_for_waits_for_no_pause() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    for _ in 0..5 {
        delete_by_hand(&bench);
        bench.run(vec![apply_secret()]).await.unwrap();
    }
    delete_by_hand(&bench);
    bench.run(vec![write_status("RepairPaused")]).await.unwrap();
    let asked = ("sealedenv.dev/requestedAt".to_owned(), "now".to_owned());
    bench.env.metadata.annotations = Some([asked].into());
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    assert_eq!(count(&memory, "repair"), 6);
}

#[tokio::test]
async fn a_foreign_secret_found_at_the_write_is_looked_at_and_left() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    let env = serde_json::to_value(&bench.env).unwrap();
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"TOKEN": "dGhlaXJz"},
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "u", "resourceVersion": "3"}});
    bench
        .run(vec![
            call("PATCH", SECRET, |_, _| failure(409, "Conflict")),
            call("GET", ENV, move |_, _| (200, env.clone())),
            call("GET", SECRET, move |_, _| (200, foreign.clone())),
            write_status("SecretNotOurs"),
        ])
        .await
        .unwrap();
    assert!(memory.lines().iter().any(|l| l.contains("SecretNotOurs")), "{:?}", memory.lines());
}

#[tokio::test]
async fn a_renamed_secret_takes_the_last_good_value_along() {
    const RENAMED: &str = "/api/v1/namespaces/shop/secrets/checkout-2";
    let (log, _) = recorded();
    let mut bench = bench(log);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
    bench.env.spec.data.insert("TOKEN".into(), "sealed:v1:YWJj".into());
    bench.env.spec.public.insert("USER".into(), "app".into());
    bench.env.spec.secret = Some(SecretShape { name: Some("checkout-2".into()), ..SecretShape::default() });
    bench.env.metadata.generation = Some(2);
    let mut former = written_secret("11");
    former["apiVersion"] = json!("v1");
    former["kind"] = json!("Secret");
    former["data"] = json!({"TOKEN": "aHVudGVyMg=="});
    bench
        .run(vec![
            call("GET", SECRET, move |_, _| (200, former.clone())),
            call("PATCH", RENAMED, |_, body| {
                assert_eq!(body["data"], json!({"TOKEN": "aHVudGVyMg==", "USER": "YXBw"}));
                let mut written = written_secret("14");
                written["metadata"]["name"] = json!("checkout-2");
                written["metadata"]["uid"] = json!("other-uid");
                (200, written)
            }),
            call("DELETE", SECRET, |_, body| {
                assert_eq!(body["preconditions"]["uid"], "secret-uid", "{body}");
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }),
            write_status("KeysNotOpened"),
        ])
        .await
        .unwrap();
}

/// The watch is of Secrets with our label, so it shows this one as deleted.
#[tokio::test]
async fn a_secret_that_lost_its_label_still_has_the_last_good_value() {
    for policy in [OnKeyError::KeepLast, OnKeyError::Fail] {
        let (log, memory) = recorded();
        let mut bench = bench(log);
        bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
        bench.env.spec.data.insert("TOKEN".into(), "sealed:v1:YWJj".into());
        bench.env.spec.public.insert("USER".into(), "app".into());
        bench.env.spec.on_key_error = policy;
        bench.env.metadata.generation = Some(2);
        delete_by_hand(&bench);
        let mut live = written_secret("15");
        live["apiVersion"] = json!("v1");
        live["kind"] = json!("Secret");
        live["data"] = json!({"TOKEN": "aHVudGVyMg=="});
        live["metadata"]["labels"] = json!({});
        live["metadata"]["ownerReferences"] = json!([{"apiVersion": "sealedenv.dev/v1alpha1",
            "kind": "SealedEnv", "name": "checkout", "uid": "env-uid", "controller": true}]);
        let mut calls = vec![call("GET", SECRET, move |_, _| (200, live.clone()))];
        if policy == OnKeyError::KeepLast {
            calls.push(call("PATCH", SECRET, |_, body| {
                assert_eq!(body["data"], json!({"TOKEN": "aHVudGVyMg==", "USER": "YXBw"}));
                assert_eq!(body["metadata"]["labels"]["app.kubernetes.io/managed-by"], "sealedenv");
                (200, written_secret("16"))
            }));
        }
        calls.push(write_status("KeysNotOpened"));
        bench.run(calls).await.unwrap();
        let lines = memory.lines();
        assert!(!lines.iter().any(|line| line.contains("KeptValueChanged")), "{policy:?}: {lines:?}");
    }
}

#[tokio::test]
async fn without_an_audit_sink_nothing_is_released() {
    let folder = tempfile::tempdir().unwrap();
    // A folder stands where the file should be: the sink never gets ready.
    let sink = FileSink::new(folder.path(), Rotation::default());
    let log = Log::open(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap();
    let mut bench = bench(log);
    let ended = bench.run(vec![write_status("AuditUnavailable")]).await;
    assert!(matches!(ended, Err(ReconcileError::NotRecorded(_))), "{ended:?}");
}

#[tokio::test]
async fn when_the_audit_sink_is_back_the_value_is_released() {
    let (sink, memory) = MemorySink::new("memory");
    let log = Log::open(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap();
    let mut bench = bench(log);
    memory.fail(true);
    assert!(bench.run(vec![write_status("AuditUnavailable")]).await.is_err());
    memory.fail(false);
    bench.run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
}

#[tokio::test]
async fn under_the_open_policy_it_is_released_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path(), Rotation::default());
    let log = Log::open(vec![Box::new(sink)], "test", FailurePolicy::Open).unwrap();
    bench(log).run(vec![apply_secret(), write_status("Delivered")]).await.unwrap();
}

#[tokio::test]
async fn a_refused_write_is_told_and_tried_again() {
    let (log, _) = recorded();
    let calls = vec![call("PATCH", SECRET, |_, _| failure(403, "Forbidden")), write_status("ApiError")];
    let ended = bench(log).run(calls).await;
    assert!(matches!(ended, Err(ReconcileError::Write(_))), "{ended:?}");
}

#[tokio::test]
async fn a_secret_the_api_server_does_not_take_is_told_and_left() {
    let (log, _) = recorded();
    let calls = vec![call("PATCH", SECRET, |_, _| failure(422, "Invalid")), write_status("SecretRefused")];
    bench(log).run(calls).await.unwrap();
}

/// What is logged from now on by this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_warning_is_logged_once_whether_it_is_tried_again_or_not() {
    // While there is only one, tests on other threads, which have none, decide for all what is never logged.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let mut wanted = ["SealedEnv will be tried again", "SealedEnv is told of"].into_iter();
    for (code, reason) in [(403, "ApiError"), (422, "SecretRefused")] {
        let (log, _) = recorded();
        let mut bench = bench(log);
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = subscriber(Format::Json, "warn", move || writer.clone()).unwrap();
        let guard = tracing::subscriber::set_default(subscriber);
        let calls = vec![call("PATCH", SECRET, move |_, _| failure(code, "Forbidden")), write_status(reason)];
        if let Err(error) = bench.run(calls).await {
            retry(&bench.arrive(), &error, &bench.ctx);
        }
        drop(guard);
        let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(wanted.next().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn a_word_that_an_admission_webhook_chose_is_not_repeated() {
    for (code, reason) in [(403, "ApiError"), (422, "SecretRefused")] {
        let (log, _) = recorded();
        let mut bench = bench(log);
        let refuse = call("PATCH", SECRET, move |_, _| failure(code, "hunter2"));
        let told = call("PATCH", STATUS, move |_, body| {
            let condition = &body["status"]["conditions"][0];
            assert_eq!(condition["reason"], reason);
            assert!(condition["message"].as_str().unwrap().contains(&format!("({code} Other)")), "{body}");
            assert!(!body.to_string().contains("hunter2"));
            (200, written_env())
        });
        let ended = bench.run(vec![refuse, told]).await.map_err(|error| error.to_string());
        let wanted = match code {
            403 => Err("writing Secret checkout: the API server answered 403 Other".to_owned()),
            _ => Ok(()),
        };
        assert_eq!(ended, wanted, "{code}");
    }
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_next_time_without_another_release() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    let ended =
        bench.run(vec![apply_secret(), call("PATCH", STATUS, |_, _| failure(500, "InternalError"))]).await;
    assert!(ended.is_err());
    let live = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"TOKEN": "aHVudGVyMg=="},
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "secret-uid", "resourceVersion": "11",
            "labels": {"app.kubernetes.io/managed-by": "sealedenv"}, "annotations": {"sealedenv.dev/sealedenv": "checkout"},
            "ownerReferences": [{"apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv", "name": "checkout",
                "uid": "env-uid", "controller": true}]}});
    let env = serde_json::to_value(&bench.env).unwrap();
    bench
        .run(vec![
            // The Secret is newer than what is known of its SealedEnv.
            call("GET", ENV, move |_, _| (200, env.clone())),
            call("GET", SECRET, move |_, _| (200, live.clone())),
            write_status("Delivered"),
        ])
        .await
        .unwrap();
    assert_eq!(memory.lines().len(), 1, "{:?}", memory.lines());
}

#[tokio::test]
async fn an_object_deleted_meanwhile_is_no_error() {
    let (log, _) = recorded();
    let mut bench = bench(log);
    bench
        .run(vec![
            apply_secret(),
            call("PATCH", STATUS, |_, _| failure(404, "NotFound")),
            call("GET", ENV, |_, _| failure(404, "NotFound")),
        ])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_suspended_object_costs_one_status_write() {
    let (log, memory) = recorded();
    let mut bench = bench(log);
    bench.env.spec.suspend = true;
    bench.run(vec![write_status("Suspended")]).await.unwrap();
    assert!(memory.lines().is_empty());
}
