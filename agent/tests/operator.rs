//! The agent against a server of the contract, over TLS, with folders as the kubelet makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod until;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream;
use jiff::Timestamp;
use sealedenv_agent::args::Shared;
use sealedenv_agent::folder::Folder;
use sealedenv_agent::round::{Look, Operator, look};
use sealedenv_agent::run::{Agent, RunError};
use sealedenv_agent::trust::Trust;
use sealedenv_delivery::server::{Call, Fetch, Refusal, service};
use sealedenv_delivery::{
    Answer, Authorities, Content, Fetched, File, FilePath, Files, Outcome, Reason, Refused, Wanted,
};
use sealedenv_runtime::certificate::Authority;
use sealedenv_runtime::crypto;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use until::until;

const NAME: &str = "sealedenv-delivery.sealedenv-system.svc";

/// What the operator has, and what it was shown.
#[derive(Default)]
struct World {
    /// By SealedEnv.
    values: BTreeMap<String, String>,
    authorities: String,
    tokens: Vec<String>,
    calls: Vec<usize>,
}

#[derive(Clone, Default)]
struct Desk(Arc<Mutex<World>>);

impl Fetch for Desk {
    async fn fetch(&self, call: Call) -> Result<Fetched, Refusal> {
        let mut world = self.0.lock().unwrap();
        assert!(call.node.is_none(), "an agent has no token of a node");
        world.tokens.push(call.pod.expose().to_owned());
        world.calls.push(call.wanted.len());
        let answers = call.wanted.into_iter().map(|wanted| answer(&world, wanted)).collect();
        Ok(Fetched { answers, authorities: Authorities::parse(&world.authorities).ok() })
    }
}

fn answer(world: &World, wanted: Wanted) -> Answer {
    let refresh_after = Duration::from_mins(1);
    let outcome = match world.values.get(&wanted.name) {
        None => Outcome::Refused(Refused { reason: Reason::NotFound, message: "there is none".to_owned() }),
        Some(value) if wanted.held.as_ref() == Some(value) => Outcome::Unchanged { refresh_after },
        Some(value) => {
            let content = Content::new(value.clone().into_bytes());
            let file = File { path: FilePath::parse("KEY").unwrap(), content, mode: None };
            Outcome::Files(Files {
                digest: value.clone(),
                files: vec![file],
                keep: Vec::new(),
                refresh_after,
            })
        }
    };
    Answer { name: wanted.name, outcome }
}

fn authority() -> Authority {
    Authority::generate("test", Timestamp::now(), Duration::from_hours(1)).unwrap()
}

/// Serves under a certificate of the authority; gives the address.
async fn serve(authority: &Authority, desk: &Desk) -> String {
    crypto::install();
    let leaf = authority.issue(&[NAME.to_owned()], Timestamp::now(), Duration::from_hours(1)).unwrap();
    let certificates = Certificates::new();
    certificates.swap(&leaf);
    let acceptor = TlsAcceptor::from(certificates.server_config_for(b"h2").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away.
            if let Ok(connection) = acceptor.accept(connection).await {
                return Some((Ok::<_, std::io::Error>(connection), (listener, acceptor)));
            }
        }
    });
    let server = tonic::transport::Server::builder().add_service(service(desk.clone()));
    tokio::spawn(server.serve_with_incoming(connections));
    format!("https://{address}")
}

/// What the kubelet makes for a pod.
struct Pod {
    folder: tempfile::TempDir,
    names: Vec<String>,
}

impl Pod {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join("files").join(name)).unwrap();
            fs::create_dir_all(folder.path().join("tokens").join(name)).unwrap();
        }
        let pod = Self { folder, names: names.iter().map(|name| (*name).to_owned()).collect() };
        pod.token("pod.token.1");
        pod
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn token(&self, text: &str) {
        for name in &self.names {
            fs::write(self.path("tokens").join(name).join("token"), text).unwrap();
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("files").join(name).join("KEY")).ok()
    }

    fn folders(&self) -> Vec<Folder> {
        self.names.iter().map(|name| Folder::open(&self.path("files"), name, false).unwrap()).collect()
    }

    fn operator(&self, endpoint: &str) -> Operator {
        Operator {
            endpoint: endpoint.to_owned(),
            server_name: Some(NAME.to_owned()),
            tokens: self.path("tokens"),
        }
    }

    async fn look(&self, endpoint: &str, trust: &mut Trust) -> Look {
        look(&self.operator(endpoint), trust, &self.folders(), Timestamp::now).await
    }

    fn agent(&self, endpoint: &str, authorities: &str) -> Agent {
        self.made(endpoint, authorities).unwrap()
    }

    fn made(&self, endpoint: &str, authorities: &str) -> Result<Agent, RunError> {
        Agent::new(&Shared {
            sealedenvs: self.names.clone(),
            token_places: Vec::new(),
            operator: endpoint.to_owned(),
            operator_server_name: Some(NAME.to_owned()),
            operator_ca: authorities.to_owned(),
            files_dir: self.path("files"),
            token_dir: self.path("tokens"),
            state_dir: self.path("state"),
            termination_log: self.path("termination-log"),
            log_format: None,
            log_level: "info".to_owned(),
        })
    }

    fn message(&self) -> String {
        fs::read_to_string(self.path("termination-log")).unwrap_or_default()
    }
}

