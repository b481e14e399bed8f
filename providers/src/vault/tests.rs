use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use rustls::RootCertStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::By;
use crate::credential::Credential;
use crate::guard::Policy;
use crate::transport::system_lookup;

fn reply(status: u16, body: impl Display) -> Reply {
    let retry_after = Some(Duration::from_secs(7));
    Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Plain::from(body.to_string()) }
}

/// An outcome in words.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(read) => {
            let content = std::str::from_utf8(read.content.expose()).unwrap();
            let lease =
                read.lease.as_ref().map(|lease| (lease.id.as_str(), lease.lasts.as_secs(), lease.renewable));
            format!("{content} {:?} {lease:?}", read.version)
        }
        Outcome::Unavailable { retry_after } => format!("Unavailable {retry_after:?}"),
        other => other.as_str().to_owned(),
    }
}

#[test]
fn each_answer_is_one_of_five_outcomes() {
    let v2 = json!({"data": {"data": {"a": "1"}, "metadata": {"version": 3}}, "lease_id": ""});
    let deleted = json!({"data": {"data": null, "metadata": {"version": 3, "deletion_time": "x"}}});
    let destroyed = json!({"data": {"data": null, "metadata": {"version": 3, "destroyed": true}}});
    let dynamic = json!({
        "data": {"username": "v-1", "password": "p"},
        "lease_id": "database/creds/app/1", "lease_duration": 3600, "renewable": true,
    });
    for (status, body, expected) in [
        (200, json!({"data": {"a": "1"}}), r#"{"a":"1"} None None"#),
        (200, v2, r#"{"a":"1"} Some("3") None"#),
        (200, deleted.clone(), "NotFound"),
        (404, deleted, "NotFound"),
        (
            200,
            dynamic,
            r#"{"password":"p","username":"v-1"} None Some(("database/creds/app/1", 3600, true))"#,
        ),
        // A first version of KV that happens to have a key of that name.
        (
            200,
            json!({"data": {"data": {"x": "1"}, "other": "2"}}),
            r#"{"data":{"x":"1"},"other":"2"} None None"#,
        ),
        (200, json!({"data": null}), "Malformed"),
        (200, json!({"errors": []}), "Malformed"),
        (200, json!([1]), "Malformed"),
        (200, json!({"data": "text"}), "Malformed"),
        (204, json!(null), "Malformed"),
        (400, json!({"errors": ["no"]}), "Malformed"),
        (401, json!({}), "Denied"),
        (403, json!({"errors": ["permission denied"]}), "Denied"),
        (404, json!({"errors": []}), "NotFound"),
        (404, destroyed, "NotFound"),
        (
            404,
            json!({"errors": [], "warnings": ["Invalid path for a versioned K/V secrets engine."]}),
            "Denied",
        ),
        (
            404,
            json!({"data": null, "warnings": ["Invalid path for a versioned K/V secrets engine."]}),
            "Denied",
        ),
        (404, json!({"errors": ["no handler for route \"kv/a\". route entry not found."]}), "Denied"),
        // Of a proxy before a Vault that is away.
        (404, json!({}), "Unavailable Some(7s)"),
        (404, json!("not found"), "Unavailable Some(7s)"),
        (404, json!({"code": 404, "message": "no route"}), "Unavailable Some(7s)"),
        (404, json!({"data": {"data": null, "metadata": {"version": 3}}}), "Unavailable Some(7s)"),
        (200, json!({"data": {"data": null, "metadata": {"version": 3}}}), "Malformed"),
        (412, json!({}), "Unavailable Some(7s)"),
        (429, json!({}), "Unavailable Some(7s)"),
        (472, json!({}), "Unavailable Some(7s)"),
        (473, json!({}), "Unavailable Some(7s)"),
        (500, json!({}), "Unavailable Some(7s)"),
        (503, json!({"errors": ["Vault is sealed"]}), "Unavailable Some(7s)"),
        (418, json!({}), "Malformed"),
    ] {
        assert_eq!(told(&reply::read(&reply(status, &body), None)), expected, "{status} {body}");
    }
}

#[test]
fn a_login_gives_a_token_or_says_why_not() {
    let token = |status, body: Value| match reply::token(&reply(status, &body)) {
        Ok(token) => token.to_str().unwrap().to_owned(),
        Err(outcome) => outcome.as_str().to_owned(),
    };
    assert_eq!(token(200, json!({"auth": {"client_token": "hvs.x"}})), "hvs.x");
    assert_eq!(token(200, json!({"auth": {"client_token": ""}})), "Malformed");
    assert_eq!(token(200, json!({"auth": {"client_token": "a\nb"}})), "Malformed");
    assert_eq!(token(200, json!({"auth": null})), "Malformed");
    assert_eq!(token(400, json!({"errors": ["invalid role or secret ID"]})), "Denied");
    assert_eq!(token(403, json!({})), "Denied");
    assert_eq!(token(503, json!({})), "Unavailable");
    assert_eq!(token(404, json!({"errors": []})), "Unavailable");
    assert_eq!(token(404, json!({"errors": ["no handler for route"]})), "Denied");
    assert_eq!(token(404, json!("of a proxy")), "Unavailable");
}

#[test]
fn a_lease_is_made_longer_or_is_over() {
    let longer = json!({"lease_id": "a/1", "lease_duration": 60, "renewable": false});
    let renewed = reply::renewed(&reply(200, longer)).ok().unwrap();
    assert_eq!(
        (renewed.id.as_str(), renewed.lasts, renewed.renewable),
        ("a/1", Duration::from_mins(1), false)
    );
    let outcome = |status| reply::renewed(&reply(status, json!({}))).err().unwrap().as_str();
    assert_eq!([200, 400, 403, 500].map(outcome), ["Malformed", "Malformed", "Denied", "Unavailable"]);
    let said = |text| reply::renewed(&reply(400, json!({ "errors": [text] }))).err().unwrap().as_str();
    assert_eq!(said("failed to renew: lease not found"), "NotFound");
    assert_eq!(said("lease expired"), "NotFound");
    assert_eq!(said("lease is not renewable"), "Malformed");
    let over = |status| reply::done(&reply(status, "")).err().map(|outcome| outcome.as_str());
    assert_eq!([200, 202, 204].map(over), [None; 3]);
    assert_eq!(
        [400, 403, 404, 503].map(over),
        [Some("Malformed"), Some("Denied"), Some("Unavailable"), Some("Unavailable")]
    );
}

#[test]
fn numbers_keep_their_digits() {
    let numbers = r#"{"a":1.10,"b":12345678901234567890123,"c":1e400}"#;
    for body in [
        format!(r#"{{"data":{numbers}}}"#),
        format!(r#"{{"data":{{"data":{numbers},"metadata":{{"version":1}}}}}}"#),
    ] {
        let Outcome::Found(read) = reply::read(&reply(200, body), None) else { panic!("it is there") };
        assert_eq!(read.content.expose(), numbers.as_bytes());
    }
}

#[test]
fn a_version_that_was_asked_for_is_the_one_that_came() {
    let of = |body: Value, asked| reply::read(&reply(200, body), asked).as_str();
    let third = json!({"data": {"data": {"a": "1"}, "metadata": {"version": 3}}});
    assert_eq!(of(third.clone(), Some(3)), "Found");
    assert_eq!(of(third, Some(2)), "Malformed");
    assert_eq!(of(json!({"data": {"a": "1"}}), Some(2)), "Malformed", "the first version of KV has none");
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome(status in 100..600_u16, body: Vec<u8>) {
        let reply = Reply { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: Plain::from(body) };
        if let Outcome::Found(read) = reply::read(&reply, None) {
            prop_assert!(status == 200 && serde_json::from_slice::<Value>(read.content.expose()).is_ok());
        }
        prop_assert!(reply::token(&reply).is_err() || status == 200);
    }
}

/// A Vault whose tokens expire when a test says so, as far as logging in goes. A real one is asked in `tests/vault`.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    logins: u32,
    good: Option<String>,
    asked: Vec<String>,
    denies_logins: bool,
    revoked: Vec<String>,
}

impl Fake {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let fake = self.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut seen = Vec::new();
                let (head, body) = loop {
                    stream.read_buf(&mut seen).await.unwrap();
                    let text = String::from_utf8_lossy(&seen).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let (status, answer) = fake.answer(&head, &body);
                let answer = answer.to_string();
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}", answer.len());
                stream.write_all(format!("{head}\r\n\r\n{answer}").as_bytes()).await.unwrap();
            }
        });
        address
    }

    fn answer(&self, head: &str, body: &str) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let lines: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        assert_eq!(lines.get("x-vault-request"), Some(&"true"));
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        state.asked.push(format!("{line} {:?} {body}", lines.get("x-vault-namespace")));
        if line.ends_with("/login") {
            state.logins += 1;
            if state.denies_logins {
                return (400, json!({"errors": ["invalid role"]}));
            }
            let token = format!("token-{}", state.logins);
            state.good.get_or_insert_with(|| token.clone());
            return (200, json!({"auth": {"client_token": token}}));
        }
        let token = lines.get("x-vault-token").copied();
        if line.ends_with("/revoke-self") {
            state.revoked.extend(token.map(str::to_owned));
            return (204, json!(null));
        }
        if line.ends_with("/whoami") {
            return (200, json!({"data": {"id": token}}));
        }
        if token == state.good.as_deref() {
            (200, json!({"data": {"a": "1"}}))
        } else {
            (403, json!({"errors": ["permission denied"]}))
        }
    }
}

