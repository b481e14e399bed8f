//! The real Vault, as its administrator sees it.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Method};
use rustls::RootCertStore;
use sealedenv_providers::guard::Policy;
use sealedenv_providers::transport::{Question, Transport, system_lookup};
use sealedenv_providers::vault::{Login, Vault};
use sealedenv_seal::Plain;
use serde_json::{Value, json};

const PROGRAM: &str = "SEALEDENV_VAULT";

/// A Vault of these tests' own. It ends when its standard input does, and so with the tests.
pub(crate) struct Server {
    pub(crate) address: String,
    /// A second core on the same storage, which is a standby.
    pub(crate) standby: String,
    token: String,
    _process: Child,
}

impl Server {
    /// The one that all tests share which break nothing of it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub(crate) fn start() -> Self {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| {
            panic!("{PROGRAM} is not set, the Vault of e2e/vault: run this by `cargo xtask test providers`")
        });
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).expect("it ended before it said where it is");
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        Self { address: text("address"), standby: text("standby"), token: text("token"), _process: process }
    }

    /// A client of it, of the kind that is tested.
    pub(crate) fn store(&self, login: Login) -> Vault {
        store(&self.address, None, login)
    }

    /// The token of who may do anything.
    pub(crate) fn root(&self) -> String {
        self.token.clone()
    }

    /// Asks as root. The status, and what was answered.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Display) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        headers.insert("x-vault-token", self.token.parse().unwrap());
        let question = Question {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            address: format!("{}/v1/{path}", self.address).parse().unwrap(),
            headers,
            body: Plain::from(body.to_string()),
        };
        let reply = transport().ask(question).await.unwrap();
        (reply.status.as_u16(), serde_json::from_slice(reply.body.expose()).unwrap_or_default())
    }

    /// The same, where only success will do.
    pub(crate) async fn tell(&self, method: &str, path: &str, body: impl Display) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Mounts KV of that version, and waits until it takes what is written.
    pub(crate) async fn kv(&self, mount: &str, version: u8) {
        let options = json!({ "version": version.to_string() });
        self.tell("POST", &format!("sys/mounts/{mount}"), json!({ "type": "kv", "options": options })).await;
        if version == 2 {
            let path = format!("{mount}/data/first");
            eventually(async || self.ask("POST", &path, json!({ "data": { "a": "1" } })).await.0 == 200)
                .await;
        }
    }

    /// A policy of that name, with these paths that may be read and written.
    pub(crate) async fn policy(&self, name: &str, paths: &[&str]) {
        let rule = |path: &&str| format!("path \"{path}\" {{ capabilities = [\"read\", \"update\"] }}\n");
        let policy: String = paths.iter().map(rule).collect();
        self.tell("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await;
    }

    /// A token with that policy.
    pub(crate) async fn token(&self, policy: &str) -> String {
        let answer = self.tell("POST", "auth/token/create", json!({ "policies": [policy] })).await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// A role with that policy, at a mount of its own that has its name. A `Login` as it.
    pub(crate) async fn app_role(&self, name: &str, more: Value) -> Login {
        self.tell("POST", &format!("sys/auth/{name}"), json!({ "type": "approle" })).await;
        let role = format!("auth/{name}/role/app");
        let mut settings = json!({ "token_policies": [name] });
        settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.tell("POST", &role, settings).await;
        let role_id = self.tell("GET", &format!("{role}/role-id"), json!({})).await;
        let secret_id = self.tell("POST", &format!("{role}/secret-id"), json!({})).await;
        Login::AppRole {
            mount: name.to_owned(),
            role_id: role_id["data"]["role_id"].as_str().unwrap().to_owned(),
            secret_id: given(secret_id["data"]["secret_id"].as_str().unwrap()),
        }
    }

    /// The accessors of all tokens with that policy.
    pub(crate) async fn tokens_of(&self, policy: &str) -> Vec<String> {
        let listed = self.tell("LIST", "auth/token/accessors", json!({})).await;
        let mut found = Vec::new();
        for accessor in listed["data"]["keys"].as_array().unwrap() {
            let body = json!({ "accessor": accessor });
            let (_, token) = self.ask("POST", "auth/token/lookup-accessor", body).await;
            if token["data"]["policies"].as_array().is_some_and(|has| has.contains(&json!(policy))) {
                found.push(accessor.as_str().unwrap().to_owned());
            }
        }
        found
    }

    /// Ends all tokens with that policy, as if their time were over.
    pub(crate) async fn end_tokens_of(&self, policy: &str) {
        for accessor in self.tokens_of(policy).await {
            self.tell("POST", "auth/token/revoke-accessor", json!({ "accessor": accessor })).await;
        }
    }
}

pub(crate) fn store(address: &str, namespace: Option<&str>, login: Login) -> Vault {
    Vault::new(transport(), &address.parse().unwrap(), namespace, login).unwrap()
}

/// A credential.
pub(crate) fn given(text: &str) -> sealedenv_providers::credential::Credential {
    let text = text.to_owned();
    Arc::new(move || {
        let text = text.clone();
        Box::pin(async move { Some(Plain::from(text)) })
    })
}

/// Waits for something that Vault does by and by.
pub(crate) async fn eventually(mut is: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is().await {
        assert!(std::time::Instant::now() < deadline, "it did not come about within 30 s");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn transport() -> Transport {
    let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Transport::new(policy, RootCertStore::empty(), system_lookup()).unwrap()
}