fn trust(pod: &Pod, authority: &Authority) -> Trust {
    Trust::load(&pod.path("state"), &authority.pem()).unwrap()
}

#[tokio::test]
async fn init_asks_until_every_sealed_env_has_files_and_says_meanwhile_what_is_missing() {
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&["checkout", "billing"]));
    let endpoint = serve(&authority, &desk).await;
    desk.0.lock().unwrap().values.insert("checkout".to_owned(), "one".to_owned());
    let agent = pod.agent(&endpoint, &authority.pem());
    let init = tokio::spawn(async move { agent.init(&Shutdown::new()).await });
    until("the refusal in the termination message", || pod.message().contains("there is none")).await;
    assert_eq!(pod.message(), "SealedEnv billing: there is none (NotFound)");
    assert_eq!(pod.value("checkout").as_deref(), Some("one"), "the other one waits for nobody");
    assert!(!init.is_finished());
    desk.0.lock().unwrap().values.insert("billing".to_owned(), "two".to_owned());
    init.await.unwrap().unwrap();
    assert_eq!(pod.value("billing").as_deref(), Some("two"));
    assert_eq!(pod.message(), "", "what is over is not told");
}

#[tokio::test]
async fn init_that_is_stopped_says_what_was_missing() {
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&["checkout"]));
    let endpoint = serve(&authority, &desk).await;
    let (agent, shutdown) = (pod.agent(&endpoint, &authority.pem()), Shutdown::new());
    let init = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { agent.init(&shutdown).await }
    });
    until("a call", || !desk.0.lock().unwrap().calls.is_empty()).await;
    until("the message", || !pod.message().is_empty()).await;
    shutdown.trigger();
    let error = init.await.unwrap().unwrap_err();
    assert!(matches!(&error, RunError::Stopped(why) if why.contains("there is none")), "{error}");
}

#[tokio::test]
async fn files_of_before_are_enough_where_the_operator_is_away() {
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&["checkout"]));
    let endpoint = serve(&authority, &desk).await;
    desk.0.lock().unwrap().values.insert("checkout".to_owned(), "one".to_owned());
    pod.agent(&endpoint, &authority.pem()).init(&Shutdown::new()).await.unwrap();
    // As after a restart of the sandbox: nobody listens there.
    pod.agent("https://127.0.0.1:1", &authority.pem()).init(&Shutdown::new()).await.unwrap();
    assert_eq!(pod.value("checkout").as_deref(), Some("one"));
}

#[tokio::test]
async fn a_look_swaps_in_what_changed_and_leaves_what_did_not_and_what_failed() {
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&["checkout"]));
    let endpoint = serve(&authority, &desk).await;
    let set = |value: Option<&str>| {
        let values = &mut desk.0.lock().unwrap().values;
        values.clear();
        values.extend(value.map(|value| ("checkout".to_owned(), value.to_owned())));
    };
    let mut trust = trust(&pod, &authority);
    set(Some("one"));
    assert_eq!(pod.look(&endpoint, &mut trust).await.changed, ["checkout"]);
    let same = pod.look(&endpoint, &mut trust).await;
    assert!(same.changed.is_empty() && same.problems.is_empty());
    assert_eq!(same.hint, Some(Duration::from_mins(1)));
    set(Some("two"));
    pod.token("pod.token.2");
    assert_eq!(pod.look(&endpoint, &mut trust).await.changed, ["checkout"]);
    assert_eq!(pod.value("checkout").as_deref(), Some("two"));
    set(None);
    assert_eq!(
        pod.look(&endpoint, &mut trust).await.problems,
        ["SealedEnv checkout: there is none (NotFound)"]
    );
    let away = pod.look("https://127.0.0.1:1", &mut trust).await;
    assert!(away.problems[0].starts_with("asking the operator: the operator is not available"), "{away:?}");
    pod.token("no token");
    let no_token = pod.look(&endpoint, &mut trust).await;
    assert!(no_token.problems[0].starts_with("reading the pod's token"), "{no_token:?}");
    assert_eq!(pod.value("checkout").as_deref(), Some("two"), "the last good files stay");
    assert_eq!(desk.0.lock().unwrap().tokens, ["pod.token.1", "pod.token.1", "pod.token.2", "pod.token.2"]);
}

