//! One annotation, and a pod reads its values at `/run/secrets/<name>/KEY`.

// Fragments of JSON read best when they are handed over.
#![allow(clippy::needless_pass_by_value)]

use anyhow::{Context as _, Result};
use sealedenv_e2e::cluster::{Namespace, kubectl_output, wait};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::{Value, json};

const VALUE: &str = "s3cret-value";

fn delivered(test: &str, names: &[&str]) -> Result<Namespace> {
    let ns = Namespace::new(test)?;
    for name in names {
        ns.apply(&Manifest::new(ns.name(), name)?.value("TOKEN", VALUE)?.yaml())?;
        ns.wait_condition("sealedenv", name, "Ready", "True", "Delivered")?;
    }
    Ok(ns)
}

fn container(name: &str, image: &str, script: &str) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script]})
}

fn busybox() -> Result<String> {
    setting::get("SEALEDENV_E2E_BUSYBOX")
}

const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";

fn spec(main: Value) -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [main]})
}

fn pod(name: &str, annotations: &Value, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

fn create(ns: &Namespace, object: &Value) -> Result<()> {
    let output = kubectl_output(&["-n", ns.name(), "create", "-f", "-"], &object.to_string())?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_pod_with_one_annotation_reads_its_files_from_tmpfs() -> Result<()> {
    let ns = delivered("one_annotation", &["checkout"])?;
    let annotations = json!({"sealedenv.dev/inject": "checkout"});
    create(&ns, &pod("app", &annotations, spec(container("app", &busybox()?, SLEEP))))?;
    ns.wait_phase("app", &["Running"])?;
    assert_eq!(ns.exec("app", "app", &["cat", "/run/secrets/checkout/TOKEN"])?, VALUE);
    let mounts = ns.exec("app", "app", &["cat", "/proc/mounts"])?;
    let mount = mounts.lines().find(|l| l.contains(" /run/secrets/checkout ")).context("a mount")?;
    assert!(mount.starts_with("tmpfs ") && mount.contains(" ro,"), "{mount}");
    let app = ns.get("pod", "app")?;
    assert!(!app.to_string().contains(VALUE), "the pod's object holds names only");
    Ok(())
}

#[test]
fn a_pod_reads_files_that_are_made_of_values() -> Result<()> {
    let ns = Namespace::new("files")?;
    let files = r#"files: {app.env: {format: Dotenv}, url: {template: "db://app:{{ TOKEN|urlencode }}@db"}}"#;
    let manifest = Manifest::new(ns.name(), "checkout")?.spec(files).value("TOKEN", "it's s3cret/")?;
    ns.apply(&manifest.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    let annotations = json!({"sealedenv.dev/inject": "checkout"});
    create(&ns, &pod("app", &annotations, spec(container("app", &busybox()?, SLEEP))))?;
    ns.wait_phase("app", &["Running"])?;
    let read = |file: &str| ns.exec("app", "app", &["cat", &format!("/run/secrets/checkout/{file}")]);
    assert_eq!(read("app.env")?, "TOKEN=\"it's s3cret/\"\n");
    assert_eq!(read("url")?, "db://app:it%27s%20s3cret%2F@db");
    Ok(())
}

#[test]
fn a_pod_without_the_annotation_is_not_touched() -> Result<()> {
    let ns = delivered("no_annotation", &["checkout"])?;
    create(&ns, &pod("app", &json!({}), spec(container("app", &busybox()?, SLEEP))))?;
    let app = ns.get("pod", "app")?;
    assert!(!app["spec"].to_string().contains("checkout"));
    Ok(())
}

#[test]
fn a_pod_on_an_image_with_var_run_linked_to_run_starts() -> Result<()> {
    let ns = delivered("var_run", &["checkout"])?;
    let image = setting::get("SEALEDENV_E2E_BUSYBOX_VARRUN")?;
    create(
        &ns,
        &pod("app", &json!({"sealedenv.dev/inject": "checkout"}), spec(container("app", &image, SLEEP))),
    )?;
    ns.wait_phase("app", &["Running"])?;
    assert_eq!(ns.exec("app", "app", &["cat", "/run/secrets/checkout/TOKEN"])?, VALUE);
    let token = ns.exec("app", "app", &["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"])?;
    assert!(!token.is_empty(), "the ServiceAccount token is there as well");
    Ok(())
}

#[test]
fn init_and_sidecar_containers_get_the_mount() -> Result<()> {
    let ns = delivered("init_and_sidecar", &["checkout"])?;
    let image = busybox()?;
    let check = format!("test \"$(cat /run/secrets/checkout/TOKEN)\" = {VALUE}");
    let mut sidecar = container("sidecar", &image, SLEEP);
    sidecar["restartPolicy"] = json!("Always");
    let mut spec = spec(container("app", &image, SLEEP));
    spec["initContainers"] = json!([container("init", &image, &check), sidecar]);
    create(&ns, &pod("app", &json!({"sealedenv.dev/inject": "checkout"}), spec))?;
    ns.wait_phase("app", &["Running"])?;
    for container in ["app", "sidecar"] {
        assert_eq!(ns.exec("app", container, &["cat", "/run/secrets/checkout/TOKEN"])?, VALUE, "{container}");
    }
    Ok(())
}

#[test]
fn a_job_gets_the_mount() -> Result<()> {
    let ns = delivered("job", &["checkout"])?;
    let mut spec = spec(container("app", &busybox()?, "cat /run/secrets/checkout/TOKEN"));
    spec["restartPolicy"] = json!("Never");
    let template = json!({"metadata": {"annotations": {"sealedenv.dev/inject": "checkout"}}, "spec": spec});
    create(
        &ns,
        &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"backoffLimit": 0, "template": template}}),
    )?;
    ns.wait_condition("job", "once", "Complete", "True", "")?;
    assert_eq!(ns.kubectl(&["logs", "job/once"])?, VALUE);
    Ok(())
}

