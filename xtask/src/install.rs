//! `cargo xtask install`: the chart with the image built here, into the embedded cluster or a named one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    Checkout,
    chart::{self, NAMESPACE, RELEASE},
    cluster::{self, ClusterInfo},
    exec, host, image,
};

/// Installs or upgrades the chart. Into the embedded cluster, which is started if need be, with the image built here;
/// or with `--context` into another one, with an image that it can pull.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A context of your kubeconfig, instead of the embedded cluster.
    #[arg(long, requires = "image")]
    context: Option<String>,
    /// The image as repository:tag, instead of building one.
    #[arg(long)]
    image: Option<String>,
    /// A file of values.
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value, as helm takes it.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be had, the image does not build, or the release does not become ready.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    let mut reserved = None;
    let target = if let Some(context) = &args.context {
        Target::context(context)
    } else {
        reserved = Some(reserve()?);
        Target::embedded(&cluster::ensure_up(checkout)?)
    };
    let reference = if let Some(reference) = &args.image {
        reference.clone()
    } else {
        let image = image::build(checkout)?;
        cluster::load(&image.archive)?;
        image.reference
    };
    let mut release = Release::of(&reference)?;
    release.values.clone_from(&args.values);
    release.set.extend(args.set.iter().cloned());
    println!("{}", release.install(checkout, &target)?);
    drop(reserved);
    Ok(())
}

/// Keeps other commands of xtask from changing what is installed in the embedded cluster, until it is dropped.
///
/// # Errors
/// When the lock cannot be made.
pub fn reserve() -> anyhow::Result<host::Lock> {
    host::Lock::wait(&host::cache()?.join("cluster-use.lock"), "using the cluster")
}

/// A cluster to install into.
#[derive(Debug, Clone)]
pub enum Target {
    /// The one that `cargo xtask cluster up` started.
    Embedded(Box<ClusterInfo>),
    /// A context of the user's own kubeconfig, by name.
    Context(String),
}

impl Target {
    /// The embedded cluster.
    pub fn embedded(info: &ClusterInfo) -> Self {
        Self::Embedded(Box::new(info.clone()))
    }

    /// A cluster that the user named.
    pub fn context(name: &str) -> Self {
        Self::Context(name.to_owned())
    }

    /// kubectl, set to this cluster and no other.
    pub fn kubectl(&self) -> Command {
        match self {
            Self::Embedded(info) => info.kubectl(),
            Self::Context(name) => {
                let mut kubectl = Command::new("kubectl");
                kubectl.args(["--context", name]);
                kubectl
            }
        }
    }

    /// helm, set to this cluster and no other.
    pub fn helm(&self, helm: &Path) -> Command {
        match self {
            Self::Embedded(info) => {
                let mut helm = chart::quiet(helm);
                helm.arg("--kubeconfig").arg(&info.kubeconfig);
                helm
            }
            Self::Context(name) => {
                let mut helm = Command::new(helm);
                helm.args(["--kube-context", name]);
                helm
            }
        }
    }
}

/// A release to install.
#[derive(Debug, Clone)]
pub struct Release {
    /// Files of values.
    pub values: Vec<PathBuf>,
    /// Single values, as `--set` takes them.
    pub set: Vec<String>,
    image: String,
    pod_security: &'static str,
}

