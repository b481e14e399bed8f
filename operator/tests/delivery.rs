//! Calls of the delivery API against an API server that answers what a test wants, up to the trail.

// A helper of a test may fail the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use sealedenv_audit::{FailurePolicy, FileSink, Log, Memory, MemorySink, Rotation};
use sealedenv_delivery::server::{Call, Fetch as _, Refusal};
use sealedenv_delivery::{Answer, Outcome, Reason, Token, Wanted, client};
use sealedenv_operator::backoff::Failures;
use sealedenv_operator::clock::Clock;
use sealedenv_operator::controller::Extent;
use sealedenv_operator::delivery::Bundle;
use sealedenv_operator::delivery::book::Book;
use sealedenv_operator::delivery::desk::Desk;
use sealedenv_operator::delivery::metrics::Deliveries;
use sealedenv_operator::delivery::serve::{self, Parts, Settings};
use sealedenv_operator::digest::DigestKey;
use sealedenv_operator::keys::{Ring, store::Keys};
use sealedenv_operator::known::{Waiting, Written};
use sealedenv_operator::leader::Leadership;
use sealedenv_operator::leader::clock::{Steady, Tick};
use sealedenv_operator::metrics::Metrics;
use sealedenv_operator::notices::Notices;
use sealedenv_operator::reconcile::Context;
use sealedenv_operator::repairs::Repairs;
use sealedenv_operator::secrets::Secrets;
use sealedenv_operator::trail::Trail;
use sealedenv_runtime::readiness::Readiness;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_seal::{Identity, Keyring, Plain, Scope, seal};
use serde_json::{Value, json};
use tower::BoxError;

#[path = "delivery/limits.rs"]
mod limits;
#[path = "delivery/served.rs"]
mod served;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const POD: &str = "/api/v1/namespaces/shop/pods/checkout-0";
const ENV: &str = "/apis/sealedenv.dev/v1alpha1/namespaces/shop/sealedenvs/checkout";
const SECRETS: &str = "/api/v1/namespaces/system/secrets";
const BUNDLE: &str = "/api/v1/namespaces/system/configmaps/sealedenv-delivery-ca";
const CANARY: &str = "canary-3f1d";

/// What the API server answers, by path; reviews by token.
#[derive(Default)]
struct World {
    answers: BTreeMap<String, (u16, Value)>,
    calls: Vec<String>,
    hung: bool,
    /// The clock, which goes on for a minute when the SealedEnv is read.
    sleeps: Option<Arc<Mutex<Duration>>>,
}

struct Bench {
    world: Arc<Mutex<World>>,
    ctx: Arc<Context>,
    desk: Desk,
    identity: Identity,
    time: Arc<Mutex<Duration>>,
}

fn review(user: &str, pod: &str, uid: &str, node: &str) -> (u16, Value) {
    let user = json!({"username": user, "extra": {
        "authentication.kubernetes.io/pod-name": [pod],
        "authentication.kubernetes.io/pod-uid": [uid],
        "authentication.kubernetes.io/node-name": [node],
    }});
    let status = json!({"authenticated": true, "audiences": ["sealedenv.dev"], "user": user});
    (
        201,
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status}),
    )
}

