//! Certificates that expire while pods are being created.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sealedenv_e2e::cluster::{Namespace, kubectl, run, wait};
use sealedenv_e2e::release::{self, Changed};
use sealedenv_e2e::requests::Proxy;
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::{Value, json};

use crate::fact;
use crate::oracle::Oracle;

/// The authorities in the `caBundle` of the webhook that pods are sent to.
fn authorities() -> Result<BTreeSet<String>> {
    let release = setting::get("SEALEDENV_E2E_RELEASE")?;
    let bundle = kubectl(&[
        "get",
        "mutatingwebhookconfiguration",
        &release,
        "-o",
        "jsonpath={.webhooks[0].clientConfig.caBundle}",
    ])?;
    let text = String::from_utf8(BASE64_STANDARD.decode(bundle)?)?;
    let end = "-----END CERTIFICATE-----";
    Ok(text.split_inclusive(end).map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect())
}

/// Whether a certificate expires within two minutes.
fn is_short_lived(certificate: &str) -> Result<bool> {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-checkend", "120"]);
    Ok(run(openssl, certificate.as_bytes())?.status.code() == Some(1))
}

#[test]
fn certificates_that_expire_under_load_fail_no_admission() -> Result<()> {
    // The shortest that the webhook takes.
    let _short = Changed::to(&["webhook.extraArgs.certificate-lifetime=60s"])?;
    let oracle = Oracle::start()?;
    let ns = Namespace::new("certificates")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    let proxy = Proxy::start()?;
    let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", ns.name());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app", "annotations": {"sealedenv.dev/inject": "checkout"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    });
    let (asked, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ask = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let pod: Value = proxy.create(&path, &pod)?.json()?;
            let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
            ensure!(mounts.to_string().contains("/run/secrets/checkout"), "not injected: {mounts}");
            asked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    // All that the API server trusted at first has expired and left the bundle, and others serve.
    let replicas = release::pods("webhook")?.len();
    let expired = || {
        let mut first = BTreeSet::new();
        for authority in authorities()? {
            // Those of the pods before live for a week.
            if is_short_lived(&authority)? {
                first.insert(authority);
            }
        }
        ensure!(first.len() >= replicas, "an authority of each replica");
        wait("every first certificate to expire", || {
            let left = authorities()?.intersection(&first).count();
            if stop.load(Ordering::Relaxed) {
                return Ok(Some(())); // an admission failed: its error is the one to see
            }
            if left == 0 { Ok(Some(())) } else { bail!("{left} of {} are left", first.len()) }
        })
    };
    std::thread::scope(|scope| -> Result<()> {
        let failing = || {
            let result = ask();
            stop.store(true, Ordering::Relaxed);
            result
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(failing)).collect();
        let result = expired();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))?
                .context("an admission failed")?;
        }
        result
    })?;
    let asked = asked.load(Ordering::Relaxed);
    fact(format_args!("{asked} admissions while every certificate expired, none failed"));
    // The lifetime is 60 s: below this there was no load to speak of.
    ensure!(asked > 3000, "only {asked} admissions");
    oracle.holds_without_crowd()
}
