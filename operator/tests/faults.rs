//! The controller against a small API server of its own that misbehaves on demand. Time is the test's: waits cost none,
//! and how long something waited is exact.

// A helper of a test may fail the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::registry::Registry;
use sealedenv_audit::{FailurePolicy, Log, Memory, MemorySink};
use sealedenv_operator::backoff::Failures;
use sealedenv_operator::client::fenced;
use sealedenv_operator::clock::Clock;
use sealedenv_operator::controller::{self, Extent, Synced};
use sealedenv_operator::delivery::book::Book;
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
use sealedenv_runtime::readiness::{Gate, Readiness};
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_seal::{Identity, Keyring, Plain, Scope, seal};
use serde_json::json;
use server::{Fault, Server};

/// A controller at work.
struct Bench {
    server: Server,
    identity: Identity,
    memory: Memory,
    registry: Registry,
    synced: Gate,
    shutdown: Shutdown,
    controller: tokio::task::JoinHandle<()>,
}

impl Bench {
    /// Starts a controller on what the server has by now.
    fn start(server: Server, identity: Identity, leadership: &Leadership) -> Self {
        let (sink, memory) = MemorySink::new("memory");
        let log = Log::unthreaded(vec![Box::new(sink)], "test", FailurePolicy::Closed).unwrap();
        let client = fenced(server.connection(), leadership).unwrap();
        let clock = Clock::from_fn(|| "2026-01-01T00:00:00Z".parse().unwrap());
        let trail = Trail::new(Arc::new(log), clock.clone(), leadership.clone());
        let keys = Keys::new(
            client.clone(),
            "system".into(),
            clock.clone(),
            trail.clone(),
            Notices::nowhere(),
            leadership.clone(),
        );
        keys.replace(Ring::new(Keyring::new(vec![
            Identity::parse(std::str::from_utf8(identity.to_text().expose()).unwrap()).unwrap(),
        ])));
        let mut registry = Registry::default();
        let ctx = Arc::new(Context {
            client,
            leadership: leadership.clone(),
            clock,
            keys: Arc::new(keys),
            digests: Arc::new(DigestKey::new([1; 32])),
            secrets: Secrets::default(),
            waiting: Waiting::new(1 << 20),
            written: Written::default(),
            trail,
            notices: Notices::nowhere(),
            metrics: Metrics::register(&mut registry),
            failures: Failures::default(),
            repairs: Repairs::new(Steady::system()),
            book: Book::nowhere(),
        });
        let readiness = Readiness::new();
        let synced = readiness.gate("sync");
        let shutdown = Shutdown::new();
        let all = Synced::new(1, synced.clone());
        let controller = tokio::spawn(controller::run(ctx, Extent::Cluster, 4, all, shutdown.clone()));
        Self { server, identity, memory, registry, synced, shutdown, controller }
    }

    fn leading(server: Server) -> Self {
        Self::start(server, Identity::generate(), &Leadership::alone())
    }

