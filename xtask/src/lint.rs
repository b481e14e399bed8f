//! `cargo xtask lint`: everything that reads the code and runs none of it.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{Checkout, exec, generate, host};

/// Formatting, clippy, documentation links, crate edges, generated files, licences and sources of dependencies.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out cargo-deny, which is built once (some minutes) unless it is there.
    #[arg(long)]
    skip_deny: bool,
}

/// The cargo-deny that deny.toml was written for.
const DENY_VERSION: &str = "0.20.2";

/// Runs the command.
///
/// # Errors
/// At the first thing that is wrong.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    quick(checkout)?;
    exec::say("documentation");
    let mut doc = exec::cargo(checkout.root());
    doc.env("RUSTDOCFLAGS", "-D warnings");
    exec::run(doc.args(["doc", "--quiet", "--workspace", "--no-deps"]))?;
    exec::say("crate edges");
    exec::run(exec::cargo(checkout.root()).args([
        "test",
        "--quiet",
        "--package",
        "xtask",
        "--test",
        "edges",
    ]))?;
    if args.skip_deny {
        exec::say("cargo-deny left out: licences, bans and sources of dependencies were not checked");
        return Ok(());
    }
    deny(checkout)
}

/// The part that every test run includes.
///
/// # Errors
/// At the first thing that is wrong.
pub fn quick(checkout: &Checkout) -> anyhow::Result<()> {
    exec::say("formatting");
    exec::run(exec::cargo(checkout.root()).args(["fmt", "--all", "--check"]))?;
    // Not a member of the workspace: it is built in another way.
    exec::run(exec::cargo(checkout.root()).args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    exec::say("clippy");
    exec::run(exec::cargo(checkout.root()).args([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    exec::say("generated files");
    generate::run(checkout, &generate::Args { check: true })
}

/// Licences, bans and sources. Not advisories: their database is a git repository, which a machine that reaches only
/// package registries cannot fetch.
fn deny(checkout: &Checkout) -> anyhow::Result<()> {
    let deny = deny_program()?;
    exec::say(
        "licences, bans and sources of dependencies (not advisories: their database is not in a registry)",
    );
    let mut command = std::process::Command::new(deny);
    exec::run(command.current_dir(checkout.root()).args([
        "--locked",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn deny_program() -> anyhow::Result<PathBuf> {
    let root = host::cache()?.join(format!("tools/cargo-deny-{DENY_VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let _lock = host::Lock::wait(&host::cache()?.join("tools/lock"), "installing a tool")?;
    if program.exists() {
        return Ok(program); // installed while we waited
    }
    std::fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let mut install = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Elsewhere than in the checkout, whose settings are not for it.
    install.current_dir(&root).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    install.args(["install", "--locked", "--version", DENY_VERSION, "--root"]).arg(&root).arg("cargo-deny");
    host::run_with_progress(
        &mut install,
        &format!("building cargo-deny {DENY_VERSION}"),
        &root.join("install.log"),
    )
    .context("installing cargo-deny; --skip-deny leaves it out")?;
    Ok(program)
}
