//! What one caller can take from others.

use std::net::IpAddr;
use std::pin::Pin;

use futures::FutureExt as _;
use futures::future::join_all;
use sealedenv_delivery::Fetched;
use sealedenv_delivery::server::{Peer, Sending};
use tokio::time::{Instant, sleep};

use super::*;

fn call_from(address: [u8; 4]) -> Call {
    let mut call = Call::new(token("pod"), None, vec![Wanted { name: "checkout".to_owned(), held: None }]);
    call.peer = Some(Peer::new(IpAddr::from(address), || ()));
    call
}

impl Bench {
    /// The same pod and SealedEnv in another namespace; its token is the namespace's name.
    fn other_namespace(&self, namespace: &str) {
        let user = format!("system:serviceaccount:{namespace}:checkout");
        self.put(&format!("token {namespace}"), review(&user, "checkout-0", "0f1e", "node-a"));
        for path in [POD, ENV] {
            let (code, mut object) = self.world.lock().unwrap().answers[path].clone();
            object["metadata"]["namespace"] = namespace.into();
            self.put(&path.replace("shop", namespace), (code, object));
        }
    }

    /// Calls from there, and keeps the answer from being written.
    async fn unread(&self, address: [u8; 4]) -> Result<(Fetched, Sending), Refusal> {
        let call = call_from(address);
        let sending = call.sending.clone();
        Ok((self.desk.fetch(call).await?, sending))
    }
}

/// How many tokens the API server was asked about.
fn reviews(bench: &Bench) -> usize {
    bench.world.lock().unwrap().calls.iter().filter(|call| call.ends_with(REVIEWS)).count()
}

#[tokio::test(start_paused = true)]
async fn callers_of_one_address_keep_nobody_else_waiting() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    bench.world.lock().unwrap().hung = true;
    let crowd = join_all((0..100).map(|_| bench.desk.fetch(call_from([10, 0, 0, 1]))));
    let other = async {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(reviews(&bench), 8, "eight hang in a review, the others wait in line");
        bench.world.lock().unwrap().hung = false;
        let start = Instant::now();
        assert!(bench.desk.fetch(call_from([10, 0, 0, 2])).await.is_ok());
        start.elapsed()
    };
    let (_, took) = futures::join!(crowd, other);
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_count_until_they_are_gone_and_for_their_namespace_only() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    bench.env(&json!({"public": {"LARGE": "x".repeat(1_000_000)}}));
    let mut unread = Vec::new();
    // Memory for about as many; each address has places left.
    let refused = loop {
        let n = u8::try_from(unread.len()).unwrap();
        match bench.unread([10, 0, 0, n / 4]).await {
            Ok(one) => unread.push(one),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refused, unread.len()), (Refusal::Unavailable, 10));
    assert_eq!(lines(&memory).len(), 10, "what waits for memory is not opened");
    // A name that the pod's spec does not have takes no memory, and so waits for none.
    let mut stranger = call_from([10, 0, 1, 1]);
    stranger.wanted[0].name = "billing".to_owned();
    let start = Instant::now();
    let answers = bench.desk.fetch(stranger).await.ok().unwrap().answers;
    assert_eq!((refusal(&answers[0].outcome), start.elapsed()), (Reason::NotNamed, Duration::ZERO));
    // Another namespace has the other half.
    bench.other_namespace("depot");
    let mut other = call_from([10, 0, 2, 1]);
    other.pod = token("depot");
    let start = Instant::now();
    let answers = bench.desk.fetch(other).await.ok().unwrap().answers;
    assert!(matches!(&answers[0].outcome, Outcome::Files(_)));
    assert_eq!(start.elapsed(), Duration::ZERO);
    unread.pop();
    assert!(bench.unread([10, 0, 1, 1]).await.is_ok());
}

