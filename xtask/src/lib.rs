//! The project's own commands: `cargo xtask help` lists them.
//!
//! One module does one command. What they share: [`exec`] runs other programs, [`Checkout`] knows where things are.
//! Nothing here ships to users.

#![allow(clippy::print_stdout, reason = "a command-line tool: its results go to stdout")]

pub mod bench;
pub mod chart;
pub mod cluster;
pub mod demo;
mod deny;
mod dependencies;
pub mod exec;
pub mod fuzz;
pub mod generate;
pub mod gitops;
mod gomodule;
pub mod host;
pub mod image;
pub mod imagetar;
pub mod install;
pub mod lint;
mod reproduce;
pub mod sbom;
pub mod test;
pub mod tools;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// The project's own commands. They never touch a cluster that they did not start, unless `--context` names it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Bench(bench::Command),
    #[command(subcommand)]
    Cluster(cluster::Command),
    Demo(demo::Args),
    Fuzz(fuzz::Args),
    #[command(name = "gen")]
    Generate(generate::Args),
    Image(image::Args),
    Install(install::Args),
    Lint(lint::Args),
    Test(test::Args),
}

/// Parses the command line, runs the command, reports its failure.
pub fn main() -> ExitCode {
    let xtask = Xtask::parse();
    match run(xtask.command) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let checkout = Checkout::find()?;
    match command {
        Command::Bench(command) => return bench::run(&checkout, &command),
        Command::Cluster(command) => return cluster::run(&checkout, &command),
        Command::Demo(args) => demo::run(&checkout, &args)?,
        Command::Fuzz(args) => return fuzz::run(&checkout, &args),
        Command::Generate(args) => generate::run(&checkout, &args)?,
        Command::Image(args) => image::run(&checkout, &args)?,
        Command::Install(args) => install::run(&checkout, &args)?,
        Command::Lint(args) => lint::run(&checkout, &args)?,
        Command::Test(args) => return test::run(&checkout, &args),
    }
    Ok(ExitCode::SUCCESS)
}

/// `error:` and what led to it, outermost first.
fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// Where this checkout keeps things.
#[derive(Debug, Clone)]
pub struct Checkout {
    root: PathBuf,
    /// Of a copy that is built apart: cargo's folders.
    apart: Option<Apart>,
}

#[derive(Debug, Clone)]
struct Apart {
    target: PathBuf,
    cargo_home: PathBuf,
}

impl Checkout {
    /// The checkout that this xtask was built from.
    ///
    /// # Errors
    /// When that folder is gone, for instance because the checkout was moved after the build.
    pub fn find() -> anyhow::Result<Self> {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = built_in.parent().context("xtask stands outside a workspace")?;
        let root = root
            .canonicalize()
            .with_context(|| format!("the checkout that xtask was built in, {}", root.display()))?;
        Ok(Self { root, apart: None })
    }

    /// The folder of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A copy of the checkout that is built with folders of its own.
    pub(crate) fn apart(root: PathBuf, target: PathBuf, cargo_home: PathBuf) -> Self {
        Self { root, apart: Some(Apart { target, cargo_home }) }
    }

    /// Where cargo keeps its downloads: `CARGO_HOME`, or `.cargo` at home.
    pub(crate) fn cargo_home(&self) -> anyhow::Result<PathBuf> {
        if let Some(apart) = &self.apart {
            return Ok(apart.cargo_home.clone());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("CARGO_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".cargo")))
            .context("neither CARGO_HOME nor HOME is set")
    }

    /// Cargo's target folder: `CARGO_TARGET_DIR`, or `target` in the checkout.
    pub fn target(&self) -> PathBuf {
        if let Some(apart) = &self.apart {
            return apart.target.clone();
        }
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// The Helm chart.
    pub fn chart(&self) -> PathBuf {
        self.root.join("charts/sealedenv")
    }
}
