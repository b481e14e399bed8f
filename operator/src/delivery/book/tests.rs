use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tower::BoxError;

use super::super::consumers::Told;
use super::pages::SOON;
use super::*;

/// One SealedEnv and the pods of its namespace.
#[derive(Default)]
struct World {
    env: Option<Value>,
    /// UID by name.
    pods: HashMap<String, String>,
    calls: Vec<String>,
    conflicts: usize,
    failures: usize,
}

const ENV: &str = "/apis/sealedenv.dev/v1alpha1/namespaces/shop/sealedenvs/checkout";

struct Bench {
    world: Arc<Mutex<World>>,
    book: Book,
    registry: Registry,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

fn bench() -> Bench {
    let env = json!({
        "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "e1", "generation": 2, "resourceVersion": "1"},
        "spec": {"delivery": "Memory"}, "status": {"digest": "one", "keysReady": "1/1"},
    });
    let world = Arc::new(Mutex::new(World { env: Some(env), ..World::default() }));
    let service = tower::service_fn({
        let world = Arc::clone(&world);
        move |request: Request<Body>| {
            let world = Arc::clone(&world);
            async move { answer(&world, request).await }
        }
    });
    let client = Client::new(service, "default");
    let mut registry = Registry::default();
    let metrics = Deliveries::register(&mut registry);
    let shutdown = Shutdown::new();
    let (book, task) = Book::start(client, Clock::system(), Notices::nowhere(), metrics, shutdown.clone());
    Bench { world, book, registry, shutdown, task }
}

async fn answer(world: &Mutex<World>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
    let mut world = world.lock().unwrap();
    let path = parts.uri.path();
    world.calls.push(format!(
        "{} {}",
        parts.method,
        path.rsplit_once("shop/").map_or(path, |(_, rest)| rest)
    ));
    let refuse = |code: u16, reason: &str| {
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no", "metadata": {}}),
        )
    };
    let (code, value) = if world.failures > 0 {
        world.failures -= 1;
        refuse(500, "InternalError")
    } else if let Some(name) = path.strip_prefix("/api/v1/namespaces/shop/pods/") {
        match world.pods.get(name) {
            Some(uid) => (
                200,
                json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": name, "namespace": "shop", "uid": uid},
                }),
            ),
            None => refuse(404, "NotFound"),
        }
    } else if parts.method == Method::GET && path == ENV {
        world.env.clone().map_or_else(|| refuse(404, "NotFound"), |env| (200, env))
    } else {
        assert_eq!((&parts.method, path), (&Method::PATCH, &*format!("{ENV}/status")));
        let conflict = world.conflicts > 0;
        world.conflicts = world.conflicts.saturating_sub(1);
        let env = world.env.as_mut().unwrap();
        assert_eq!(body["metadata"]["uid"], "e1");
        assert!(body["metadata"]["resourceVersion"].is_string(), "no write without a version: {body}");
        if conflict || body["metadata"]["resourceVersion"] != env["metadata"]["resourceVersion"] {
            refuse(409, "Conflict")
        } else {
            let status = env["status"].as_object_mut().unwrap();
            for (field, value) in body["status"].as_object().unwrap() {
                if value.is_null() {
                    status.remove(field);
                } else {
                    status.insert(field.clone(), value.clone());
                }
            }
            let version: u64 = env["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            env["metadata"]["resourceVersion"] = (version + 1).to_string().into();
            (200, env.clone())
        }
    };
    let response = Response::builder().status(StatusCode::from_u16(code)?);
    Ok(response.body(Body::from(value.to_string().into_bytes()))?)
}

impl Bench {
    fn note(&self, pod: &str, told: Told) {
        let env = self.world.lock().unwrap().env.clone().unwrap();
        let env: SealedEnv = serde_json::from_value(env).unwrap();
        self.book.note(&env, Seen { uid: format!("uid-{pod}"), pod: pod.to_owned(), told });
    }

    fn holds(&self, pod: &str, digest: &str) {
        self.note(pod, Told::Holds(digest.to_owned()));
    }

    fn status(&self) -> SealedEnvStatus {
        let env = self.world.lock().unwrap().env.clone().unwrap();
        serde_json::from_value(env["status"].clone()).unwrap()
    }

    fn pods(&self) -> Vec<String> {
        self.status().consumers.into_iter().map(|one| one.pod).collect()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().calls)
    }

    fn metric(&self, state: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.contains(&format!("state=\"{state}\"")));
        line.and_then(|line| line.split(' ').next_back()).unwrap_or_default().to_owned()
    }
}

