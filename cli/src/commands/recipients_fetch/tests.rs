use super::*;
use crate::failure::chain;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

const URL: &str = "https://c";

/// What `current_recipients` makes of one answer of the API server.
async fn answer(status: u16, body: Value) -> Result<Vec<String>, String> {
    let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let served = tokio::spawn(async move {
        let (request, send) = server.next_request().await.expect("a request");
        assert_eq!(request.uri().path(), "/apis/sealedenv.dev/v1alpha1/sealingkeys/cluster");
        let body = if let Value::String(text) = body { text } else { body.to_string() };
        let response = Response::builder().status(StatusCode::from_u16(status).expect("status"));
        send.send_response(response.body(Body::from(body.into_bytes())).expect("response"));
    });
    let got = current_recipients(Client::new(service, "default"), URL).await;
    served.await.expect("server");
    got.map(|recipients| recipients.iter().map(ToString::to_string).collect()).map_err(|error| chain(&error))
}

fn key(recipients: &[&str]) -> Value {
    json!({
        "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealingKey", "metadata": {"name": "cluster"}, "spec": {},
        "status": {"recipients": recipients},
    })
}

fn status(code: u16, reason: &str, message: &str, name: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": message, "details": {"name": name, "group": "sealedenv.dev", "kind": "sealingkeys"},
    })
}

#[tokio::test]
async fn the_current_recipients_are_read_in_order() {
    let a = sealedenv_seal::Identity::generate().recipient().to_string();
    let b = sealedenv_seal::Identity::generate().recipient().to_string();
    assert_eq!(answer(200, key(&[&a, &b])).await, Ok(vec![a, b]));
}

#[tokio::test]
async fn each_refusal_says_what_is_missing() {
    let forbidden = "User \"eve\" cannot get resource \"sealingkeys\"";
    for (code, body, says) in [
        (404, json!("404 page not found\n"), "the cluster at https://c does not know the kind SealingKey"),
        (
            404,
            status(404, "NotFound", "sealingkeys.sealedenv.dev \"cluster\" not found", "cluster"),
            "the cluster at https://c has no SealingKey named cluster",
        ),
        (
            403,
            status(403, "Forbidden", forbidden, "cluster"),
            "the cluster at https://c forbids reading the SealingKey: User \"eve\" cannot get resource \"sealingkeys\"",
        ),
        (
            401,
            status(401, "Unauthorized", "Unauthorized", ""),
            "the cluster at https://c does not accept the credentials of the kubeconfig",
        ),
        (500, json!("hunter2"), "the cluster at https://c gave an answer that is not understood: status 500"),
        (
            200,
            json!("hunter2"),
            "the cluster at https://c gave an answer that is not understood: it is not the SealingKey",
        ),
        (200, key(&[]), "the SealingKey of the cluster at https://c names no recipient"),
        (
            200,
            key(&["hunter2"]),
            "the SealingKey of the cluster at https://c names a recipient that cannot be used: \
             not an age recipient (age1…)",
        ),
        (
            200,
            key(&["age1pq1qqqq"]),
            "the SealingKey of the cluster at https://c names a recipient that cannot be used: \
             recipients of type mlkem768x25519 are not supported",
        ),
    ] {
        assert_eq!(answer(code, body).await, Err(says.to_owned()));
    }
}

fn args(kubeconfig: &std::path::Path, context: Option<&str>) -> Args {
    Args {
        cluster: ClusterArgs { context: context.map(str::to_owned), kubeconfig: Some(kubeconfig.to_owned()) },
        output: OutputArgs { output: Format::Text },
    }
}

async fn with_kubeconfig(text: &str, context: Option<&str>) -> String {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), text).expect("write");
    chain(&fetch(&args(file.path(), context)).await.expect_err("refused"))
}

fn kubeconfig(user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
    })
    .to_string()
}

#[tokio::test]
async fn a_kubeconfig_that_does_not_work_is_explained_and_not_quoted() {
    let good = kubeconfig(&json!({"token": "hunter2"}));
    assert_eq!(
        with_kubeconfig(&good, None).await,
        "cannot reach the cluster at http://127.0.0.1:1/: connection refused"
    );
    assert_eq!(with_kubeconfig(&good, Some("x")).await, "the kubeconfig has no context x");
    assert_eq!(
        with_kubeconfig("token: [hunter2", None).await,
        "the kubeconfig cannot be used: it is not the YAML of a kubeconfig"
    );
    let none = chain(&fetch(&args("/nonexistent/x".as_ref(), None)).await.expect_err("refused"));
    assert_eq!(none, "cannot read the kubeconfig /nonexistent/x: no such file or directory");
    let helper = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never",
        "args": ["-c", "echo hunter2; echo hunter2 >&2; exit 3"],
    }});
    assert_eq!(
        with_kubeconfig(&kubeconfig(&helper), None).await,
        "the credentials of the kubeconfig could not be obtained"
    );
}
