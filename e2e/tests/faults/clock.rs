//! Clocks that are wrong. The machine's own clock is never set, so what is shown is this: things made by a clock that
//! was ahead, certificates for peers that are behind, and a monotonic clock that is years from everybody else's.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_with, run, unique, wait};
use sealedenv_e2e::requests::Proxy;
use sealedenv_e2e::seal::{self, Manifest};
use sealedenv_e2e::{release, setting};
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::oracle::Oracle;

const AHEAD: &str = "2100-01-01T00:00:00Z";

fn sealing_key() -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&["get", "sealingkey", "cluster", "-o", "json"])?)?)
}

#[test]
fn a_rotation_takes_effect_though_the_last_key_was_made_by_a_clock_that_was_ahead() -> Result<()> {
    let oracle = Oracle::start()?;
    let ns = Namespace::new("clock_ahead")?;
    let system = setting::system_namespace()?;
    let identity = String::from_utf8(seal::sealedenv(&["keygen"], b"")?)?;
    let line = |begin: &str| identity.lines().find_map(|l| Some(l.strip_prefix(begin)?.to_owned()));
    let recipient = line("# public key: ").context("a recipient")?;
    let ahead = format!("ahead-{}", unique());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "sealedenv.dev/sealing-key",
        "metadata": {
            "name": ahead, "namespace": system, "labels": {"sealedenv.dev/sealing-key": "cluster"},
            "annotations": {"sealedenv.dev/created-at": AHEAD},
        },
        "stringData": {"identity": format!("AGE-SECRET-KEY-{}", line("AGE-SECRET-KEY-").context("an identity")?)},
    });
    kubectl_with(&["create", "-f", "-"], &secret.to_string())?;
    wait("the key of the clock that was ahead to be current", || {
        Ok((sealing_key()?["status"]["recipients"][0] == recipient.as_str()).then_some(()))
    })?;

    let request = unique();
    kubectl(&[
        "annotate",
        "--overwrite",
        "sealingkey",
        "cluster",
        &format!("sealedenv.dev/rotate={request}"),
    ])?;
    let after = wait("the rotation", || {
        let key = sealing_key()?;
        Ok((key["status"]["lastHandledRotation"] == request.as_str()).then_some(key))
    })?;
    let current = &after["status"]["current"];
    ensure!(after["status"]["recipients"][0] != recipient.as_str(), "values are still sealed to the old key");
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;

    let made =
        after["status"]["keys"].as_array().context("keys")?.iter().find(|k| &k["fingerprint"] == current);
    let made = made.and_then(|k| k["secretName"].as_str()).context("the Secret of the new key")?;
    kubectl(&["-n", &system, "delete", "secret", &ahead, made])?;
    oracle.holds_without_crowd()
}

#[test]
fn a_status_from_the_future_holds_up_nothing() -> Result<()> {
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("future_status")?, Proxy::start()?);
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "old")?.yaml())?;
    let env = ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    let mut status = env["status"].clone();
    for condition in status["conditions"].as_array_mut().context("conditions")? {
        condition["lastTransitionTime"] = AHEAD.into();
    }
    for key in status["keys"].as_array_mut().context("keys")? {
        key["lastGoodAt"] = AHEAD.into();
    }
    let path = format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs/checkout/status", ns.name());
    proxy.merge(&path, &json!({"status": status}))?.json()?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "new")?.yaml())?;
    wait("the new value", || Ok((ns.secret_value("checkout", "TOKEN")? == "new").then_some(())))?;
    let env = ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    ensure!(env["status"]["observedGeneration"] == env["metadata"]["generation"]);
    oracle.holds_without_crowd()
}

#[test]
fn the_webhook_is_trusted_by_peers_whose_clocks_are_minutes_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bundle = folder.path().join("bundle.pem");
    let configuration = setting::get("SEALEDENV_E2E_RELEASE")?;
    let encoded = kubectl(&[
        "get",
        "validatingwebhookconfiguration",
        &configuration,
        "-o",
        "go-template={{(index .webhooks 0).clientConfig.caBundle | base64decode}}",
    ])?;
    fs::write(&bundle, encoded)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    for pod in release::pods("webhook")? {
        let leaf = folder.path().join("leaf.pem");
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("{}:8443", pod.ip), "-servername", "x"]);
        let shown = run(client, b"")?.stdout;
        fs::write(&leaf, &shown)?;
        let valid_at = |time: u64| -> Result<bool> {
            let mut verify = Command::new("openssl");
            verify.args(["verify", "-attime", &time.to_string(), "-CAfile"]).arg(&bundle).arg(&leaf);
            Ok(run(verify, b"")?.status.success())
        };
        ensure!(
            valid_at(now)? && valid_at(now - 240)?,
            "{} is not trusted by a peer four minutes behind",
            pod.name
        );
        ensure!(!valid_at(now - 100 * 24 * 3600)?, "the time is looked at");
    }
    Ok(())
}

#[test]
fn an_operator_whose_monotonic_clock_is_years_ahead_works_like_any_other() -> Result<()> {
    let (folder, ns) = (tempfile::tempdir()?, Namespace::new("monotonic")?);
    let trail = folder.path().join("audit.jsonl");
    let flags = ["--audit-file", &trail.display().to_string()];
    let years = ["unshare", "--time", "--monotonic", "200000000", "--boottime", "200000000"];
    let mut operator = Operator::start_with(folder.path(), &years, &flags, Stdio::null())?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    ns.kubectl(&["delete", "secret", "checkout"])?;
    wait("the repair", || Ok(ns.find("secret", "checkout")?.map(drop)))?;
    operator.stop()?;
    let verified = seal::sealedenv(&["audit", "verify", &trail.display().to_string()], b"")?;
    ensure!(String::from_utf8_lossy(&verified).contains("ok"));
    Ok(())
}
