//! A Vault that is there and does not answer, and one that leaves something out.

use sealedenv_providers::By;
use sealedenv_providers::vault::Login;
use serde_json::json;

use super::server::{self, eventually};
use super::{Server, fetch, fetched, given, told};

#[tokio::test]
async fn a_vault_that_is_sealed_is_unavailable_until_it_is_not() {
    let vault = Server::start();
    vault.kv("kv", 1).await;
    vault.tell("POST", "kv/app", json!({ "a": "1" })).await;
    let store = vault.store(Login::Token(given(&vault.root())));
    assert_eq!(fetched(&store, "kv/app").await, r#"{"a":"1"}"#);
    let standby = server::store(&vault.standby, None, Login::Token(given(&vault.root())));
    let answer = fetch(&standby, "kv/app", None).await;
    assert_eq!((told(&answer.outcome).as_str(), answer.by), ("Unavailable", By::Store), "a standby");
    vault.tell("PUT", "sys/seal", json!({})).await;
    let answer = fetch(&store, "kv/app", None).await;
    assert_eq!((told(&answer.outcome).as_str(), answer.by), ("Unavailable", By::Store), "sealed");
    // A login meets the same.
    let login = Login::AppRole { mount: "approle".into(), role_id: "r".into(), secret_id: given("s") };
    let answer = fetch(&vault.store(login), "kv/app", None).await;
    assert_eq!((told(&answer.outcome).as_str(), answer.by), ("Unavailable", By::Store), "sealed");
    // The standby takes over, and is one no more.
    eventually(async || fetched(&standby, "kv/app").await == r#"{"a":"1"}"#).await;
}

#[tokio::test]
async fn a_vault_without_namespaces_takes_no_notice_of_one() {
    let vault = Server::shared();
    vault.kv("anywhere", 1).await;
    vault.tell("POST", "anywhere/app", json!({ "a": "1" })).await;
    let store = server::store(&vault.address, Some("team/a"), Login::Token(given(&vault.root())));
    assert_eq!(fetched(&store, "anywhere/app").await, r#"{"a":"1"}"#);
    assert_eq!(fetched(&store, "team/a/anywhere/app").await, "Denied", "to it that is a path");
}
