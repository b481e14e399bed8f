//! The node plugin killed, and upgraded, while pods start and read and get other values.

use anyhow::{Context as _, Result, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, unique, wait};
use sealedenv_e2e::{release, setting};
use serde_json::{Value, json};

use crate::memory::{NodePlugin, create, mounts_of, pod, read, seal, wait_value};

/// Pods that start while something is done to the plugin.
const STARTING: usize = 6;

/// A pod that holds the files and does not look at them.
fn quiet(name: &str) -> Result<String> {
    let mut pod: Value = serde_json::from_str(&pod(name)?)?;
    let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
    Ok(pod.to_string())
}

/// Starts pods, and amid them does something to the plugin. All of them run afterwards, with the value that there is.
fn start_amid(ns: &Namespace, what: &str, value: &str, amid: impl FnOnce() -> Result<()>) -> Result<()> {
    let names: Vec<String> = (0..STARTING).map(|number| format!("{what}-{number}")).collect();
    let (before, after) = names.split_at(STARTING / 2);
    for name in before {
        create(ns, &quiet(name)?)?;
    }
    amid()?;
    for name in after {
        create(ns, &quiet(name)?)?;
    }
    for name in &names {
        ns.wait_phase(name, &["Running"])?;
        ensure!(read(ns, name)? == value, "{name} has another value");
    }
    Ok(())
}

fn kill() -> Result<()> {
    release::pods("node")?.first().context("a node plugin")?.process()?.signal("KILL")
}

#[test]
fn files_come_and_stay_while_the_plugin_is_killed_and_upgraded() -> Result<()> {
    let _plugin = NodePlugin::installed()?;
    let ns = Namespace::new("plugin")?;
    let [first, second, third] = [1, 2, 3].map(|number| format!("value-{number}-{}", unique()));
    seal(&ns, &first)?;
    // Reads in a loop, and says so when two keys are of different versions or one is missing.
    create(&ns, &pod("reader")?)?;
    ns.wait_phase("reader", &["Running"])?;

    start_amid(&ns, "killed", &first, kill)?;
    let plugin = &release::settled()?.into_iter().find(|pod| pod.component == "node").context("a plugin")?;
    assert_eq!(plugin.restarts, 1, "it was killed: {}", plugin.ended);

    // Killed while it has other values to bring.
    seal(&ns, &second)?;
    kill()?;
    wait_value(&ns, "reader", &second)?;

    let system = setting::system_namespace()?;
    let daemon_set = format!("daemonset/{}-node", setting::get("SEALEDENV_E2E_RELEASE")?);
    start_amid(&ns, "upgraded", &second, || {
        kubectl(&["-n", &system, "rollout", "restart", &daemon_set]).map(drop)
    })?;
    seal(&ns, &third)?;
    kubectl(&["-n", &system, "rollout", "status", &daemon_set, "--timeout=110s"])?;
    let next = release::settled()?.into_iter().find(|pod| pod.component == "node").context("a plugin")?;
    ensure!(next.uid != plugin.uid, "it was not upgraded");
    for name in ["reader", "killed-0", "upgraded-0"] {
        wait_value(&ns, name, &third)?;
    }

    let log = ns.kubectl(&["logs", "reader"])?;
    ensure!(!log.contains("BROKEN") && !log.contains("MISSING"), "{log}");
    let pods: Value = serde_json::from_str(&ns.kubectl(&["get", "pods", "-o", "json"])?)?;
    let pods = pods["items"].as_array().context("a list")?;
    assert_eq!(pods.len(), 1 + 2 * STARTING);
    let mut uids = Vec::new();
    for pod in pods {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{}", pod["metadata"]["name"]);
        let uid = pod["metadata"]["uid"].as_str().context("a UID")?;
        assert_eq!(mounts_of(uid)?.len(), 1, "{}", pod["metadata"]["name"]);
        uids.push(uid);
    }
    ns.kubectl(&["delete", "pods", "--all"])?;
    for uid in uids {
        wait("the mounts to go", || Ok(mounts_of(uid)?.is_empty().then_some(())))?;
    }
    Ok(())
}
