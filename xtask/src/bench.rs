//! `cargo xtask bench`: prepares what the `bench` crate measures, runs it, and keeps what it found in docs/benchmarks.md.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::{
    Checkout,
    chart::{NAMESPACE, RELEASE},
    cluster::{self, ClusterInfo, Mode},
    exec, host, image,
    install::{self, Release, Target},
    tools,
};

/// Measures this checkout beside a floor and a peer, in one run. Exits 1 when a budget of the design is missed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// SealedEnvs to Secrets: throughput, latency, memory, restart. Takes about eight minutes, in a cluster of its own
    /// that runs no pods.
    Reconcile(Reconcile),
    /// What the webhook adds to the creation of pods. Takes two minutes, in the embedded cluster, with the chart.
    Webhook(Webhook),
    /// Memory delivery: what the operator and the node plugin take, and pods beside the same with a Secret. Takes about
    /// eight minutes, in the embedded cluster, with the chart and the node plugin.
    Delivery(Delivery),
}

/// Settings of `bench reconcile`.
#[derive(Debug, clap::Args)]
pub struct Reconcile {
    /// A short run to see that all is well. Its figures are not kept.
    #[arg(long)]
    quick: bool,
    /// Leave out sealed-secrets, which needs root.
    #[arg(long)]
    no_peer: bool,
    /// Options of the measuring program, after `--`; it has --help.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Settings of `bench webhook`.
#[derive(Debug, clap::Args)]
pub struct Webhook {
    /// A short run to see that all is well. Its figures are not kept.
    #[arg(long)]
    quick: bool,
    /// Options of the measuring program, after `--`; it has --help.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Settings of `bench delivery`.
#[derive(Debug, clap::Args)]
pub struct Delivery {
    /// A short run to see that all is well. Its figures are not kept.
    #[arg(long)]
    quick: bool,
    /// Options of the measuring program, after `--`; it has --help.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Runs one of them. The exit code says whether every budget holds.
///
/// # Errors
/// When something cannot be prepared or measured.
pub fn run(checkout: &Checkout, command: &Command) -> anyhow::Result<ExitCode> {
    let _reserved = install::reserve()?;
    let built = image::build_with_bench(checkout)?;
    let (section, options) = match command {
        Command::Reconcile(settings) => ("reconcile", &settings.options),
        Command::Webhook(settings) => ("webhook", &settings.options),
        Command::Delivery(settings) => ("delivery", &settings.options),
    };
    if was_help(&built.1, section, options)? {
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        Command::Reconcile(settings) => reconcile(checkout, settings, built),
        Command::Webhook(settings) => webhook(checkout, settings, built),
        Command::Delivery(settings) => delivery(checkout, settings, built),
    }
}

/// The image, and the measuring program.
type Built = (image::Image, PathBuf);

/// Has the measuring program read its options before a cluster is started for them. Whether help was all that was asked for:
/// then it was given.
fn was_help(program: &Path, section: &str, options: &[String]) -> anyhow::Result<bool> {
    let asked = options.iter().any(|option| option == "--help" || option == "-h");
    // With this behind them, options are read and nothing is done.
    let mut command = Process::new(program);
    command.arg(section).args(options).arg("--help");
    if !asked {
        command.stdout(Stdio::null());
    }
    exec::run(&mut command)?;
    Ok(asked)
}

fn reconcile(checkout: &Checkout, settings: &Reconcile, built: Built) -> anyhow::Result<ExitCode> {
    let (image, program) = built;
    let peer = if settings.no_peer { None } else { Some(peer()?) };
    if cluster::info()?.is_some() {
        bail!("a cluster is up, and what it does would be measured too\nhint: cargo xtask cluster down");
    }
    let cluster = cluster::start(checkout, Mode::ControlPlane)?;
    let measured = (|| {
        let mut crds = cluster.kubectl();
        crds.args(["apply", "--server-side", "-f"]).arg(checkout.root().join("crds/generated"));
        crds.args(peer.iter().flat_map(|peer| [Path::new("-f"), &peer.crd]));
        exec::read(&mut crds)?;
        let mut bench = Bench::new(checkout, &cluster, &image, &program, settings.quick)?;
        bench.command.arg("reconcile");
        if settings.quick {
            bench.command.args([
                "--objects=300",
                "--rounds=1",
                "--low-load=50",
                "--scale=2000",
                "--foreign=500",
            ]);
        }
        if let Some(peer) = &peer {
            bench.command.arg("--peer").arg(&peer.controller).arg("--peer-cli").arg(&peer.kubeseal);
        }
        let size = fs::metadata(&image.archive).context("reading the size of the image")?.len();
        bench.command.arg(format!("--image-size={size}")).args(&settings.options);
        bench.run(checkout, "reconcile")
    })();
    cluster::down()?;
    measured
}

fn webhook(checkout: &Checkout, settings: &Webhook, built: Built) -> anyhow::Result<ExitCode> {
    let (image, program) = built;
    let cluster = cluster::ensure_up(checkout)?;
    cluster::load(&image.archive)?;
    println!("{}", Release::of(&image.reference)?.install(checkout, &Target::embedded(&cluster))?);
    let mut bench = Bench::new(checkout, &cluster, &image, &program, settings.quick)?;
    bench.command.arg("webhook");
    if settings.quick {
        bench.command.args(["--blocks=2", "--seconds=3"]);
    }
    bench.command.args(&settings.options);
    bench.run(checkout, "webhook")
}

fn delivery(checkout: &Checkout, settings: &Delivery, built: Built) -> anyhow::Result<ExitCode> {
    let (image, program) = built;
    let cluster = cluster::ensure_up(checkout)?;
    cluster::load(&image.archive)?;
    let target = Target::embedded(&cluster);
    let mut release = Release::of(&image.reference)?.with_node_plugin();
    release.install(checkout, &target)?;
    // The embedded cluster has no DNS. The Service's address is known now.
    let service = format!("{RELEASE}-delivery");
    let mut address = target.kubectl();
    address.args([
        "--namespace",
        NAMESPACE,
        "get",
        "service",
        &service,
        "--output",
        "jsonpath={.spec.clusterIP}",
    ]);
    let address = exec::read(&mut address)?;
    release.set.extend([
        "node.enabled=true".to_owned(),
        format!("node.hostAliases[0].ip={}", address.trim()),
        format!("node.hostAliases[0].hostnames[0]={service}.{NAMESPACE}.svc"),
    ]);
    println!("{}", release.install(checkout, &target)?);
    let mut bench = Bench::new(checkout, &cluster, &image, &program, settings.quick)?;
    bench.command.args([
        "delivery",
        "--system",
        NAMESPACE,
        "--release",
        RELEASE,
        "--image",
        cluster::BUSYBOX,
    ]);
    if settings.quick {
        bench.command.args(["--seconds=2", "--publishes=50", "--pairs=3", "--pods=20"]);
    }
    bench.command.args(&settings.options);
    bench.run(checkout, "delivery")
}

fn peer() -> anyhow::Result<tools::SealedSecrets> {
    if !host::is_root() {
        bail!("sealed-secrets needs root to find its credentials\nhint: --no-peer leaves it out");
    }
    tools::sealed_secrets()
}

/// A run of the measuring program.
struct Bench {
    command: Process,
    page: Option<PathBuf>,
}

impl Bench {
    fn new(
        checkout: &Checkout,
        cluster: &ClusterInfo,
        image: &image::Image,
        program: &Path,
        quick: bool,
    ) -> anyhow::Result<Self> {
        let work = checkout.target().join("bench");
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("clearing {}", work.display()))?;
        }
        fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        let page = (!quick).then(|| work.join("page.md"));
        let mut command = Process::new(program);
        command.arg("--kubeconfig").arg(&cluster.kubeconfig);
        command.arg("--binaries").arg(&image.binaries);
        command.arg("--work").arg(&work);
        if let Some(page) = &page {
            command.arg("--page").arg(page);
        }
        command.stdin(Stdio::null()).env_remove("KUBECONFIG");
        Ok(Self { command, page })
    }