/// A pod that names so many SealedEnvs, each with a value of so many bytes; and its call for all of them.
fn many(bench: &Bench, count: usize, bytes: usize) -> Vec<Wanted> {
    let names: Vec<_> = (0..count).map(|n| format!("env-{n}")).collect();
    bench.env(&json!({"public": {"LARGE": "x".repeat(bytes)}}));
    let (code, env) = bench.world.lock().unwrap().answers[ENV].clone();
    for name in &names {
        let mut env = env.clone();
        env["metadata"]["name"] = name.as_str().into();
        bench.put(&ENV.replace("checkout", name), (code, env));
    }
    let (code, mut pod) = bench.world.lock().unwrap().answers[POD].clone();
    let sources = names.iter().map(
        |name| json!({"serviceAccountToken": {"audience": "sealedenv.dev", "path": format!("{name}/token")}}),
    );
    let volumes = json!([{"name": "tokens", "projected": {"sources": sources.collect::<Vec<_>>()}}]);
    pod["spec"]["volumes"] = volumes;
    bench.put(POD, (code, pod));
    names.into_iter().map(|name| Wanted { name, held: None }).collect()
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_beside_answers_that_nobody_reads_is_given_when_it_is_asked_for_again() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    let mut wanted = many(&bench, 8, 1_000_000);
    let alone = bench.desk.fetch(Call::new(token("pod"), None, wanted.clone())).await.ok().unwrap();
    assert!(alone.answers.iter().all(|answer| matches!(answer.outcome, Outcome::Files(_))), "all at once");
    // A quarter of the memory is free for the namespace, and as much is taken.
    let mut unread = Vec::new();
    for n in 0..5 {
        let mut call = Call::new(token("pod"), None, wanted[..1].to_vec());
        call.peer = Some(Peer::new(IpAddr::from([10, 0, 0, n]), || ()));
        unread.push(call.sending.clone());
        assert!(bench.desk.fetch(call).await.is_ok());
    }
    let mut calls = 0;
    while wanted.iter().any(|one| one.held.is_none()) {
        calls += 1;
        let start = Instant::now();
        let fetched = bench.desk.fetch(Call::new(token("pod"), None, wanted.clone())).await.ok().unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "what does not fit is not waited for");
        for (one, answer) in wanted.iter_mut().zip(fetched.answers) {
            match answer.outcome {
                Outcome::Files(files) => one.held = Some(files.digest),
                Outcome::Unchanged { .. } => assert!(one.held.is_some()),
                Outcome::Refused(refused) => assert_eq!(refused.reason, Reason::Unavailable),
            }
        }
    }
    assert_eq!(calls, 2);
}

#[tokio::test(start_paused = true)]
async fn small_answers_that_nobody_reads_fill_the_places_of_their_address_only() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    let mut unread = Vec::new();
    let refused = loop {
        match bench.unread([10, 0, 0, 1]).await {
            Ok(one) => unread.push(one),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refused, unread.len()), (Refusal::Unavailable, 8));
    assert!(bench.unread([10, 0, 0, 2]).await.is_ok());
}

/// Lets a call go on as far as it gets while the only thread for long work is taken.
async fn push<T>(mut call: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    for _ in 0..200 {
        if let Some(done) = call.as_mut().now_or_never() {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[test]
fn a_call_that_is_given_up_counts_until_its_work_is_done() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (log, _) = recorded();
        let bench = bench(log, Leadership::alone());
        bench.env(&json!({"files": {"all.json": {"format": "JSON"}}})); // not opened on the spot
        let (go, wait) = std::sync::mpsc::channel();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        for _ in 0..8 {
            let mut call = Box::pin(bench.desk.fetch(call_from([10, 0, 0, 1])));
            assert!(push(call.as_mut()).await.is_none(), "its work waits for a thread");
        }
        assert_eq!(reviews(&bench), 8);
        let mut ninth = Box::pin(bench.desk.fetch(call_from([10, 0, 0, 1])));
        assert!(push(ninth.as_mut()).await.is_none());
        assert_eq!(reviews(&bench), 8, "nothing is begun for it: eight are not done yet");
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert!(ninth.await.is_ok());
    });
}
