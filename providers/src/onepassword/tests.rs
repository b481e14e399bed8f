use std::sync::Arc;

use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::By;
use crate::pick::{PickError, pick};
use crate::scripted::{Scripted, all_told, ask, given, told, transport};
use crate::transport::ANSWER;

const VAULT: &str = "ftz4pm2xxwmwrsd7rjqn7grzfz";
const ITEM: &str = "2fcbqwe9ndg175zg2dzwftvkpa";
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6";

/// The objects of <https://developer.1password.com/docs/connect/api-reference> (vault object, item object, without its
/// files), and the errors of the OpenAPI description that it links to.
fn sample(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("samples.json")).unwrap();
    all[name].clone()
}

fn reply(status: u16, body: impl std::fmt::Display) -> Reply {
    let retry_after = Some(std::time::Duration::from_secs(7));
    Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Plain::from(body.to_string()) }
}

fn item(status: u16, body: impl std::fmt::Display) -> Outcome {
    reply::item(&reply(status, body), &ask(&format!("op://Demo/{ITEM}"), None))
}

/// What a key takes out of an item, by its reference.
fn taken(body: &Value, field: &str) -> Result<String, PickError> {
    let Outcome::Found(read) = item(200, body) else { panic!("it is there") };
    let reference = reference(&format!("op://Demo/{ITEM}/{field}"), None).unwrap();
    let value = pick(&read.content, Some(&reference.property))?;
    Ok(String::from_utf8(value.expose().to_vec()).unwrap())
}

#[test]
fn a_field_is_found_by_each_of_its_names() {
    let sample = sample("item");
    let section = "95cdbc3b-7742-47ec-9056-44d6af82d562";
    for (field, expected) in [
        ("username", Ok("wendy")),
        ("PassWord", Ok("mjXehR*uCj!aoe!iktt9KMtWb")),
        ("example", Ok("https://example.com")),
        ("a6cvmeqakbxoflkgmor4haji7y", Ok("https://example.com")),
        ("Security Questions/Recovery Key", Ok("s=^J@GhHP_isYP>LCq?vv8u7T:*wBP.c")),
        ("security questions/boot3vsxwhuht6g7cmcx4m6rcm", Ok("s=^J@GhHP_isYP>LCq?vv8u7T:*wBP.c")),
        (&format!("{section}/recovery key"), Ok("s=^J@GhHP_isYP>LCq?vv8u7T:*wBP.c")),
        ("random text", Ok("R)D~KZdV!8?51QoCibDUse7=n@wKR_}]")),
        ("notesPlain", Err(PickError::Empty)),
        ("security questions/password", Err(PickError::NotThere)),
        ("history", Err(PickError::NotThere)),
        ("title", Err(PickError::NotThere)),
    ] {
        assert_eq!(taken(&sample, field), expected.map(str::to_owned), "{field}");
    }
}

#[test]
fn a_name_of_two_fields_is_no_value_and_not_missing_either() {
    let field = |id: &str, label: &str, section: Option<&str>, value: &str| json!({"id": id, "label": label, "section": section.map(|id| json!({"id": id})), "value": value});
    let of = |fields: &[Value]| json!({"id": ITEM, "sections": [{"id": "s1", "label": "One"}, {"id": "s2"}], "fields": fields});
    let body = of(&[
        field("a", "Key", None, "outside"),
        field("b", "Key", Some("s1"), "first"),
        field("c", "Key", Some("s2"), "second"),
        field("d", "Other", Some("s1"), "third"),
        field("e", "other", Some("s2"), "fourth"),
        field("f", "Twice", None, "fifth"),
        field("g", "twice", None, "sixth"),
        field("h", "with/slash", None, "seventh"),
        field("one/key", "", None, "eighth"),
    ]);
    for (name, expected) in [
        ("key", Ok("outside")),
        ("one/key", Ok("first")),
        ("s2/key", Ok("second")),
        ("b", Ok("first")),
        ("s1/other", Ok("third")),
        ("other", Err(PickError::Empty)),
        ("twice", Err(PickError::Empty)),
        ("f", Ok("fifth")),
        ("h", Ok("seventh")),
        ("with/slash", Err(PickError::NotThere)),
    ] {
        assert_eq!(taken(&body, name), expected.map(str::to_owned), "{name}");
    }
}

