//! `cargo xtask test`: the tiers, least powerful first, and a total for each.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{
    Checkout, chart,
    cluster::{self, ClusterInfo, Mode},
    exec, fuzz, gitops, host, image,
    install::{self, Release, Target},
    lint, sbom, tools,
};

/// Runs the tests: all tiers, after formatting, clippy and generated files; or just the tiers that are named.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tiers to run.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many tests of the api and e2e tiers run at once.
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

/// How much a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Nothing: pure functions, vectors, the mock API server, the rendered chart.
    Unit,
    /// A C++ compiler: hostile bytes for every parser, from a fixed seed.
    Fuzz,
    /// Time to build them once: secret stores that are real, on loopback addresses.
    Providers,
    /// Root, and no cluster: the node plugin on real mounts.
    Node,
    /// A real API server, and no pods: the tests start the programs themselves.
    Api,
    /// Real pods in a real cluster, with the chart installed.
    E2e,
    /// The same: helm installs, upgrades, rolls back and uninstalls the release.
    Helm,
    /// The same while things fail: processes, disks, the API server and its data. One test at a time.
    Faults,
}

impl Tier {
    fn needs_cluster(self) -> bool {
        matches!(self, Self::Api | Self::E2e | Self::Helm | Self::Faults)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Fuzz => "fuzz",
            Self::Providers => "providers",
            Self::Node => "node",
            Self::Api => "api",
            Self::E2e => "e2e",
            Self::Helm => "helm",
            Self::Faults => "faults",
        }
    }
}

