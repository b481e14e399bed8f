//! What is read, and what is not there.

use sealedenv_providers::pick::{Pointer, pick};
use sealedenv_providers::vault::{Login, Vault};
use sealedenv_providers::{By, Outcome};
use serde_json::json;

use super::{Server, fetch, fetched, given, told};

/// A store that may read all of these mounts.
async fn reader(vault: &Server, name: &str, paths: &[&str]) -> Vault {
    vault.policy(name, paths).await;
    vault.store(Login::Token(given(&vault.token(name).await)))
}

#[tokio::test]
async fn the_first_version_of_kv_gives_what_was_written() {
    let vault = Server::shared();
    vault.kv("kv1", 1).await;
    let store = reader(vault, "reads-kv1", &["kv1/*"]).await;
    vault
        .tell("POST", "kv1/app", json!({ "password": "hunter2", "tls": { "on": true, "port": 5432 } }))
        .await;
    let Outcome::Found(read) = fetch(&store, "kv1/app", None).await.outcome else { panic!("it is there") };
    assert!(read.version.is_none() && read.lease.is_none(), "KV has no leases");
    for (pointer, expected) in [("/password", "hunter2"), ("password", "hunter2"), ("/tls/port", "5432")] {
        let value = pick(&read.content, Some(&Pointer::parse(pointer).unwrap())).unwrap();
        assert_eq!(value.expose(), expected.as_bytes(), "{pointer}");
    }
    assert_eq!(fetched(&store, "kv1/absent").await, "NotFound");
    assert_eq!(told(&fetch(&store, "kv1/app", Some("1")).await.outcome), "Malformed", "it has no versions");
    // Any name is good for a secret.
    for name in ["auth/db", "sys", "data/x", "a b/ü"] {
        let path = format!("kv1/{}", name.replace(' ', "%20").replace('ü', "%C3%BC"));
        vault.tell("POST", &path, json!({ "is": name })).await;
        assert_eq!(fetched(&store, &format!("kv1/{name}")).await, json!({ "is": name }).to_string());
    }
}

#[tokio::test]
async fn the_second_version_of_kv_gives_the_newest_or_the_version_that_is_asked_for() {
    let vault = Server::shared();
    vault.kv("kv2", 2).await;
    let store = reader(vault, "reads-kv2", &["kv2/data/*", "kv2/*"]).await;
    for value in ["1", "2", "3", "4"] {
        vault.tell("POST", "kv2/data/app", json!({ "data": { "a": value } })).await;
    }
    assert_eq!(fetched(&store, "kv2/data/app").await, r#"{"a":"4"} 4"#);
    vault.tell("POST", "kv2/delete/app", json!({ "versions": [2, 4] })).await;
    vault.tell("PUT", "kv2/destroy/app", json!({ "versions": [3] })).await;
    for (version, expected) in
        [("1", r#"{"a":"1"} 1"#), ("2", "NotFound"), ("3", "NotFound"), ("4", "NotFound"), ("5", "NotFound")]
    {
        assert_eq!(told(&fetch(&store, "kv2/data/app", Some(version)).await.outcome), expected, "{version}");
    }
    assert_eq!(fetched(&store, "kv2/data/app").await, "NotFound", "the newest is deleted");
    assert_eq!(fetched(&store, "kv2/data/absent").await, "NotFound");
    assert_eq!(fetched(&store, "kv2/app").await, "Denied", "a path that this version of KV does not have");
    for name in ["auth", "sys/db", "cubbyhole/x"] {
        vault.tell("POST", &format!("kv2/data/{name}"), json!({ "data": { "is": name } })).await;
        let expected = format!("{} 1", json!({ "is": name }));
        assert_eq!(fetched(&store, &format!("kv2/data/{name}")).await, expected);
    }
    // What looks like an answer of the first version.
    let nested = json!({ "data": { "data": { "data": "x", "metadata": { "version": 7 } } } });
    vault.tell("POST", "kv2/data/nested", nested).await;
    let expected = r#"{"data":{"data":"x","metadata":{"version":7}}} 1"#;
    assert_eq!(fetched(&store, "kv2/data/nested").await, expected);
}

#[tokio::test]
async fn numbers_come_as_vault_keeps_them() {
    let vault = Server::shared();
    vault.kv("numbers", 1).await;
    let store = reader(vault, "reads-numbers", &["numbers/*"]).await;
    let written = r#"{"a":1.10,"b":12345678901234567890123,"c":-0.0,"d":1e3}"#;
    vault.tell("POST", "numbers/app", written).await;
    assert_eq!(fetched(&store, "numbers/app").await, written);
}

#[tokio::test]
async fn what_is_not_mounted_or_not_allowed_is_denied() {
    let vault = Server::shared();
    vault.kv("allowed", 1).await;
    vault.kv("forbidden", 1).await;
    vault.tell("POST", "forbidden/app", json!({ "a": "1" })).await;
    let store = reader(vault, "reads-allowed", &["allowed/*", "nowhere/*"]).await;
    for path in ["forbidden/app", "nowhere/app", "allowed", "team/auth/token/lookup-self"] {
        let answer = fetch(&store, path, None).await;
        assert_eq!((told(&answer.outcome).as_str(), answer.by), ("Denied", By::Store), "{path}");
    }
}

#[tokio::test]
async fn what_vault_keeps_for_itself_is_not_read_even_by_who_may() {
    let vault = Server::shared();
    let store = vault.store(Login::Token(given(&vault.root())));
    for path in ["auth/token/lookup-self", "sys/mounts", "cubbyhole/x", "identity/entity/id"] {
        let answer = fetch(&store, path, None).await;
        assert_eq!((told(&answer.outcome).as_str(), answer.by), ("Denied", By::Here), "{path}");
    }
    // An engine whose path begins as one of them is mounted by nobody, so the first name alone tells.
    for mount in ["auth/x", "sys/x", "identity/x", "cubbyhole/x"] {
        let (status, answer) =
            vault.ask("POST", &format!("sys/mounts/{mount}"), json!({ "type": "kv" })).await;
        assert_eq!(status, 400, "{mount}: {answer}");
    }
    // And one that has such a name further down is one like others.
    vault.kv("team/auth", 1).await;
    vault.tell("POST", "team/auth/token", json!({ "a": "1" })).await;
    assert_eq!(fetched(&store, "team/auth/token").await, r#"{"a":"1"}"#);
    // As long as it is KV's.
    vault.tell("POST", "sys/mounts/other/auth", json!({ "type": "leases" })).await;
    assert_eq!(fetched(&store, "other/auth/revoked/app").await, "Denied");
}
