//! The ways to log in, and what becomes of tokens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealedenv_providers::By;
use sealedenv_providers::provider::Provider as _;
use sealedenv_providers::vault::Login;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Server, fetch, fetched, given, later, told};

const S: Duration = Duration::from_secs(1);
const FOUND: &str = r#"{"a":"1"}"#;

/// A mount of that name with one secret, and a policy of that name that may read it.
async fn secret(vault: &Server, name: &str) -> String {
    vault.kv(name, 1).await;
    vault.tell("POST", &format!("{name}/app"), json!({ "a": "1" })).await;
    vault.policy(name, &[&format!("{name}/*")]).await;
    format!("{name}/app")
}

#[tokio::test]
async fn a_token_that_is_over_costs_one_login_and_a_login_that_is_denied_a_pause() {
    let vault = Server::shared();
    let path = secret(vault, "role").await;
    // Two logins, and no more.
    let login = vault.app_role("role", json!({ "secret_id_num_uses": 2 })).await;
    let store = vault.store(login);
    for _ in 0..3 {
        assert_eq!(fetched(&store, &path).await, FOUND);
    }
    assert_eq!(vault.tokens_of("role").await.len(), 1);
    vault.end_tokens_of("role").await;
    assert_eq!(fetched(&store, &path).await, "Denied", "it has only just logged in");
    later(S * 60).await;
    for _ in 0..3 {
        assert_eq!(fetched(&store, &path).await, FOUND);
    }
    assert_eq!(vault.tokens_of("role").await.len(), 1);
    vault.end_tokens_of("role").await;
    later(S * 60).await;
    let denied = fetch(&store, &path, None).await;
    assert_eq!(
        (told(&denied.outcome).as_str(), denied.by, denied.again),
        ("Denied", By::Store, Some(S * 30))
    );
    let denied = fetch(&store, &path, None).await;
    assert_eq!((told(&denied.outcome).as_str(), denied.by), ("Denied", By::Here));
    assert!(denied.again <= Some(S * 30), "{:?}", denied.again);
}

#[tokio::test]
async fn a_token_that_is_replaced_and_one_at_the_end_are_revoked() {
    let vault = Server::shared();
    let path = secret(vault, "tidy").await;
    let store = vault.store(vault.app_role("tidy", json!({})).await);
    assert_eq!(fetched(&store, &path).await, FOUND);
    let first = vault.tokens_of("tidy").await;
    later(S * 60).await;
    // A refusal that is about the path, as it turns out.
    assert_eq!(fetched(&store, "of-others/app").await, "Denied");
    let second = vault.tokens_of("tidy").await;
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    assert!(store.close().await.is_ok());
    assert!(vault.tokens_of("tidy").await.is_empty());
    assert_eq!(fetched(&store, &path).await, "Unavailable", "nobody asks any more");
    assert!(vault.tokens_of("tidy").await.is_empty(), "and nobody logs in");
}

#[tokio::test]
async fn a_token_of_somebody_else_is_used_and_left_alone() {
    let vault = Server::shared();
    let path = secret(vault, "given").await;
    let token = vault.token("given").await;
    let store = vault.store(Login::Token(given(&format!("{token}\n"))));
    assert_eq!(fetched(&store, &path).await, FOUND);
    assert!(store.close().await.is_ok());
    assert_eq!(vault.tokens_of("given").await.len(), 1);
    let wrong = vault.store(Login::Token(given("hvs.nobody-has-this-token")));
    assert_eq!(fetched(&wrong, &path).await, "Denied");
}

#[tokio::test]
async fn wrong_credentials_and_methods_that_are_not_there_are_denied() {
    let vault = Server::shared();
    let path = secret(vault, "wrong").await;
    let Login::AppRole { mount, role_id, .. } = vault.app_role("wrong", json!({})).await else { panic!() };
    let role = |mount: &str, role_id: &str, secret_id: &str| Login::AppRole {
        mount: mount.to_owned(),
        role_id: role_id.to_owned(),
        secret_id: given(secret_id),
    };
    for login in [
        role(&mount, &role_id, "not-the-secret"),
        role(&mount, "not-the-role", "not-the-secret"),
        role("nowhere", &role_id, "not-the-secret"),
    ] {
        let denied = fetch(&vault.store(login), &path, None).await;
        assert_eq!((told(&denied.outcome).as_str(), denied.by), ("Denied", By::Store));
        assert_eq!(denied.again, Some(S * 30));
    }
}

/// A ServiceAccount's token as a cluster makes them, of `checkout` in `shop`. Nobody signed it: Vault asks the cluster.
const JWT: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOlsidmF1bHQiXSwia3ViZXJuZXRlcy5pbyI6eyJuYW1lc3BhY2UiOiJzaG9\
                   wIiwic2VydmljZWFjY291bnQiOnsibmFtZSI6ImNoZWNrb3V0IiwidWlkIjoidS0xIn19LCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY\
                   291bnQ6c2hvcDpjaGVja291dCJ9.c2lnbmF0dXJl";

/// A cluster, as far as it says whose a token is.
async fn cluster(reviewed: Arc<Mutex<Vec<Value>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let asked = loop {
                stream.read_buf(&mut seen).await.unwrap();
                let text = String::from_utf8_lossy(&seen);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                if let Some(asked) = body.and_then(|body| serde_json::from_str::<Value>(body).ok()) {
                    assert!(text.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews "));
                    break asked;
                }
            };
            let is_good = asked["spec"]["token"] == JWT;
            reviewed.lock().unwrap().push(asked);
            let user = json!({ "username": "system:serviceaccount:shop:checkout", "uid": "u-1" });
            let status = json!({ "authenticated": is_good, "audiences": ["vault"], "user": user });
            let answer = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status,
            })
            .to_string();
            let head = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-type: application/json";
            let whole = format!("{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(whole.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_service_account_logs_in_where_the_cluster_vouches_for_it() {
    let vault = Server::shared();
    let path = secret(vault, "accounts").await;
    let reviewed = Arc::default();
    let host = cluster(Arc::clone(&reviewed)).await;
    vault.tell("POST", "sys/auth/k8s/prod", json!({ "type": "kubernetes" })).await;
    let config =
        json!({ "kubernetes_host": host, "disable_local_ca_jwt": true, "token_reviewer_jwt": "reviewer" });
    vault.tell("POST", "auth/k8s/prod/config", config).await;
    let role = |account: &str| {
        json!({
            "bound_service_account_names": [account], "bound_service_account_namespaces": ["shop"],
            "audience": "vault", "token_policies": ["accounts"],
        })
    };
    vault.tell("POST", "auth/k8s/prod/role/checkout", role("checkout")).await;
    vault.tell("POST", "auth/k8s/prod/role/billing", role("billing")).await;
    let store = |role: &str, jwt: &str| {
        let (mount, role) = ("k8s/prod".to_owned(), role.to_owned());
        vault.store(Login::Kubernetes { mount, role, jwt: given(jwt) })
    };
    assert_eq!(fetched(&store("checkout", JWT), &path).await, FOUND);
    assert_eq!(reviewed.lock().unwrap()[0]["spec"]["audiences"], json!(["vault"]));
    let forged = JWT.replace("c2lnbmF0dXJl", "Zm9yZ2Vk");
    for (role, jwt) in [("billing", JWT), ("absent", JWT), ("checkout", "no-jwt"), ("checkout", &forged)] {
        let denied = fetch(&store(role, jwt), &path, None).await;
        assert_eq!((told(&denied.outcome).as_str(), denied.by), ("Denied", By::Store), "{role}");
    }
}
