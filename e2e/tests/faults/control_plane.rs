//! The API server killed under changes, and etcd put back to an older state, while operator and webhook run on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, unique, wait};
use sealedenv_e2e::requests::{Proxy, at_once};
use sealedenv_e2e::{release, setting};
use serde_json::json;

use crate::crowd::{Crowd, THREADS, name};
use crate::oracle::Oracle;

const API_SERVER: &str = "kube-apiserver";

/// `cargo xtask cluster …`, as a person would.
pub(crate) fn cluster(args: &[&str]) -> Result<()> {
    let mut xtask = std::process::Command::new(setting::get("SEALEDENV_E2E_XTASK")?);
    xtask.arg("cluster").args(args);
    let output = sealedenv_e2e::cluster::run(xtask, b"")?;
    ensure!(
        output.status.success(),
        "cluster {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Sees that the API server runs again, whatever the test came to.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        if let Err(error) = cluster(&["start", API_SERVER]) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn an_api_server_killed_under_changes_loses_nothing() -> Result<()> {
    const MEMBERS: usize = 100;
    const OUTAGE: usize = 5000;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("api_server_killed")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 10)?;
    crowd.create(&proxy, MEMBERS)?;

    let restored = Restored;
    let (refused, taken, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    // Every member gets one value after the other, with the API server there or not.
    let change = |number: usize| {
        let answer = crowd.set(&proxy, number % MEMBERS, number / MEMBERS + number);
        let good = answer.is_ok_and(|answer| answer.is_ok());
        if good { &taken } else { &refused }.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let changes = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                at_once(4, 8, |n| change(number + n))?;
                number += 8;
            }
            Ok::<_, anyhow::Error>(())
        });
        let outage = || -> Result<()> {
            wait("changes to be under way", || Ok((taken.load(Ordering::Relaxed) > MEMBERS).then_some(())))?;
            cluster(&["stop", "--kill", API_SERVER])?;
            wait("changes to be refused", || Ok((refused.load(Ordering::Relaxed) > OUTAGE).then_some(())))?;
            cluster(&["start", API_SERVER])?;
            let before = taken.load(Ordering::Relaxed);
            wait("changes to go on", || Ok((taken.load(Ordering::Relaxed) > before + MEMBERS).then_some(())))
        };
        let result = outage();
        stop.store(true, Ordering::Relaxed);
        changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))??;
        result
    })?;
    drop(restored);
    oracle.holds(&proxy, &[&crowd], &[])?;
    ensure!(crowd.delivered(&proxy)?.len() == MEMBERS);
    Ok(())
}

#[test]
fn after_etcd_is_restored_to_an_older_state_all_is_delivered_as_that_state_says() -> Result<()> {
    const MEMBERS: usize = 30;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("etcd_restored")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 10)?;
    crowd.create(&proxy, MEMBERS)?;
    crowd.delivered(&proxy)?;
    let snapshot = format!("faults-{}", unique());
    cluster(&["snapshot", &snapshot])?;

    // History that the restore takes back: many changes, one object more and one less. So many that versions stay far
    // behind those that operator and webhook have seen, for all the rest of the test.
    at_once(THREADS, MEMBERS * 40, |n| crowd.set(&proxy, n % MEMBERS, n + 1)?.json().map(drop))?;
    proxy.create(&crowd.path(), &crowd.member("later", 3))?.json()?;
    proxy.delete(&format!("{}/{}", crowd.path(), name(0)))?.json()?;
    wait("its Secret to go", || Ok(ns.find("secret", &name(0))?.is_none().then_some(())))?;
    crowd.delivered(&proxy)?;
    let seen = version(&ns)?;

    cluster(&["restore", &snapshot])?;
    let proxy = Proxy::start()?;
    ensure!(ns.find("sealedenv", "later")?.is_none(), "the snapshot is from before");
    // What is changed now has versions that were seen before, of other objects.
    at_once(THREADS, MEMBERS / 2, |n| crowd.set(&proxy, n, n + 5)?.json().map(drop))?;
    proxy.create(&crowd.path(), &crowd.member("afterwards", 4))?.json()?;
    ns.kubectl(&["delete", "secret", &name(MEMBERS - 1)])?;
    ns.kubectl(&["patch", "secret", &name(MEMBERS - 2), "-p", r#"{"stringData":{"TOKEN":"by hand"}}"#])?;
    oracle.holds(&proxy, &[&crowd], &[])?;
    ensure!(
        crowd.delivered(&proxy)?.len() == MEMBERS + 1,
        "the deleted one is back, the later one never was"
    );
    ensure!(version(&ns)? < seen, "the test has not outrun the versions that were seen");
    webhook_knows(&ns)
}

/// The latest version of the cluster's data, by a write.
fn version(ns: &Namespace) -> Result<u64> {
    let name = unique();
    ns.kubectl(&["create", "configmap", &name])?;
    ns.version("configmap", &name)?.parse().context("a number")
}

/// Every replica of the webhook knows the object that was made after the restore.
fn webhook_knows(ns: &Namespace) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app", "annotations": {"sealedenv.dev/inject": "afterwards"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    });
    let replicas = release::pods("webhook")?.len();
    ensure!(replicas > 0, "a webhook");
    // Requests go to any of them: enough that each is asked.
    for _ in 0..replicas * 8 {
        let args = ["-n", ns.name(), "create", "--dry-run=server", "-o", "json", "-f", "-"];
        let output = sealedenv_e2e::cluster::kubectl_output(&args, &pod.to_string())?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let warned = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!warned.contains("Warning"), "{warned}");
    }
    kubectl(&["get", "--raw", "/readyz"]).map(drop)
}
