//! `bench reconcile`: the operator beside the floor and beside sealed-secrets, in one run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::api::{Cluster, SEALED_ENV, SEALED_SECRET};
use crate::foreign::{self, Foreign};
use crate::latency::{self, Latencies};
use crate::objects::{SealedEnv, Template};
use crate::peer::Peer;
use crate::program::{Program, free_address};
use crate::report::{Conditions, Line, Report, number};
use crate::scale::{self, Scale};
use crate::stats::{median, quantile, range};
use crate::throughput::{self, Round};
use crate::{Common, say};

/// Settings of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Objects of one round of throughput.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Pairs of rounds, one of the floor and one of the operator.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Objects of each kind at low load. 0 leaves it out.
    #[arg(long, default_value_t = 250)]
    low_load: usize,
    /// Objects whose memory is measured; several numbers, comma-separated, lead to an extrapolation.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000])]
    scale: Vec<usize>,
    /// Secrets of others. 0 leaves it out.
    #[arg(long, default_value_t = 8000)]
    foreign: usize,
    /// Bytes of the image, to hold against its budget.
    #[arg(long)]
    image_size: Option<u32>,
    /// sealed-secrets' controller; without it the peer is left out.
    #[arg(long, requires = "peer_cli")]
    peer: Option<PathBuf>,
    /// sealed-secrets' command line, kubeseal.
    #[arg(long)]
    peer_cli: Option<PathBuf>,
}

/// Namespaces of the bench.
const FLOOR: &str = "bench-floor";
const OURS: &str = "bench-ours";
const WARM: &str = "bench-warm";
const PEER: &str = "bench-peer";
const SCALE: &str = "bench-scale";
const FOREIGN: &str = "bench-foreign";
const SYSTEM: &str = "bench-system";

/// After a round is cleared away the API server still compacts and collects; the next one must not pay for it.
const SETTLE: Duration = Duration::from_secs(3);

/// How to start the operator.
pub struct Operator<'a> {
    binaries: &'a Path,
    kubeconfig: &'a Path,
    work: &'a Path,
}

impl Operator<'_> {
    /// Starts it and waits until it is ready; says how long that took.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&self, more: &[&str]) -> Result<(Program, Duration)> {
        let http = free_address()?;
        let mut command = Command::new(self.binaries.join("sealedenv-operator"));
        command
            .args(["--namespace", SYSTEM, "--instance", "bench", "--log-level", "warn"])
            .arg(format!("--http-listen={http}"))
            .arg("--audit-file")
            .arg(self.work.join("audit.jsonl"))
            .args(more)
            .env("KUBECONFIG", self.kubeconfig);
        let mut program = Program::start(command, "operator", self.work)?;
        let ready = program.wait_ready(http, "/readyz").await?;
        Ok((program, ready))
    }
}

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    floor: Vec<Round>,
    ours: Vec<Round>,
    peer: Vec<Round>,
    low: Latencies,
    scales: Vec<Scale>,
    foreign: Option<Foreign>,
}