fn given(text: &'static str) -> Credential {
    Arc::new(move || Box::pin(async move { Some(Plain::from(text.to_owned())) }))
}

fn vault(address: &str, login: Login) -> Vault {
    let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    let transport = Transport::new(policy, RootCertStore::empty(), system_lookup()).unwrap();
    Vault::new(transport, &address.parse().unwrap(), Some("team/a"), login).unwrap()
}

#[tokio::test]
async fn it_logs_in_once_and_again_when_the_token_is_over() {
    let fake = Fake::default();
    let login = Login::Kubernetes { mount: "k8s/prod".into(), role: "app".into(), jwt: given("jwt\n") };
    let vault = vault(&fake.serve().await, login);
    let asks = ["kv/a", "kv/b"].map(|path| Ask { path: path.to_owned(), version: None });
    let words =
        |answers: Vec<Answer>| answers.iter().map(|answer| answer.outcome.as_str()).collect::<Vec<_>>();
    assert_eq!(words(vault.fetch(&asks).await), ["Found", "Found"]);
    assert_eq!(
        std::mem::take(&mut fake.0.lock().unwrap().asked),
        [
            r#"POST /v1/auth/k8s/prod/login Some("team/a") {"jwt":"jwt","role":"app"}"#,
            r#"GET /v1/kv/a Some("team/a") "#,
            r#"GET /v1/kv/b Some("team/a") "#,
        ]
    );
    let age = async |seconds| vault.session.lock().await.age(Duration::from_secs(seconds));
    age(60).await;
    fake.0.lock().unwrap().good = None; // it expired: the next login gives the good one
    assert_eq!(words(vault.fetch(&asks).await), ["Found", "Found"]);
    assert_eq!(fake.0.lock().unwrap().logins, 2);
    assert_eq!(fake.0.lock().unwrap().revoked, ["token-1"], "what was replaced");
    // Now a role that may not. The token has only just come, so it is no reason to log in.
    fake.0.lock().unwrap().good = Some("of somebody else".to_owned());
    assert_eq!(words(vault.fetch(&asks).await), ["Denied", "Denied"]);
    assert_eq!(fake.0.lock().unwrap().logins, 2);
    age(60).await;
    assert_eq!(words(vault.fetch(&asks).await), ["Denied", "Denied"]);
    assert_eq!(fake.0.lock().unwrap().logins, 3, "one for both");
    // And one that may not log in.
    age(60).await;
    fake.0.lock().unwrap().denies_logins = true;
    for _ in 0..3 {
        let answers = vault.fetch(&asks).await;
        let again = answers.iter().all(|answer| answer.again.is_some_and(|again| again <= session::DENIED.0));
        assert!(again, "when a login is tried again");
        assert_eq!(words(answers), ["Denied", "Denied"]);
    }
    assert_eq!(fake.0.lock().unwrap().logins, 4);
}

