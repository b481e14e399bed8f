//! Client and server of this crate against each other, over TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealedenv_delivery::client::{Client, FetchError, Settings, SettingsError};
use sealedenv_delivery::server::{self, Call, Fetch, Refusal};
use sealedenv_delivery::{
    Answer, Authorities, Content, Fetched, File, FilePath, Files, MAX_CONTENT, MAX_WANTED, Outcome, Reason,
    Refused, Token, Wanted,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// The tokens of each call, the pod's and the node plugin's.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;
type Script = Box<dyn Fn(&Call) -> Result<Vec<Answer>, Refusal> + Send + Sync>;

struct Scripted {
    script: Script,
    authorities: Option<Authorities>,
    seen: Seen,
    /// Is kept for each answer.
    kept: Arc<()>,
}

impl Fetch for Scripted {
    async fn fetch(&self, call: Call) -> Result<Fetched, Refusal> {
        call.sending.keep(Arc::clone(&self.kept));
        let node = call.node.as_ref().map(|token| token.expose().to_owned());
        self.seen.lock().unwrap().push((call.pod.expose().to_owned(), node));
        Ok(Fetched { answers: (self.script)(&call)?, authorities: self.authorities.clone() })
    }
}

struct Operator {
    address: SocketAddr,
    authority: String,
    seen: Seen,
    kept: Arc<()>,
}

impl Operator {
    async fn start(script: impl Fn(&Call) -> Result<Vec<Answer>, Refusal> + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["operator.test".to_owned()]).unwrap();
        let authority = made.cert.pem();
        let identity = Identity::from_pem(&authority, made.signing_key.serialize_pem());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let authorities = Authorities::parse(&authority).ok();
        let kept = Arc::new(());
        let scripted = Scripted {
            script: Box::new(script),
            authorities,
            seen: Arc::clone(&seen),
            kept: Arc::clone(&kept),
        };
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.serve_with_incoming(server::service(scripted), incoming));
        Self { address, authority, seen, kept }
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: format!("https://{}", self.address),
            server_name: Some("operator.test".to_owned()),
            authorities: self.authority.clone().into_bytes(),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(20),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.settings()).unwrap()
    }
}

fn token(text: &str) -> Token {
    Token::new(text.to_owned()).ok().unwrap()
}

fn wanted(name: &str) -> Wanted {
    Wanted { name: name.to_owned(), held: None }
}

fn full(name: &str) -> Answer {
    let path = FilePath::parse("KEY").unwrap();
    let file = File { path, content: Content::new(vec![7; MAX_CONTENT]), mode: None };
    let files = Files {
        digest: "d".to_owned(),
        files: vec![file],
        keep: Vec::new(),
        refresh_after: Duration::from_secs(9),
    };
    Answer { name: name.to_owned(), outcome: Outcome::Files(files) }
}

#[tokio::test]
async fn the_largest_answer_arrives_and_each_token_in_its_place() {
    let operator = Operator::start(|call| Ok(call.wanted.iter().map(|one| full(&one.name)).collect())).await;
    let client = operator.client();
    let asked: Vec<_> = (0..MAX_WANTED).map(|n| wanted(&format!("env-{n}"))).collect();
    let fetched = client.fetch(&token("pod.token"), Some(&token("node.token")), &asked).await.unwrap();
    assert_eq!(fetched.authorities.unwrap().as_str(), operator.authority, "who to trust from now on");
    let answers = fetched.answers;
    for (answer, asked) in answers.iter().zip(&asked) {
        let Outcome::Files(files) = &answer.outcome else { panic!("no files") };
        assert_eq!((&answer.name, files.files[0].content.len()), (&asked.name, MAX_CONTENT));
    }
    client.fetch(&token("pod.token"), None, &asked[..1]).await.unwrap();
    let seen = operator.seen.lock().unwrap().clone();
    let pod = "pod.token".to_owned();
    assert_eq!(seen, [(pod.clone(), Some("node.token".to_owned())), (pod, None)]);
}

/// Passes one connection on, and of what comes back that many bytes until it is let go. Says when it stops.
async fn slow(to: SocketAddr, first: u64, stalled: Arc<Notify>, go: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let (read, mut write) = socket.connect(to).await.unwrap().into_split();
        let (mut from_client, mut to_client) = client.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut write).await });
        let mut read = read.take(first);
        tokio::io::copy(&mut read, &mut to_client).await.unwrap();
        stalled.notify_one();
        go.notified().await;
        let mut read = read.into_inner();
        let _until_the_client_goes = tokio::io::copy(&mut read, &mut to_client).await;
    });
    address
}

