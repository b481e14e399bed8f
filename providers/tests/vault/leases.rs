//! What is given for a time.

use std::time::Duration;

use sealedenv_providers::provider::Provider as _;
use sealedenv_providers::vault::Vault;
use sealedenv_providers::{Lease, Outcome};
use serde_json::{Value, json};

use super::server::eventually;
use super::{Server, fetched, later, leased};

/// An engine of that name that gives leases (it is `e2e/vault`'s own), and a store whose role may use it.
async fn engine(vault: &Server, name: &str) -> Vault {
    vault.tell("POST", &format!("sys/mounts/{name}"), json!({ "type": "leases" })).await;
    let paths = [&format!("{name}/*"), "sys/leases/renew", "sys/leases/revoke"];
    vault.policy(name, &paths.map(|path: &str| path)).await;
    vault.store(vault.app_role(name, json!({})).await)
}

async fn lookup(vault: &Server, lease: &Lease) -> (u16, Value) {
    vault.ask("PUT", "sys/leases/lookup", json!({ "lease_id": lease.id })).await
}

async fn renewed(store: &Vault, lease: &Lease) -> Result<Lease, &'static str> {
    store.renew(lease).await.map_err(|outcome| outcome.as_str())
}

async fn revoked(store: &Vault, lease: &Lease) -> Result<(), &'static str> {
    store.revoke(lease).await.map_err(|outcome| outcome.as_str())
}

#[tokio::test]
async fn a_lease_is_made_longer_and_given_back() {
    let vault = Server::shared();
    let store = engine(vault, "lent").await;
    let lease = leased(&store, "lent/creds/app").await;
    assert!(lease.id.starts_with("lent/creds/app/") && lease.renewable);
    assert_eq!(lease.lasts, Duration::from_mins(1));
    let longer = renewed(&store, &lease).await.unwrap();
    assert_eq!((&longer.id, longer.renewable), (&lease.id, true));
    assert!(longer.lasts >= lease.lasts, "{:?}", longer.lasts);
    assert_eq!(lookup(vault, &lease).await.0, 200);
    assert_eq!(revoked(&store, &lease).await, Ok(()));
    // It says yes and does it a little later.
    eventually(async || fetched(&store, "lent/revoked/app").await == r#"{"count":1}"#).await;
    eventually(async || lookup(vault, &lease).await.0 == 400).await;
    assert_eq!(renewed(&store, &lease).await, Err("NotFound"), "it is gone");
    assert_eq!(revoked(&store, &lease).await, Ok(()), "what is gone need not be given back");
}

#[tokio::test]
async fn a_lease_that_cannot_be_made_longer_says_so() {
    let vault = Server::shared();
    let store = engine(vault, "fixed").await;
    let lease = leased(&store, "fixed/fixed/app").await;
    assert!(!lease.renewable);
    assert_eq!(renewed(&store, &lease).await, Err("Malformed"));
    let never = Lease { id: "fixed/creds/app/none".to_owned(), ..lease };
    assert_eq!(renewed(&store, &never).await, Err("NotFound"));
    assert_eq!(revoked(&store, &never).await, Ok(()));
}

#[tokio::test]
async fn a_refusal_or_the_end_of_the_store_costs_nobody_a_lease() {
    let vault = Server::shared();
    let store = engine(vault, "kept").await;
    let lease = leased(&store, "kept/creds/app").await;
    later(Duration::from_mins(1)).await;
    let before = vault.tokens_of("kept").await;
    assert_eq!(fetched(&store, "of-others/app").await, "Denied");
    assert_eq!(vault.tokens_of("kept").await, before, "its leases end with it");
    assert_eq!(lookup(vault, &lease).await.0, 200);
    // Where its token is over, they are too. What is asked for next is asked for by another.
    vault.end_tokens_of("kept").await;
    eventually(async || lookup(vault, &lease).await.0 == 400).await;
    let lease = leased(&store, "kept/creds/app").await;
    assert!(store.close().await.is_ok());
    assert_eq!(lookup(vault, &lease).await.0, 200);
    assert!(matches!(store.renew(&lease).await, Err(Outcome::Unavailable { .. })), "nobody asks any more");
}
