//! `cargo xtask lint`: everything that reads the code and runs none of it.

use crate::{Checkout, deny, exec, generate};

/// Formatting, clippy, documentation links, crate edges, generated files, licences, sources and advisories of dependencies.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out cargo-deny, which is built once (some minutes) unless it is there.
    #[arg(long)]
    skip_deny: bool,
}

/// Runs the command.
///
/// # Errors
/// At the first thing that is wrong.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    without_tools(checkout)?;
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
        exec::say(
            "cargo-deny left out: licences, bans, sources and advisories of dependencies were not checked",
        );
        return Ok(());
    }
    deny::check(checkout)
}

/// The part that every test run includes.
///
/// # Errors
/// At the first thing that is wrong.
pub fn quick(checkout: &Checkout) -> anyhow::Result<()> {
    without_tools(checkout)?;
    deny::check(checkout)
}

fn without_tools(checkout: &Checkout) -> anyhow::Result<()> {
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