#[test]
fn a_deployment_gets_the_mount() -> Result<()> {
    let ns = delivered("deployment", &["checkout"])?;
    let template = json!({"metadata": {"labels": {"app": "web"}, "annotations": {"sealedenv.dev/inject": "checkout"}},
        "spec": spec(container("app", &busybox()?, SLEEP))});
    create(
        &ns,
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}}),
    )?;
    ns.wait_condition("deployment", "web", "Available", "True", "")?;
    assert_eq!(ns.kubectl(&["exec", "deploy/web", "--", "cat", "/run/secrets/checkout/TOKEN"])?, VALUE);
    Ok(())
}

#[test]
fn several_sealed_envs_narrowed_to_one_container_with_environment() -> Result<()> {
    let ns = delivered("several", &["checkout", "billing"])?;
    let image = busybox()?;
    let annotations = json!({"sealedenv.dev/inject": "checkout,billing", "sealedenv.dev/containers": "app",
        "sealedenv.dev/env": "true", "sealedenv.dev/mount-path": "/etc/app"});
    let mut spec = spec(container("app", &image, SLEEP));
    spec["containers"].as_array_mut().context("containers")?.push(container("other", &image, SLEEP));
    create(&ns, &pod("app", &annotations, spec))?;
    ns.wait_phase("app", &["Running"])?;
    for name in ["checkout", "billing"] {
        assert_eq!(ns.exec("app", "app", &["cat", &format!("/etc/app/{name}/TOKEN")])?, VALUE);
    }
    assert_eq!(ns.exec("app", "app", &["/bin/sh", "-c", "printf %s \"$TOKEN\""])?, VALUE);
    assert!(ns.exec("app", "other", &["ls", "/etc/app"]).is_err(), "not in the other container");
    Ok(())
}

#[test]
fn a_pod_whose_sealed_env_comes_later_waits_and_then_starts() -> Result<()> {
    let ns = Namespace::new("comes_later")?;
    create(
        &ns,
        &pod("app", &json!({"sealedenv.dev/inject": "checkout"}), spec(container("app", &busybox()?, SLEEP))),
    )?;
    let text = wait("an Event that says what is missing", || {
        let events: Value = serde_json::from_str(&ns.kubectl(&["get", "events", "-o", "json"])?)?;
        let items = events["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().filter(|e| e["type"] == "Warning").find_map(|e| {
            let text = e["message"].as_str()?;
            text.contains("checkout").then(|| text.to_owned())
        }))
    })?;
    assert!(text.contains("not found") || text.contains("SealedEnv"), "{text}");
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", VALUE)?.yaml())?;
    ns.wait_phase("app", &["Running"])?;
    assert_eq!(ns.exec("app", "app", &["cat", "/run/secrets/checkout/TOKEN"])?, VALUE);
    Ok(())
}

#[test]
fn a_conflict_is_denied_with_the_reason() -> Result<()> {
    let ns = delivered("conflict", &["checkout"])?;
    let mut main = container("app", &busybox()?, SLEEP);
    main["volumeMounts"] = json!([{"name": "own", "mountPath": "/run/secrets/checkout"}]);
    let mut spec = spec(main);
    spec["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
    let denied =
        create(&ns, &pod("app", &json!({"sealedenv.dev/inject": "checkout"}), spec)).expect_err("denied");
    let said = denied.to_string();
    assert!(said.contains("inject.sealedenv.dev") && said.contains("/run/secrets/checkout"), "{said}");
    Ok(())
}

#[test]
fn a_dry_run_is_injected_and_leaves_nothing_behind() -> Result<()> {
    let ns = delivered("dry_run", &["checkout"])?;
    let pod =
        pod("app", &json!({"sealedenv.dev/inject": "checkout"}), spec(container("app", &busybox()?, SLEEP)));
    let output = kubectl_output(
        &["-n", ns.name(), "create", "--dry-run=server", "-o", "json", "-f", "-"],
        &pod.to_string(),
    )?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout)?;
    assert!(shown["spec"]["volumes"].to_string().contains("checkout"), "{shown}");
    assert!(ns.find("pod", "app")?.is_none());
    Ok(())
}