#[tokio::test]
async fn a_store_that_is_closed_gives_its_own_token_back_and_logs_in_no_more() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let jwt = || Login::Kubernetes { mount: "kubernetes".into(), role: "app".into(), jwt: given("jwt") };
    let ask = [Ask { path: "kv/a".to_owned(), version: None }];
    let closed = vault(&address, jwt());
    assert!(closed.close().await.is_ok(), "nothing to give back");
    assert!(fake.0.lock().unwrap().asked.is_empty());
    let ours = vault(&address, jwt());
    assert_eq!(ours.fetch(&ask).await[0].outcome.as_str(), "Found");
    assert!(ours.close().await.is_ok() && ours.close().await.is_ok());
    assert_eq!(fake.0.lock().unwrap().revoked, ["token-1"]);
    let answer = ours.fetch(&ask).await.remove(0);
    assert_eq!((answer.outcome.as_str(), answer.by), ("Unavailable", By::Here));
    assert_eq!(fake.0.lock().unwrap().logins, 1);
    let theirs = vault(&address, Login::Token(given("token-1")));
    assert_eq!(theirs.fetch(&ask).await[0].outcome.as_str(), "Found");
    assert!(theirs.close().await.is_ok());
    assert_eq!(fake.0.lock().unwrap().revoked.len(), 1, "somebody else looks after it");
}

