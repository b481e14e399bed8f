use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::By;
use crate::credential::Credential;
use crate::scripted::{Asked, Scripted, all_told, ask, given, told, transport};

const ARN: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:MyTestDatabaseSecret-a1b2c3";
const ID: &str = "EXAMPLE1-90ab-cdef-fedc-ba987SECRET1";

/// The sample response of <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>.
fn sample() -> Value {
    json!({
        "ARN": ARN,
        "CreatedDate": 1.523_477_145_713e9,
        "Name": "MyTestDatabaseSecret",
        "SecretString": "{\n  \"username\":\"david\",\n  \"password\":\"EXAMPLE-PASSWORD\"\n}\n",
        "VersionId": ID,
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut sample = sample();
    sample[key] = value;
    sample
}

fn reply(status: u16, body: impl std::fmt::Display) -> Reply {
    let retry_after = Some(std::time::Duration::from_secs(7));
    Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Plain::from(body.to_string()) }
}

fn one(status: u16, body: &Value, version: Option<&str>) -> String {
    told(&reply::one(&reply(status, body), &ask("MyTestDatabaseSecret", version)))
}

fn error(word: &str, message: &str) -> Value {
    json!({"__type": word, "message": message})
}

#[test]
fn a_secret_is_text_or_bytes() {
    let text = sample()["SecretString"].as_str().unwrap().to_owned();
    assert_eq!(one(200, &sample(), None), format!("{text} {ID}"));
    let mut bytes = with("SecretBinary", json!("aHVudGVyMg=="));
    assert_eq!(one(200, &bytes, None), "Malformed", "both");
    bytes.as_object_mut().unwrap().remove("SecretString");
    assert_eq!(one(200, &bytes, None), format!("hunter2 {ID}"));
    bytes["SecretBinary"] = json!("no base64");
    assert_eq!(one(200, &bytes, None), "Malformed");
}

#[test]
fn each_answer_is_one_of_five_outcomes() {
    let deleted = "You can't perform this operation on the secret because it was marked for deletion.";
    for (status, body, expected) in [
        (200, with("SecretString", json!("")), "Malformed"),
        (200, with("SecretString", json!(null)), "Malformed"),
        (200, with("SecretString", json!({})), "Malformed"),
        (200, with("Name", json!("Another")), "Malformed"),
        (200, with("VersionStages", json!(["AWSPREVIOUS"])), "Malformed"),
        (200, json!([]), "Malformed"),
        (204, sample(), "Malformed"),
        (400, error("ResourceNotFoundException", "Secrets Manager can't find it."), "NotFound"),
        (404, error("ResourceNotFoundException", ""), "NotFound"),
        (400, error("InvalidRequestException", deleted), "NotFound"),
        (
            400,
            error("InvalidRequestException", "You provided a VersionStage that is not associated"),
            "Malformed",
        ),
        (400, error("InvalidParameterException", ""), "Malformed"),
        (400, error("ValidationException", ""), "Malformed"),
        (400, error("AccessDeniedException", "User: x is not authorized"), "Denied"),
        (400, error("DecryptionFailure", ""), "Denied"),
        (400, error("UnrecognizedClientException", ""), "Denied"),
        (400, error("ExpiredTokenException", ""), "Denied"),
        (400, error("InvalidSignatureException", "Signature expired"), "Denied"),
        (403, error("InvalidClientTokenId", ""), "Denied"),
        (403, error("OptInRequired", ""), "Denied"),
        (400, error("ThrottlingException", "Rate exceeded"), "Unavailable 7"),
        (400, error("InternalServiceError", ""), "Unavailable 7"),
        (500, error("InternalServiceError", ""), "Unavailable 7"),
        (503, error("ServiceUnavailable", ""), "Unavailable 7"),
        (500, error("ResourceNotFoundException", ""), "Unavailable 7"),
        (429, json!({}), "Unavailable 7"),
        (502, json!("bad gateway"), "Unavailable 7"),
        (404, json!("no route"), "Unavailable 7"),
        (403, json!("of a proxy"), "Denied"),
        (400, error("SomethingNewException", ""), "Malformed"),
        (400, json!({"message": "no"}), "Malformed"),
        (400, error("com.amazonaws.secretsmanager#ResourceNotFoundException", ""), "NotFound"),
        (400, error("ResourceNotFoundException:http://internal.amazon.com/coral/", ""), "NotFound"),
        (400, json!({"__type": "InvalidRequestException", "Message": deleted}), "NotFound"),
    ] {
        assert_eq!(one(status, &body, None), expected, "{status} {body}");
    }
}

#[test]
fn keys_that_are_over_are_told_from_a_refusal() {
    let is_about_keys = |status, word| reply::is_about_keys(&reply(status, error(word, "")));
    for word in
        ["ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"]
    {
        assert!(is_about_keys(400, word) && !is_about_keys(200, word), "{word}");
    }
    assert!(!is_about_keys(400, "AccessDeniedException") && !is_about_keys(403, "SignatureDoesNotMatch"));
}

#[test]
fn a_version_is_the_one_that_was_asked_for() {
    let labelled = with("VersionStages", json!(["AWSCURRENT", "blue"]));
    let other = "0b1c2d3e-90ab-cdef-fedc-ba987SECRET1";
    for (version, expected) in [
        (None, true),
        (Some(ID), true),
        (Some("AWSCURRENT"), true),
        (Some("blue"), true),
        (Some("AWSPREVIOUS"), false),
        (Some(other), false),
    ] {
        assert_eq!(one(200, &labelled, version) != "Malformed", expected, "{version:?}");
    }
    assert_eq!(one(200, &sample(), Some("AWSCURRENT")), "Malformed", "it does not say so");
    assert!(reply::is_version_id(ID) && !reply::is_version_id("AWSPREVIOUS"));
    assert!(!reply::is_version_id(&ID.replace('-', "_")));
}

#[test]
fn a_secret_goes_by_its_name_or_its_arn() {
    let of = |path: &str| reply::one(&reply(200, sample()), &ask(path, None)).as_str();
    for path in ["MyTestDatabaseSecret", ARN, ARN.trim_end_matches("-a1b2c3")] {
        assert_eq!(of(path), "Found", "{path}");
    }
    for path in
        ["MyTestDatabase", "mytestdatabasesecret", ARN.trim_end_matches("b2c3"), "arn:aws:secretsmanager"]
    {
        assert_eq!(of(path), "Malformed", "{path}");
    }
    let longer = with("ARN", json!("arn:aws:secretsmanager:us-west-2:123456789012:secret:db-replica-a1b2c3"));
    let path = "arn:aws:secretsmanager:us-west-2:123456789012:secret:db";
    assert_eq!(reply::one(&reply(200, longer), &ask(path, None)).as_str(), "Malformed");
}

#[test]
fn a_call_for_many_says_something_of_each() {
    let body = json!({
        "SecretValues": [sample()],
        "Errors": [
            {"SecretId": "gone", "ErrorCode": "ResourceNotFoundException", "Message": "x"},
            {"SecretId": "deleted", "ErrorCode": "InvalidRequestException", "Message": "it was marked for deletion"},
            {"SecretId": "forbidden", "ErrorCode": "AccessDeniedException"},
            {"SecretId": "busy", "ErrorCode": "ThrottlingException"},
            {"SecretId": "new", "ErrorCode": "SomethingNewException"},
        ],
    });
    let mut batch = reply::batch(&reply(200, body)).ok().unwrap();
    let mut take = |path| batch.take(path).map(|outcome| outcome.as_str());
    assert_eq!(take("MyTestDatabaseSecret"), Some("Found"));
    assert_eq!(take("gone"), Some("NotFound"));
    assert_eq!(take("deleted"), Some("NotFound"));
    assert_eq!(take("forbidden"), Some("Denied"));
    assert_eq!(take("busy"), Some("Unavailable"));
    assert_eq!(take("new"), None, "it is asked for by itself");
    assert_eq!(take("other"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome(status in 100..600_u16, body: Vec<u8>, word in "[A-Za-z#:]{0,12}") {
        let reply = Reply { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: Plain::from(body) };
        prop_assert!(!matches!(reply::one(&reply, &ask("a", None)), Outcome::Found(_)));
        prop_assert!(reply::batch(&reply).is_err());
        prop_assert!(!one(status, &error(&word, ""), None).starts_with("NotFound"));
    }

    #[test]
    fn any_text_comes_as_it_is(text in "\\PC{1,40}") {
        prop_assert_eq!(one(200, &with("SecretString", json!(text)), None), format!("{text} {ID}"));
    }
}

fn keys() -> Login {
    Login::Keys { id: given("AKIDEXAMPLE"), secret: given("secret\n"), session: None }
}

fn store(server: &Scripted, login: Login) -> Aws {
    let address = server.address.parse::<Uri>().unwrap();
    let endpoints = Endpoints { secrets: Some(address.clone()), sts: Some(address) };
    Aws::new(transport(), "us-west-2", &endpoints, login).unwrap()
}

fn what(asked: &Asked) -> String {
    let target = asked.headers.get("x-amz-target").map(|target| target.trim_start_matches("secretsmanager."));
    format!("{} {}", target.unwrap_or("-"), asked.body)
}

/// Has one secret, in as many calls as it is asked for it.
fn answer(asked: &Asked) -> (u16, String) {
    let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let missing = |id: &Value| json!({"SecretId": id, "ErrorCode": "ResourceNotFoundException"});
    match asked.headers.get("x-amz-target").map(String::as_str) {
        Some("secretsmanager.BatchGetSecretValue") => {
            let ids = body["SecretIdList"].as_array().unwrap();
            let (found, gone): (Vec<&Value>, Vec<&Value>) =
                ids.iter().partition(|id| **id == "MyTestDatabaseSecret");
            let values: Vec<Value> = found.iter().map(|_| sample()).collect();
            let errors: Vec<Value> = gone.into_iter().map(missing).collect();
            (200, json!({"SecretValues": values, "Errors": errors}).to_string())
        }
        Some("secretsmanager.GetSecretValue") if body["SecretId"] == "MyTestDatabaseSecret" => {
            (200, with("VersionStages", json!(["AWSCURRENT", "AWSPREVIOUS"])).to_string())
        }
        _ => (400, error("ResourceNotFoundException", "").to_string()),
    }
}

#[tokio::test]
async fn a_question_is_signed_and_says_what_it_asks_for() {
    let server = Scripted::new(answer).await;
    let answers = store(&server, keys()).fetch(&[ask("MyTestDatabaseSecret", None)]).await;
    assert_eq!(answers[0].outcome.as_str(), "Found");
    let asked = server.asked();
    let [asked] = asked.as_slice() else { panic!("one call") };
    assert_eq!(asked.line, "POST /");
    assert_eq!(what(asked), r#"GetSecretValue {"SecretId":"MyTestDatabaseSecret"}"#);
    assert_eq!(asked.headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(asked.headers["host"], server.address.trim_start_matches("http://"));
    assert!(!asked.headers.contains_key("x-amz-security-token"));
    let day = &asked.headers["x-amz-date"][..8];
    let begin = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/us-west-2/secretsmanager/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="
    );
    assert!(asked.headers["authorization"].starts_with(&begin), "{}", asked.headers["authorization"]);
}

#[tokio::test]
async fn many_newest_versions_are_one_call_and_others_one_each() {
    let server = Scripted::new(answer).await;
    let store = store(&server, keys());
    let mut asks: Vec<Ask> = (0..25).map(|at| ask(&format!("s{at}"), None)).collect();
    asks[3] = ask("MyTestDatabaseSecret", None);
    asks[4] = ask("MyTestDatabaseSecret", Some("AWSPREVIOUS"));
    asks[5] = ask("MyTestDatabaseSecret", Some(ID));
    asks[6] = ask("", None);
    asks[7] = ask(&"a".repeat(MAX_NAME + 1), None);
    let answers = store.fetch(&asks).await;
    let found: Vec<usize> = (0..25).filter(|at| answers[*at].outcome.as_str() == "Found").collect();
    assert_eq!(found, [3, 4, 5]);
    for at in [6, 7] {
        assert_eq!((answers[at].outcome.as_str(), answers[at].by), ("Malformed", By::Here));
    }
    assert_eq!(answers.iter().filter(|answer| answer.outcome.as_str() == "NotFound").count(), 20);
    let asked: Vec<String> = server.asked().iter().map(what).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[0].starts_with("BatchGetSecretValue "));
    assert_eq!(
        asked[1],
        r#"GetSecretValue {"SecretId":"MyTestDatabaseSecret","VersionStage":"AWSPREVIOUS"}"#
    );
    assert_eq!(
        asked[2],
        format!(r#"GetSecretValue {{"SecretId":"MyTestDatabaseSecret","VersionId":"{ID}"}}"#)
    );
    assert_eq!(asked[3], r#"GetSecretValue {"SecretId":"s24"}"#, "one that is left alone");
}

#[tokio::test]
async fn who_may_not_ask_for_many_asks_one_by_one() {
    let server = Scripted::new(|asked| match what(asked) {
        what if what.starts_with("Batch") => (400, error("AccessDeniedException", "").to_string()),
        _ => answer(asked),
    })
    .await;
    let store = store(&server, keys());
    let asks = [ask("MyTestDatabaseSecret", None), ask("s1", None)];
    assert_eq!(store.batch(), BATCH);
    for calls in [3, 2] {
        let answers = store.fetch(&asks).await;
        assert_eq!([0, 1].map(|at| answers[at].outcome.as_str()), ["Found", "NotFound"]);
        assert_eq!(server.asked().len(), calls);
    }
    assert_eq!(store.batch(), 1);
    *store.one_by_one.lock().unwrap() = Some(Instant::now());
    assert_eq!(store.batch(), BATCH, "it is tried again after a while");
}

#[tokio::test]
async fn what_fails_for_many_is_asked_again_only_where_that_helps() {
    let large = "x".repeat(crate::pick::MAX_ANSWER + 1);
    for (status, body, calls, expected) in [
        (400, error("ThrottlingException", "").to_string(), 1, ["Unavailable 7", "Unavailable 7"]),
        (503, String::new(), 1, ["Unavailable 7", "Unavailable 7"]),
        (400, error("UnrecognizedClientException", "").to_string(), 1, ["Denied", "Denied"]),
        (400, error("InvalidSignatureException", "").to_string(), 1, ["Denied", "Denied"]),
        (400, error("UnknownOperationException", "").to_string(), 3, ["NotFound", "NotFound"]),
        (200, "{".to_owned(), 3, ["NotFound", "NotFound"]),
        (200, "{}".to_owned(), 3, ["NotFound", "NotFound"]),
        (200, large, 3, ["NotFound", "NotFound"]),
    ] {
        let kept = body.clone();
        let server = Scripted::new(move |asked| match what(asked) {
            what if what.starts_with("Batch") => (status, body.clone()),
            _ => answer(asked),
        })
        .await;
        let store = store(&server, keys());
        let kept = &kept[..kept.len().min(60)];
        assert_eq!(all_told(&store.fetch(&[ask("s0", None), ask("s1", None)]).await), expected, "{kept}");
        assert_eq!(server.asked().len(), calls, "{kept}");
        assert_eq!(store.batch(), BATCH, "{kept}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_had_ask_for_nothing() {
    let server = Scripted::new(answer).await;
    let gone: Credential = Arc::new(|| Box::pin(async { None }));
    let of = |id, secret| Login::Keys { id, secret, session: None };
    for (login, expected) in [
        (of(gone.clone(), given("secret")), "Unavailable"),
        (of(given("AKID"), gone), "Unavailable"),
        (of(given(""), given("secret")), "Malformed"),
        (of(given("AKID"), given(" ")), "Malformed"),
        (of(given("a\nb"), given("secret")), "Malformed"),
    ] {
        let answers = store(&server, login).fetch(&[ask("s0", None)]).await;
        assert_eq!((answers[0].outcome.as_str(), answers[0].by), (expected, By::Here));
    }
    assert!(server.asked().is_empty());
}

fn role() -> Login {
    Login::WebIdentity {
        role: "arn:aws:iam::123456789012:role/checkout".to_owned(),
        name: "sealedenv".to_owned(),
        token: given("token-of-a-service-account"),
    }
}

/// The sample of STS, with an end that is still to come.
fn assumed() -> String {
    let end = Timestamp::now() + std::time::Duration::from_hours(1);
    include_str!("assumed.xml").replace("2014-10-24T23:00:23Z", &end.to_string())
}

#[tokio::test]
async fn a_role_is_assumed_once_and_its_token_is_sent() {
    let server = Scripted::new(|asked| match asked.headers.get("x-amz-target") {
        Some(_) => answer(asked),
        None => (200, assumed()),
    })
    .await;
    let store = store(&server, role());
    for _ in 0..2 {
        let answers = store.fetch(&[ask("MyTestDatabaseSecret", None)]).await;
        assert_eq!(answers[0].outcome.as_str(), "Found");
        store.session.age(std::time::Duration::from_mins(1)).await;
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].headers["content-type"], "application/x-www-form-urlencoded");
    assert!(!asked[0].headers.contains_key("authorization"));
    assert!(
        asked[0].body.ends_with("&RoleSessionName=sealedenv&WebIdentityToken=token-of-a-service-account")
    );
    let token = "AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE";
    assert_eq!(asked[1].headers["x-amz-security-token"], token);
    assert!(asked[2].headers["authorization"].contains("Credential=ASgeIAIOSFODNN7EXAMPLE/"));
}

#[tokio::test]
async fn keys_of_a_role_that_are_over_are_replaced_once() {
    let expired = || (400, error("ExpiredTokenException", "").to_string());
    let server = Scripted::new(move |asked| match asked.headers.get("x-amz-target") {
        Some(_) => expired(),
        None => (200, assumed()),
    })
    .await;
    let store = store(&server, role());
    let asks = [ask("s0", None)];
    assert_eq!(all_told(&store.fetch(&asks).await), ["Denied"]);
    assert_eq!(server.asked().len(), 2, "they have only just come");
    store.session.age(std::time::Duration::from_mins(1)).await;
    assert_eq!(all_told(&store.fetch(&asks).await), ["Denied"]);
    assert_eq!(server.asked().len(), 3, "once with the old, a role, once with the new");
}

#[tokio::test]
async fn a_role_that_is_denied_makes_a_pause_for_all() {
    let server = Scripted::new(|_| (403, "<Error><Code>AccessDenied</Code></Error>".to_owned())).await;
    let store = store(&server, role());
    for calls in [1, 0] {
        let answers = store.fetch(&[ask("s0", None), ask("s1", None)]).await;
        assert_eq!(all_told(&answers), ["Denied", "Denied"]);
        assert!(answers.iter().all(|answer| answer.again.is_some()));
        assert_eq!(server.asked().len(), calls);
    }
}

#[tokio::test]
async fn a_role_that_gives_no_keys_is_asked_for_once() {
    let server = Scripted::new(|_| (200, String::new())).await;
    let answers = store(&server, role()).fetch(&[ask("s0", None), ask("s1", None)]).await;
    assert_eq!(all_told(&answers), ["Malformed", "Malformed"]);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn the_token_of_a_session_is_never_an_answer() {
    let server = Scripted::new(|asked| {
        (200, with("SecretString", json!(asked.headers["x-amz-security-token"])).to_string())
    })
    .await;
    let session = Some(given("token-of-the-session"));
    let login = Login::Keys { id: given("AKIDEXAMPLE"), secret: given("secret"), session };
    let answers = store(&server, login).fetch(&[ask("MyTestDatabaseSecret", None)]).await;
    assert_eq!(all_told(&answers), ["Malformed"]);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_fetch_has_one_deadline() {
    let never: Credential = Arc::new(|| Box::pin(std::future::pending()));
    let login = Login::Keys { id: never, secret: given("secret"), session: None };
    let server = Scripted::new(answer).await;
    let asks: Vec<Ask> = (0..5).map(|at| ask(&format!("s{at}"), Some("blue"))).collect();
    let start = Instant::now();
    let answers = store(&server, login).fetch(&asks).await;
    assert_eq!((start.elapsed(), all_told(&answers)), (ANSWER, vec!["Unavailable".to_owned(); 5]));
}

#[test]
fn a_region_leads_to_aws_and_nowhere_else() {
    let new = |region: &str, secrets: Option<&str>| {
        let endpoints = Endpoints { secrets: secrets.map(|address| address.parse().unwrap()), sts: None };
        Aws::new(transport(), region, &endpoints, keys()).map(|aws| (aws.secrets, aws.sts))
    };
    let at = |secrets: &str, sts: &str| Ok((secrets.to_owned(), sts.to_owned()));
    assert_eq!(
        new("eu-west-1", None),
        at("https://secretsmanager.eu-west-1.amazonaws.com", "https://sts.eu-west-1.amazonaws.com")
    );
    assert_eq!(
        new("cn-north-1", None),
        at("https://secretsmanager.cn-north-1.amazonaws.com.cn", "https://sts.cn-north-1.amazonaws.com.cn")
    );
    assert_eq!(
        new("eu-west-1", Some("https://vpce-1.test:8443/")),
        at("https://vpce-1.test:8443", "https://sts.eu-west-1.amazonaws.com")
    );
    assert_eq!(new("eu-west-1", Some("https://vpce-1.test/path")), Err(AwsError::Endpoint));
    for region in ["", "evil.test/", "eu.west", "EU-WEST-1", "a@b", &"a".repeat(33)] {
        assert_eq!(new(region, None), Err(AwsError::Region), "{region}");
    }
}
