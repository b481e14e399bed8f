//! What goes while no operator runs.

use anyhow::Result;
use rustix::process::Signal;
use sealedenv_e2e::cluster::{kubectl, wait};
use sealedenv_e2e::operator::Home;
use serde_json::Value;

#[test]
fn a_namespace_goes_without_the_operator() -> Result<()> {
    let home = Home::new("namespace_goes")?;
    let mut operator = home.start("one", &[])?;
    operator.wait_ready()?;
    let all: Vec<String> = (0..30).map(|i| format!("env-{i}")).collect();
    home.apply_all(&all, "v")?;
    home.wait_statuses(all.len())?;
    let namespace = home.namespace();
    let list: Value =
        serde_json::from_str(&namespace.kubectl(&["get", "sealedenvs,secrets,leases", "-o", "json"])?)?;
    for object in list["items"].as_array().into_iter().flatten() {
        assert!(object["metadata"]["finalizers"].is_null(), "{}", object["metadata"]);
    }
    operator.signal(Signal::KILL)?;
    operator.wait_exit()?;
    kubectl(&["delete", "namespace", namespace.name(), "--wait=false"])?;
    wait("the namespace to be gone", || {
        let left = kubectl(&[
            "get",
            "namespace",
            namespace.name(),
            "--ignore-not-found",
            "-o",
            "jsonpath={.status}",
        ])?;
        if left.is_empty() { Ok(Some(())) } else { anyhow::bail!("{left}") }
    })
}