/// Runs the bench.
///
/// # Errors
/// When something cannot be measured.
pub async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut conditions = Conditions::at_start();
    let cluster = Cluster::connect(&common.kubeconfig).await?;
    let operator =
        Operator { binaries: &common.binaries, kubeconfig: &common.kubeconfig, work: &common.work };
    for namespace in [FLOOR, OURS, WARM, PEER, SCALE, FOREIGN, SYSTEM] {
        cluster.namespace(namespace).await?;
    }
    let mut measured = Measured::default();

    say("warming up");
    let (program, _) = operator.start(&[]).await?;
    let key = cluster.get("/apis/sealedenv.dev/v1alpha1/sealingkeys/cluster").await?;
    let recipient = key["status"]["recipients"][0].as_str().context("the SealingKey names no recipient")?;
    let env = SealedEnv::seal(&common.binaries, recipient)?;
    let some = (options.objects / 5).max(20);
    throughput::program(&cluster, OURS, some, SEALED_ENV, |name| env.named(name), &program).await?;
    let template = Template::of(&cluster, OURS, &throughput::name(0)).await?;
    program.stop().await?;
    throughput::floor(&cluster, FLOOR, some, &env, &template).await?;
    for namespace in [FLOOR, OURS] {
        cluster.clear(namespace).await?;
    }

    if options.foreign > 0 {
        say(format_args!("{} Secrets of others", options.foreign));
        measured.foreign = Some(foreign::measure(&cluster, &operator, FOREIGN, options.foreign).await?);
        conditions.note();
    }

    for round in 0..options.rounds {
        // In turn first and second, so that what grows meanwhile is in both.
        for second in [false, true] {
            tokio::time::sleep(SETTLE).await;
            if second == (round % 2 == 0) {
                measured.ours.push(ours(&cluster, &operator, options.objects, &env).await?);
                cluster.clear(OURS).await?;
            } else {
                measured
                    .floor
                    .push(throughput::floor(&cluster, FLOOR, options.objects, &env, &template).await?);
                cluster.clear(FLOOR).await?;
            }
        }
        if let (Some(floor), Some(ours)) = (measured.floor.last(), measured.ours.last()) {
            say(format_args!("round {}: floor {:.0}/s, operator {:.0}/s", round + 1, floor.rate, ours.rate));
        }
    }
    conditions.note();

    if let (Some(controller), Some(cli)) = (&options.peer, &options.peer_cli) {
        say("sealed-secrets");
        tokio::time::sleep(SETTLE).await;
        let peer = Peer::of(controller, cli);
        measured.peer.push(beside(&cluster, peer, options.objects, &common.work).await?);
        cluster.clear(PEER).await?;
        conditions.note();
    }

    if options.low_load > 0 {
        say(format_args!("low load, {} a second", latency::RATE));
        tokio::time::sleep(SETTLE).await;
        let watched = format!("--watch-namespaces={OURS}");
        let (program, _) = operator.start(&[&watched]).await?;
        program.wait_idle().await?;
        measured.low = latency::measure(&cluster, FLOOR, OURS, options.low_load, &env, &template).await?;
        program.stop().await?;
        for namespace in [FLOOR, OURS] {
            cluster.clear(namespace).await?;
        }
        conditions.note();
    }

    for &count in options.scale.iter().filter(|count| **count > 0) {
        say(format_args!("{count} SealedEnvs at rest"));
        measured.scales.push(scale::measure(&cluster, &operator, SCALE, count, &env).await?);
        cluster.clear(SCALE).await?;
        conditions.note();
    }
    let lines = lines(&measured, options);
    Ok(Report { title: "reconcile", lines, rounds: rounds(&measured), conditions })
}

async fn ours(cluster: &Cluster, operator: &Operator<'_>, count: usize, env: &SealedEnv) -> Result<Round> {
    let (program, _) = operator.start(&[]).await?;
    // The floor's connections are open; so are those of an operator that has worked before.
    let (named, some) = (|name: &str| env.named(name), 3 * throughput::AT_ONCE);
    throughput::program(cluster, WARM, some, SEALED_ENV, named, &program).await?;
    cluster.clear(WARM).await?;
    tokio::time::sleep(SETTLE).await;
    program.wait_idle().await?;
    let round =
        throughput::program(cluster, OURS, count, SEALED_ENV, |name| env.named(name), &program).await?;
    throughput::verify(cluster, OURS, count).await?;
    program.stop().await?;
    Ok(round)
}

async fn beside(cluster: &Cluster, mut peer: Peer, count: usize, work: &Path) -> Result<Round> {
    let program = peer.start(cluster, work).await?;
    peer.seal(cluster, work).await?;
    program.wait_idle().await?;
    let named = |name: &str| peer.named(name);
    let round = throughput::program(cluster, PEER, count, SEALED_SECRET, named, &program).await?;
    program.stop().await?;
    Ok(round)
}

fn rates(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.rate).collect()
}

fn cpus(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().filter_map(|round| round.cpu_per_thousand).collect()
}

