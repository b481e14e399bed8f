//! Memory delivery through the node plugin: a real pod on a real kubelet, without any Secret, while the operator comes
//! and goes. Here and not among the e2e tests, because it changes the release and what its namespace admits.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, unique, wait};
use sealedenv_e2e::process::find;
use sealedenv_e2e::release::{self, Changed, NoOperator};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::{Value, json};

use crate::control_plane::cluster;

/// The release with delivery API and node plugin, until this is dropped. Its fields go in this order.
pub(crate) struct NodePlugin {
    _plugin: Changed,
    _delivery: Changed,
    _privileged: Privileged,
}

impl NodePlugin {
    pub(crate) fn installed() -> Result<Self> {
        let privileged = Privileged::new()?;
        let delivery = Changed::to(&["delivery.enabled=true"])?;
        let aliases = operator_in_hosts()?;
        let mut values = vec!["delivery.enabled=true", "node.enabled=true"];
        values.extend(aliases.iter().map(String::as_str));
        let plugin = Changed::to(&values)?;
        ensure!(release::pods("node")?.iter().all(|pod| pod.ready), "the kubelet has taken the driver");
        Ok(Self { _plugin: plugin, _delivery: delivery, _privileged: privileged })
    }
}

/// The namespace of the release admits privileged pods, until this is dropped.
struct Privileged;

impl Privileged {
    fn new() -> Result<Self> {
        Self::enforce("privileged")?;
        Ok(Self)
    }

    fn enforce(level: &str) -> Result<()> {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl(&["label", "namespace", &setting::system_namespace()?, "--overwrite", &label]).map(drop)
    }
}

impl Drop for Privileged {
    fn drop(&mut self) {
        if let Err(error) = Self::enforce("restricted") {
            eprintln!("putting the namespace back: {error:#}");
        }
    }
}

/// Reads both keys of one version, again and again, and says so when they differ or one is missing.
const READ: &str = "trap 'exit 0' TERM; while :; do (cd -P /run/secrets/checkout/..data && a=$(cat TOKEN) && \
    b=$(cat COPY) && [ \"$a\" = \"$b\" ]) || echo BROKEN; [ -s /run/secrets/checkout/TOKEN ] || echo MISSING; done";

pub(crate) fn pod(name: &str) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
            "containers": [{
                "name": "app",
                "image": setting::get("SEALEDENV_E2E_BUSYBOX")?,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", READ],
                "volumeMounts": [{"name": "checkout", "mountPath": "/run/secrets/checkout", "readOnly": true}],
            }],
            "volumes": [{
                "name": "checkout",
                "csi": {
                    "driver": "csi.sealedenv.dev",
                    "readOnly": true,
                    "volumeAttributes": {"sealedenv": "checkout"},
                },
            }],
        },
    });
    Ok(pod.to_string())
}

/// The embedded cluster has no DNS: the plugin finds the operator's Service in its pod's `/etc/hosts`.
fn operator_in_hosts() -> Result<[String; 2]> {
    let system = setting::system_namespace()?;
    let name = format!("{}-delivery", setting::get("SEALEDENV_E2E_RELEASE")?);
    let address = kubectl(&["-n", &system, "get", "service", &name, "-o", "jsonpath={.spec.clusterIP}"])?;
    Ok([
        format!("node.hostAliases[0].ip={address}"),
        format!("node.hostAliases[0].hostnames[0]={name}.{system}.svc"),
    ])
}

/// The same, and how people write it: the webhook adds volume and mount, and variables by a program in front.
fn annotated(name: &str) -> Result<String> {
    let mut pod: Value = serde_json::from_str(&pod(name)?)?;
    pod["metadata"]["annotations"] = json!({"sealedenv.dev/inject": "checkout", "sealedenv.dev/env": "true"});
    let spec = pod["spec"].as_object_mut().context("a spec")?;
    spec.remove("volumes");
    spec["containers"][0].as_object_mut().context("a container")?.remove("volumeMounts");
    Ok(pod.to_string())
}