/// Runs the command. The exit code says whether every test of every tier passed.
///
/// # Errors
/// Never for a failed test: those are counted and shown.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<ExitCode> {
    let mut results = Vec::new();
    let mut tiers = args.tiers.clone();
    tiers.sort();
    tiers.dedup();
    if tiers.is_empty() {
        let start = Instant::now();
        results.push(Outcome::of_checks(lint::quick(checkout), start.elapsed()));
        tiers = Tier::value_variants().to_vec();
    }
    let pods = tiers.iter().any(|tier| matches!(tier, Tier::E2e | Tier::Helm | Tier::Faults));
    let mut reserved = None;
    let mut made_for_api_only = false;
    let mut seen = Seen::default();
    for tier in tiers {
        if tier.needs_cluster() && reserved.is_none() {
            reserved = Some(install::reserve()?);
            made_for_api_only = !pods && cluster::info()?.is_none();
        }
        let start = Instant::now();
        exec::say(format_args!("tests: {}", tier.name()));
        seen.tally = Tally::default();
        let ran = run_tier(checkout, args, tier, pods, &mut seen);
        results.push(Outcome::of_tests(tier, seen.tally, ran, start.elapsed()));
    }
    // It has no node, so nobody else could use it. One with a node stays up: the next run starts sooner.
    if made_for_api_only {
        cluster::down()?;
    }
    drop(reserved);
    for result in &results {
        if let Some(error) = &result.error {
            eprintln!("\n{}: error: {error:#}", result.name);
        }
    }
    println!("\n{}", table(&results));
    for figures in &seen.figures {
        println!("\n{figures}");
    }
    Ok(if results.iter().all(Outcome::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one tier. Gives whether cargo was content.
fn run_tier(
    checkout: &Checkout,
    args: &Args,
    tier: Tier,
    pods: bool,
    seen: &mut Seen,
) -> anyhow::Result<bool> {
    if tier == Tier::Fuzz {
        return fuzz_tier(checkout, seen);
    }
    let mut test = exec::cargo(checkout.root());
    test.args(["test", "--locked", "--no-fail-fast"]);
    match tier {
        Tier::Unit | Tier::Fuzz => {
            test.args(["--workspace", "--exclude", "sealedenv-e2e"]);
            test.env("SEALEDENV_E2E_HELM", chart::helm()?);
            gitops::judge(checkout).context("the judge of statuses")?;
        }
        Tier::Providers => {
            test.env("SEALEDENV_VAULT", tools::vault(checkout).context("a Vault for the tests")?);
            test.args(["--package", "sealedenv-providers", "--features", "real", "--test", "vault"]);
        }
        Tier::Node => {
            anyhow::ensure!(host::is_root(), "the tests of the node plugin mount\nhint: run them as root");
            test.env("SEALEDENV_NODE_CSI_SANITY", tools::csi_sanity()?);
            test.args([
                "--package",
                "sealedenv-node",
                "--features",
                "root",
                "--test",
                "mounts",
                "--test",
                "sanity",
            ]);
        }
        Tier::Api | Tier::E2e | Tier::Helm | Tier::Faults => {
            prepare(checkout, tier, pods, &mut test)?;
            test.args(["--package", "sealedenv-e2e", "--features", "cluster", "--test", tier.name()]);
        }
    }
    test.arg("--").args(&args.only);
    match tier {
        Tier::Unit | Tier::Fuzz | Tier::Providers | Tier::Node => {}
        Tier::Api | Tier::E2e => drop(test.arg(format!("--test-threads={}", args.threads))),
        // What one test breaks, all others would see.
        Tier::Helm | Tier::Faults => drop(test.arg("--test-threads=1")),
    }
    exec::watch(&mut test, |line| seen.read(line))
}

/// Every fuzz target counts as a test.
fn fuzz_tier(checkout: &Checkout, seen: &mut Seen) -> anyhow::Result<bool> {
    let outcomes = fuzz::tier(checkout)?;
    let (good, bad): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.is_good());
    seen.tally.passed += good.len() as u64;
    seen.tally.failed += bad.len() as u64;
    seen.figures.push(fuzz::table(&outcomes));
    Ok(bad.is_empty())
}

/// Brings the cluster into the state that the tier wants, and tells the tests where everything is.
fn prepare(checkout: &Checkout, tier: Tier, pods: bool, test: &mut Command) -> anyhow::Result<()> {
    let image = image::build(checkout)?;
    let cluster = match (tier, cluster::info()?) {
        (Tier::Api, Some(running)) if !pods => running,
        (Tier::Api, None) if !pods => cluster::start(checkout, Mode::ControlPlane)?,
        _ => cluster::ensure_up(checkout)?,
    };
    let target = Target::embedded(&cluster);
    let release = Release::of(&image.reference)?;
    if tier == Tier::Api {
        release.without_pods().install(checkout, &target)?;
        install::wait_for_no_pods(&target)?;
    } else {
        cluster::load(&image.archive)?;
        println!("{}", release.install(checkout, &target)?);
    }
    if tier == Tier::Api {
        let (reader, schemas) = sbom::reader(checkout).context("the reader of CycloneDX")?;
        test.env("SEALEDENV_E2E_BOMCHECK", reader).env("SEALEDENV_E2E_BOM_SCHEMAS", schemas);
        test.env("SEALEDENV_E2E_SBOM", &image.sbom);
        test.env("SEALEDENV_E2E_IMAGE_PACKAGES", [image::PROGRAM, image::EXEC].join(","));
    }
    if tier == Tier::E2e {
        let (flux, crds) = gitops::kustomize_controller(checkout).context("Flux's kustomize-controller")?;
        test.env("SEALEDENV_E2E_KUSTOMIZE_CONTROLLER", flux).env("SEALEDENV_E2E_FLUX_CRDS", crds);
    }
    environment(checkout, &cluster, &image, test)
}

/// What the tests of the e2e crate read. They fail, and say how to run them, when it is missing.
fn environment(
    checkout: &Checkout,
    cluster: &ClusterInfo,
    image: &image::Image,
    test: &mut Command,
) -> anyhow::Result<()> {
    test.env("SEALEDENV_E2E_KUBECONFIG", &cluster.kubeconfig)
        .env("SEALEDENV_E2E_KUBECTL", &cluster.kubectl)
        .env("SEALEDENV_E2E_BIN_DIR", &image.binaries)
        .env("SEALEDENV_E2E_XTASK", own_copy(checkout).context("a copy of this program for the tests")?)
        .env("SEALEDENV_E2E_IMAGE", &image.reference)
        .env("SEALEDENV_E2E_BUSYBOX", cluster::BUSYBOX)
        .env("SEALEDENV_E2E_BUSYBOX_VARRUN", cluster::BUSYBOX_VARRUN)
        .env("SEALEDENV_E2E_HOST_ADDRESS", cluster.host_address.to_string())
        .env("SEALEDENV_E2E_ETCD_DIR", cluster.state_dir.join("etcd"))
        .env("SEALEDENV_E2E_NAMESPACE", chart::NAMESPACE)
        .env("SEALEDENV_E2E_RELEASE", chart::RELEASE)
        .env("SEALEDENV_E2E_CHART", checkout.chart())
        .env("SEALEDENV_E2E_HELM", chart::helm()?)
        .env("SEALEDENV_E2E_AGE", tools::age().context("the age reference command line")?)
        .env("SEALEDENV_E2E_AGE_KEYGEN", tools::age_keygen().context("the age reference command line")?)
        // What kubectl remembers of an older cluster at the same address is wrong for this one.
        .env("KUBECACHEDIR", cluster.state_dir.join("kube-cache"))
        // The one cluster of the tests is named above; no other may be found by accident.
        .env_remove("KUBECONFIG");
    Ok(())
}

/// A copy of this program that stays as it is. Cargo builds xtask anew where a tier asks for other features of its
/// dependencies, and then the file that this process was started from is gone.
fn own_copy(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let folder = checkout.target().join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (new, copy) = (folder.join("xtask.new"), folder.join("xtask"));
    // Not by the path of this program, which may be gone already; and renamed, for the copy of an earlier run may be
    // running still.
    fs::copy("/proc/self/exe", &new).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, &copy).with_context(|| format!("renaming {} to {}", new.display(), copy.display()))?;
    Ok(copy)
}