fn bench(log: Log, leadership: Leadership) -> Bench {
    let world = Arc::new(Mutex::new(World::default()));
    let service = tower::service_fn({
        let world = Arc::clone(&world);
        move |request: Request<Body>| {
            let world = Arc::clone(&world);
            async move { answer(&world, request).await }
        }
    });
    let client = Client::new(service, "default");
    // The real one: rustls on the other side looks at it too.
    let clock = Clock::system();
    let trail = Trail::new(Arc::new(log), clock.clone(), leadership.clone());
    let keys = Keys::new(
        client.clone(),
        "system".into(),
        clock.clone(),
        trail.clone(),
        Notices::nowhere(),
        leadership.clone(),
    );
    let (identity, same) = twice();
    keys.replace(Ring::new(Keyring::new(vec![same])));
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
        repairs: Repairs::new(steady.clone()),
        book: Book::nowhere(),
    });
    let plugin = "system:serviceaccount:system:sealedenv-node".to_owned();
    let extents = ["shop", "depot"].map(|namespace| Extent::Namespace(namespace.into())).into();
    let bundle = Bundle::default();
    let desk = Desk::new(
        Arc::clone(&ctx),
        ctx.client.clone(),
        extents,
        plugin,
        bundle,
        steady,
        Deliveries::default(),
    );
    let bench = Bench { world, ctx, desk, identity, time };
    bench.put("token pod", review("system:serviceaccount:shop:checkout", "checkout-0", "0f1e", "node-a"));
    bench
        .put("token plugin", review("system:serviceaccount:system:sealedenv-node", "node-x", "aa", "node-a"));
    bench.put(
        POD,
        (200, json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "checkout-0", "namespace": "shop", "uid": "0f1e"},
            "spec": {"serviceAccountName": "checkout", "nodeName": "node-a", "containers": [], "volumes": [
                {"name": "a", "csi": {"driver": "csi.sealedenv.dev", "volumeAttributes": {"sealedenv": "checkout"}}},
                {"name": "b", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": "sealedenv.dev", "path": "checkout/token"}},
                ]}},
            ]},
            "status": {"phase": "Pending"},
        })),
    );
    bench.env(&json!({}));
    bench
}

/// An identity, twice: one to seal to, one for the ring.
fn twice() -> (Identity, Identity) {
    let identity = Identity::generate();
    let text = identity.to_text();
    let same = Identity::parse(std::str::from_utf8(text.expose()).unwrap()).unwrap();
    (identity, same)
}

async fn answer(world: &Mutex<World>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
    let found = {
        let mut world = world.lock().unwrap();
        world.calls.push(format!("{} {path}", parts.method));
        if let Some(time) = world.sleeps.as_ref().filter(|_| path == ENV) {
            *time.lock().unwrap() += Duration::from_mins(1);
        }
        if path == REVIEWS {
            assert_eq!(body["spec"]["audiences"], json!(["sealedenv.dev"]), "a review without our audience");
            let token = body["spec"]["token"].as_str().unwrap();
            world.answers.get(&format!("token {token}")).cloned().unwrap_or_else(|| {
                (201, json!({"metadata": {}, "spec": {}, "status": {"authenticated": false}}))
            })
        } else if path == SECRETS || path == BUNDLE {
            kept(&mut world, &parts.method, &path, body)
        } else {
            let none = (
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no", "metadata": {}}),
            );
            world.answers.get(&path).cloned().unwrap_or(none)
        }
    };
    if world.lock().unwrap().hung {
        std::future::pending::<()>().await;
    }
    let (code, value) = found;
    let response = Response::builder().status(StatusCode::from_u16(code)?);
    Ok(response.body(Body::from(value.to_string().into_bytes()))?)
}

/// What the authorities are kept in, as the API server would keep it.
fn kept(world: &mut World, method: &http::Method, path: &str, body: Value) -> (u16, Value) {
    let listed =
        |items: Value| json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": items});
    let at = world.answers.get(path).cloned();
    match (method.as_str(), path) {
        ("GET", SECRETS) => (200, listed(at.map_or_else(|| json!([]), |(_, items)| items))),
        ("GET", _) => at.unwrap_or((
            404,
            json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no", "metadata": {}}),
        )),
        ("POST", SECRETS) => {
            let mut items = at.map_or_else(|| json!([]), |(_, items)| items);
            items.as_array_mut().unwrap().push(body.clone());
            world.answers.insert(path.to_owned(), (200, items));
            (201, body)
        }
        _ => {
            world.answers.insert(path.to_owned(), (200, body.clone()));
            (200, body)
        }
    }
}

