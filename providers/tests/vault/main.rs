//! The store Vault, against a real one: the core of HashiCorp's own module, as `e2e/vault` starts it.
//! `cargo xtask test providers` builds that and runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod away;
mod kv;
mod leases;
mod logins;
mod server;

use std::time::Duration;

use sealedenv_providers::provider::Provider as _;
use sealedenv_providers::vault::Vault;
use sealedenv_providers::{Answer, Ask, Lease, Outcome};

use server::{Server, given};

/// What came of one path, in words: what is there and its version, or the outcome.
async fn fetched(store: &Vault, path: &str) -> String {
    told(&fetch(store, path, None).await.outcome)
}

async fn fetch(store: &Vault, path: &str, version: Option<&str>) -> Answer {
    let ask = Ask { path: path.to_owned(), version: version.map(str::to_owned) };
    store.fetch(&[ask]).await.remove(0)
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(read) => {
            let content = std::str::from_utf8(read.content.expose()).unwrap();
            read.version.as_ref().map_or(content.to_owned(), |version| format!("{content} {version}"))
        }
        other => other.as_str().to_owned(),
    }
}

/// A lease, of something that has one.
async fn leased(store: &Vault, path: &str) -> Lease {
    match fetch(store, path, None).await.outcome {
        Outcome::Found(read) => read.lease.expect("it has a lease"),
        other => panic!("{path}: {}", other.as_str()),
    }
}

/// Later, for what is decided by time. Vault's own time goes on as it does.
async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}
