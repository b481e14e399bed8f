//! The plugin's side of the delivery API, against a server of the contract over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream;
use jiff::Timestamp;
use sealedenv_delivery::client::FetchError as ClientError;
use sealedenv_delivery::server::{Call, Fetch, Refusal, service};
use sealedenv_delivery::{Answer, Fetched, Outcome, Reason, Refused, Token, Wanted};
use sealedenv_node::source::{FetchError, Operator, OperatorSettings, Source as _};
use sealedenv_runtime::certificate::Authority;
use sealedenv_runtime::crypto;
use sealedenv_runtime::tls::Certificates;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const NAME: &str = "sealedenv-delivery.sealedenv-system.svc";

/// The tokens of a call: the pod's and the plugin's.
type Shown = (String, Option<String>);

/// Notes the tokens that come.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Shown>>>);

impl Fetch for Noting {
    async fn fetch(&self, call: Call) -> Result<Fetched, Refusal> {
        let node = call.node.map(|token| token.expose().to_owned());
        self.0.lock().unwrap().push((call.pod.expose().to_owned(), node));
        let refused = |wanted: Wanted| Answer {
            name: wanted.name,
            outcome: Outcome::Refused(Refused { reason: Reason::NotNamed, message: "no".to_owned() }),
        };
        Ok(Fetched { answers: call.wanted.into_iter().map(refused).collect(), authorities: None })
    }
}

fn authority() -> Authority {
    Authority::generate("test", Timestamp::now(), Duration::from_hours(1)).unwrap()
}

/// Serves under a certificate of the authority; gives the port.
async fn serve(authority: &Authority, noting: Noting) -> u16 {
    let leaf = authority.issue(&[NAME.to_owned()], Timestamp::now(), Duration::from_hours(1)).unwrap();
    let certificates = Certificates::new();
    certificates.swap(&leaf);
    let acceptor = TlsAcceptor::from(certificates.server_config_for(b"h2").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away.
            if let Ok(connection) = acceptor.accept(connection).await {
                return Some((Ok::<_, std::io::Error>(connection), (listener, acceptor)));
            }
        }
    });
    let server = tonic::transport::Server::builder().add_service(service(noting));
    tokio::spawn(server.serve_with_incoming(Box::pin(connections)));
    port
}

fn settings(folder: &Path, port: u16) -> OperatorSettings {
    OperatorSettings {
        endpoint: format!("https://127.0.0.1:{port}"),
        server_name: Some(NAME.to_owned()),
        authorities: folder.join("ca.crt"),
        token: folder.join("token"),
    }
}

async fn fetch(operator: &Operator) -> Result<Answer, FetchError> {
    let pod = Token::new("pod-token".to_owned()).ok().unwrap();
    operator.fetch(&pod, Wanted { name: "checkout".to_owned(), held: None }).await
}

#[tokio::test]
async fn both_tokens_are_shown_and_the_plugins_own_is_read_each_time() {
    crypto::install();
    let (folder, ca, noting) = (tempfile::tempdir().unwrap(), authority(), Noting::default());
    let operator = Operator::new(settings(folder.path(), serve(&ca, noting.clone()).await));
    let missing = fetch(&operator).await.err().expect("nothing is there yet");
    assert!(matches!(&missing, FetchError::File { path, .. } if path.ends_with("ca.crt")), "{missing:?}");
    fs::write(folder.path().join("ca.crt"), ca.pem()).unwrap();
    let missing = fetch(&operator).await.err().expect("no token yet");
    assert!(matches!(&missing, FetchError::File { path, .. } if path.ends_with("token")), "{missing:?}");
    for token in ["first", "renewed"] {
        fs::write(folder.path().join("token"), format!("{token}\n")).unwrap();
        let answer = fetch(&operator).await.ok().unwrap();
        assert!(matches!(answer.outcome, Outcome::Refused(refused) if refused.reason == Reason::NotNamed));
    }
    let shown = |node: &str| ("pod-token".to_owned(), Some(node.to_owned()));
    assert_eq!(*noting.0.lock().unwrap(), [shown("first"), shown("renewed")]);
    fs::write(folder.path().join("token"), "canary not a token").unwrap();
    let error = fetch(&operator).await.err().expect("that is no token");
    assert!(matches!(error, FetchError::Token(_)) && !format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn only_an_operator_of_the_authority_is_shown_a_token_and_a_new_authority_is_taken_up() {
    crypto::install();
    let (folder, ours, theirs) = (tempfile::tempdir().unwrap(), authority(), authority());
    let noting = Noting::default();
    fs::write(folder.path().join("token"), "own").unwrap();
    fs::write(folder.path().join("ca.crt"), ours.pem()).unwrap();
    let operator = Operator::new(settings(folder.path(), serve(&theirs, noting.clone()).await));
    let error = fetch(&operator).await.err().expect("it is not trusted");
    assert!(matches!(error, FetchError::Client(ClientError::Unavailable(_))), "{error:?}");
    assert!(noting.0.lock().unwrap().is_empty(), "a stranger saw a token");
    fs::write(folder.path().join("ca.crt"), ours.pem() + &theirs.pem()).unwrap();
    assert!(fetch(&operator).await.is_ok(), "the bundle has its authority now");
    assert_eq!(noting.0.lock().unwrap().len(), 1);
}
