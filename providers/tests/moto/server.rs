//! The moto that the tests ask, and what they put into it.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use rustls::RootCertStore;
use sealedenv_providers::credential::Credential;
use sealedenv_providers::guard::Policy;
use sealedenv_providers::transport::{Question, Transport, system_lookup};
use sealedenv_seal::Plain;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// One test at a time: what moto keeps is of all of them.
static ONE: Mutex<()> = Mutex::const_new(());

pub(crate) struct Moto {
    pub(crate) address: String,
    transport: Transport,
    _one: MutexGuard<'static, ()>,
}

pub(crate) fn given(text: &str) -> Credential {
    let text = text.to_owned();
    Arc::new(move || {
        let text = text.clone();
        Box::pin(async move { Some(Plain::from(text)) })
    })
}

/// To servers of this machine only.
pub(crate) fn transport() -> Transport {
    let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Transport::new(policy, RootCertStore::empty(), system_lookup()).unwrap()
}

impl Moto {
    /// The one of `SEALEDENV_MOTO`, with nothing in it.
    pub(crate) async fn new() -> Self {
        let address = std::env::var("SEALEDENV_MOTO").unwrap_or_else(|_| {
            panic!(
                "these tests need a moto server\n\
                 hint: pip install 'moto[server]'; moto_server -H 127.0.0.1 -p 5000; SEALEDENV_MOTO=http://127.0.0.1:5000"
            )
        });
        let one = ONE.lock().await;
        let moto =
            Self { address: address.trim_end_matches('/').to_owned(), transport: transport(), _one: one };
        moto.unchecked("inf").await;
        moto.send("/moto-api/reset", "text/plain", &[], String::new()).await;
        moto
    }

    /// A call of Secrets Manager's API.
    pub(crate) async fn secret(&self, what: &str, body: Value) -> Value {
        let target = format!("secretsmanager.{what}");
        let headers = [("x-amz-target", target.as_str()), ("authorization", &scope("secretsmanager"))];
        let answer = self.send("/", "application/x-amz-json-1.1", &headers, body.to_string()).await;
        serde_json::from_str(&answer).unwrap()
    }

    /// A user who may do this. Its access key.
    pub(crate) async fn user(&self, name: &str, actions: &[&str]) -> (String, String) {
        self.iam(&format!("Action=CreateUser&UserName={name}")).await;
        if !actions.is_empty() {
            let policy = policy(actions);
            self.iam(&format!("Action=PutUserPolicy&UserName={name}&PolicyName=p&PolicyDocument={policy}"))
                .await;
        }
        let key = self.iam(&format!("Action=CreateAccessKey&UserName={name}")).await;
        (element(&key, "AccessKeyId"), element(&key, "SecretAccessKey"))
    }

    /// A role that may do this. Its ARN.
    pub(crate) async fn role(&self, name: &str, actions: &[&str]) -> String {
        let trust = encoded(r#"{"Version":"2012-10-17","Statement":[]}"#);
        let role = format!("Action=CreateRole&RoleName={name}&AssumeRolePolicyDocument={trust}");
        let role = self.iam(&role).await;
        let policy = policy(actions);
        self.iam(&format!("Action=PutRolePolicy&RoleName={name}&PolicyName=p&PolicyDocument={policy}")).await;
        element(&role, "Arn")
    }

    /// From now on only who signs is answered, until the next [`Moto::new`].
    pub(crate) async fn check_signatures(&self) {
        self.unchecked("0").await;
    }

    /// How many calls are answered without a look at who makes them.
    async fn unchecked(&self, calls: &str) {
        self.send("/moto-api/reset-auth", "text/plain", &[], calls.to_owned()).await;
    }

    async fn iam(&self, form: &str) -> String {
        let kind = "application/x-www-form-urlencoded";
        let headers = [("authorization", scope("iam"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.send("/", kind, &headers, format!("{form}&Version=2010-05-08")).await
    }

    async fn send(&self, path: &str, kind: &str, headers: &[(&'static str, &str)], body: String) -> String {
        let mut all = HeaderMap::new();
        all.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        let address = format!("{}{path}", self.address).parse().unwrap();
        let question = Question { method: Method::POST, address, headers: all, body: Plain::from(body) };
        let reply = self.transport.ask(question).await.unwrap();
        let text = String::from_utf8_lossy(reply.body.expose()).into_owned();
        assert_eq!(reply.status, StatusCode::OK, "{path}: {text}");
        text
    }
}

/// By which moto tells its services from each other.
fn scope(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20200101/us-west-2/{service}/aws4_request, SignedHeaders=host, Signature=x"
    )
}

fn policy(actions: &[&str]) -> String {
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    encoded(&json!({"Version": "2012-10-17", "Statement": [statement]}).to_string())
}

fn encoded(text: &str) -> String {
    let safe = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(safe).collect()
}

fn element(body: &str, name: &str) -> String {
    let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
    rest.split_once("</").unwrap().0.to_owned()
}