#[test]
fn each_answer_is_one_of_five_outcomes() {
    let sample = sample("item");
    let with = |key: &str, value: Value| {
        let mut item = sample.clone();
        item[key] = value;
        item
    };
    for (status, body, expected) in [
        (200, with("state", json!("ARCHIVED")), "NotFound"),
        (200, with("state", json!("DELETED")), "NotFound"),
        (200, with("id", json!(VAULT)), "Malformed"),
        (200, with("fields", json!("text")), "Malformed"),
        (200, json!([]), "Malformed"),
        (200, json!(null), "Malformed"),
        (204, sample.clone(), "Malformed"),
        (400, json!({"status": 400, "message": "Invalid Vault UUID"}), "Malformed"),
        (404, json!({"message": "item not found"}), "Unavailable 7"),
        (404, json!({"status": 400, "message": "item not found"}), "Unavailable 7"),
        (404, json!("no route"), "Unavailable 7"),
        (429, json!({}), "Unavailable 7"),
        (500, json!({}), "Unavailable 7"),
        (503, json!({}), "Unavailable 7"),
        (418, json!({}), "Malformed"),
    ] {
        assert_eq!(told(&item(status, &body)), expected, "{status} {body}");
    }
    let errors = self::sample("errors");
    let outcomes: Vec<String> = (errors.as_array().unwrap().iter())
        .map(|error| told(&item(error["status"].as_u64().unwrap().try_into().unwrap(), error)))
        .collect();
    assert_eq!(outcomes, ["Denied", "Denied", "NotFound", "Denied"]);
}

#[test]
fn a_version_is_the_one_that_was_asked_for() {
    let mut body = sample("item");
    body["version"] = json!(3);
    let of = |version| reply::item(&reply(200, &body), &ask(&format!("op://Demo/{ITEM}"), version));
    let Outcome::Found(read) = of(None) else { panic!("it is there") };
    assert_eq!(read.version.as_deref(), Some("3"));
    assert_eq!((of(Some("3")).as_str(), of(Some("2")).as_str()), ("Found", "Malformed"));
}

#[test]
fn a_title_is_of_one_or_of_none() {
    let named = |list: Value, name: &str| match reply::named(&reply(200, list), name) {
        Ok(found) => found.unwrap_or("none".to_owned()),
        Err(outcome) => outcome.as_str().to_owned(),
    };
    let two = json!([{"id": VAULT, "title": "Demo"}, {"id": ITEM, "title": "demo"}]);
    assert_eq!(named(json!([sample("vault")]), "demo"), "ytrfte14kw1uex5txaore1emkz");
    assert_eq!(named(two.clone(), "demo"), ITEM);
    assert_eq!(named(two.clone(), "DEMO"), "Malformed", "it is not guessed which");
    assert_eq!(named(two, "other"), "none", "whatever the server takes the filter for");
    assert_eq!(named(json!([]), "demo"), "none");
    assert_eq!(named(json!([{"id": "../../heartbeat", "title": "demo"}]), "demo"), "Malformed");
    assert_eq!(named(json!({}), "demo"), "Malformed");
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome(status in 100..600_u16, body: Vec<u8>) {
        let reply = Reply { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: Plain::from(body) };
        prop_assert!(!matches!(reply::item(&reply, &ask("op://a/b", None)), Outcome::Found(_)));
        prop_assert!(!matches!(reply::named(&reply, "a"), Ok(Some(_))));
    }

    #[test]
    fn a_field_is_found_whatever_else_there_is(
        label in "[a-zA-Z0-9 ._-]{1,8}",
        value in "\\PC{1,20}",
        others in prop::collection::vec(("[a-c]{1,2}", "[a-c/]{0,3}", prop::option::of("[a-c]")), 0..6),
    ) {
        let mut fields: Vec<Value> = others.iter()
            .map(|(id, label, section)| json!({"id": id, "label": label, "section": section.as_ref().map(|id| json!({"id": id})), "value": "x"}))
            .collect();
        fields.push(json!({"id": "wanted", "label": label, "section": {"id": "only"}, "value": value}));
        let body = json!({"id": ITEM, "fields": fields});
        prop_assert_eq!(taken(&body, &format!("only/{label}")), Ok(value.clone()));
        prop_assert_eq!(taken(&body, "wanted"), Ok(value));
    }
}

