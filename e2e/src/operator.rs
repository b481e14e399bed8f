//! Operators that a test starts by itself, beside each other, and treats badly.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Namespace, kubectl, kubectl_with, wait};
use crate::seal;
use crate::setting;

/// The SealingKey is one for the whole cluster: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What operators of one test share: a namespace that they run in and watch, and a key in it.
pub struct Home {
    namespace: Namespace,
    folder: tempfile::TempDir,
    recipient: String,
    _alone: MutexGuard<'static, ()>,
}

/// A running operator. Killed at the end.
pub struct Operator {
    name: String,
    child: Child,
    http: SocketAddr,
    folder: PathBuf,
}

impl Home {
    /// A namespace with a sealing key.
    ///
    /// # Errors
    /// When the API server or the CLI refuses.
    pub fn new(test: &str) -> Result<Self> {
        let mut home = Self::without_key(test)?;
        let made = String::from_utf8(seal::sealedenv(&["keygen"], b"")?)?;
        let line = |start: &str| made.lines().find(|l| l.starts_with(start)).context("keygen prints it");
        line("# public key: ")?.trim_start_matches("# public key: ").clone_into(&mut home.recipient);
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "sealedenv.dev/sealing-key",
            "metadata": {"name": "test-key", "labels": {"sealedenv.dev/sealing-key": "cluster"}},
            "stringData": {"identity": line("AGE-SECRET-KEY-")?},
        });
        kubectl_with(&["-n", home.namespace.name(), "create", "-f", "-"], &secret.to_string())?;
        Ok(home)
    }

    /// A namespace without one.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn without_key(test: &str) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            namespace: Namespace::new(test)?,
            folder: tempfile::tempdir()?,
            recipient: String::new(),
            _alone: alone,
        })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts an operator that works here and nowhere else.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Result<Operator> {
        self.start_through(name, &setting::kubeconfig()?, arguments)
    }

    /// The same with another way to the API server.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_through(&self, name: &str, kubeconfig: &str, arguments: &[&str]) -> Result<Operator> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(folder.join("audit"))?;
        // Free a moment ago; the tests of one run follow each other.
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let namespace = self.namespace.name();
        let child = Command::new(setting::binary("sealedenv-operator")?)
            .args(["--namespace", namespace, "--watch-namespaces", namespace, "--instance", name])
            .args(["--http-listen", &http.to_string(), "--log-format", "text"])
            .arg("--audit-file")
            .arg(folder.join("audit/audit.jsonl"))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .context("starting the operator")?;
        Ok(Operator { name: name.to_owned(), child, http, folder })
    }

    /// Applies a SealedEnv with one value.
    ///
    /// # Errors
    /// When CLI or API server refuses.
    pub fn apply(&self, name: &str, value: &str) -> Result<()> {
        self.apply_all(&[name], value)
    }

    /// What to seal to.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Applies SealedEnvs with one value each, all at once.
    ///
    /// # Errors
    /// When CLI or API server refuses.
    pub fn apply_all(&self, names: &[impl AsRef<str>], value: &str) -> Result<()> {
        let namespace = self.namespace.name();
        let mut list = Vec::new();
        for name in names {
            let name = name.as_ref();
            let sealed = seal::strict(&self.recipient, namespace, name, "A", value)?;
            list.push(serde_json::json!({
                "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
                "metadata": {"name": name, "namespace": namespace}, "spec": {"data": {"A": sealed}},
            }));
        }
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": list});
        kubectl_with(&["apply", "--server-side", "-f", "-"], &list.to_string()).map(drop)
    }

    /// Waits until a Secret has a value.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_value(&self, name: &str, value: &str) -> Result<()> {
        wait(&format!("Secret {name} to hold {value}"), || {
            let found = self.namespace.secret_value(name, "A")?;
            if found == value { Ok(Some(())) } else { bail!("{found}") }
        })
    }

    /// Waits until that many SealedEnvs say that all of their values are delivered.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_statuses(&self, count: usize) -> Result<()> {
        wait(&format!("{count} statuses"), || {
            let path = "jsonpath={range .items[*]}{.status.keysReady} {end}";
            let ready = self.namespace.kubectl(&["get", "sealedenvs", "-o", path])?;
            if ready.matches("1/1").count() == count { Ok(Some(())) } else { bail!("{ready}") }
        })
    }

    /// The instance that the Lease names; none when it names nobody.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn leader(&self) -> Result<Option<String>> {
        let holder = self.namespace.kubectl(&[
            "get",
            "lease",
            "sealedenv-operator",
            "--ignore-not-found",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])?;
        Ok(holder.split_once('_').map(|(instance, _)| instance.to_owned()))
    }

    /// Waits until one of two operators leads, and returns it first.
    ///
    /// # Errors
    /// After the deadline.
    pub fn leader_first(&self, one: Operator, other: Operator) -> Result<(Operator, Operator)> {
        let leader = wait("a leader", || self.leader())?;
        for operator in [&one, &other] {
            operator.wait_ready()?;
        }
        Ok(if leader == one.name { (one, other) } else { (other, one) })
    }

    /// Waits until an operator leads, by its own word.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_leader(&self, operator: &Operator) -> Result<()> {
        wait(&format!("{} to lead", operator.name), || {
            if operator.leads()? { Ok(Some(())) } else { bail!("the Lease names {:?}", self.leader()?) }
        })
    }

    /// Kind, name and resourceVersion of everything that an operator writes here, sorted.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn versions(&self) -> Result<Vec<String>> {
        let list: Value =
            serde_json::from_str(&self.namespace.kubectl(&["get", "secrets,sealedenvs", "-o", "json"])?)?;
        let line = |o: &Value| {
            format!("{} {} {}", o["kind"], o["metadata"]["name"], o["metadata"]["resourceVersion"])
        };
        let mut versions: Vec<String> = list["items"].as_array().into_iter().flatten().map(line).collect();
        let key = kubectl(&[
            "get",
            "sealingkey",
            "cluster",
            "--ignore-not-found",
            "-o",
            "jsonpath={.metadata.resourceVersion}",
        ])?;
        versions.push(format!("SealingKey {key}"));
        versions.sort();
        Ok(versions)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It tells of this test's keys, and to another operator it would say that a key was lost.
        if let Err(error) = kubectl(&["delete", "sealingkey", "cluster", "--ignore-not-found"]) {
            eprintln!("{error:#}");
        }
    }
}