#[tokio::test]
async fn a_pod_that_lives_through_a_change_of_authorities_goes_on_being_served() {
    let (first, second, third) = (authority(), authority(), authority());
    let (desk, pod) = (Desk::default(), Pod::new(&["checkout"]));
    desk.0.lock().unwrap().values.insert("checkout".to_owned(), "one".to_owned());
    let mut known = trust(&pod, &first);
    // Both are published before the second signs.
    desk.0.lock().unwrap().authorities = format!("{}{}", first.pem(), second.pem());
    let old = serve(&first, &desk).await;
    assert!(pod.look(&old, &mut known).await.problems.is_empty());
    let new = serve(&second, &desk).await;
    desk.0.lock().unwrap().authorities = second.pem();
    assert!(pod.look(&new, &mut known).await.problems.is_empty(), "it was heard of in time");
    // The first is over, also for an agent that was started again with what the pod brought.
    for mut known in [known, trust(&pod, &first)] {
        assert!(!pod.look(&old, &mut known).await.problems.is_empty(), "it was trusted after its time");
        assert!(pod.look(&new, &mut known).await.problems.is_empty());
    }
    let foreign = serve(&third, &desk).await;
    let tokens = desk.0.lock().unwrap().tokens.len();
    assert!(!pod.look(&foreign, &mut trust(&pod, &first)).await.problems.is_empty());
    assert_eq!(desk.0.lock().unwrap().tokens.len(), tokens, "a token was shown to a stranger");
}

#[tokio::test]
async fn more_than_fit_in_a_call_are_asked_for_in_several() {
    let names: Vec<String> = (0..9).map(|n| format!("env-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&names));
    let endpoint = serve(&authority, &desk).await;
    for name in &names {
        desk.0.lock().unwrap().values.insert((*name).to_owned(), format!("of-{name}"));
    }
    let look = pod.look(&endpoint, &mut trust(&pod, &authority)).await;
    assert_eq!(look.changed.len(), 9, "{look:?}");
    assert_eq!(desk.0.lock().unwrap().calls, [8, 1]);
    assert_eq!(pod.value("env-8").as_deref(), Some("of-env-8"));
}

#[tokio::test]
async fn refresh_ends_with_the_pod() {
    let (authority, pod) = (authority(), Pod::new(&["checkout"]));
    let agent = pod.agent("https://127.0.0.1:1", &authority.pem());
    let shutdown = Shutdown::new();
    let refresh = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { agent.refresh(&shutdown, || ()).await }
    });
    tokio::task::yield_now().await;
    assert!(!refresh.is_finished());
    shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(20), refresh).await.expect("it ends").unwrap();
}

/// Makes minutes pass until there is a call.
async fn a_look(desk: &Desk) {
    let calls = || desk.0.lock().unwrap().calls.len();
    let before = calls();
    loop {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(67)).await;
        tokio::time::resume();
        let called = async {
            while calls() == before {
                tokio::task::yield_now().await;
            }
        };
        // Where nobody waited yet when the time passed, it has to pass once more.
        if tokio::time::timeout(Duration::from_secs(1), called).await.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn a_change_is_told_once_and_the_files_that_came_first_are_none() {
    let (authority, desk, pod) = (authority(), Desk::default(), Pod::new(&["checkout"]));
    let endpoint = serve(&authority, &desk).await;
    let set = |value: &str| {
        desk.0.lock().unwrap().values.insert("checkout".to_owned(), value.to_owned());
    };
    set("one");
    pod.agent(&endpoint, &authority.pem()).init(&Shutdown::new()).await.unwrap();
    let (shutdown, changes) = (Shutdown::new(), Arc::new(Mutex::new(0)));
    let refresh = tokio::spawn({
        let (agent, shutdown, changes) =
            (pod.agent(&endpoint, &authority.pem()), shutdown.clone(), Arc::clone(&changes));
        async move { agent.refresh(&shutdown, || *changes.lock().unwrap() += 1).await }
    });
    let mut told = Vec::new();
    for value in ["one", "two", "two", "three"] {
        set(value);
        a_look(&desk).await;
        until("the files", || pod.value("checkout").as_deref() == Some(value)).await;
        // And one that finds them unchanged.
        a_look(&desk).await;
        told.push(*changes.lock().unwrap());
    }
    assert_eq!(told, [0, 1, 1, 2]);
    shutdown.trigger();
    refresh.await.unwrap();
}

#[test]
fn a_folder_that_is_missing_is_named() {
    let pod = Pod::new(&["checkout"]);
    fs::remove_dir(pod.path("files/checkout")).unwrap();
    let Err(error) = pod.made("https://127.0.0.1:1", &authority().pem()) else { panic!("it was opened") };
    assert_eq!(error.to_string(), "opening the folder of SealedEnv checkout");
}