impl Release {
    /// The chart with this image, given as `repository:tag`.
    ///
    /// # Errors
    /// When the tag is missing.
    pub fn of(reference: &str) -> anyhow::Result<Self> {
        let Some((repository, tag)) = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
            bail!("the image {reference:?} has no tag\nhint: write repository:tag");
        };
        Ok(Self {
            values: vec![],
            set: vec![format!("image.repository={repository}"), format!("image.tag={tag}")],
            image: reference.to_owned(),
            pod_security: "restricted",
        })
    }

    /// Installs or upgrades, waits until it is ready, and says what is there now.
    ///
    /// # Errors
    /// When helm fails or the pods do not become ready in two minutes; with what is known about why.
    pub fn install(&self, checkout: &Checkout, target: &Target) -> anyhow::Result<String> {
        let helm = chart::helm()?;
        namespace(target, self.pod_security)?;
        clear_interrupted(target, &helm)?;
        exec::say(format_args!("installing the chart with {}", self.image));
        let mut upgrade = target.helm(&helm);
        upgrade
            .args(["upgrade", "--install", RELEASE])
            .arg(checkout.chart())
            .args(["--namespace", NAMESPACE]);
        for file in &self.values {
            upgrade.arg("--values").arg(file);
        }
        for value in &self.set {
            upgrade.args(["--set", value]);
        }
        if let Err(error) = exec::read(upgrade.args(["--wait", "--timeout", "120s"])) {
            diagnose(target);
            return Err(error);
        }
        let release = exec::read(target.helm(&helm).args(["list", "--namespace", NAMESPACE]))?;
        let running = exec::read(target.kubectl().args(["--namespace", NAMESPACE, "get", "deployments"]))?;
        let lines = release.lines().chain([""]).chain(running.lines()).map(str::trim_end);
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The same with the delivery API, in a namespace that admits the node plugin, which is privileged.
    #[must_use]
    pub fn with_node_plugin(mut self) -> Self {
        self.set.push("delivery.enabled=true".to_owned());
        self.pod_security = "privileged";
        self
    }

    /// The same without anything that runs: CRDs and rights only, for tests that start the programs themselves.
    #[must_use]
    pub fn without_pods(mut self) -> Self {
        self.set.extend(["operator.replicaCount=0", "webhook.create=false"].map(str::to_owned));
        self
    }
}

/// The namespace, which enforces a Pod Security Standard from the first pod on.
fn namespace(target: &Target, pod_security: &str) -> anyhow::Result<()> {
    let found = exec::read(target.kubectl().args([
        "get",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--output",
        "name",
    ]))?;
    if found.trim().is_empty() {
        exec::read(target.kubectl().args(["create", "namespace", NAMESPACE]))?;
    }
    exec::read(target.kubectl().args([
        "label",
        "namespace",
        NAMESPACE,
        "--overwrite",
        &format!("pod-security.kubernetes.io/enforce={pod_security}"),
    ]))?;
    Ok(())
}

/// Helm refuses to go on after a run that was interrupted. In the embedded cluster nobody else's work is lost by
/// uninstalling; keys and CRDs stay.
fn clear_interrupted(target: &Target, helm: &Path) -> anyhow::Result<()> {
    if matches!(target, Target::Context(_)) {
        return Ok(());
    }
    let pending =
        exec::read(target.helm(helm).args(["list", "--namespace", NAMESPACE, "--pending", "--short"]))?;
    if pending.lines().any(|release| release == RELEASE) {
        exec::say("an earlier installation was interrupted: uninstalling it first");
        exec::read(target.helm(helm).args(["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]))?;
    }
    Ok(())
}

/// Waits until no pod of the release is left.
///
/// # Errors
/// When one is still there after a minute.
pub fn wait_for_no_pods(target: &Target) -> anyhow::Result<()> {
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    exec::read(target.kubectl().args([
        "--namespace",
        NAMESPACE,
        "wait",
        "--for=delete",
        "pod",
        "--selector",
        &selector,
        "--timeout=60s",
    ]))
    .map(drop)
    .context("waiting until the pods of the release are gone")
}

/// Prints on stderr what helps to see why the release is not ready.
pub fn diagnose(target: &Target) {
    for arguments in [
        "get pods --output wide",
        "get events --sort-by=.lastTimestamp",
        "describe pods",
        "logs --selector app.kubernetes.io/component=operator --tail 50 --prefix",
        "logs --selector app.kubernetes.io/component=webhook --tail 50 --prefix",
    ] {
        let mut kubectl = target.kubectl();
        kubectl.args(["--namespace", NAMESPACE]).args(arguments.split(' '));
        eprintln!("--- kubectl --namespace {NAMESPACE} {arguments}");
        match exec::read(&mut kubectl) {
            Ok(text) => eprintln!("{}", text.trim_end()),
            Err(error) => eprintln!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_split_at_its_tag_not_at_a_port() {
        let release = Release::of("localhost:5000/a/b:1.0").unwrap();
        assert_eq!(release.set, ["image.repository=localhost:5000/a/b", "image.tag=1.0"]);
        for bad in ["a/b", "localhost:5000/a/b", ""] {
            assert!(Release::of(bad).is_err(), "{bad}");
        }
    }
}
