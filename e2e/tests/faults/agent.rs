//! Memory delivery without anything on the nodes: a pod in a namespace that enforces the restricted Pod Security Standard,
//! its agent, and environment variables without a Secret. Here and not among the e2e tests, because it changes the release.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, unique, wait};
use sealedenv_e2e::process::find;
use sealedenv_e2e::release::{Changed, NoOperator};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::{Value, json};

use crate::memory::holding;

/// Ends with 42 when it is told to end, if it is the process that is told.
const APP: &str = "trap 'exit 42' TERM; while :; do sleep 1; done";

fn container(name: &str, script: &str) -> Result<Value> {
    Ok(json!({
        "name": name,
        "image": setting::get("SEALEDENV_E2E_BUSYBOX")?,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c"],
        "args": [script],
        "env": [{"name": "KEPT", "value": "the pod's own"}],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    }))
}

/// As somebody writes it: annotations, and nothing of ours. An init container reads what the app reads.
fn pod(name: &str, environment: &str) -> Result<String> {
    let read = format!("cat /run/secrets/{environment}/TOKEN > /dev/null");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {
            "sealedenv.dev/inject": environment,
            "sealedenv.dev/delivery": "agent",
            "sealedenv.dev/env": "true",
        }},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [container("reads", &read)?],
            "containers": [container("app", APP)?],
        },
    });
    Ok(pod.to_string())
}

/// One whose containers see each other's processes, and that says so when it is told of a change.
fn told(name: &str, environment: &str) -> Result<String> {
    let mut pod: Value = serde_json::from_str(&pod(name, environment)?)?;
    pod["metadata"]["annotations"]["sealedenv.dev/on-change"] = json!("signal=SIGHUP");
    pod["spec"]["shareProcessNamespace"] = json!(true);
    let script = "trap 'echo told' HUP; trap 'exit 0' TERM; while :; do sleep 1; done";
    pod["spec"]["containers"][0]["args"] = json!([script]);
    Ok(pod.to_string())
}

/// One whose agent is to run a program. The image has nothing harmless to run but the agent itself: `--version` ends with 0,
/// a flag that it does not have with 2.
fn running(name: &str, environment: &str, program: &str) -> Result<String> {
    let mut pod: Value = serde_json::from_str(&pod(name, environment)?)?;
    pod["metadata"]["annotations"]["sealedenv.dev/on-change"] = json!(format!("exec={program}"));
    Ok(pod.to_string())
}

fn create(ns: &Namespace, pod: &str) -> Result<()> {
    let output = kubectl_output(&["-n", ns.name(), "create", "-f", "-"], pod)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn seal(ns: &Namespace, name: &str, value: &str) -> Result<()> {
    let manifest = Manifest::new(ns.name(), name)?.spec("delivery: Memory");
    ns.apply(&manifest.value("TOKEN", value)?.value("KEPT", value)?.yaml()).map(drop)
}

/// The embedded cluster has no DNS: pods are told the operator's address.
fn with_agents() -> Result<Changed> {
    let system = setting::system_namespace()?;
    let name = format!("{}-delivery", setting::get("SEALEDENV_E2E_RELEASE")?);
    let address = kubectl(&["-n", &system, "get", "service", &name, "-o", "jsonpath={.spec.clusterIP}"])?;
    let address = format!("agent.operatorAddress={address}");
    Changed::to(&["delivery.enabled=true", "agent.enabled=true", &address])
}

fn of_container<'a>(pod: &'a Value, list: &str, name: &str) -> Result<&'a Value> {
    let all = pod["status"][list].as_array().context("statuses")?;
    all.iter().find(|status| status["name"] == name).context("a status")
}

