//! Flux's kustomize-controller, the real one, as a process on this machine that works in one namespace, and git for it:
//! revisions of a folder, handed over as `ExternalArtifact` by a small HTTP server.
//!
//! source-controller does not run. Its kinds are stand-ins without a schema; the one that is used is filled in as
//! source-controller would.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Namespace, kubectl, kubectl_with, run, wait};
use crate::{page, setting};

/// Kinds of source-controller that kustomize-controller watches.
const SOURCES: [(&str, &str); 4] = [
    ("GitRepository", "gitrepositories"),
    ("OCIRepository", "ocirepositories"),
    ("Bucket", "buckets"),
    ("ExternalArtifact", "externalartifacts"),
];

/// Longest time a Kustomization may wait. Longer than any test does: who sees a failure earlier saw it come at once.
const TIMEOUT: &str = "30m";

/// Flux, at work in one namespace.
pub struct Flux<'n> {
    namespace: &'n Namespace,
    folder: tempfile::TempDir,
    address: String,
    controller: Mutex<Child>,
    revision: Mutex<u32>,
}

impl<'n> Flux<'n> {
    /// Starts it.
    ///
    /// # Errors
    /// When its kinds cannot be installed or it cannot be started.
    pub fn start(namespace: &'n Namespace) -> Result<Self> {
        install_kinds()?;
        let folder = tempfile::tempdir()?;
        let address = serve(folder.path().to_owned())?;
        let log = fs::File::create(folder.path().join("controller.log"))?;
        let controller = Command::new(setting::get("SEALEDENV_E2E_KUSTOMIZE_CONTROLLER")?)
            .args(["--watch-all-namespaces=false", "--feature-gates=ExternalArtifact=true"])
            .args(["--metrics-addr=0", "--health-addr=0", "--no-remote-bases", "--log-level=debug"])
            .env("RUNTIME_NAMESPACE", namespace.name())
            .env("KUBECONFIG", setting::kubeconfig()?)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting kustomize-controller")?;
        Ok(Self { namespace, folder, address, controller: Mutex::new(controller), revision: Mutex::new(0) })
    }

    /// Commits: what git has from now on is these manifests. Gives the revision.
    ///
    /// # Errors
    /// When it cannot be packed or handed over.
    pub fn commit(&self, manifests: &[&str]) -> Result<String> {
        let number = {
            let mut last = self.revision.lock().map_err(|_| anyhow::anyhow!("a commit panicked"))?;
            *last += 1;
            *last
        };
        let tree = self.folder.path().join(format!("tree-{number}"));
        fs::create_dir(&tree)?;
        for (i, manifest) in manifests.iter().enumerate() {
            fs::write(tree.join(format!("{i}.yaml")), manifest)?;
        }
        // Flux refuses an artifact without any file.
        fs::write(tree.join("README.md"), "what git has")?;
        let name = format!("{number}.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(self.folder.path().join(&name)).arg("-C").arg(&tree).arg(".");
        let packed = run(tar, b"")?;
        if !packed.status.success() {
            bail!("tar: {}", String::from_utf8_lossy(&packed.stderr));
        }
        let mut sum = Command::new("sha256sum");
        sum.arg(self.folder.path().join(&name));
        let sum = String::from_utf8(run(sum, b"")?.stdout)?;
        let digest = format!("sha256:{}", sum.split_whitespace().next().context("a digest")?);
        let revision = format!("main@{digest}");
        let artifact = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "ExternalArtifact",
            "metadata": { "name": "git", "namespace": self.namespace.name() },
            "spec": {},
            "status": {
                "artifact": {
                    "digest": digest,
                    "lastUpdateTime": "2026-01-01T00:00:00Z",
                    "path": name,
                    "revision": revision,
                    "url": format!("http://{}/{name}", self.address),
                },
            },
        });
        kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &artifact.to_string())?;
        Ok(revision)
    }

    /// Has Flux apply what git has, and wait for it, by the Kustomization that docs/src/gitops.md recommends.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn follow(&self) -> Result<()> {
        let mut kustomization = page::yaml("gitops.md", "flux/app.yaml")?;
        for (from, to) in [
            ("namespace: flux-system", format!("namespace: {}", self.namespace.name())),
            ("kind: GitRepository", "kind: ExternalArtifact".to_owned()),
            ("interval: 10m", "interval: 10h".to_owned()),
            ("timeout: 5m", format!("timeout: {TIMEOUT}")),
        ] {
            kustomization = page::replace(&kustomization, from, &to)?;
        }
        self.namespace.apply(&kustomization).map(drop)
    }

    /// Asks for one more reconcile of the same revision, and waits until it is done.
    ///
    /// # Errors
    /// After the deadline.
    pub fn again(&self, token: &str) -> Result<()> {
        let annotation = format!("reconcile.fluxcd.io/requestedAt={token}");
        self.namespace.kubectl(&["annotate", "--overwrite", "kustomization", "app", &annotation])?;
        self.wait("the reconcile to be done", |kustomization| {
            kustomization["status"]["lastHandledReconcileAt"] == token
                && is_ready(kustomization, "True", "ReconciliationSucceeded")
        })
        .map(drop)
    }

    /// Waits until Flux has applied a revision and all of it is ready.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_ready(&self, revision: &str) -> Result<Value> {
        self.wait("Flux to be done", |kustomization| {
            kustomization["status"]["lastAppliedRevision"] == revision
                && is_ready(kustomization, "True", "ReconciliationSucceeded")
        })
    }

    /// Waits until Flux gives up on a revision for a reason. Gives its message.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_failed(&self, revision: &str, reason: &str) -> Result<String> {
        let kustomization = self.wait("Flux to give up", |kustomization| {
            kustomization["status"]["lastAttemptedRevision"] == revision
                && is_ready(kustomization, "False", reason)
        })?;
        Ok(condition(&kustomization)["message"].as_str().unwrap_or_default().to_owned())
    }

    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.is_running()?;
        wait(what, || {
            let kustomization = self.namespace.get("kustomization", "app")?;
            if holds(&kustomization) { Ok(Some(kustomization)) } else { bail!("{}", kustomization["status"]) }
        })
    }

    /// What Flux did to an object at each apply so far, oldest first: `created`, `configured`, `unchanged`.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn did_to(&self, object: &str) -> Result<Vec<String>> {
        let log = self.log()?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let applies = lines.filter(|line| line["msg"] == "server-side apply completed");
        let done = applies.filter_map(|line| line["output"][object].as_str().map(ToOwned::to_owned));
        Ok(done.collect())
    }

    /// Fails with its last words when it ended by itself: nobody need wait for it then.
    fn is_running(&self) -> Result<()> {
        let mut controller = self.controller.lock().map_err(|_| anyhow::anyhow!("a wait panicked"))?;
        match controller.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = self.log()?;
                bail!("kustomize-controller ended ({status}): {}", log.lines().last().unwrap_or_default())
            }
        }
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("controller.log"))?)
    }
}