/// A Connect server with one vault and one item, after the published API.
async fn connect() -> Scripted {
    Scripted::new(|asked| {
        assert_eq!(asked.body, "");
        if asked.headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {TOKEN}")) {
            return (401, json!({"status": 401, "message": "Invalid token signature"}).to_string());
        }
        let vault = json!({"id": VAULT, "name": "Demo Vault"});
        let (status, body) = match asked.line.as_str() {
            "GET /v1/vaults?filter=name%20eq%20%22Demo%20Vault%22" => (200, json!([vault])),
            line if line.starts_with("GET /v1/vaults?") => (200, json!([])),
            "GET /v1/vaults/ftz4pm2xxwmwrsd7rjqn7grzfz/items?filter=title%20eq%20%22Secrets%20Automation%20Item%22" => {
                (200, json!([sample("item")]))
            }
            line if line.starts_with("GET /v1/vaults/ftz4pm2xxwmwrsd7rjqn7grzfz/items?") => (200, json!([])),
            "GET /v1/vaults/ftz4pm2xxwmwrsd7rjqn7grzfz/items/2fcbqwe9ndg175zg2dzwftvkpa" => (200, sample("item")),
            line if line.starts_with("GET /v1/vaults/ftz4pm2xxwmwrsd7rjqn7grzfz/items/") => {
                (404, json!({"status": 404, "message": "item not found"}))
            }
            _ => (403, json!({"status": 403, "message": "vault is not in scope"})),
        };
        (status, body.to_string())
    })
    .await
}

fn store(address: &str, token: Credential) -> OnePassword {
    OnePassword::new(transport(), &address.parse().unwrap(), token).unwrap()
}

#[tokio::test]
async fn an_item_is_read_by_titles_or_by_ids() {
    let server = connect().await;
    let store = store(&server.address, given("eyJhbGciOiJFUzI1NiIsImtpZCI6\n"));
    for (path, expected, calls) in [
        ("op://Demo Vault/Secrets Automation Item", "Found", 3),
        ("op://ftz4pm2xxwmwrsd7rjqn7grzfz/Secrets Automation Item", "Found", 2),
        ("op://ftz4pm2xxwmwrsd7rjqn7grzfz/2fcbqwe9ndg175zg2dzwftvkpa", "Found", 1),
        ("op://ftz4pm2xxwmwrsd7rjqn7grzfz/00000000000000000000000000", "NotFound", 1),
        ("op://Demo Vault/Other", "NotFound", 2),
        ("op://Other/Secrets Automation Item", "Denied", 1),
        ("op://00000000000000000000000000/2fcbqwe9ndg175zg2dzwftvkpa", "Denied", 1),
    ] {
        let answers = store.fetch(&[ask(path, None)]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (expected, By::Store), "{path}");
        assert_eq!(server.lines().len(), calls, "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_not() {
    let server = connect().await;
    let gone: Credential = Arc::new(|| Box::pin(async { None }));
    let long = format!("op://a/{}", "b".repeat(1024));
    for (token, path, expected) in [
        (given(TOKEN), long.as_str(), "Malformed"),
        (gone, "op://a/b", "Unavailable"),
        (given(""), "op://a/b", "Malformed"),
        (given("a\nb"), "op://a/b", "Malformed"),
        (given(TOKEN), "op://a/b/c", "Malformed"),
        (given(TOKEN), "op://a\" or name pr/b", "Malformed"),
        (given(TOKEN), "op://a", "Malformed"),
        (given(TOKEN), "a/b", "Malformed"),
    ] {
        let answers = store(&server.address, token).fetch(&[ask(path, None)]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (expected, By::Here), "{path}");
    }
    assert!(server.lines().is_empty());
    let answers = store(&server.address, given("another-token")).fetch(&[ask("op://a/b", None)]).await;
    assert_eq!(all_told(&answers), ["Denied"]);
}

#[tokio::test]
async fn the_token_is_never_an_answer() {
    let server = Scripted::new(|_| {
        let mut item = sample("item");
        item["fields"][0]["value"] = json!(TOKEN);
        (200, item.to_string())
    })
    .await;
    let path = format!("op://{VAULT}/{ITEM}");
    let answers = store(&server.address, given(TOKEN)).fetch(&[ask(&path, None)]).await;
    assert_eq!(all_told(&answers), ["Malformed"]);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_fetch_has_one_deadline() {
    let never: Credential = Arc::new(|| Box::pin(std::future::pending()));
    let start = Instant::now();
    let asks: Vec<Ask> = (0..5).map(|item| ask(&format!("op://a/{item}"), None)).collect();
    let answers = store("http://127.0.0.1:1", never).fetch(&asks).await;
    assert_eq!((start.elapsed(), all_told(&answers)), (ANSWER, vec!["Unavailable".to_owned(); 5]));
}

#[test]
fn an_address_is_one() {
    let new = |address: &str| OnePassword::new(transport(), &address.parse().unwrap(), given(TOKEN)).err();
    assert_eq!(new("https://connect.test:8080/"), None);
    assert_eq!(new("https://connect.test/v1"), Some(OnePasswordError));
}