impl Operator {
    /// Its name in the Lease and on the trail.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process number")?;
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        let (child, name) = (&mut self.child, &self.name);
        wait(&format!("{name} to end"), || Ok(child.try_wait()?))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// After the deadline; with its log.
    pub fn wait_ready(&self) -> Result<()> {
        wait(&format!("{} to be ready", self.name), || {
            let (code, text) = self.get("/readyz")?;
            if code == 200 { Ok(Some(())) } else { bail!("{text}\n{}", self.log()) }
        })
    }

    /// Status and body of a page that it serves.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let patience = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&self.http, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("an answer")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status code")?;
        Ok((code, body.to_owned()))
    }

    /// Whether its metrics say that it leads.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn leads(&self) -> Result<bool> {
        Ok(self.get("/metrics")?.1.lines().any(|line| line == "sealedenv_operator_leader 1"))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The folder of its audit file.
    pub fn audit_folder(&self) -> PathBuf {
        self.folder.join("audit")
    }

    /// The lines on its trail, after a check that they are a whole chain.
    ///
    /// # Errors
    /// When they are not.
    pub fn trail(&self) -> Result<Vec<Value>> {
        let file = self.audit_folder().join("audit.jsonl");
        seal::sealedenv(&["audit", "verify", path(&file)?], b"")?;
        let text = fs::read_to_string(&file)?;
        text.lines().map(|line| serde_json::from_str(line).context("a record is JSON")).collect()
    }

    /// The lines on its trail about SealedEnvs.
    ///
    /// # Errors
    /// When the trail does not verify.
    pub fn work_on_trail(&self) -> Result<usize> {
        Ok(self.trail()?.iter().filter(|r| r["object"]["kind"] == "SealedEnv").count())
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
        // A stopped process is ended by SIGKILL too. One that is gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