#[tokio::test]
async fn what_an_answer_needs_lasts_while_its_peer_does_not_read() {
    let operator = Operator::start(|call| Ok(call.wanted.iter().map(|one| full(&one.name)).collect())).await;
    let (stalled, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let proxy = slow(operator.address, 64 << 10, Arc::clone(&stalled), Arc::clone(&go)).await;
    let endpoint = format!("https://{proxy}");
    let client = Client::new(Settings { endpoint, ..operator.settings() }).unwrap();
    let asked: Vec<_> = (0..MAX_WANTED).map(|n| wanted(&format!("env-{n}"))).collect();
    let call = tokio::spawn(async move { client.fetch(&token("t"), None, &asked).await.map(drop) });
    let kept = || Arc::strong_count(&operator.kept) - 2; // the test's own, and the server's
    // Then the answer has begun, and the call is over but for its bytes.
    tokio::time::timeout(Duration::from_secs(20), stalled.notified()).await.expect("the answer begins");
    assert_eq!((kept(), call.is_finished()), (1, false));
    go.notify_one();
    call.await.unwrap().unwrap();
    let done = async {
        while kept() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("it is kept after the answer arrived");
}

#[tokio::test]
async fn each_refusal_arrives_as_what_it_is() {
    for refusal in [Refusal::Unauthenticated, Refusal::Denied, Refusal::Unavailable] {
        let operator = Operator::start(move |_| Err(refusal)).await;
        let error = operator.client().fetch(&token("t"), None, &[wanted("a")]).await.err().unwrap();
        let fits = match refusal {
            Refusal::Unauthenticated => matches!(error, FetchError::Unauthenticated(_)),
            Refusal::Denied => matches!(error, FetchError::Denied(_)),
            Refusal::Unavailable => matches!(error, FetchError::Unavailable(_)),
        };
        assert!(fits, "{refusal:?}: {error:?}");
        assert!(!format!("{error:?}").contains("Bearer"), "{error:?}");
    }
    let one = Refused { reason: Reason::NotNamed, message: "why".to_owned() };
    let operator = Operator::start(move |_| {
        Ok(vec![Answer { name: "a".to_owned(), outcome: Outcome::Refused(one.clone()) }])
    })
    .await;
    let answers = operator.client().fetch(&token("t"), None, &[wanted("a")]).await.unwrap().answers;
    assert!(
        matches!(&answers[0].outcome, Outcome::Refused(r) if r.reason == Reason::NotNamed && r.message == "why")
    );
}

#[tokio::test]
async fn what_breaks_the_contract_is_not_sent_and_not_believed() {
    let operator = Operator::start(|_| Ok(vec![full("another")])).await;
    let client = operator.client();
    let bad = client.fetch(&token("t"), None, &[wanted("../x")]).await;
    assert!(matches!(bad, Err(FetchError::Wanted(_))));
    assert!(operator.seen.lock().unwrap().is_empty(), "it was sent");
    let answer = client.fetch(&token("t"), None, &[wanted("a")]).await;
    assert!(matches!(answer, Err(FetchError::Malformed(_))));
}

#[tokio::test]
async fn an_operator_of_another_authority_gets_no_token() {
    let (operator, other) =
        (Operator::start(|_| Ok(Vec::new())).await, Operator::start(|_| Ok(Vec::new())).await);
    for settings in [
        Settings { authorities: other.authority.clone().into_bytes(), ..operator.settings() },
        Settings { server_name: Some("someone.else".to_owned()), ..operator.settings() },
    ] {
        let answer = Client::new(settings).unwrap().fetch(&token("t"), None, &[wanted("a")]).await;
        assert!(matches!(answer, Err(FetchError::Unavailable(_))));
    }
    assert!(operator.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_tls_or_an_authority_there_is_no_client() {
    let operator = Operator::start(|_| Ok(Vec::new())).await;
    let plain = Settings { endpoint: format!("http://{}", operator.address), ..operator.settings() };
    assert!(matches!(Client::new(plain), Err(SettingsError::NotHttps)));
    for authorities in [&b""[..], b"rubbish"] {
        let none = Settings { authorities: authorities.to_vec(), ..operator.settings() };
        assert!(matches!(Client::new(none), Err(SettingsError::NoAuthority)));
    }
}