impl Drop for Flux<'_> {
    fn drop(&mut self) {
        // Nothing is left to do if it ended already.
        if let Ok(controller) = self.controller.get_mut() {
            let _ = controller.kill();
            let _ = controller.wait();
        }
        if std::thread::panicking() {
            let log = self.log().unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- kustomize-controller, the last line first:\n{}", last.join("\n"));
        }
        // Without its controller the finalizer would hold up the namespace.
        let unheld = r#"{"metadata":{"finalizers":null}}"#;
        let patch = ["patch", "kustomization", "app", "--type=merge", "-p", unheld];
        if let Ok(Some(_)) = self.namespace.find("kustomization", "app")
            && let Err(error) = self.namespace.kubectl(&patch)
        {
            eprintln!("{error:#}");
        }
    }
}

fn condition(kustomization: &Value) -> &Value {
    let conditions = kustomization["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == "Ready").unwrap_or(&Value::Null)
}

fn is_ready(kustomization: &Value, status: &str, reason: &str) -> bool {
    let ready = condition(kustomization);
    ready["status"] == status
        && ready["reason"] == reason
        && ready["observedGeneration"] == kustomization["metadata"]["generation"]
}

/// Installs Flux's kinds, once for all tests.
///
/// # Errors
/// When the API server refuses them.
pub fn install_kinds() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| install_kinds_once().map_err(|error| format!("{error:#}")));
    done.as_ref().copied().map_err(|error| anyhow::anyhow!("installing Flux's kinds: {error}"))
}

fn install_kinds_once() -> Result<()> {
    let crds = setting::get("SEALEDENV_E2E_FLUX_CRDS")?;
    kubectl(&["apply", "--server-side", "-f", &crds])?;
    let mut stand_ins = String::new();
    for (kind, plural) in SOURCES {
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.source.toolkit.fluxcd.io") },
            "spec": {
                "group": "source.toolkit.fluxcd.io",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1",
                    "served": true,
                    "storage": true,
                    "schema": { "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    } },
                }],
            },
        });
        writeln!(stand_ins, "---\n{crd}")?;
    }
    kubectl_with(&["apply", "--server-side", "-f", "-"], &stand_ins)?;
    for (_, plural) in SOURCES {
        let crd = format!("crd/{plural}.source.toolkit.fluxcd.io");
        kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=60s"])?;
    }
    let kustomizations = "crd/kustomizations.kustomize.toolkit.fluxcd.io";
    kubectl(&["wait", "--for=condition=Established", kustomizations, "--timeout=60s"]).map(drop)
}

/// Serves the archives of a folder on this machine's loopback address, for as long as the process lives.
fn serve(folder: PathBuf) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(&stream, &folder) {
                eprintln!("the artifact server: {error:#}");
            }
        }
    });
    Ok(address)
}

fn answer(mut stream: &TcpStream, folder: &Path) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut line) = (String::new(), String::new());
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let plain = name.ends_with(".tar.gz") && !name.contains('/');
    match fs::read(folder.join(name)) {
        Ok(bytes) if plain => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            )?;
            stream.write_all(&bytes)?;
        }
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?,
    }
    Ok(())
}
