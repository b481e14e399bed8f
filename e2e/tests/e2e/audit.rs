//! The audit trails as the operator's volumes have them, read by the CLI in the image. Each replica has its own.

use anyhow::{Context as _, Result};
use sealedenv_e2e::cluster::{kubectl, wait};
use sealedenv_e2e::setting;
use serde_json::Value;

const FILE: &str = "/var/lib/sealedenv/audit/audit.jsonl";

/// The operator's pods that run and stay.
pub(crate) fn replicas() -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/component=operator";
    let namespace = setting::system_namespace()?;
    let list = kubectl(&["-n", &namespace, "get", "pods", "-l", selector, "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let stays =
        |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running";
    let pods = list["items"].as_array().into_iter().flatten().filter(stays);
    Ok(pods.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
}

/// Runs the CLI inside one replica of the operator.
pub(crate) fn in_replica(pod: &str, args: &[&str]) -> Result<String> {
    let namespace = setting::system_namespace()?;
    kubectl(&[&["-n", &namespace, "exec", pod, "--", "/sealedenv"], args].concat())
}

/// Every record of every replica's trail. The order between replicas means nothing.
pub(crate) fn records() -> Result<Vec<Value>> {
    let mut records = Vec::new();
    for pod in replicas()? {
        let text = in_replica(&pod, &["audit", "tail", "-n", "100000", "--output", "json", FILE])?;
        for line in text.lines() {
            records.push(serde_json::from_str(line).context("a record is JSON")?);
        }
    }
    Ok(records)
}

/// Waits for a record.
pub(crate) fn wait_record(mut is_it: impl FnMut(&Value) -> bool) -> Result<Value> {
    wait("a record on the audit trail", || Ok(records()?.into_iter().rev().find(&mut is_it)))
}

#[test]
fn the_trail_verifies_and_holds_no_value() -> Result<()> {
    let replicas = wait("both replicas", || Ok(Some(replicas()?).filter(|pods| pods.len() >= 2)))?;
    for pod in replicas {
        wait("the replica's start to be on record, and its trail to verify", || {
            let text = in_replica(&pod, &["audit", "tail", "-n", "100000", "--output", "json", FILE])?;
            anyhow::ensure!(text.contains(r#""action":"start""#), "{text}");
            assert!(!text.contains("hunter2"));
            let verified = in_replica(&pod, &["audit", "verify", FILE])?;
            Ok(verified.contains("ok").then_some(()))
        })?;
    }
    Ok(())
}
