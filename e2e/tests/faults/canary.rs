//! A value that nobody else can have is sealed, delivered, rotated, repaired, refused and misplaced. Then it is looked
//! for wherever something may have been left behind.

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, unique, wait};
use sealedenv_e2e::process::{Hit, Process, find};
use sealedenv_e2e::release::{self, Changed, Pod};
use sealedenv_e2e::requests::request;
use sealedenv_e2e::seal::{self, Manifest};
use serde_json::json;

use crate::oracle::{Oracle, TRAIL};

/// Values that are looked for, and every form in which they could have been left.
struct Canaries {
    values: Vec<String>,
}

impl Canaries {
    fn new(count: usize) -> Result<Self> {
        let mut random = fs::File::open("/dev/urandom")?;
        let mut values = Vec::new();
        for _ in 0..count {
            let mut bytes = [0; 16];
            random.read_exact(&mut bytes)?;
            values.push(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")));
        }
        Ok(Self { values })
    }

    /// Each value, each half of it, and its base64 wherever it may begin in a longer text.
    fn needles(&self) -> Vec<String> {
        let mut needles = Vec::new();
        for value in &self.values {
            needles.extend([value.clone(), value[..16].to_owned(), value[16..].to_owned()]);
            for before in ["", "x", "xx"] {
                let encoded = BASE64_STANDARD.encode(format!("{before}{value}"));
                let begin = if before.is_empty() { 0 } else { 4 };
                needles.push(encoded[begin..encoded.len() - 4].to_owned());
            }
        }
        needles
    }

    fn absent(&self, place: &str, text: &[u8]) -> Result<()> {
        ensure!(!text.is_empty(), "nothing to look through: {place}");
        let found = find(text, &self.needles())?;
        ensure!(found.is_empty(), "{place} holds {found:?}");
        Ok(())
    }
}

/// What kubectl says to a manifest, whatever it is.
fn said(ns: &Namespace, manifest: &str) -> Result<(bool, Vec<u8>)> {
    let output = kubectl_output(&["-n", ns.name(), "apply", "--server-side", "-f", "-"], manifest)?;
    Ok((output.status.success(), [output.stdout, output.stderr].concat()))
}

#[test]
fn a_canary_is_in_no_log_event_status_metric_trail_answer_or_memory() -> Result<()> {
    let _traced = Changed::to(&["log.level=trace"])?;
    let oracle = Oracle::start()?;
    let ns = Namespace::new("canary")?;
    let canaries = Canaries::new(7)?;
    let [first, second, by_hand, misplaced, plain, kept, deleted] = &canaries.values[..] else {
        anyhow::bail!("seven canaries");
    };

    deliver(&ns, first, second)?;
    repair(&ns, second, by_hand)?;
    keep_last(&ns, kept)?;
    refuse(&canaries, &ns, misplaced, plain)?;
    inject(&canaries, &ns)?;
    ns.apply(&Manifest::new(ns.name(), "gone")?.value("TOKEN", deleted)?.yaml())?;
    ns.wait_condition("sealedenv", "gone", "Ready", "True", "Delivered")?;
    ns.kubectl(&["delete", "sealedenv", "gone"])?;
    wait("the Secret to go", || Ok(ns.find("secret", "gone")?.is_none().then_some(())))?;

    objects(&canaries, &ns, second)?;
    let pods = release::settled()?;
    for pod in &pods {
        left_by(&canaries, pod)?;
    }
    // Last, so that all of the above has come and gone.
    let mut found = Vec::new();
    for pod in &pods {
        found.extend(memory(&canaries, pod, &ns)?);
    }
    ensure!(found.is_empty(), "memory holds {found:#?}");
    for pod in &pods {
        ensure!(pod.process()?.cannot_be_dumped()?, "{} could leave a core dump", pod.name);
    }
    oracle.holds_without_crowd()
}

/// Delivered, replaced by another value, and asked for anew.
fn deliver(ns: &Namespace, first: &str, second: &str) -> Result<()> {
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", first)?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", second)?.yaml())?;
    wait("the new value", || Ok((ns.secret_value("checkout", "TOKEN")? == second).then_some(())))?;
    let asked = unique();
    ns.kubectl(&["annotate", "sealedenv", "checkout", &format!("sealedenv.dev/requestedAt={asked}")])?;
    wait("the answer to a request", || {
        let env = ns.get("sealedenv", "checkout")?;
        Ok((env["status"]["lastHandledReconcileAt"] == asked.as_str()).then_some(()))
    })
}

/// Changed by hand in the Secret, under the key and under another one, and put back.
fn repair(ns: &Namespace, value: &str, by_hand: &str) -> Result<()> {
    let patch = json!({"stringData": {"TOKEN": by_hand, "OTHER": by_hand}}).to_string();
    ns.kubectl(&["patch", "secret", "checkout", "-p", &patch])?;
    wait("the repair", || {
        Ok((ns.secret_value("checkout", "TOKEN")? == value && ns.secret_keys("checkout")?.len() == 1)
            .then_some(()))
    })
}

