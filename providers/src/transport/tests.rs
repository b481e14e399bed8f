use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Would be a value, or a token, in a real store's words.
const CANARY: &str = "canary-8d1f";

fn local(entries: &[&str]) -> Arc<Policy> {
    let entries = entries.iter().map(|entry| entry.parse().unwrap()).collect();
    Arc::new(Policy::new(entries))
}

fn numbers(numbers: &[&str]) -> Lookup {
    let numbers: Vec<_> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    Arc::new(move |_| {
        let numbers = numbers.clone();
        Box::pin(async move { Ok(numbers) })
    })
}

fn question(address: &str) -> Question {
    let mut headers = HeaderMap::new();
    headers.insert("x-vault-token", "token-of-a-test".parse().unwrap());
    let body = Plain::from(String::new());
    Question { method: Method::GET, address: address.parse().unwrap(), headers, body }
}

/// Answers each connection with these bytes, once it has a whole question, and ends it.
async fn server(answer: Vec<u8>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
                if stream.read_buf(&mut seen).await.unwrap_or_default() == 0 {
                    break;
                }
            }
            count.fetch_add(1, Ordering::Relaxed);
            let _client_may_be_gone = stream.write_all(&answer).await;
        }
    });
    (port, asked)
}

async fn asked(answer: &[u8]) -> Result<Reply, Fault> {
    let (port, _) = server(answer.to_vec()).await;
    let transport = Transport::new(local(&["127.0.0.0/8"]), RootCertStore::empty(), system_lookup()).unwrap();
    transport.ask(question(&format!("http://127.0.0.1:{port}/v1/secret"))).await
}

#[tokio::test]
async fn what_is_an_answer_arrives_whole() {
    for (answer, status, retry_after, body) in [
        (format!("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{CANARY}"), 200, None, CANARY),
        (
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{CANARY}\r\n0\r\n\r\n"),
            200,
            None,
            CANARY,
        ),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), 404, None, ""),
        ("HTTP/1.1 429 Slow\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n".to_owned(), 429, Some(30), ""),
        ("HTTP/1.1 503 Away\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n".to_owned(), 503, None, ""),
    ] {
        let reply = asked(answer.as_bytes()).await.unwrap();
        let expected = (status, retry_after.map(Duration::from_secs), body.as_bytes());
        assert_eq!((reply.status.as_u16(), reply.retry_after, reply.body.expose()), expected, "{answer}");
    }
}

#[tokio::test]
async fn what_is_none_is_a_fault_that_repeats_nothing_of_it() {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
        MAX_ANSWER + 1,
        "x".repeat(MAX_ANSWER + 1)
    );
    let headers = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", CANARY.repeat(HEADERS / CANARY.len() * 4));
    for (answer, fault) in [
        (
            format!("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/{CANARY}\r\n\r\n"),
            "sends to another address",
        ),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{CANARY}"), "broke off"),
        (format!("{CANARY}\r\n\r\n"), "broke off"),
        (String::new(), "broke off"),
        (large, "larger than is taken"),
        (headers, "larger than is taken"),
    ] {
        let error = asked(answer.as_bytes()).await.err().unwrap();
        assert!(error.to_string().contains(fault), "{error}: {}", &answer[..answer.len().min(60)]);
        let mut chain = Some(&error as &dyn std::error::Error);
        while let Some(one) = chain {
            assert!(!format!("{one} {one:?}").contains(CANARY), "{one:?}");
            chain = one.source();
        }
    }
}