pub(crate) fn create(ns: &Namespace, pod: &str) -> Result<()> {
    let output = kubectl_output(&["-n", ns.name(), "create", "-f", "-"], pod)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn seal(ns: &Namespace, value: &str) -> Result<()> {
    let manifest = Manifest::new(ns.name(), "checkout")?.spec("delivery: Memory");
    ns.apply(&manifest.value("TOKEN", value)?.value("COPY", value)?.yaml()).map(drop)
}

pub(crate) fn read(ns: &Namespace, pod: &str) -> Result<String> {
    ns.exec(pod, "app", &["cat", "/run/secrets/checkout/TOKEN"])
}

/// A kubelet republishes when it looks at a pod, and it looks when the pod's object changes.
fn nudge(ns: &Namespace, pod: &str) -> Result<()> {
    ns.kubectl(&["annotate", "pod", pod, "--overwrite", &format!("example.com/nudge={}", unique())]).map(drop)
}

/// The operator wants to be asked once a minute only.
pub(crate) fn wait_value(ns: &Namespace, pod: &str, value: &str) -> Result<()> {
    wait("the new value in the file", || {
        nudge(ns, pod)?;
        if read(ns, pod)? == value { Ok(Some(())) } else { bail!("the file holds another value") }
    })
}

/// Every file below a folder that holds one of the needles.
pub(crate) fn holding(folder: &Path, needles: &[String]) -> Result<Vec<String>> {
    let (mut folders, mut holding, mut looked_at) = (vec![folder.to_owned()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            looked_at += 1;
            if !find(&fs::read(&path)?, needles)?.is_empty() {
                holding.push(path.display().to_string());
            }
        }
    }
    ensure!(looked_at > 0, "nothing to look through: {}", folder.display());
    Ok(holding)
}

/// The mounts of a pod's volumes, as the node plugin sees them (the embedded cluster's kubelet has mounts of its own):
/// lines of mountinfo.
pub(crate) fn mounts_of(uid: &str) -> Result<Vec<String>> {
    let plugin = release::pods("node")?.into_iter().next().context("a node plugin")?;
    let mounts = plugin.process()?.text("mountinfo")?;
    let ours = mounts.lines().filter(|line| line.contains(uid) && line.contains("csi.sealedenv.dev"));
    Ok(ours.map(str::to_owned).collect())
}

#[test]
fn a_pod_gets_files_that_never_were_in_etcd_and_keeps_them_while_the_operator_is_away() -> Result<()> {
    let _plugin = NodePlugin::installed()?;
    let ns = Namespace::new("memory")?;
    let (first, second) = (format!("canary-{}-one", unique()), format!("canary-{}-two", unique()));
    seal(&ns, &first)?;
    create(&ns, &annotated("app")?)?;
    ns.wait_phase("app", &["Running"])?;
    assert_eq!(read(&ns, "app")?, first);
    let variables = ns.exec("app", "app", &["cat", "/proc/1/environ"])?;
    ensure!(variables.split('\0').any(|one| one == format!("TOKEN={first}")), "no variable");
    let command = ns.exec("app", "app", &["cat", "/proc/1/cmdline"])?;
    ensure!(command.starts_with("/bin/sh\0-c\0"), "the app is process 1: {command}");

    let mounts = ns.exec("app", "app", &["cat", "/proc/mounts"])?;
    let mount = mounts.lines().find(|line| line.contains(" /run/secrets/checkout ")).context("a mount")?;
    let options: Vec<&str> = mount.split(' ').nth(3).context("options")?.split(',').collect();
    ensure!(mount.contains(" tmpfs "), "{mount}");
    for option in ["ro", "noswap"] {
        ensure!(options.contains(&option), "{option}: {mount}");
    }
    ensure!(options.iter().any(|option| option.starts_with("size=")), "{mount}");
    // A runtime gives its own mount of the volume no other flags than ro; those of the node's mount are ours.
    let uid = ns.get("pod", "app")?["metadata"]["uid"].as_str().context("a UID")?.to_owned();
    let of_node = mounts_of(&uid)?;
    let of_node = of_node.first().context("a mount on the node")?;
    let options: Vec<&str> = of_node.split(' ').nth(5).context("options")?.split(',').collect();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(options.contains(&option), "{option}: {of_node}");
    }
    let stat = ns.exec("app", "app", &["stat", "-L", "-c", "%u %g %a", "/run/secrets/checkout/TOKEN"])?;
    assert_eq!(stat.trim(), "0 2000 440");
    ensure!(ns.find("secret", "checkout")?.is_none(), "there is a Secret");

    seal(&ns, &second)?;
    wait_value(&ns, "app", &second)?;
    assert_eq!(mounts_of(&uid)?.len(), 1, "however often it was published");

    {
        let _away = NoOperator::now()?;
        nudge(&ns, "app")?;
        create(&ns, &pod("late")?)?;
        wait("the pod to say what it waits for", || {
            let note = ns.wait_event("late", "FailedMount")?;
            if note.contains("asking the operator") { Ok(Some(())) } else { bail!("{note}") }
        })?;
        assert_eq!(read(&ns, "app")?, second, "the last good files stay");
    }
    ns.wait_phase("late", &["Running"])?;
    assert_eq!(read(&ns, "late")?, second);

    let app = ns.get("pod", "app")?;
    assert_eq!(app["status"]["containerStatuses"][0]["restartCount"], 0);
    let log = ns.kubectl(&["logs", "app"])?;
    ensure!(!log.contains("BROKEN") && !log.contains("MISSING"), "{log}");

    let needles = [first, second];
    let etcd = setting::get("SEALEDENV_E2E_ETCD_DIR")?;
    assert_eq!(holding(Path::new(&etcd), &needles)?, Vec::<String>::new(), "etcd holds a value");
    let snapshot = format!("memory-{}", unique());
    cluster(&["snapshot", &snapshot])?;
    let snapshot = Path::new(&etcd).with_file_name("snapshots").join(snapshot);
    assert_eq!(holding(&snapshot, &needles)?, Vec::<String>::new(), "a snapshot of etcd holds a value");
    ensure!(!holding(&snapshot, &["sealed:v1:".to_owned()])?.is_empty(), "what is sealed would be found");
    let system = setting::system_namespace()?;
    let selector = "app.kubernetes.io/name=sealedenv";
    let log = kubectl(&["-n", &system, "logs", "-l", selector, "--tail=-1", "--prefix"])?;
    ensure!(log.contains("published"), "{log}");
    ensure!(find(log.as_bytes(), &needles)?.is_empty(), "a log holds a value");

    ns.kubectl(&["delete", "pod", "app", "late"])?;
    wait("the mounts to go", || Ok((mounts_of(&uid)?.is_empty()).then_some(())))
}