#[tokio::test]
async fn the_token_is_never_an_answer() {
    let fake = Fake::default();
    let token = "token-of-the-store-itself";
    let vault = vault(&fake.serve().await, Login::Token(given(token)));
    fake.0.lock().unwrap().good = Some(token.to_owned());
    for (path, outcome, by) in [
        ("auth/token/lookup-self", "Denied", By::Here),
        ("team/auth/token/lookup-self", "Denied", By::Store),
        ("data/auth/token/whoami", "Malformed", By::Store),
        ("plugin/whoami", "Malformed", By::Store),
        ("plugin/else", "Found", By::Store),
    ] {
        let answers = vault.fetch(&[Ask { path: path.to_owned(), version: None }]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (outcome, by), "{path}");
    }
    assert_eq!(fake.0.lock().unwrap().asked.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_fetch_has_one_deadline() {
    let never: Credential = Arc::new(|| Box::pin(std::future::pending()));
    let stuck = vault("http://127.0.0.1:1", Login::Token(never));
    let asks: Vec<Ask> = (0..5).map(|path| Ask { path: format!("kv/{path}"), version: None }).collect();
    let start = Instant::now();
    let answers = stuck.fetch(&asks).await;
    assert_eq!(start.elapsed(), ANSWER);
    assert_eq!(answers.len(), 5);
    assert!(answers.iter().all(|answer| answer.outcome.as_str() == "Unavailable"));
    assert_eq!(answers[0].by, By::Here, "a credential says nothing of the store");
}

#[tokio::test]
async fn what_cannot_be_asked_is_not() {
    let fake = Fake::default();
    let gone: Credential = Arc::new(|| Box::pin(async { None }));
    let address = fake.serve().await;
    let vault_of = |credential| vault(&address, Login::Token(credential));
    let ask =
        |path: &str, version: Option<&str>| Ask { path: path.into(), version: version.map(str::to_owned) };
    let outcome = async |vault: &Vault, ask: Ask| vault.fetch(&[ask]).await[0].outcome.as_str();
    assert_eq!(outcome(&vault_of(gone), ask("kv/a", None)).await, "Unavailable");
    assert_eq!(outcome(&vault_of(given("a\nb")), ask("kv/a", None)).await, "Malformed");
    assert_eq!(outcome(&vault_of(given("t")), ask("../kv", None)).await, "Malformed");
    let encoded = format!("kv/%{}", "25".repeat(1 << 20));
    assert_eq!(outcome(&vault_of(given("t")), ask(&encoded, None)).await, "Malformed", "at once");
    assert_eq!(outcome(&vault_of(given("t")), ask("kv//a", None)).await, "Malformed");
    assert_eq!(outcome(&vault_of(given("t")), ask("kv/a", Some("0"))).await, "Malformed");
    assert_eq!(outcome(&vault_of(given("t")), ask("kv/a", Some("1&list=true"))).await, "Malformed");
    assert!(fake.0.lock().unwrap().asked.is_empty());
    assert_eq!(outcome(&vault_of(given("t")), ask("kv/a", Some("2"))).await, "Denied");
    assert!(fake.0.lock().unwrap().asked[0].starts_with("GET /v1/kv/a?version=2 "));
}

#[test]
fn an_address_is_one_and_a_namespace_a_name() {
    let policy = Arc::new(Policy::default());
    let transport = Transport::new(policy, RootCertStore::empty(), system_lookup()).unwrap();
    let new = |address: &str, namespace| {
        let address = address.parse().unwrap();
        Vault::new(transport.clone(), &address, namespace, Login::Token(given("t"))).err()
    };
    assert_eq!(new("https://vault.test/", None), None);
    assert_eq!(new("https://vault.test/?x", None), Some(VaultError::Address));
    assert_eq!(new("https://vault.test/v1", None), Some(VaultError::Address));
    assert_eq!(new("/v1", None), Some(VaultError::Address));
    for namespace in ["a\r\nx: y", "auth", "team/sys/x"] {
        assert_eq!(new("https://vault.test", Some(namespace)), Some(VaultError::Namespace), "{namespace:?}");
    }
    assert_eq!(new("https://vault.test", Some("team/data")), None);
}