fn recorded() -> (Log, Memory) {
    let (sink, memory) = MemorySink::new("memory");
    (Log::unthreaded(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap(), memory)
}

fn token(text: &str) -> Token {
    Token::new(text.to_owned()).ok().unwrap()
}

fn lines(memory: &Memory) -> Vec<Value> {
    memory.lines().iter().map(|line| serde_json::from_slice(line.as_ref()).unwrap()).collect()
}

impl Bench {
    fn put(&self, path: &str, answer: (u16, Value)) {
        self.world.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// The SealedEnv, with one good value and this beside it.
    fn env(&self, spec: &Value) {
        let scope = Scope::strict("shop", "checkout", "TOKEN").unwrap();
        let sealed = seal(&scope, &[self.identity.recipient()], &Plain::from(CANARY.to_owned())).unwrap();
        let mut whole = json!({"delivery": "Memory", "data": {"TOKEN": sealed.to_string()}});
        for (key, value) in spec.as_object().unwrap() {
            if key == "data" {
                whole["data"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            } else {
                whole[key] = value.clone();
            }
        }
        self.put(
            ENV,
            (
                200,
                json!({
                    "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv", "spec": whole,
                    "metadata": {"name": "checkout", "namespace": "shop", "uid": "e1", "generation": 4},
                }),
            ),
        );
    }

    async fn ask(&self, node: bool, held: Option<&str>) -> Result<Outcome, Refusal> {
        self.ask_for("checkout", "pod", node, held).await
    }

    async fn ask_for(
        &self,
        name: &str,
        pod: &str,
        node: bool,
        held: Option<&str>,
    ) -> Result<Outcome, Refusal> {
        let wanted = vec![Wanted { name: name.to_owned(), held: held.map(str::to_owned) }];
        let node = node.then(|| token("plugin"));
        let answers: Vec<Answer> = self.desk.fetch(Call::new(token(pod), node, wanted)).await?.answers;
        assert_eq!(answers.len(), 1);
        Ok(answers.into_iter().next().unwrap().outcome)
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().calls)
    }
}

fn refusal(outcome: &Outcome) -> Reason {
    match outcome {
        Outcome::Refused(refused) => refused.reason,
        Outcome::Files(_) => panic!("files"),
        Outcome::Unchanged { .. } => panic!("unchanged"),
    }
}

#[tokio::test]
async fn a_pod_gets_its_files_and_the_trail_says_so() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    for node in [true, false] {
        let Ok(Outcome::Files(files)) = bench.ask(node, None).await else { panic!("no files") };
        assert_eq!(files.files.len(), 1);
        assert_eq!(
            (files.files[0].path.as_str(), files.files[0].content.expose()),
            ("TOKEN", CANARY.as_bytes())
        );
        assert!(files.keep.is_empty());
        let calls = bench.calls();
        let reviews = usize::from(node) + 1;
        assert!(calls[..reviews].iter().all(|call| *call == format!("POST {REVIEWS}")), "{calls:?}");
        assert_eq!(calls[reviews..], [format!("GET {POD}"), format!("GET {ENV}")]);
        let line = lines(&memory).pop().unwrap();
        assert_eq!((&line["action"], &line["outcome"]), (&json!("deliver"), &json!("ok")));
        assert_eq!(line["actor"]["name"], "system:serviceaccount:shop:checkout");
        assert_eq!((&line["object"]["name"], &line["object"]["uid"]), (&json!("checkout"), &json!("e1")));
        assert_eq!(line["keys"], json!(["TOKEN"]));
        assert_eq!(line["after"].as_str(), Some(files.digest.as_str()), "{line}");
        let detail = line["detail"].as_str().unwrap();
        let through = if node { "the node plugin of node-a" } else { "the agent" };
        for part in ["pod UID 0f1e", "pod checkout-0", "node node-a", through] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert!(!line.to_string().contains(CANARY));
    }
}

#[tokio::test]
async fn what_the_pod_holds_already_is_neither_sent_nor_recorded_again() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    let Ok(Outcome::Files(files)) = bench.ask(true, None).await else { panic!("no files") };
    let before = lines(&memory).len();
    let again = bench.ask(true, Some(&files.digest)).await.ok().unwrap();
    assert!(matches!(again, Outcome::Unchanged { .. }));
    assert_eq!(lines(&memory).len(), before);
    // Asked anew each time: nothing of the first call was kept.
    let calls = bench.calls();
    assert_eq!(calls.iter().filter(|call| call.contains("tokenreviews")).count(), 4, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.contains("/pods/")).count(), 2, "{calls:?}");
    // A change of the digest key or of the content would give files.
    assert!(matches!(bench.ask(true, Some("0123")).await, Ok(Outcome::Files(_))));
}

