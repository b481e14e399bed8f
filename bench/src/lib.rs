//! Load and measurement for `cargo xtask bench`, which builds everything, starts a cluster and runs this.
//!
//! It knows the built binaries, the Kubernetes API and two gRPC contracts (the operator's and CSI's), and nothing else of
//! our libraries: what is measured is what users run.
//! Every speed is a ratio to a *floor* in the same run: a client that makes the same writes itself. The machine's own
//! speed, and what else it does meanwhile, is in both.
//!
//! - [`reconcile`](mod@reconcile), [`webhook`](mod@webhook) and [`delivery`](mod@delivery) are the benches; [`throughput`],
//!   [`latency`], [`scale`] and [`foreign`] are the parts of the first.
//! - [`api`], [`program`], [`process`], [`objects`] and [`peer`] are what they act through.
//! - [`stats`], [`counters`] and [`report`] are plain functions of what was measured.

pub mod api;
pub mod counters;
pub mod delivery;
pub mod foreign;
pub mod latency;
pub mod objects;
pub mod peer;
pub mod process;
pub mod program;
pub mod reconcile;
pub mod report;
pub mod scale;
pub mod stats;
pub mod throughput;
pub mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::report::Report;

/// Measures the operator and the webhook of this checkout beside a floor and a peer. `cargo xtask bench` runs it.
#[derive(Debug, Parser)]
#[command(name = "sealedenv-bench")]
struct Args {
    /// What all benches need.
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    bench: Bench,
}

/// What all benches need.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Kubeconfig of the admin of a cluster that nothing else uses.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Folder of the built binaries.
    #[arg(long)]
    pub binaries: PathBuf,
    /// A folder for logs and audit trails.
    #[arg(long)]
    pub work: PathBuf,
    /// Write the report to this file, as Markdown.
    #[arg(long)]
    pub page: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// SealedEnvs to Secrets: throughput, latency, memory, restart.
    Reconcile(reconcile::Options),
    /// What admission adds to the creation of pods.
    Webhook(webhook::Options),
    /// Memory delivery: calls of the operator, publishes of the node plugin, pods.
    Delivery(delivery::Options),
}

/// Runs one bench, prints what came of it, and says by the exit code whether every budget holds.
pub async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(report) if report.holds() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&args.common.work)
        .with_context(|| format!("making {}", args.common.work.display()))?;
    let report = match &args.bench {
        Bench::Reconcile(options) => reconcile::run(&args.common, options).await?,
        Bench::Webhook(options) => webhook::run(&args.common, options).await?,
        Bench::Delivery(options) => delivery::run(&args.common, options).await?,
    };
    report.print();
    if let Some(page) = &args.common.page {
        std::fs::write(page, report.markdown()).with_context(|| format!("writing {}", page.display()))?;
    }
    Ok(report)
}

/// Says on stderr what is being done.
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("    {what}");
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    /// `cargo xtask bench` asks so before it starts a cluster.
    #[test]
    fn options_in_front_of_help_are_read_and_nothing_else_is_needed() {
        for (args, expected) in [
            (&["reconcile"][..], ErrorKind::DisplayHelp),
            (&["webhook", "--blocks=2"], ErrorKind::DisplayHelp),
            (&["delivery", "--seconds", "2"], ErrorKind::DisplayHelp),
            (&["delivery", "--no-such"], ErrorKind::UnknownArgument),
            (&["webhook", "--blocks=many"], ErrorKind::ValueValidation),
            (&["webhook", "--blocks", "many"], ErrorKind::ValueValidation),
        ] {
            let args = [&["sealedenv-bench"], args, &["--help"]].concat();
            assert_eq!(Args::try_parse_from(&args).unwrap_err().kind(), expected, "{args:?}");
        }
    }
}