#[tokio::test]
async fn a_name_leads_to_no_number_that_is_refused_and_nothing_is_sent() {
    let (port, count) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let address = format!("http://store.test:{port}/");
    let hosts = local(&["http://store.test"]);
    for leads in [&["127.0.0.1"][..], &["169.254.169.254"], &["::ffff:127.0.0.1"], &["::1", "127.0.0.1"]] {
        let transport = Transport::new(Arc::clone(&hosts), RootCertStore::empty(), numbers(leads)).unwrap();
        let error = transport.ask(question(&address)).await.err().unwrap();
        assert!(matches!(error, Fault::Refused(Refused::Address)), "{leads:?}: {error}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
    // One that is refused beside one that is not.
    let named = local(&["http://store.test", "127.0.0.1/32"]);
    let transport = Transport::new(named, RootCertStore::empty(), numbers(&["::1", "127.0.0.1"])).unwrap();
    assert!(transport.ask(question(&address)).await.is_ok());
    let error = transport.ask(question(&format!("http://other.test:{port}/"))).await.err().unwrap();
    assert!(matches!(error, Fault::Refused(Refused::NotHttps)), "{error}");
}

#[tokio::test]
async fn only_the_store_itself_is_asked_over_tls() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["store.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut question = [0; 1024];
            let _some = stream.read(&mut question).await;
            let _client_may_be_gone =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let ask = async |roots: RootCertStore, host: &str| {
        let transport = Transport::new(local(&["127.0.0.0/8"]), roots, numbers(&["127.0.0.1"])).unwrap();
        transport.ask(question(&format!("https://{host}:{port}/"))).await
    };
    assert_eq!(ask(roots.clone(), "store.test").await.unwrap().body.expose(), b"ok");
    assert!(matches!(ask(roots.clone(), "other.test").await, Err(Fault::Untrusted)));
    assert!(matches!(ask(roots, "127.0.0.1").await, Err(Fault::Untrusted)));
    assert!(matches!(ask(RootCertStore::empty(), "store.test").await, Err(Fault::Untrusted)));
}

#[tokio::test]
async fn nothing_there_is_unreachable() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = local(&["127.0.0.0/8"]);
    let transport = Transport::new(Arc::clone(&policy), RootCertStore::empty(), system_lookup()).unwrap();
    let error = transport.ask(question(&format!("http://127.0.0.1:{unused}/"))).await.err().unwrap();
    assert!(matches!(error, Fault::Unreachable), "{error}");
    let nobody: Lookup = Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) }));
    let transport = Transport::new(policy, RootCertStore::empty(), nobody).unwrap();
    let error = transport.ask(question("https://no.test/")).await.err().unwrap();
    assert!(matches!(error, Fault::Unreachable), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_not_waited_for() {
    let never: Lookup = Arc::new(|_| Box::pin(std::future::pending()));
    let transport = Transport::new(local(&[]), RootCertStore::empty(), never).unwrap();
    let start = tokio::time::Instant::now();
    let error = transport.ask(question("https://store.test/")).await.err().unwrap();
    assert!(matches!(error, Fault::Unreachable), "{error}");
    assert_eq!(start.elapsed(), connect::CONNECT, "also the look-up is a part of the connection");
}

#[tokio::test]
async fn refused_is_only_what_has_no_number_that_may_be_reached() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = local(&["http://store.test", "127.0.0.1/32"]);
    let ask = async |leads: &[&str]| {
        let transport = Transport::new(Arc::clone(&policy), RootCertStore::empty(), numbers(leads)).unwrap();
        transport.ask(question(&format!("http://store.test:{unused}/"))).await.err().unwrap()
    };
    assert!(matches!(ask(&["127.0.0.1", "::1"]).await, Fault::Unreachable));
    assert!(matches!(ask(&["::1", "169.254.169.254"]).await, Fault::Refused(Refused::Address)));
    assert!(matches!(ask(&[]).await, Fault::Unreachable));
}

#[tokio::test]
async fn numbers_that_are_refused_take_no_turn_of_the_others() {
    let (port, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let policy = local(&["http://store.test", "127.0.0.1/32"]);
    let leads = numbers(&["::1", "::1", "::1", "::1", "127.0.0.1"]);
    let transport = Transport::new(policy, RootCertStore::empty(), leads).unwrap();
    assert!(transport.ask(question(&format!("http://store.test:{port}/"))).await.is_ok());
}

#[tokio::test]
async fn a_name_is_looked_up_with_the_dot_at_its_end() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let lookup: Lookup = Arc::new(move |name| {
        kept.lock().unwrap().push(name);
        Box::pin(async { Ok(Vec::new()) })
    });
    let transport = Transport::new(local(&[]), RootCertStore::empty(), lookup).unwrap();
    for address in ["https://store.test.", "https://store.test"] {
        assert!(transport.ask(question(address)).await.is_err());
    }
    assert_eq!(*seen.lock().unwrap(), ["store.test.", "store.test"]);
}

#[test]
fn what_is_written_into_an_address_means_nothing_there() {
    assert_eq!(encoded("title eq \"a/b?c&d\""), "title%20eq%20%22a%2Fb%3Fc%26d%22");
    assert_eq!(encoded("a-Z_0.9~é"), "a-Z_0.9~%C3%A9");
    for (address, expected) in [
        ("https://a.test/", Some("https://a.test")),
        ("http://a.test:80", Some("http://a.test:80")),
        ("https://a.test/v1", None),
        ("https://a.test?x", None),
        ("/v1", None),
    ] {
        assert_eq!(base(&address.parse().unwrap()).as_deref(), expected, "{address}");
    }
}