    /// Puts a SealedEnv with one value into the cluster.
    fn apply(&self, name: &str) {
        self.server.apply(name, &sealed(&self.identity, name));
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn delivered(&self, names: &[&str]) {
        for name in names {
            self.until(&format!("{name} to be delivered"), || self.server.is_ready(name)).await;
        }
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..20_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited for {what}; calls: {:#?}", self.server.calls());
    }

    /// Ends the controller. Whatever it was about to write has been written.
    async fn end(self) -> (Server, Memory) {
        self.shutdown.trigger();
        self.controller.await.unwrap();
        (self.server, self.memory)
    }
}

fn sealed(identity: &Identity, name: &str) -> String {
    let scope = Scope::strict("shop", name, "A").unwrap();
    seal(&scope, &[identity.recipient()], &Plain::from(b"v".to_vec())).unwrap().to_string()
}

fn records(memory: &Memory, action: &str, name: &str) -> usize {
    let (action, name) = (format!(r#""action":"{action}""#), format!(r#""name":"{name}""#));
    memory.lines().iter().filter(|line| line.contains(&action) && line.contains(&name)).count()
}

#[tokio::test(start_paused = true)]
async fn after_410_one_list_shows_what_came_and_what_went() {
    let bench = Bench::leading(Server::new());
    bench.apply("stays");
    bench.apply("goes");
    bench.delivered(&["stays", "goes"]).await;
    let lists = bench.server.count("LIST sealedenvs");

    // The watch is behind, and what happens meanwhile is compacted away.
    bench.server.silence("sealedenvs");
    bench.server.delete("goes");
    for i in 0..5 {
        bench.apply(&format!("came-{i}"));
    }
    bench.server.compact();
    bench.delivered(&["came-0", "came-1", "came-2", "came-3", "came-4"]).await;
    bench.until("the deletion to be on record", || records(&bench.memory, "delete", "goes") == 1).await;

    let (server, memory) = bench.end().await;
    // It comes in pages, of three each: the first of them is long in when the list is complete.
    assert_eq!(server.count("LIST sealedenvs") - lists, 2, "{:#?}", server.calls());
    assert_eq!(server.count("PATCH secrets stays"), 1, "what did not change was not written");
    for i in 0..5 {
        assert_eq!(server.count(&format!("PATCH secrets came-{i}")), 1);
        assert_eq!(records(&memory, "reconcile", &format!("came-{i}")), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_with_410_starts_over() {
    let server = Server::new();
    let identity = Identity::generate();
    for i in 0..5 {
        let name = format!("env-{i}");
        server.apply(&name, &sealed(&identity, &name));
    }
    // The token of the second page has expired.
    server.fault(Fault::new("PAGE sealedenvs", StatusCode::GONE).times(1));
    let bench = Bench::start(server, identity, &Leadership::alone());
    bench.delivered(&["env-0", "env-1", "env-2", "env-3", "env-4"]).await;
    assert!(bench.synced.is_open());
    let (server, _) = bench.end().await;
    for i in 0..5 {
        assert_eq!(server.count(&format!("PATCH secrets env-{i}")), 1);
    }
}

const STATUS_OF_ODD: &str = "PATCH sealedenvs odd status";

#[tokio::test(start_paused = true)]
async fn a_report_of_an_undecodable_object_that_failed_is_made_later() {
    let bench = Bench::leading(Server::new());
    bench.server.fault(Fault::new("GET sealedenvs odd", StatusCode::INTERNAL_SERVER_ERROR).times(1));
    bench.server.fault(Fault::new(STATUS_OF_ODD, StatusCode::INTERNAL_SERVER_ERROR).times(2));
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.apply("other");
    bench.delivered(&["other"]).await;
    let is_told = || bench.server.reason("odd").as_deref() == Some("Undecodable");
    assert!(!is_told());
    bench.until("the report", is_told).await;
    let (server, memory) = bench.end().await;
    let at = server.times("GET sealedenvs odd");
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert_eq!(waits.len(), 3, "{:#?}", server.calls());
    assert!(waits.is_sorted() && waits[0] >= Duration::from_millis(375), "they grow: {waits:?}");
    assert_eq!(server.count(STATUS_OF_ODD), 3);
    assert_eq!(records(&memory, "reconcile", "odd"), 1, "it is refused once, however often that is told");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_trail_did_not_take_is_recorded_later() {
    let bench = Bench::leading(Server::new());
    bench.memory.fail(true);
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.until("another try", || bench.server.count("GET sealedenvs odd") > 1).await;
    bench.memory.fail(false);
    bench.until("the report", || bench.server.reason("odd").as_deref() == Some("Undecodable")).await;
    let (_, memory) = bench.end().await;
    assert_eq!(records(&memory, "reconcile", "odd"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_touched_before_it_was_told_of_is_on_record_once() {
    let bench = Bench::leading(Server::new());
    bench.server.fault(Fault::new(STATUS_OF_ODD, StatusCode::INTERNAL_SERVER_ERROR).times(1));
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.until("the report that fails", || bench.server.count(STATUS_OF_ODD) == 1).await;
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.until("the report", || bench.server.reason("odd").as_deref() == Some("Undecodable")).await;
    let (_, memory) = bench.end().await;
    assert_eq!(records(&memory, "reconcile", "odd"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_mended_while_it_is_reported_is_not_called_undecodable() {
    let bench = Bench::leading(Server::new());
    let good = json!({"data": {"A": sealed(&bench.identity, "odd")}});
    bench.server.apply_after("GET sealedenvs odd", "odd", 2, &good);
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.delivered(&["odd"]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!bench.server.ever_said("odd", "Undecodable"), "{:#?}", bench.server.calls());
    assert_eq!(bench.server.count("GET sealedenvs odd"), 1, "it is left to the watch");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_mended_meanwhile_is_not_called_undecodable() {
    let bench = Bench::leading(Server::new());
    bench.server.fault(Fault::new("GET sealedenvs odd", StatusCode::INTERNAL_SERVER_ERROR).times(1));
    bench.server.apply_spec("odd", 1, &json!({"data": 5}));
    bench.until("the report that fails", || bench.server.count("GET sealedenvs odd") == 1).await;
    let sealed = sealed(&bench.identity, "odd");
    bench.server.apply_spec("odd", 2, &json!({"data": {"A": sealed}}));
    bench.delivered(&["odd"]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(bench.server.reason("odd").as_deref(), Some("Delivered"));
    let (server, memory) = bench.end().await;
    assert_eq!(server.count("GET sealedenvs odd"), 2, "it was looked at again");
    assert_eq!(server.count(STATUS_OF_ODD), 1, "and left as it was");
    assert_eq!(records(&memory, "reconcile", "odd"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_asked_again_when_it_says() {
    let bench = Bench::leading(Server::new());
    bench
        .server
        .fault(Fault::new("PATCH secrets busy", StatusCode::TOO_MANY_REQUESTS).retry_after(7).times(2));
    bench.apply("busy");
    bench.apply("other");
    bench.delivered(&["other"]).await;
    assert!(!bench.server.is_ready("busy"), "others are not held up");
    bench.delivered(&["busy"]).await;
    let (server, memory) = bench.end().await;
    let at = server.times("PATCH secrets busy");
    assert_eq!(at.len(), 3, "asked as often as needed: {at:?}");
    for pair in at.windows(2) {
        let wait = pair[1].saturating_sub(pair[0]);
        assert!((7.0..8.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }
    assert_eq!(records(&memory, "reconcile", "busy"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_does_not_end_a_watch_for_good() {
    let server = Server::new();
    server.fault(Fault::new("LIST", StatusCode::TOO_MANY_REQUESTS).retry_after(1).times(4));
    server.fault(Fault::new("WATCH", StatusCode::TOO_MANY_REQUESTS).times(20));
    let bench = Bench::leading(server);
    bench.apply("env");
    bench.delivered(&["env"]).await;
    bench.apply("later");
    bench.delivered(&["later"]).await;
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_api_server_hold_up_one_object_only() {
    let bench = Bench::leading(Server::new());
    bench.server.fault(Fault::new("PATCH secrets bad", StatusCode::INTERNAL_SERVER_ERROR).times(6));
    bench.apply("bad");
    bench.apply("good");
    bench.delivered(&["good"]).await;
    assert!(!bench.server.is_ready("bad"));
    bench.delivered(&["bad"]).await;
    let (server, _) = bench.end().await;
    let at = server.times("PATCH secrets bad");
    assert_eq!(at.len(), 7);
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "each wait is longer: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_in_the_middle_lists_again_and_repeats_no_write() {
    let bench = Bench::leading(Server::new());
    bench.apply("one");
    bench.delivered(&["one"]).await;
    let lists = bench.server.count("LIST");
    for round in 0..5 {
        bench.server.reset();
        bench.apply(&format!("while-broken-{round}"));
        bench.delivered(&[&format!("while-broken-{round}")]).await;
    }
    let (server, memory) = bench.end().await;
    // Anew and not from where it was: after a restore of etcd that version can lie in the future.
    let again = server.count("LIST") - lists;
    assert!(
        (1..=20).contains(&again),
        "of either kind in at most two pages, for each of five breaks: {again}"
    );
    for name in (0..5).map(|round| format!("while-broken-{round}")).chain(["one".to_owned()]) {
        assert_eq!(server.count(&format!("PATCH secrets {name}")), 1, "{name}");
        assert_eq!(records(&memory, "reconcile", &name), 1, "{name}");
        assert_eq!(records(&memory, "repair", &name), 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_not_done_twice() {
    let bench = Bench::leading(Server::new());
    // The watch of Secrets, which would show it, lags behind as well.
    bench.until("the first lists", || bench.synced.is_open()).await;
    bench.server.silence("secrets");
    bench.server.fault(Fault::lost("PATCH secrets env").times(1));
    bench.apply("env");
    bench.delivered(&["env"]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (server, memory) = bench.end().await;
    assert_eq!(server.version_changes("env"), 1, "{:#?}", server.calls());
    assert_eq!(records(&memory, "repair", "env"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_ready_and_does_nothing_until_it_leads() {
    let leadership = Leadership::elected(Steady::from_fn(|| Tick::after(Duration::from_secs(100))));
    let bench = Bench::start(Server::new(), Identity::generate(), &leadership);
    bench.apply("before");
    bench.until("the first list", || bench.synced.is_open()).await;
    bench.apply("later");
    bench.server.delete("gone");
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(bench.server.writes(), 0, "{:#?}", bench.server.calls());
    assert_eq!(bench.server.count("GET"), 0, "nor does it read anything but its watches");
    assert!(bench.memory.lines().is_empty());
    assert!(bench.metrics().contains("opened_values_total 0\n"), "nor opens: {}", bench.metrics());

    leadership.lead_until(Tick::after(Duration::from_secs(200)));
    bench.delivered(&["before", "later"]).await;

    leadership.lose();
    let writes = bench.server.writes();
    bench.apply("after");
    bench.server.edit_secret("before");
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(bench.server.writes(), writes, "{:#?}", bench.server.calls());

    leadership.lead_until(Tick::after(Duration::from_mins(5)));
    bench.delivered(&["after"]).await;
    bench.until("the edit to be repaired", || records(&bench.memory, "repair", "before") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_no_leader_saw_is_recorded_by_the_next() {
    let leadership = Leadership::elected(Steady::from_fn(|| Tick::after(Duration::from_secs(100))));
    leadership.lead_until(Tick::after(Duration::from_secs(200)));
    let bench = Bench::start(Server::new(), Identity::generate(), &leadership);
    bench.apply("env");
    bench.delivered(&["env"]).await;
    leadership.lose();
    bench.server.delete("env");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(records(&bench.memory, "delete", "env"), 0);
    leadership.lead_until(Tick::after(Duration::from_secs(200)));
    bench.until("the deletion to be on record", || records(&bench.memory, "delete", "env") == 1).await;
}

/// As after another replica led, with the watch of SealedEnvs behind that of Secrets.
#[tokio::test(start_paused = true)]
async fn an_older_value_never_comes_back_from_a_stale_view() {
    let leadership = Leadership::elected(Steady::from_fn(|| Tick::after(Duration::from_secs(100))));
    leadership.lead_until(Tick::after(Duration::from_secs(200)));
    let bench = Bench::start(Server::new(), Identity::generate(), &leadership);
    bench.apply("env");
    bench.delivered(&["env"]).await;
    leadership.lose();
    bench.server.silence("sealedenvs");
    // The other replica's doing: a newer spec, its Secret, its status. Of these we see the Secret only.
    bench.server.handled_elsewhere("env", &sealed(&bench.identity, "env"));
    leadership.lead_until(Tick::after(Duration::from_secs(200)));
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (server, memory) = bench.end().await;
    assert_eq!(server.count("PATCH secrets env"), 1, "{:#?}", server.calls());
    assert_eq!(server.writes(), 2, "{:#?}", server.calls());
    assert_eq!(records(&memory, "repair", "env"), 0);
}

/// The clock goes past the lease while a write waits: nobody has told this replica yet.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_time_is_over_lets_go_of_a_write_that_waits() {
    let now = Arc::new(std::sync::Mutex::new(Duration::from_secs(100)));
    let clock = Arc::clone(&now);
    let leadership = Leadership::elected(Steady::from_fn(move || Tick::after(*clock.lock().unwrap())));
    leadership.lead_until(Tick::after(Duration::from_secs(110)));
    let bench = Bench::start(Server::new(), Identity::generate(), &leadership);
    bench
        .server
        .fault(Fault::new("PATCH secrets env", StatusCode::TOO_MANY_REQUESTS).retry_after(5).times(1));
    bench.apply("env");
    bench.until("the first try", || bench.server.count("PATCH secrets env") == 1).await;
    *now.lock().unwrap() = Duration::from_mins(2);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(bench.server.count("PATCH"), 1, "{:#?}", bench.server.calls());
}