#[tokio::test]
async fn who_is_nobody_costs_no_read_and_is_recorded() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    assert_eq!(bench.ask_for("checkout", "made.up", false, None).await.err(), Some(Refusal::Unauthenticated));
    assert_eq!(bench.calls(), [format!("POST {REVIEWS}")]);
    let line = lines(&memory).pop().unwrap();
    assert_eq!((&line["outcome"], &line["reason"]), (&json!("refused"), &json!("Authenticated")));
    assert_eq!(line["actor"]["name"], "unauthenticated");
    assert!(!line.to_string().contains("made.up"), "the token is on record");
}

#[tokio::test]
async fn a_deleted_pod_is_refused_before_anything_of_it_is_looked_up() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    bench.world.lock().unwrap().answers.remove(POD);
    assert_eq!(bench.ask(true, None).await.err(), Some(Refusal::Denied));
    assert!(!bench.calls().iter().any(|call| call.contains("sealedenvs")));
    let line = lines(&memory).pop().unwrap();
    assert_eq!((&line["reason"], &line["object"]["kind"]), (&json!("PodLives"), &json!("Pod")));
    assert_eq!(line["object"]["uid"], "0f1e");
}

#[tokio::test]
async fn a_pod_cannot_find_out_which_sealed_envs_there_are() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    for there in [true, false] {
        if there {
            let path = ENV.replace("checkout", "payments");
            bench.put(&path, (200, json!({"metadata": {}, "spec": {}})));
        }
        let outcome = bench.ask_for("payments", "pod", true, None).await.ok().unwrap();
        assert_eq!(refusal(&outcome), Reason::NotNamed);
        assert!(!bench.calls().iter().any(|call| call.contains("payments")), "it was looked up");
    }
    assert_eq!(lines(&memory).pop().unwrap()["reason"], "Named");
}

#[tokio::test]
async fn each_state_of_a_sealed_env_has_its_refusal() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    let bad = json!({"BAD": "sealed:v1:YWJj"});
    for (spec, reason, named) in [
        (json!({"delivery": "Secret"}), Reason::NotMemory, "InMemory"),
        (json!({"suspend": true}), Reason::Suspended, "Active"),
        (json!({"allow": {"serviceAccounts": ["billing"]}}), Reason::NotAllowed, "Allowed"),
        (json!({"data": bad, "onKeyError": "Fail"}), Reason::NotOpened, "Opened"),
        (json!({"public": {"BIG": "x".repeat(1 << 20)}}), Reason::TooLarge, "Sized"),
    ] {
        bench.env(&spec);
        assert_eq!(refusal(&bench.ask(true, None).await.ok().unwrap()), reason);
        let line = lines(&memory).pop().unwrap();
        assert_eq!((&line["outcome"], &line["reason"]), (&json!("refused"), &json!(named)));
    }
    bench.world.lock().unwrap().answers.remove(ENV);
    assert_eq!(refusal(&bench.ask(true, None).await.ok().unwrap()), Reason::NotFound);
}

#[tokio::test]
async fn a_bad_key_leaves_the_others_and_names_what_to_keep() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    let bad = json!({"BAD": "sealed:v1:YWJj"});
    bench.env(&json!({"data": bad}));
    let Ok(Outcome::Files(files)) = bench.ask(true, None).await else { panic!("no files") };
    assert_eq!(files.files.len(), 1);
    assert_eq!(files.keep.iter().map(ToString::to_string).collect::<Vec<_>>(), ["BAD"]);
    let kept = files.digest;
    assert!(matches!(bench.ask(true, Some(&kept)).await, Ok(Outcome::Unchanged { .. })));
    // The same values, and the key that was kept is not wanted any more: pods that have it are to give it up.
    for spec in [json!({"data": bad, "onKeyError": "Omit"}), json!({})] {
        bench.env(&spec);
        let Ok(Outcome::Files(files)) = bench.ask(true, Some(&kept)).await else { panic!("no files") };
        assert!(files.keep.is_empty());
        assert_eq!(files.files.len(), 1);
    }
}

