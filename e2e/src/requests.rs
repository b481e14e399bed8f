//! The API server through `kubectl proxy`: thousands of requests without a process for each.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::setting;

/// Longer than the API server takes for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `kubectl proxy` with the admin's rights. It outlives a restart of the API server.
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    // kubectl ends when nobody reads what it prints.
    _stdout: BufReader<ChildStdout>,
}

/// What a server answered.
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON, if the request succeeded.
    ///
    /// # Errors
    /// The server's own words, when it refused.
    pub fn json(&self) -> Result<Value> {
        if !self.is_ok() {
            bail!("{}: {}", self.code, self.body.chars().take(500).collect::<String>());
        }
        serde_json::from_str(&self.body).context("the answer is JSON")
    }

    /// Whether the request succeeded.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl Proxy {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When kubectl does not start.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(setting::get("SEALEDENV_E2E_KUBECTL")?);
        command.arg("--kubeconfig").arg(setting::kubeconfig()?).args(["proxy", "--port=0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting kubectl proxy")?;
        let mut stdout = BufReader::new(child.stdout.take().context("a pipe from the child")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let address = address.parse().with_context(|| format!("kubectl proxy said {line:?}"))?;
        Ok(Self { child, address, _stdout: stdout })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When no whole answer came.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<Answer> {
        request(self.address, method, path, kind, body)
    }

    /// Reads something.
    ///
    /// # Errors
    /// When it is not there, or no answer came.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, "application/json", "")?.json()
    }

    /// The items of a list.
    ///
    /// # Errors
    /// When no answer came.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self.get(path)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("no list: {path}"),
        }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When no answer came.
    pub fn create(&self, path: &str, object: &Value) -> Result<Answer> {
        self.send("POST", path, "application/json", &object.to_string())
    }

    /// Patches an object with a JSON merge patch.
    ///
    /// # Errors
    /// When no answer came.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Answer> {
        self.send("PATCH", path, "application/merge-patch+json", &patch.to_string())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When no answer came.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send("DELETE", path, "application/json", "")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request without TLS, on a connection of its own. HTTP/1.0, so that the answer ends with the connection.
///
/// # Errors
/// When no whole answer came.
pub fn request(address: SocketAddr, method: &str, path: &str, kind: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("reading the answer")?;
    let end =
        answer.windows(4).position(|w| w == b"\r\n\r\n").context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).with_context(|| format!("{head:?}"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = &answer[end + 4..];
    if length.is_some_and(|length| length != body.len()) {
        bail!("an answer cut short");
    }
    Ok(Answer { code, body: String::from_utf8_lossy(body).into_owned() })
}

/// Does something for each number below `count`, on several threads.
///
/// # Errors
/// The first one; the others go on until their current number.
pub fn at_once(threads: usize, count: usize, each: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if let Err(error) = each(number) {
                next.store(count, Ordering::Relaxed);
                return Err(error.context(format!("number {number} of {count}")));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}
