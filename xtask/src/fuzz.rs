//! `cargo xtask fuzz`: hostile bytes for every parser that takes them. `docs/src/fuzzing.md` says what each target holds
//! up, and why it is built as it is.

mod build;
mod output;

use std::{
    collections::VecDeque,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use self::output::Said;
use crate::{Checkout, exec};

/// Fuzzes the parsers: each target for as many executions as the tests run, or longer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Targets to run; all of them if none is named.
    targets: Vec<String>,
    /// How many executions of each target.
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    runs: Option<u64>,
    /// How many minutes for each target. Inputs that reach something new are kept in fuzz/corpus/TARGET.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Where the pseudo-random choices begin; 0 takes another place each time.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u32,
    /// How many targets run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
}

/// A fuzz target: a file of `fuzz/fuzz_targets/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    name: &'static str,
    /// Executions in a run of the tests: together about a minute on two cores.
    runs: u64,
    /// The longest input, in bytes: enough for what the target parses, and short enough to be mutated often.
    longest: usize,
}

const TARGETS: [Target; 8] = [
    Target { name: "sealed_text", runs: 1_000_000, longest: 1500 },
    Target { name: "sealed_open", runs: 150_000, longest: 512 },
    Target { name: "dotenv", runs: 1_000_000, longest: 1 << 10 },
    Target { name: "template", runs: 200_000, longest: 1 << 10 },
    Target { name: "manifest", runs: 60_000, longest: 4 << 10 },
    Target { name: "admission", runs: 200_000, longest: 8 << 10 },
    Target { name: "audit_line", runs: 300_000, longest: 2 << 10 },
    Target { name: "audit_trail", runs: 150_000, longest: 4 << 10 },
];

/// When a target ends.
#[derive(Debug, Clone, Copy)]
enum Budget {
    Runs(u64),
    Minutes(u64),
}

/// What came of one target.
#[derive(Debug)]
pub struct Outcome {
    name: &'static str,
    executions: u64,
    coverage: u64,
    took: Duration,
    /// What is wrong, for people.
    failure: Option<String>,
}

impl Outcome {
    /// Whether no input broke a promise.
    pub fn is_good(&self) -> bool {
        self.failure.is_none()
    }
}

/// Runs the command.
///
/// # Errors
/// When a target is not known, or nothing can be built.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<ExitCode> {
    let targets = chosen(&args.targets)?;
    let budget = |target: &Target| match (args.minutes, args.runs) {
        (Some(minutes), _) => Budget::Minutes(minutes),
        (None, runs) => Budget::Runs(runs.unwrap_or(target.runs)),
    };
    let outcomes = run_all(checkout, &targets, args.jobs, args.seed, budget)?;
    println!("\n{}", table(&outcomes));
    Ok(if outcomes.iter().all(Outcome::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The part that every test run includes: each target from the same seed, for a fixed number of executions.
///
/// # Errors
/// When nothing can be built.
pub fn tier(checkout: &Checkout) -> anyhow::Result<Vec<Outcome>> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    run_all(checkout, &TARGETS, jobs, 1, |target| Budget::Runs(target.runs))
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let find = |name: &String| match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => Ok(*target),
        None => {
            bail!("no fuzz target {name}\nhint: there are {}", TARGETS.map(|target| target.name).join(", "))
        }
    };
    names.iter().map(find).collect()
}

fn run_all(
    checkout: &Checkout,
    targets: &[Target],
    jobs: usize,
    seed: u32,
    budget: impl Fn(&Target) -> Budget + Sync,
) -> anyhow::Result<Vec<Outcome>> {
    let programs = build::all(checkout)?;
    let waiting: Mutex<VecDeque<Target>> = Mutex::new(targets.iter().copied().collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let fuzz = Fuzz { checkout, programs: &programs, seed };
    let mut outcomes: Vec<Outcome> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some(target) = next() {
                done.push(fuzz.target(target, budget(&target)));
            }
            done
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    outcomes.sort_by_key(|outcome| TARGETS.iter().position(|target| target.name == outcome.name));
    Ok(outcomes)
}

/// What all targets of one run share.
#[derive(Clone, Copy)]
struct Fuzz<'a> {
    checkout: &'a Checkout,
    programs: &'a Path,
    seed: u32,
}