/// Long enough for what is soon, and for what it sets off.
async fn soon() {
    tokio::time::sleep(SOON + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_within_some_seconds_are_one_write() {
    let bench = bench();
    for pod in ["a", "b", "c"] {
        bench.holds(pod, "one");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    soon().await;
    assert_eq!(bench.pods(), ["a", "b", "c"]);
    assert_eq!(bench.status().keys_ready.as_deref(), Some("1/1"), "nothing else is touched");
    assert_eq!(bench.calls(), ["GET sealedenvs/checkout", "PATCH sealedenvs/checkout/status"]);
    assert_eq!((bench.metric("current"), bench.metric("outdated")), ("3".to_owned(), "0".to_owned()));
    for pod in ["a", "b", "c"] {
        bench.holds(pod, "one");
    }
    soon().await;
    assert!(bench.calls().is_empty(), "what the status tells already is not told again");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_another_was_faster_than_is_made_on_the_newer_version() {
    let bench = bench();
    bench.world.lock().unwrap().conflicts = 2;
    bench.holds("a", "one");
    soon().await;
    assert_eq!(bench.pods(), ["a"]);
    assert_eq!(bench.calls().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_later() {
    let bench = bench();
    bench.world.lock().unwrap().failures = 1;
    bench.holds("a", "one");
    soon().await;
    assert!(bench.pods().is_empty());
    tokio::time::sleep(AGAIN).await;
    assert_eq!(bench.pods(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_taken_back() {
    let bench = bench();
    bench.holds("a", "zero");
    bench.note("b", Told::Refused("NotAllowed"));
    soon().await;
    let status = bench.status();
    assert_eq!(status.conditions[0].type_, "DeliveryRefused");
    assert_eq!((bench.metric("outdated"), bench.metric("refused")), ("1".to_owned(), "1".to_owned()));
    bench.holds("b", "one");
    soon().await;
    assert!(bench.status().conditions.is_empty());
    assert_eq!((bench.metric("current"), bench.metric("refused")), ("1".to_owned(), "0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_gone_are_taken_out_and_those_that_ask_elsewhere_stay() {
    let bench = bench();
    for pod in ["asks", "elsewhere", "gone", "other"] {
        bench.holds(pod, "one");
    }
    soon().await;
    let pods = [("asks", "uid-asks"), ("elsewhere", "uid-elsewhere"), ("other", "a-new-pod-of-that-name")];
    bench.world.lock().unwrap().pods = pods.map(|(name, uid)| (name.to_owned(), uid.to_owned())).into();
    bench.calls();
    tokio::time::sleep(LOOK.mul_f64(0.9)).await;
    bench.holds("asks", "one");
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.pods(), ["asks", "elsewhere"]);
    assert!(!bench.calls().contains(&"GET pods/asks".to_owned()), "it was heard of a minute ago");
}

#[tokio::test(start_paused = true)]
async fn pods_that_went_while_nobody_looked_are_taken_out_of_a_status_that_is_listed() {
    let bench = bench();
    let env = {
        let mut world = bench.world.lock().unwrap();
        let env = world.env.as_mut().unwrap();
        env["status"]["consumers"] = json!([
            {"pod": "gone", "uid": "uid-gone", "refused": "NotAllowed", "since": "2026-01-01T00:00:00Z"},
            {"pod": "there", "uid": "uid-there", "digest": "one", "since": "2026-01-01T00:00:00Z"},
        ]);
        env["status"]["conditions"] = json!([{
            "type": "DeliveryRefused", "status": "True", "reason": "NotAllowed", "message": "gone",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        let env = serde_json::from_value(env.clone()).unwrap();
        world.pods = [("there".to_owned(), "uid-there".to_owned())].into();
        env
    };
    bench.book.listed(&env);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((bench.metric("current"), bench.metric("refused")), ("1".to_owned(), "1".to_owned()));
    tokio::time::sleep(LOOK).await;
    assert!(bench.calls().is_empty(), "not all at once");
    bench.book.listed(&env); // a change puts nothing off
    tokio::time::sleep(LOOK / 2).await;
    assert_eq!(bench.pods(), ["there"]);
    assert!(bench.status().conditions.is_empty());
    assert_eq!((bench.metric("current"), bench.metric("refused")), ("1".to_owned(), "0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn news_that_never_end_do_not_keep_pods_that_are_gone() {
    let bench = bench();
    for run in 0..8 {
        bench.holds(&format!("job-{run}"), "one");
        tokio::time::sleep(LOOK.mul_f64(0.3)).await;
    }
    let pods = bench.pods();
    assert!(!pods.contains(&"job-0".to_owned()) && pods.len() < 8, "{pods:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sealed_env_that_is_gone_is_forgotten_and_shutdown_ends_it() {
    let bench = bench();
    bench.holds("a", "one");
    let env = bench.world.lock().unwrap().env.take();
    soon().await;
    assert_eq!(bench.calls(), ["GET sealedenvs/checkout"]);
    bench.world.lock().unwrap().env = env;
    tokio::time::sleep(LOOK * 2).await;
    assert!(bench.calls().is_empty());
    bench.shutdown.trigger();
    bench.task.await.unwrap();
}