    /// Runs it and keeps what it found as a section of the page.
    fn run(mut self, checkout: &Checkout, section: &str) -> anyhow::Result<ExitCode> {
        exec::say(format_args!("measuring: {section}"));
        let line = exec::line(&self.command);
        let status = self.command.status().with_context(|| format!("starting `{line}`"))?;
        // 2: it measured everything, and some budget is missed.
        if !matches!(status.code(), Some(0 | 2)) {
            bail!("`{line}` ended with {status}");
        }
        if let Some(text) = &self.page {
            let text = fs::read_to_string(text).with_context(|| format!("reading {}", text.display()))?;
            let page = checkout.root().join("docs/benchmarks.md");
            let old = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
            let new = with_section(&old, section, &text)
                .with_context(|| format!("{} has no section for {section}", page.display()))?;
            fs::write(&page, new).with_context(|| format!("writing {}", page.display()))?;
        }
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The page with other text between the two marks of a section.
fn with_section(page: &str, section: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {section}: measured -->\n"), format!("<!-- {section}: end -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_help_is_given_before_there_is_a_cluster() {
        let options = |options: &[&str]| -> Vec<String> { options.iter().map(ToString::to_string).collect() };
        let takes_all = Path::new("/bin/true");
        for help in ["--help", "-h"] {
            assert!(was_help(takes_all, "webhook", &options(&["--blocks=2", help])).unwrap());
        }
        assert!(!was_help(takes_all, "webhook", &options(&["--blocks=2"])).unwrap());
        let error = was_help(Path::new("/bin/false"), "webhook", &options(&["--no-such"])).unwrap_err();
        assert!(error.to_string().contains("false webhook --no-such --help"), "{error}");
    }

    #[test]
    fn only_the_section_is_replaced() {
        let page = "a\n<!-- x: measured -->\nold\n<!-- x: end -->\nb\n";
        let new = with_section(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x: measured -->\n\nnew\n\n<!-- x: end -->\nb\n");
        assert_eq!(with_section(&new, "x", "new\n").unwrap(), new);
        assert_eq!(with_section(page, "y", "new"), None);
        assert_eq!(with_section("<!-- x: measured -->\n", "x", "new"), None);
    }

    #[test]
    fn the_page_has_a_section_for_each_bench() {
        let page = fs::read_to_string(Checkout::find().unwrap().root().join("docs/benchmarks.md")).unwrap();
        for section in ["reconcile", "webhook", "delivery"] {
            assert!(with_section(&page, section, "").is_some(), "{section}");
        }
    }
}
