//! What must hold after every fault.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use sealedenv_e2e::cluster::wait;
use sealedenv_e2e::release::{self, Pod};
use sealedenv_e2e::requests::Proxy;
use serde_json::Value;

use crate::crowd::Crowd;

/// Where each server keeps its trail.
pub(crate) const TRAIL: &str = "/var/lib/sealedenv/audit/audit.jsonl";

/// How things were before the fault.
pub(crate) struct Oracle {
    before: BTreeMap<String, i64>,
}

impl Oracle {
    /// Waits until the release is settled and notes how often each of its containers was started.
    pub(crate) fn start() -> Result<Self> {
        let pods = release::settled()?;
        ensure!(pods.iter().any(|p| p.component == "operator"), "no operator: {pods:?}");
        Ok(Self { before: pods.into_iter().map(|pod| (pod.name, pod.restarts)).collect() })
    }

    /// The same for a test whose SealedEnvs are its own.
    pub(crate) fn holds_without_crowd(&self) -> Result<()> {
        let pods = self.restarts(&[])?;
        pods.iter().try_for_each(verify)
    }

    /// All Secrets are right, each has its record on a trail, all trails are valid, and no container was restarted but
    /// those that the test has ended, each as often as it says.
    pub(crate) fn holds(&self, proxy: &Proxy, crowds: &[&Crowd], ended: &[(&str, i64)]) -> Result<()> {
        let mut delivered = Vec::new();
        for crowd in crowds {
            delivered
                .extend(crowd.delivered(proxy)?.into_iter().map(|name| (crowd.namespace().to_owned(), name)));
        }
        let pods = self.restarts(ended)?;
        let mut released = BTreeSet::new();
        for pod in &pods {
            verify(pod)?;
            if pod.component == "operator" {
                released.extend(released_by(pod)?);
            }
        }
        let unrecorded: Vec<_> = delivered.iter().filter(|id| !released.contains(*id)).collect();
        ensure!(unrecorded.is_empty(), "{} are on no trail, such as {:?}", unrecorded.len(), unrecorded[0]);
        Ok(())
    }

    /// Waits: a kubelet counts a restart some time after it made it.
    fn restarts(&self, ended: &[(&str, i64)]) -> Result<Vec<Pod>> {
        wait("each container to have been restarted as often as it was ended", || {
            let pods = release::settled()?;
            self.are_restarted(&pods, ended)?;
            Ok(Some(pods))
        })
    }

    fn are_restarted(&self, pods: &[Pod], ended: &[(&str, i64)]) -> Result<()> {
        let now: BTreeMap<&str, &Pod> = pods.iter().map(|pod| (pod.name.as_str(), pod)).collect();
        for (name, before) in &self.before {
            let pod = now.get(name.as_str()).with_context(|| format!("pod {name} is gone"))?;
            let ours = ended.iter().find(|(ended, _)| ended == name).map_or(0, |(_, times)| *times);
            if pod.restarts != before + ours {
                bail!("{name} was restarted {} times, {ours} by us: {}", pod.restarts - before, pod.ended);
            }
        }
        Ok(())
    }
}

fn verify(pod: &Pod) -> Result<()> {
    let verified = pod.sealedenv(&["audit", "verify", TRAIL])?;
    ensure!(verified.contains("ok"), "{}: {verified}", pod.name);
    Ok(())
}

/// Every record of a pod's trail.
pub(crate) fn records(pod: &Pod) -> Result<Vec<Value>> {
    let text = pod.sealedenv(&["audit", "tail", "-n", "1000000", "--output", "json", TRAIL])?;
    text.lines().map(|line| serde_json::from_str(line).context("a record is JSON")).collect()
}

/// The SealedEnvs of which a trail says that something was released.
fn released_by(pod: &Pod) -> Result<BTreeSet<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(records(pod)?
        .iter()
        .filter(|r| r["outcome"] == "ok" && (r["action"] == "reconcile" || r["action"] == "repair"))
        .map(|r| (text(&r["object"]["ns"]), text(&r["object"]["name"])))
        .collect())
}