#[tokio::test]
async fn files_are_given_with_their_modes_and_one_that_cannot_be_made_is_kept() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    let files = |template: &str| {
        json!({"public": {"USER": "app"}, "files": {
            "app.env": {"format": "Dotenv"},
            "conf/url": {"template": template, "mode": "0400"},
        }})
    };
    bench.env(&files("{{ USER }}:{{ TOKEN }}@db"));
    let Ok(Outcome::Files(given)) = bench.ask(true, None).await else { panic!("no files") };
    let seen: Vec<_> =
        given.files.iter().map(|file| (file.path.as_str(), file.content.expose(), file.mode)).collect();
    let (dotenv, url) = (format!("TOKEN={CANARY}\nUSER=app\n"), format!("app:{CANARY}@db"));
    let wanted: [(&str, &[u8], Option<u32>); 4] = [
        ("TOKEN", CANARY.as_bytes(), None),
        ("USER", b"app", None),
        ("app.env", dotenv.as_bytes(), None),
        ("conf/url", url.as_bytes(), Some(0o400)),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(lines(&memory).pop().unwrap()["keys"], json!(["TOKEN", "USER", "app.env", "conf/url"]));
    assert!(matches!(bench.ask(true, Some(&given.digest)).await, Ok(Outcome::Unchanged { .. })));

    let mut other = files("{{ USER }}:{{ TOKEN }}@db");
    other["files"]["conf/url"]["mode"] = json!("0440");
    bench.env(&other);
    let Ok(Outcome::Files(again)) = bench.ask(true, Some(&given.digest)).await else {
        panic!("another mode")
    };
    assert_eq!(again.files[3].mode, Some(0o440));

    bench.env(&files("{{ USER }}:{{ PASSWORD }}@db"));
    let Ok(Outcome::Files(given)) = bench.ask(true, None).await else { panic!("no files") };
    assert_eq!(given.files.len(), 3);
    assert_eq!(given.keep.iter().map(ToString::to_string).collect::<Vec<_>>(), ["conf/url"]);
    let mut fail = files("{{ USER }}:{{ PASSWORD }}@db");
    fail["onKeyError"] = json!("Fail");
    bench.env(&fail);
    let refused = bench.ask(true, None).await.ok().unwrap();
    assert_eq!(refusal(&refused), Reason::NotOpened);
    for line in lines(&memory) {
        assert!(!line.to_string().contains(CANARY));
    }
}

#[tokio::test]
async fn without_a_record_nothing_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path().join("no/such/folder/audit.jsonl"), Rotation::default());
    let log = Log::unthreaded(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap();
    let bench = bench(log, Leadership::alone());
    assert_eq!(refusal(&bench.ask(true, None).await.ok().unwrap()), Reason::NotRecorded);
}

#[tokio::test]
async fn a_standby_gives_as_well_and_records_it_itself() {
    let (log, memory) = recorded();
    let standby = Leadership::elected(Steady::system());
    let bench = bench(log, standby);
    assert!(matches!(bench.ask(true, None).await, Ok(Outcome::Files(_))));
    assert_eq!(lines(&memory).pop().unwrap()["action"], "deliver");
}

#[tokio::test]
async fn a_process_that_slept_gives_nothing_on_what_it_saw_before() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    bench.world.lock().unwrap().sleeps = Some(Arc::clone(&bench.time));
    assert_eq!(refusal(&bench.ask(true, None).await.ok().unwrap()), Reason::Unavailable);
    assert!(lines(&memory).is_empty(), "what was not given is on record");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_or_fails_is_no_refusal_of_the_pod() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    let broken = (
        500,
        json!({"kind": "Status", "status": "Failure", "code": 500, "reason": "InternalError", "message": "no", "metadata": {}}),
    );
    for path in ["token pod", POD] {
        let was = bench.world.lock().unwrap().answers.insert(path.to_owned(), broken.clone()).unwrap();
        assert_eq!(bench.ask(true, None).await.err(), Some(Refusal::Unavailable), "{path}");
        bench.put(path, was);
    }
    bench.put(ENV, broken);
    assert_eq!(refusal(&bench.ask(true, None).await.ok().unwrap()), Reason::Unavailable);
    bench.world.lock().unwrap().hung = true;
    let begun = tokio::time::Instant::now();
    assert_eq!(bench.ask(true, None).await.err(), Some(Refusal::Unavailable));
    assert!(begun.elapsed() <= Duration::from_millis(2100), "it waited {:?}", begun.elapsed());
    assert!(lines(&memory).is_empty(), "nobody was refused anything");
}
