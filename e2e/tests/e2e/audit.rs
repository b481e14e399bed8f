//! The audit trail as the operator's volume has it, read by the CLI in the image.

use anyhow::{Context as _, Result};
use sealedenv_e2e::cluster::{kubectl, wait};
use sealedenv_e2e::setting;
use serde_json::Value;

const FILE: &str = "/var/lib/sealedenv/audit/audit.jsonl";

/// Runs the CLI inside the operator's pod.
pub(crate) fn in_operator(args: &[&str]) -> Result<String> {
    let namespace = setting::system_namespace()?;
    let deployment = format!("deploy/{}-operator", setting::get("SEALEDENV_E2E_RELEASE")?);
    kubectl(&[&["-n", &namespace, "exec", &deployment, "--", "/sealedenv"], args].concat())
}

/// Every record of the operator's trail.
pub(crate) fn records() -> Result<Vec<Value>> {
    let text = in_operator(&["audit", "tail", "-n", "100000", "--output", "json", FILE])?;
    text.lines().map(|line| serde_json::from_str(line).context("a record is JSON")).collect()
}

/// Waits for a record.
pub(crate) fn wait_record(mut is_it: impl FnMut(&Value) -> bool) -> Result<Value> {
    wait("a record on the audit trail", || Ok(records()?.into_iter().rev().find(&mut is_it)))
}

#[test]
fn the_trail_verifies_and_holds_no_value() -> Result<()> {
    let verified = in_operator(&["audit", "verify", FILE])?;
    assert!(verified.contains("ok"), "{verified}");
    let records = records()?;
    assert!(records.iter().any(|r| r["action"] == "start"), "the operator's start is on record");
    assert!(!records.iter().any(|r| r.to_string().contains("hunter2")));
    Ok(())
}
