//! kubectl, temporary namespaces, waiting on conditions.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::setting;

/// How long a condition may take. Generous: a loaded machine is slow, and nothing waits longer than it must.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Runs kubectl with arguments and standard input.
///
/// # Errors
/// When it cannot be run.
pub fn kubectl_output(args: &[&str], stdin: &str) -> Result<Output> {
    let mut command = Command::new(setting::get("SEALEDENV_E2E_KUBECTL")?);
    command.arg("--kubeconfig").arg(setting::kubeconfig()?).args(args);
    run(command, stdin.as_bytes())
}

/// Runs a command with standard input and collects what it prints.
///
/// # Errors
/// When it cannot be run.
pub fn run(mut command: Command, stdin: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("running {}", command.get_program().display()))?;
    let mut pipe = child.stdin.take().context("a pipe to the child")?;
    let input = stdin.to_vec();
    // From another thread: a child that prints before it has read all must not block us.
    let feeder = std::thread::spawn(move || {
        // A child that does not read its input closes the pipe; what it prints tells why.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output()?;
    feeder.join().map_err(|_| anyhow::anyhow!("the thread that feeds the child panicked"))?;
    Ok(output)
}

/// Runs kubectl and returns what it printed.
///
/// # Errors
/// When it fails; the error has what it said.
pub fn kubectl(args: &[&str]) -> Result<String> {
    kubectl_with(args, "")
}

/// Runs kubectl with standard input and returns what it printed.
///
/// # Errors
/// When it fails; the error has what it said.
pub fn kubectl_with(args: &[&str], stdin: &str) -> Result<String> {
    let output = kubectl_output(args, stdin)?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until a check gives something. The last error of the check is the failure.
///
/// # Errors
/// After [`DEADLINE`].
pub fn wait<T>(what: &str, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match check() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > DEADLINE {
            bail!("waited {DEADLINE:?} for: {what}; last seen: {seen}");
        }
        std::thread::park_timeout(Duration::from_millis(150));
    }
}

/// A namespace of one test. Deleted at the end, or kept and described when the test failed.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, named after the test.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn new(test: &str) -> Result<Self> {
        let name = format!("t-{}-{}", test.replace('_', "-").chars().take(40).collect::<String>(), unique());
        kubectl(&["create", "namespace", &name])?;
        Ok(Self { name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        kubectl(&[&["-n", &self.name], args].concat())
    }

    /// Applies a manifest to it, server-side, as a person would.
    ///
    /// # Errors
    /// When the API server refuses; the error has its words.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        kubectl_with(&["-n", &self.name, "apply", "--server-side", "-f", "-"], manifest)
    }

    /// An object as JSON, if it is there.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "-o", "json", "--ignore-not-found"])?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// When it is not there.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.find(kind, name)?.with_context(|| format!("no {kind} {name} in {}", self.name))
    }

    /// Waits until a condition of an object has a status and, where given, a reason. Returns the object.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_condition(
        &self,
        kind: &str,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<Value> {
        wait(&format!("{kind} {name} to have {type_}={status} {reason}"), || {
            let object = self.get(kind, name)?;
            let generation = &object["metadata"]["generation"];
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let holds = conditions.iter().any(|c| {
                c["type"] == type_
                    && c["status"] == status
                    && (reason.is_empty() || c["reason"] == reason)
                    && (c["observedGeneration"].is_null() || &c["observedGeneration"] == generation)
            });
            if holds { Ok(Some(object)) } else { bail!("{}", Value::Array(conditions)) }
        })
    }

    /// A value of a Secret, decoded by kubectl.
    ///
    /// # Errors
    /// When Secret or key is not there.
    pub fn secret_value(&self, secret: &str, key: &str) -> Result<String> {
        let template = format!("{{{{index .data {key:?} | base64decode}}}}");
        self.kubectl(&["get", "secret", secret, "-o", &format!("go-template={template}")])
    }

    /// The keys of a Secret, sorted.
    ///
    /// # Errors
    /// When it is not there.
    pub fn secret_keys(&self, secret: &str) -> Result<Vec<String>> {
        let secret = self.get("secret", secret)?;
        Ok(secret["data"].as_object().map(|d| d.keys().cloned().collect()).unwrap_or_default())
    }

    /// resourceVersion of an object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn version(&self, kind: &str, name: &str) -> Result<String> {
        let object = self.get(kind, name)?;
        Ok(object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for an Event with a reason about an object, and returns its text.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_event(&self, object: &str, reason: &str) -> Result<String> {
        wait(&format!("an Event {reason} on {object}"), || {
            let events: Value =
                serde_json::from_str(&self.kubectl(&["get", "events.events.k8s.io", "-o", "json"])?)?;
            let items = events["items"].as_array().cloned().unwrap_or_default();
            let found = items.iter().find(|e| e["regarding"]["name"] == object && e["reason"] == reason);
            match found {
                Some(event) => Ok(Some(event["note"].as_str().unwrap_or_default().to_owned())),
                None => bail!(
                    "{:?}",
                    items.iter().map(|e| (&e["regarding"]["name"], &e["reason"])).collect::<Vec<_>>()
                ),
            }
        })
    }

    /// Waits until a pod has finished or runs, and returns its phase.
    ///
    /// # Errors
    /// After the deadline.
    pub fn wait_phase(&self, pod: &str, phases: &[&str]) -> Result<String> {
        wait(&format!("pod {pod} to be {phases:?}"), || {
            let object = self.get("pod", pod)?;
            let phase = object["status"]["phase"].as_str().unwrap_or_default().to_owned();
            if phases.contains(&phase.as_str()) { Ok(Some(phase)) } else { bail!("{}", object["status"]) }
        })
    }

    /// Runs a command in a running pod.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", pod, "-c", container, "--"], command].concat())
    }

    fn describe(&self) {
        for args in [
            ["get", "sealedenvs,secrets,pods,jobs,deployments", "-o", "wide"].as_slice(),
            &[
                "get",
                "sealedenvs",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}{.status.conditions}{\"\\n\"}{end}",
            ],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            match self.kubectl(args) {
                Ok(text) => eprintln!("--- {}: kubectl {}\n{text}", self.name, args.join(" ")),
                Err(error) => eprintln!("--- {}: {error:#}", self.name),
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.describe();
            if std::env::var_os("SEALEDENV_E2E_KEEP").is_some() {
                return;
            }
        }
        if let Err(error) =
            kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"])
        {
            eprintln!("{error:#}");
        }
    }
}

/// Something that no other test of this or another run has.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!(
        "{:x}{:x}{:x}",
        std::process::id(),
        since.as_millis() & 0xff_ffff,
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
