//! The server under connections that behave and that do not.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sealedenv_runtime::certificate::Authority;
use sealedenv_runtime::crypto;
use sealedenv_runtime::serve::{Counters, Limits, listen, serve};
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST: &str = "webhook.test";
const DAY: Duration = Duration::from_hours(24);

/// Long enough never to be the reason why something ends.
const NEVER: Duration = Duration::from_hours(1);

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

fn limits() -> Limits {
    Limits {
        handshake: NEVER,
        first_request: NEVER,
        idle: NEVER,
        connections: 16,
        linger: Duration::ZERO,
        finish: NEVER,
    }
}

async fn start(router: Router, limits: Limits, certificates: Option<&Certificates>) -> Running {
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let tls = certificates.map(|certificates| certificates.server_config().unwrap());
    let task = tokio::spawn(serve(listener, tls, router, limits, Counters::default(), shutdown.clone()));
    Running { address, shutdown, task }
}

fn hello() -> Router {
    Router::new().route("/", get(|| std::future::ready("hello")))
}

/// Sends one request and reads one answer of known length. Fails when the server closes instead.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8(answer).unwrap())
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
}

fn trusting(authority: &Authority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect(server: &Running, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await?;
    connector.connect(ServerName::try_from(HOST).unwrap(), stream).await
}

fn authority(name: &str, now: Timestamp) -> (Authority, sealedenv_runtime::certificate::Leaf) {
    let authority = Authority::generate(name, now, DAY).unwrap();
    let leaf = authority.issue(&[HOST.to_owned()], now, DAY).unwrap();
    (authority, leaf)
}

#[tokio::test]
async fn a_certificate_is_swapped_while_connections_stay() {
    let certificates = Certificates::new();
    let server = start(hello(), limits(), Some(&certificates)).await;
    let now = Timestamp::now();
    let (first, first_leaf) = authority("first", now);
    let (second, second_leaf) = authority("second", now);
    assert!(connect(&server, &trusting(&first)).await.is_err(), "no certificate yet, no handshake");

    certificates.swap(&first_leaf);
    let mut kept = connect(&server, &trusting(&first)).await.unwrap();
    assert!(ask(&mut kept).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(connect(&server, &trusting(&second)).await.is_err());

    certificates.swap(&second_leaf);
    ask(&mut kept).await.expect("an open connection outlives the swap");
    assert!(connect(&server, &trusting(&first)).await.is_err(), "new handshakes get the new certificate");
    ask(&mut connect(&server, &trusting(&second)).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_or_another_name_is_not_trusted() {
    let certificates = Certificates::new();
    let server = start(hello(), limits(), Some(&certificates)).await;
    let (old, old_leaf) = authority("old", Timestamp::now() - 3 * DAY);
    certificates.swap(&old_leaf);
    assert!(connect(&server, &trusting(&old)).await.is_err());
    let other = Authority::generate("other", Timestamp::now(), DAY).unwrap();
    certificates.swap(&other.issue(&["elsewhere.test".to_owned()], Timestamp::now(), DAY).unwrap());
    assert!(connect(&server, &trusting(&other)).await.is_err());
}

#[tokio::test]
async fn a_thousand_half_open_connections_keep_nobody_out() {
    let certificates = Certificates::new();
    let server = start(hello(), limits(), Some(&certificates)).await;
    let (authority, leaf) = authority("a", Timestamp::now());
    certificates.swap(&leaf);
    let mut honest = connect(&server, &trusting(&authority)).await.unwrap();
    ask(&mut honest).await.unwrap();
    let mut half_open = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The first byte of a TLS record, and no more.
        let _may_be_shed_already = stream.write_all(&[22]).await;
        half_open.push(stream);
    }
    ask(&mut connect(&server, &trusting(&authority)).await.unwrap()).await.expect("a newcomer is served");
    ask(&mut honest).await.expect("who was served before is not the first to go");
    for stream in &mut half_open[..900] {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn who_says_nothing_is_closed_in_time() {
    let short = Duration::from_millis(50);
    let slow_header = start(hello(), Limits { first_request: short, ..limits() }, None).await;
    let mut stream = TcpStream::connect(slow_header.address).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    assert!(is_closed(&mut stream).await);

    let idle = start(hello(), Limits { idle: short, ..limits() }, None).await;
    let mut stream = TcpStream::connect(idle.address).await.unwrap();
    ask(&mut stream).await.unwrap();
    assert!(is_closed(&mut stream).await);

    let certificates = Certificates::new();
    let handshake = start(hello(), Limits { handshake: short, ..limits() }, Some(&certificates)).await;
    let mut stream = TcpStream::connect(handshake.address).await.unwrap();
    stream.write_all(&[22]).await.unwrap();
    assert!(is_closed(&mut stream).await);

    // A connection that was served once is measured by idleness, not by the first request's bound.
    let served = start(hello(), Limits { first_request: short, ..limits() }, None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    ask(&mut stream).await.unwrap();
    tokio::time::sleep(short * 2).await;
    ask(&mut stream).await.unwrap();
}

#[tokio::test]
async fn rubbish_and_huge_headers_end_only_their_own_connection() {
    let server = start(hello(), limits(), None).await;
    for rubbish in
        [vec![0; 10], vec![b'x'; 1 << 20], b"GET / HTTP/9.9\r\n\r\n".to_vec(), vec![22, 3, 1, 0, 0]]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _may_be_closed_while_writing = stream.write_all(&rubbish).await;
        let _half_close = stream.shutdown().await;
        let _answer = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "y".repeat(1 << 20));
    let _may_be_closed_while_writing = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _may_be_reset = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    ask(&mut TcpStream::connect(server.address).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_ends_only_its_connection() {
    async fn handler() -> &'static str {
        panic!("on purpose")
    }
    let router = hello().route("/panic", get(handler));
    let server = start(router, limits(), None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut stream).await);
    ask(&mut TcpStream::connect(server.address).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_hand_and_closes_what_is_idle() {
    let (asked, finish) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let slow = {
        let (asked, finish) = (asked.clone(), finish.clone());
        get(move || async move {
            asked.add_permits(1);
            finish.acquire().await.unwrap().forget();
            "hello"
        })
    };
    let server = start(Router::new().route("/", slow), limits(), None).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let in_hand = tokio::spawn(async move { ask(&mut stream).await });
    asked.acquire().await.unwrap().forget();
    server.shutdown.trigger();
    assert!(is_closed(&mut idle).await);
    assert!(!server.task.is_finished());
    finish.add_permits(1);
    in_hand.await.unwrap().expect("the request in hand is answered");
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn while_it_lingers_it_serves_and_asks_to_close() {
    let limits = Limits { linger: Duration::from_millis(300), ..limits() };
    let server = start(hello(), limits, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert!(!ask(&mut stream).await.unwrap().contains("connection: close"));
    server.shutdown.trigger();
    assert!(ask(&mut stream).await.unwrap().contains("connection: close"));
    let mut newcomer = TcpStream::connect(server.address).await.unwrap();
    assert!(ask(&mut newcomer).await.unwrap().contains("connection: close"));
    server.task.await.unwrap();
}

/// Notes that it was dropped.
struct Note(Arc<AtomicBool>);

impl Drop for Note {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let dropped = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Semaphore::new(0));
    let stuck = {
        let (dropped, asked) = (dropped.clone(), asked.clone());
        get(move || async move {
            let _note = Note(dropped);
            asked.add_permits(1);
            std::future::pending::<&str>().await
        })
    };
    let limits = Limits { finish: Duration::from_millis(50), ..limits() };
    let server = start(Router::new().route("/", stuck), limits, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    asked.acquire().await.unwrap().forget();
    server.shutdown.trigger();
    server.task.await.unwrap();
    assert!(dropped.load(Ordering::SeqCst));
}
