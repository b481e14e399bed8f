//! The server when the process has no file descriptor left: `accept` fails, and the server goes on.
//!
//! Limits belong to a process, so the callers are another one: this test's own binary, started again.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealedenv_runtime::serve::{Counters, Limits, listen, serve};
use sealedenv_runtime::shutdown::Shutdown;

const CALLER: &str = "SEALEDENV_TEST_CALLER";

/// More than the server's process may have descriptors.
const CONNECTIONS: usize = 300;
const DESCRIPTORS: u64 = 64;

#[test]
fn it_sheds_who_says_nothing_and_serves_who_asks() {
    if std::env::var_os(CALLER).is_some() {
        return call();
    }
    // Started before the limit, which it would inherit.
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "it_sheds_who_says_nothing_and_serves_who_asks", "--nocapture"])
        .env(CALLER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), ..limit }).unwrap();

    let mut registry = Registry::default();
    let counters = Counters::register(&mut registry);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let shutdown = Shutdown::new();
    let listener = runtime.block_on(listen("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| std::future::ready("hello")));
    let server = runtime.spawn(serve(listener, None, router, Limits::default(), counters, shutdown.clone()));

    writeln!(caller.stdin.take().unwrap(), "{address}").unwrap();
    let mut said = String::new();
    caller.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(caller.wait().unwrap().success() && said.contains("answered"), "{said}");
    assert!(!server.is_finished());
    shutdown.trigger();
    runtime.block_on(server).unwrap();

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let count = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(count("accept_errors_total") > 0, "the limit was not met:\n{text}");
    assert!(count("connections_shed_total") > 0, "{text}");
}

/// The other process: many connections that say nothing, then one that asks.
fn call() {
    let mut address = String::new();
    BufReader::new(std::io::stdin()).read_line(&mut address).unwrap();
    let address = address.trim();
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer:?}");
    println!("answered");
    drop(silent);
}