/// What was seen of the tests so far.
#[derive(Debug, Default)]
struct Seen {
    /// The counts of the tier at hand.
    tally: Tally,
    /// What tests have to say beyond whether they passed.
    figures: Vec<String>,
}

impl Seen {
    /// A line of output: a summary of libtest's, or a figure that a test printed past libtest's capture.
    fn read(&mut self, line: &str) {
        match line.strip_prefix("fact: ") {
            Some(figure) => self.figures.push(figure.to_owned()),
            None => self.tally.read(line),
        }
    }
}

/// What libtest counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds what a line of libtest's output says, if it is a summary:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[derive(Debug)]
struct Outcome {
    name: &'static str,
    tally: Option<Tally>,
    error: Option<anyhow::Error>,
    took: Duration,
}

impl Outcome {
    fn of_checks(checked: anyhow::Result<()>, took: Duration) -> Self {
        Self { name: "checks", tally: None, error: checked.err(), took }
    }

    fn of_tests(tier: Tier, tally: Tally, ran: anyhow::Result<bool>, took: Duration) -> Self {
        let error = match ran {
            Err(error) => Some(error),
            Ok(_) if tally.failed > 0 => Some(anyhow::anyhow!("{} tests failed", tally.failed)),
            Ok(false) => Some(anyhow::anyhow!("the tests did not build or did not end as tests do")),
            // A tier that runs nothing proves nothing: a renamed file must not turn it green.
            Ok(true) if tally.passed == 0 => Some(anyhow::anyhow!("no test ran")),
            Ok(true) => None,
        };
        Self { name: tier.name(), tally: Some(tally), error, took }
    }

    fn is_good(&self) -> bool {
        self.error.is_none()
    }
}

fn table(results: &[Outcome]) -> String {
    let head = format!("{:<10}{:>8}{:>8}{:>9}{:>8}  result", "tier", "passed", "failed", "ignored", "time");
    let rows = results.iter().map(|result| {
        let [passed, failed, ignored] = match result.tally {
            Some(tally) => [tally.passed, tally.failed, tally.ignored].map(|count| count.to_string()),
            None => ["-"; 3].map(str::to_owned),
        };
        let verdict = if result.is_good() { "ok" } else { "FAILED" };
        let took = format!("{} s", result.took.as_secs());
        format!("{:<10}{passed:>8}{failed:>8}{ignored:>9}{took:>8}  {verdict}", result.name)
    });
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        tally
    }

    #[test]
    fn summaries_of_all_binaries_are_added_up() {
        let counted = tally(&[
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test a ... ok",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s",
        ]);
        assert_eq!(counted, Tally { passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn figures_of_tests_are_kept() {
        let mut seen = Seen::default();
        for line in [
            "fact: cctv: 143 vectors",
            "test a ... ok",
            "a fact: not one",
            "test result: ok. 1 passed; 0 failed",
        ] {
            seen.read(line);
        }
        assert_eq!((seen.figures, seen.tally.passed), (vec!["cctv: 143 vectors".to_owned()], 1));
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(tally(&["", "3 passed", "test result: ", "error: 5 failed; 3 passed"]), Tally::default());
    }

    #[test]
    fn a_tier_is_good_only_when_tests_ran_and_all_passed() {
        let good = |passed, failed, ran| {
            Outcome::of_tests(Tier::Api, Tally { passed, failed, ignored: 0 }, ran, Duration::ZERO).is_good()
        };
        assert!(good(1, 0, Ok(true)));
        assert!(!good(0, 0, Ok(true)), "nothing ran");
        assert!(!good(1, 1, Ok(false)), "a test failed");
        assert!(!good(1, 0, Ok(false)), "a test binary crashed");
        assert!(!good(0, 0, Err(anyhow::anyhow!("no cluster"))));
    }

    #[test]
    fn the_table_names_what_failed() {
        let results = [
            Outcome::of_checks(Ok(()), Duration::from_secs(5)),
            Outcome::of_tests(
                Tier::Unit,
                tally(&["test result: ok. 7 passed; 0 failed; 0 ignored;"]),
                Ok(true),
                Duration::from_secs(61),
            ),
            Outcome::of_tests(
                Tier::E2e,
                Tally::default(),
                Err(anyhow::anyhow!("no cluster")),
                Duration::ZERO,
            ),
        ];
        let table = table(&results);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["checks", "-", "-", "-", "5", "s", "ok"]);
        assert_eq!(lines[2], ["unit", "7", "0", "0", "61", "s", "ok"]);
        assert_eq!(lines[3], ["e2e", "0", "0", "0", "0", "s", "FAILED"]);
    }
}