/// A line for each budget of design.md, section 10, and what else helps to judge it.
fn lines(measured: &Measured, options: &Options) -> Vec<Line> {
    let mut lines = Vec::new();
    let objects = options.objects;
    let (floor, ours) = (rates(&measured.floor), rates(&measured.ours));
    let ratios: Vec<f64> = ours.iter().zip(&floor).map(|(ours, floor)| ours / floor).collect();
    if let (Some(ratio), Some((least, most)), Some(rate), Some(lowest)) =
        (median(&ratios), range(&ratios), median(&ours), median(&floor))
    {
        let what = format!("{objects} SealedEnvs × 10 values to Secrets and status, beside the floor");
        let note = format!("{rate:.0}/s of {lowest:.0}/s; pairs {} to {}", number(least), number(most));
        lines.push(Line::at_least(what, ratio, 0.85, " ×", &note));
        if let Some(peer) = median(&rates(&measured.peer)) {
            let note = format!("sealed-secrets {}/s", number(peer));
            lines.push(Line::at_least(
                "the same beside sealed-secrets without rate limit",
                rate / peer,
                9.0,
                " ×",
                &note,
            ));
        }
    }
    if let Some(cpu) = median(&cpus(&measured.ours)) {
        let note = median(&cpus(&measured.peer))
            .map_or_else(String::new, |cpu| format!("sealed-secrets {} s", number(cpu)));
        lines.push(Line::at_most("CPU of the operator for 1,000", cpu, 3.0, " s", &note));
    }
    for (share, name, most) in [(0.5, "p50", 1.5), (0.99, "p99", 3.0)] {
        let both = (quantile(&measured.low.operator, share), quantile(&measured.low.floor, share));
        if let (Some(ours), Some(floor)) = both {
            let what = format!("low load, create to Secret visible, {name}, beside the floor");
            let note = format!("{} ms of {} ms", number(ours), number(floor));
            lines.push(Line::at_most(what, ours / floor, most, " ×", &note));
        }
    }
    for scale in &measured.scales {
        lines.extend(of_scale(scale));
    }
    if let Some((each, there)) = scale::extrapolate(&measured.scales, 100_000) {
        let text = format!("{} MiB ({} KiB for each SealedEnv)", number(there), number(each));
        lines.push(Line::told("memory at rest with 100,000, extrapolated", text));
    }
    if let Some(foreign) = &measured.foreign {
        let [without, with] = foreign.memory;
        let ready = foreign.ready.map(|ready| ready.as_secs_f64());
        let memory = format!("memory that {} Secrets of others of 100 KiB add", foreign.secrets);
        lines.push(Line::at_most(memory, with.now - without.now, 8.0, " MiB", ""));
        lines.push(Line::at_most("time to ready that they add", ready[1] - ready[0], 1.0, " s", ""));
        lines.push(Line::at_most("start to ready, nothing there", ready[0], 1.0, " s", ""));
        lines.push(Line::told("memory at rest, nothing there", format!("{} MiB", number(without.now))));
    }
    if let Some(size) = options.image_size {
        lines.push(Line::at_most("size of the image", f64::from(size) / 1e6, 25.0, " MB", ""));
    }
    lines
}

/// The budgets are for 10,000; a larger one is told beside them and a smaller one is held to the same.
fn of_scale(scale: &Scale) -> Vec<Line> {
    let objects = scale.objects;
    let rest = scale.after_load.now.max(scale.after_restart.now);
    let peak = scale.after_load.peak.max(scale.after_restart.peak);
    let note = format!(
        "{} after the load, {} after a restart",
        number(scale.after_load.now),
        number(scale.after_restart.now)
    );
    let ready = scale.ready.as_secs_f64();
    if objects > 10_000 {
        let text = format!("{} MiB ({note}), peak {} MiB", number(rest), number(peak));
        let again = format!("{} s, {} writes", number(ready), number(scale.writes));
        return vec![
            Line::told(format!("memory at rest, {objects} × 10"), text),
            Line::told(format!("restart with {objects}, ready and writes"), again),
        ];
    }
    let peaks = format!(
        "{} in the load, {} in the restart",
        number(scale.after_load.peak),
        number(scale.after_restart.peak)
    );
    vec![
        Line::at_most(format!("memory at rest, {objects} × 10"), rest, 64.0, " MiB", &note),
        Line::at_most(format!("memory at its peak, {objects} × 10"), peak, 128.0, " MiB", &peaks),
        Line::at_most(format!("restart with {objects}, start to ready"), ready, 10.0, " s", ""),
        Line::at_most(format!("restart with {objects}, writes"), scale.writes, 0.0, "", ""),
    ]
}

fn rounds(measured: &Measured) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["round", "floor /s", "operator /s", "ratio", "operator CPU s for 1,000"]
            .map(ToOwned::to_owned)
            .to_vec(),
    ];
    for (index, (floor, ours)) in measured.floor.iter().zip(&measured.ours).enumerate() {
        rows.push(vec![
            (index + 1).to_string(),
            number(floor.rate),
            number(ours.rate),
            number(ours.rate / floor.rate),
            ours.cpu_per_thousand.map(number).unwrap_or_default(),
        ]);
    }
    rows
}
