//! A server for tests: it answers as the test says, and keeps what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use sealedenv_seal::Plain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::credential::Credential;
use crate::guard::Policy;
use crate::transport::{Transport, system_lookup};
use crate::{Answer, Ask, Outcome};

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and path, with the query: `GET /v1/vaults`.
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub(crate) struct Scripted {
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers each question with a status and a body.
    pub(crate) async fn new(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(one) = read(&mut stream).await else { continue };
                let (status, body) = answer(&one);
                kept.lock().unwrap().push(one);
                let head = format!("HTTP/1.1 {status} X\r\nretry-after: 7\r\nconnection: close");
                let all = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _client_may_be_gone = stream.write_all(all.as_bytes()).await;
            }
        });
        Self { address, asked }
    }

    /// What it was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut seen = Vec::new();
    loop {
        if stream.read_buf(&mut seen).await.unwrap_or_default() == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (line, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let headers: BTreeMap<String, String> = (rest.lines())
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        if body.len() >= headers.get("content-length").map_or(0, |length| length.parse().unwrap()) {
            let line = line.trim_end_matches(" HTTP/1.1").to_owned();
            return Some(Asked { line, headers, body: body.to_owned() });
        }
    }
}

/// To servers of tests only.
pub(crate) fn transport() -> Transport {
    let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Transport::new(policy, RootCertStore::empty(), system_lookup()).unwrap()
}

pub(crate) fn given(text: &'static str) -> Credential {
    Arc::new(move || Box::pin(async move { Some(Plain::from(text.to_owned())) }))
}

pub(crate) fn ask(path: &str, version: Option<&str>) -> Ask {
    Ask { path: path.to_owned(), version: version.map(str::to_owned) }
}

/// An outcome in words.
pub(crate) fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(read) => {
            let version = read.version.as_deref().unwrap_or("-");
            format!("{} {version}", String::from_utf8_lossy(read.content.expose()))
        }
        Outcome::Unavailable { retry_after: Some(after) } => format!("Unavailable {}", after.as_secs()),
        other => other.as_str().to_owned(),
    }
}

pub(crate) fn all_told(answers: &[Answer]) -> Vec<String> {
    answers.iter().map(|answer| told(&answer.outcome)).collect()
}