/// A last good value that has to be read, because the new one does not open.
fn keep_last(ns: &Namespace, kept: &str) -> Result<()> {
    ns.apply(&Manifest::new(ns.name(), "kept")?.value("TOKEN", kept)?.value("MORE", "a")?.yaml())?;
    ns.wait_condition("sealedenv", "kept", "Ready", "True", "Delivered")?;
    let bad = seal::strict(&seal::stranger()?, ns.name(), "kept", "TOKEN", "never")?;
    ns.apply(&Manifest::new(ns.name(), "kept")?.raw("TOKEN", &bad).value("MORE", "b")?.yaml())?;
    wait("the other key to change", || Ok((ns.secret_value("kept", "MORE")? == "b").then_some(())))?;
    ensure!(ns.secret_value("kept", "TOKEN")? == kept, "the last good value stays");
    Ok(())
}

/// A value sealed for another place, and plain text where sealed text belongs: no refusal repeats it.
fn refuse(canaries: &Canaries, ns: &Namespace, misplaced: &str, plain: &str) -> Result<()> {
    let elsewhere = Manifest::new("elsewhere", "checkout")?.value("TOKEN", misplaced)?;
    let mut manifests =
        vec![Manifest::new(ns.name(), "misplaced")?.raw("TOKEN", elsewhere.sealed("TOKEN")?).yaml()];
    for text in [plain.to_owned(), format!("sealed:v1:{plain}"), format!("SEALED:V1:{plain}")] {
        manifests.push(Manifest::new(ns.name(), "plain")?.raw("TOKEN", &text).yaml());
    }
    let public = format!("public: {{TOKEN: {plain:?}}}");
    manifests
        .push(Manifest::new(ns.name(), "plain")?.spec(&public).spec("meta: {TOKEN: {class: secret}}").yaml());
    for manifest in manifests {
        let (taken, said) = said(ns, &manifest)?;
        ensure!(!taken, "taken: {manifest}");
        canaries.absent("a refusal", &said)?;
    }
    Ok(())
}

/// A pod that gets the value: the answer names it and does not hold it.
fn inject(canaries: &Canaries, ns: &Namespace) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app", "annotations": {"sealedenv.dev/inject": "checkout"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    });
    let args = ["-n", ns.name(), "create", "--dry-run=server", "-o", "json", "-f", "-"];
    let output = kubectl_output(&args, &pod.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(String::from_utf8_lossy(&output.stdout).contains("/run/secrets/checkout"), "injected");
    canaries.absent("an injected pod", &output.stdout)
}

/// Objects that anybody may read who may not read Secrets.
fn objects(canaries: &Canaries, ns: &Namespace, delivered: &str) -> Result<()> {
    let secrets = ns.kubectl(&["get", "secrets", "-o", "json"])?;
    let found = find(secrets.as_bytes(), &canaries.needles())?;
    let encoded = BASE64_STANDARD.encode(delivered);
    ensure!(found.iter().any(|(n, _)| encoded.starts_with(n)), "the search finds what is there: {found:?}");
    for kind in ["sealedenvs", "sealingkeys", "events", "events.events.k8s.io", "pods", "configmaps"] {
        canaries.absent(kind, kubectl(&["get", kind, "-A", "-o", "json"])?.as_bytes())?;
    }
    Ok(())
}

/// Logs, metrics and files of one server.
fn left_by(canaries: &Canaries, pod: &Pod) -> Result<()> {
    let logs = pod.logs()?;
    ensure!(logs.contains("TRACE"), "{} logs everything", pod.name);
    canaries.absent(&format!("the log of {}", pod.name), logs.as_bytes())?;
    let metrics = request(format!("{}:8080", pod.ip).parse()?, "GET", "/metrics", "", "")?;
    ensure!(metrics.is_ok(), "{}", metrics.code);
    canaries.absent(&format!("metrics of {}", pod.name), metrics.body.as_bytes())?;
    let process = pod.process()?;
    let folder = process.path(&format!("root{TRAIL}"));
    for entry in fs::read_dir(folder.parent().context("a folder")?)? {
        let file = entry?.path();
        canaries.absent(&file.display().to_string(), &fs::read(&file)?)?;
    }
    Ok(())
}

/// What of them stands in the memory of a server that is idle now.
fn memory(canaries: &Canaries, pod: &Pod, ns: &Namespace) -> Result<Vec<(String, Hit)>> {
    let process = pod.process()?;
    // It is its memory that is looked through: the namespace is known to it. And what is in a memory is found.
    ensure!(!process.find(&[ns.name().to_owned()])?.is_empty(), "{} knows its objects", pod.name);
    ensure!(
        !Process::new(std::process::id()).find(&canaries.values)?.is_empty(),
        "our own memory holds them"
    );
    Ok(process.find(&canaries.needles())?.into_iter().map(|hit| (pod.name.clone(), hit)).collect())
}
