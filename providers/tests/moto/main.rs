//! AWS Secrets Manager as moto has it: a server that others wrote to AWS's API, with IAM that checks signatures.
//!
//! `SEALEDENV_MOTO` is the address of one, e.g. `http://127.0.0.1:5000`: `pip install 'moto[server]'`, `moto_server -p 5000`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests they are the report of a failure")]

mod server;

use sealedenv_providers::aws::{Aws, Endpoints, Login};
use sealedenv_providers::pick::{Pointer, pick};
use sealedenv_providers::provider::Provider;
use sealedenv_providers::{Ask, Outcome};
use serde_json::json;
use server::{Moto, given, transport};

const OTHER_ID: &str = "00000000-0000-0000-0000-000000000000";

fn ask(path: &str, version: Option<&str>) -> Ask {
    Ask { path: path.to_owned(), version: version.map(str::to_owned) }
}

fn keys(id: &str, secret: &str) -> Login {
    Login::Keys { id: given(id), secret: given(secret), session: None }
}

fn aws(moto: &Moto, login: Login) -> Aws {
    let address = moto.address.parse::<http::Uri>().unwrap();
    let endpoints = Endpoints { secrets: Some(address.clone()), sts: Some(address) };
    Aws::new(transport(), "us-west-2", &endpoints, login).unwrap()
}

/// What came, in words: the value, or the outcome.
async fn told(aws: &Aws, asks: &[Ask]) -> Vec<String> {
    let answers = aws.fetch(asks).await;
    let told = |outcome: &Outcome| match outcome {
        Outcome::Found(read) => String::from_utf8_lossy(read.content.expose()).into_owned(),
        other => other.as_str().to_owned(),
    };
    answers.iter().map(|answer| told(&answer.outcome)).collect()
}

#[tokio::test]
async fn secrets_come_as_text_or_bytes_in_the_version_that_is_asked_for() {
    let moto = Moto::new().await;
    let first = moto.secret("CreateSecret", json!({"Name": "db", "SecretString": "first"})).await;
    let second = moto
        .secret("PutSecretValue", json!({"SecretId": "db", "SecretString": r#"{"password":"second"}"#}))
        .await;
    moto.secret("CreateSecret", json!({"Name": "key", "SecretBinary": "AP8A"})).await;
    moto.secret("CreateSecret", json!({"Name": "old", "SecretString": "x"})).await;
    moto.secret("DeleteSecret", json!({"SecretId": "old"})).await;
    let (arn, first, second) = (&second["ARN"], &first["VersionId"], &second["VersionId"]);
    let [arn, first, second] = [arn, first, second].map(|text| text.as_str().unwrap());
    let store = aws(&moto, keys("AKIDEXAMPLE", "secret"));

    let asks = [
        ask("db", None),
        ask(arn, None),
        ask("old", None),
        ask("absent", None),
        ask("db", Some(first)),
        ask("db", Some(second)),
        ask("db", Some("AWSPREVIOUS")),
        ask("db", Some("AWSCURRENT")),
        ask("db", Some("blue")),
        ask("db", Some(OTHER_ID)),
    ];
    let json = r#"{"password":"second"}"#;
    let expected = [json, json, "NotFound", "NotFound", "first", json, "first", json, "NotFound", "NotFound"];
    assert_eq!(told(&store, &asks).await, expected);

    let answers = store.fetch(&[ask("key", None)]).await;
    let Outcome::Found(bytes) = &answers[0].outcome else { panic!("it is there") };
    assert_eq!(bytes.content.expose(), [0, 255, 0]);
    let answers = store.fetch(&[ask("db", None)]).await;
    let Outcome::Found(db) = &answers[0].outcome else { panic!("it is there") };
    assert_eq!(db.version.as_deref(), Some(second));
    let password = pick(&db.content, Some(&Pointer::parse("/password").unwrap())).unwrap();
    assert_eq!(password.expose(), b"second");
}

#[tokio::test]
async fn signatures_hold_and_who_may_not_is_denied() {
    let moto = Moto::new().await;
    moto.secret("CreateSecret", json!({"Name": "db", "SecretString": "hunter2"})).await;
    let get = ["secretsmanager:GetSecretValue", "secretsmanager:BatchGetSecretValue"];
    let (all, one) = (moto.user("all", &get).await, moto.user("one", &get[..1]).await);
    let none = moto.user("none", &[]).await;
    let asks = [ask("db", None), ask("absent", None), ask("db", Some("AWSCURRENT"))];
    moto.check_signatures().await;

    let store = aws(&moto, keys(&all.0, &all.1));
    assert_eq!(told(&store, &asks).await, ["hunter2", "NotFound", "hunter2"]);
    assert_eq!(store.batch(), 20);
    let store = aws(&moto, keys(&one.0, &one.1));
    assert_eq!(told(&store, &asks).await, ["hunter2", "NotFound", "hunter2"]);
    assert_eq!(store.batch(), 1, "it may not ask for many");
    for login in [keys(&none.0, &none.1), keys(&all.0, "wrong"), keys("AKIAWRONG", &all.1)] {
        assert_eq!(told(&aws(&moto, login), &asks).await, ["Denied"; 3]);
    }
}

#[tokio::test]
async fn a_role_is_assumed_and_its_keys_are_good() {
    let moto = Moto::new().await;
    moto.secret("CreateSecret", json!({"Name": "db", "SecretString": "hunter2"})).await;
    let role = moto.role("checkout", &["secretsmanager:GetSecretValue"]).await;
    let login = Login::WebIdentity { role, name: "sealedenv".to_owned(), token: given("a.b.c") };
    let store = aws(&moto, login);
    assert_eq!(told(&store, &[ask("db", None)]).await, ["hunter2"]);
    moto.check_signatures().await;
    assert_eq!(told(&store, &[ask("db", None)]).await, ["hunter2"]);
    assert_eq!(told(&store, &[ask("db", Some("AWSCURRENT"))]).await, ["hunter2"]);
}