impl Fuzz<'_> {
    /// Runs a target to its end. What goes wrong is part of the outcome, so that the others go on.
    fn target(self, target: Target, budget: Budget) -> Outcome {
        exec::say(format_args!("fuzz: {}", target.name));
        let start = Instant::now();
        let mut outcome = self.try_target(target, budget).unwrap_or_else(|error| Outcome {
            name: target.name,
            executions: 0,
            coverage: 0,
            took: Duration::ZERO,
            failure: Some(format!("{error:#}")),
        });
        outcome.took = start.elapsed();
        if let Some(failure) = &outcome.failure {
            eprintln!("error: fuzz target {}: {failure}", target.name);
        }
        outcome
    }

    fn try_target(self, target: Target, budget: Budget) -> anyhow::Result<Outcome> {
        let program = self.programs.join(target.name);
        let work = self.checkout.target().join("fuzz/work").join(target.name);
        let seeds = fresh(&work.join("seeds"))?;
        exec::read(Command::new(&program).env("SEALEDENV_FUZZ_SEEDS", &seeds))
            .context("writing the first inputs")?;
        // A run of the tests begins with an empty corpus, or it would not be the same run again.
        let kept = match budget {
            Budget::Runs(_) => fresh(&work.join("corpus"))?,
            Budget::Minutes(_) => made(&self.checkout.root().join("fuzz/corpus").join(target.name))?,
        };
        let crashes = made(&self.checkout.root().join("fuzz/artifacts").join(target.name))?;
        let log = work.join("log");
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;

        let mut fuzzer = Command::new(&program);
        fuzzer.env_remove("SEALEDENV_FUZZ_SEEDS");
        fuzzer.arg(match budget {
            Budget::Runs(runs) => format!("-runs={runs}"),
            Budget::Minutes(minutes) => format!("-max_total_time={}", minutes * 60),
        });
        fuzzer.arg(format!("-seed={}", self.seed)).arg(format!("-max_len={}", target.longest));
        // An input that takes this long is a finding: every parser's work is bounded.
        fuzzer.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"]);
        fuzzer.arg(format!("-artifact_prefix={}/", crashes.display()));
        let dictionary = self.checkout.root().join("fuzz/dictionaries").join(format!("{}.dict", target.name));
        if dictionary.exists() {
            fuzzer.arg(format!("-dict={}", dictionary.display()));
        }
        fuzzer.arg(kept).arg(seeds);
        let found = self.checkout.root().join("fuzz/regressions").join(target.name);
        if found.exists() {
            fuzzer.arg(found);
        }
        let status = fuzzer
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("the log")?)
            .stderr(output)
            .status()
            .with_context(|| format!("starting `{}`", exec::line(&fuzzer)))?;

        let said = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
        let said = Said::read(&String::from_utf8_lossy(&said));
        let failure = if !status.success() {
            Some(said.failure(target.name, &log))
        } else if matches!(budget, Budget::Runs(runs) if said.executions < runs) {
            Some(format!("only {} executions; see {}", said.executions, log.display()))
        } else {
            None
        };
        let Said { executions, coverage, .. } = said;
        Ok(Outcome { name: target.name, executions, coverage, took: Duration::ZERO, failure })
    }
}

/// An empty folder.
fn fresh(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    made(folder)
}

/// The folder, made if it was not there.
fn made(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// Executions and what they reached, a line for each target and one for all.
pub fn table(outcomes: &[Outcome]) -> String {
    let head = format!(
        "{:<12}{:>14}{:>10}{:>10}{:>9}  result",
        "fuzz target", "executions", "a second", "coverage", "time"
    );
    let row = |name: &str, executions: u64, coverage: String, took: Duration, verdict: &str| {
        let rate = u128::from(executions) * 1000 / took.as_millis().max(1);
        let took = format!("{} s", took.as_secs());
        format!(
            "{name:<12}{:>14}{:>10}{coverage:>10}{took:>9}  {verdict}",
            grouped(executions.into()),
            grouped(rate)
        )
    };
    let rows = outcomes.iter().map(|outcome| {
        let verdict = if outcome.is_good() { "ok" } else { "FAILED" };
        row(outcome.name, outcome.executions, outcome.coverage.to_string(), outcome.took, verdict)
    });
    let executions = outcomes.iter().map(|outcome| outcome.executions).sum();
    let took = outcomes.iter().map(|outcome| outcome.took).sum();
    let good = outcomes.iter().filter(|outcome| outcome.is_good()).count();
    let all = row("all", executions, String::new(), took, &format!("{good} of {} ok", outcomes.len()));
    std::iter::once(head).chain(rows).chain([all]).collect::<Vec<_>>().join("\n")
}

/// A number with its thousands set apart.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_that_there_is_is_run() {
        let checkout = Checkout::find().unwrap();
        let folder = checkout.root().join("fuzz/fuzz_targets");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, TARGETS.iter().map(|target| target.name.to_owned()).collect());
        let manifest = fs::read_to_string(checkout.root().join("fuzz/Cargo.toml")).unwrap();
        for Target { name, .. } in TARGETS {
            assert!(
                manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
                "{name}"
            );
        }
        let known = fs::read_dir(checkout.root().join("fuzz/regressions")).unwrap();
        for entry in known {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(files.contains(&name) || name == "README.md", "regressions of no target: {name}");
        }
    }

    #[test]
    fn targets_are_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), TARGETS.len());
        let names = ["dotenv".to_owned(), "sealed_open".to_owned()];
        assert_eq!(chosen(&names).unwrap().iter().map(|target| target.name).collect::<Vec<_>>(), names);
        assert!(
            chosen(&["none".to_owned()]).unwrap_err().to_string().contains("hint: there are sealed_text")
        );
    }

    #[test]
    fn the_table_counts_and_names_what_failed() {
        let outcome = |name, executions, failure: Option<&str>| Outcome {
            name,
            executions,
            coverage: 321,
            took: Duration::from_secs(4),
            failure: failure.map(str::to_owned),
        };
        let table =
            table(&[outcome("dotenv", 1_000_000, None), outcome("manifest", 12_345, Some("a crash"))]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["dotenv", "1,000,000", "250,000", "321", "4", "s", "ok"]);
        assert_eq!(lines[2], ["manifest", "12,345", "3,086", "321", "4", "s", "FAILED"]);
        assert_eq!(lines[3], ["all", "1,012,345", "126,543", "8", "s", "1", "of", "2", "ok"]);
    }
}