#[test]
fn a_restricted_pod_gets_files_and_variables_that_never_were_in_etcd_and_files_change_under_it() -> Result<()>
{
    let _with_delivery = Changed::to(&["delivery.enabled=true"])?;
    let _with_agents = with_agents()?;
    let ns = Namespace::new("agent")?;
    kubectl(&["label", "namespace", ns.name(), "pod-security.kubernetes.io/enforce=restricted"])?;
    let (first, second) = (format!("canary-{}-one", unique()), format!("canary-{}-two", unique()));
    seal(&ns, "checkout", &first)?;
    create(&ns, &pod("app", "checkout")?)?;
    create(&ns, &told("told", "checkout")?)?;
    ns.wait_phase("app", &["Running"])?;
    create(&ns, &running("runs", "checkout", "/sealedenv-agent --version")?)?;
    create(&ns, &running("fails", "checkout", "/sealedenv-agent --no-such-flag")?)?;
    for name in ["told", "runs", "fails"] {
        ns.wait_phase(name, &["Running"])?;
    }
    let exec = |command: &[&str]| ns.exec("app", "app", command);
    assert_eq!(exec(&["cat", "/run/secrets/checkout/TOKEN"])?, first);
    ensure!(ns.find("secret", "checkout")?.is_none(), "there is a Secret");

    // The app is process 1, and has what a Secret would have given it.
    let command = exec(&["cat", "/proc/1/cmdline"])?;
    assert_eq!(command.split('\0').collect::<Vec<_>>(), ["/bin/sh", "-c", APP, ""]);
    let variables = exec(&["cat", "/proc/1/environ"])?;
    let variables: Vec<&str> = variables.split('\0').collect();
    ensure!(variables.contains(&format!("TOKEN={first}").as_str()), "{variables:?}");
    ensure!(variables.contains(&"KEPT=the pod's own"), "env wins: {variables:?}");

    let stat = exec(&["stat", "-L", "-c", "%u %g %a", "/run/secrets/checkout/TOKEN"])?;
    assert_eq!(stat.trim(), "65532 2000 440");
    let mounts = exec(&["cat", "/proc/mounts"])?;
    let mount = mounts.lines().find(|line| line.contains(" /run/secrets/checkout ")).context("a mount")?;
    ensure!(mount.contains(" tmpfs ro"), "{mount}");
    ensure!(ns.exec("app", "app", &["touch", "/run/secrets/checkout/X"]).is_err(), "it was written to");

    // Nobody gave the agent a token for the API server, though the pod's containers have one.
    let app = ns.get("pod", "app")?;
    for container in app["spec"]["initContainers"].as_array().context("init containers")?.iter().take(2) {
        ensure!(!container.to_string().contains("kube-api-access"), "{container}");
    }
    ensure!(app["spec"]["containers"][0].to_string().contains("kube-api-access"));

    seal(&ns, "checkout", &second)?;
    wait("the new value in the file", || {
        let value = exec(&["cat", "/run/secrets/checkout/TOKEN"])?;
        if value == second { Ok(Some(())) } else { bail!("the file holds another value") }
    })?;

    wait("the program to be told of the change", || {
        let log = ns.kubectl(&["logs", "told", "-c", "app"])?;
        if log.contains("told") { Ok(Some(())) } else { bail!("{log}") }
    })?;

    for (name, expected) in
        [("runs", "told of the change"), ("fails", "/sealedenv-agent ended with exit status: 2")]
    {
        wait("the program to be run in a restricted pod", || {
            let log = ns.kubectl(&["logs", name, "-c", "sealedenv-agent-refresh"])?;
            if log.contains(expected) { Ok(Some(())) } else { bail!("{log}") }
        })?;
    }

    // A pod that comes before its values says what it waits for.
    create(&ns, &pod("early", "later")?)?;
    wait("the agent to say what is missing", || {
        let log = ns.kubectl(&["logs", "early", "-c", "sealedenv-agent"])?;
        if log.contains("SealedEnv later: ") && log.contains("NotFound") {
            Ok(Some(()))
        } else {
            bail!("{log}")
        }
    })?;
    seal(&ns, "later", &first)?;
    ns.wait_phase("early", &["Running"])?;

    // One that comes while the operator is away waits, and goes on by itself.
    {
        let _away = NoOperator::now()?;
        create(&ns, &pod("late", "checkout")?)?;
        wait("the agent to say that nobody answers", || {
            let log = ns.kubectl(&["logs", "late", "-c", "sealedenv-agent"])?;
            if log.contains("asking the operator") { Ok(Some(())) } else { bail!("{log}") }
        })?;
        assert_eq!(exec(&["cat", "/run/secrets/checkout/TOKEN"])?, second, "the last good files stay");
    }
    ns.wait_phase("late", &["Running"])?;
    assert_eq!(ns.exec("late", "app", &["cat", "/run/secrets/checkout/TOKEN"])?, second);

    let mut log = String::new();
    for container in ["sealedenv-agent", "sealedenv-agent-refresh"] {
        log.push_str(&ns.kubectl(&["logs", "app", "-c", container])?);
    }
    ensure!(log.contains("the files are there") && log.contains("other files are there"), "{log}");
    let needles = [first, second];
    ensure!(find(log.as_bytes(), &needles)?.is_empty(), "a log holds a value");
    let etcd = setting::get("SEALEDENV_E2E_ETCD_DIR")?;
    assert_eq!(holding(Path::new(&etcd), &needles)?, Vec::<String>::new(), "etcd holds a value");

    // What is sent to process 1 reaches the app, and its exit code the kubelet; the sidecar does not hold the pod up.
    exec(&["/bin/sh", "-c", "kill -TERM 1"])?;
    ns.wait_phase("app", &["Failed"])?;
    let app = ns.get("pod", "app")?;
    let ended = &of_container(&app, "containerStatuses", "app")?["state"]["terminated"];
    assert_eq!(ended["exitCode"], 42, "{ended}");
    let refresh = of_container(&app, "initContainerStatuses", "sealedenv-agent-refresh")?;
    assert_eq!(refresh["state"]["terminated"]["exitCode"], 0, "{refresh}");
    for status in app["status"]["initContainerStatuses"].as_array().context("statuses")? {
        assert_eq!(status["restartCount"], 0, "{status}");
    }
    ns.kubectl(&["delete", "pod", "app", "told", "runs", "fails", "early", "late"]).map(drop)
}
