//! cargo-deny: licences, bans, sources and advisories of dependencies.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{Checkout, exec, host};

/// The cargo-deny that deny.toml was written for.
const VERSION: &str = "0.20.2";

/// How long the advisories' database may take to be fetched. A machine without a way to it must not hang.
const FETCH_SECONDS: &str = "60";

/// Checks the dependencies. Where the database of advisories cannot be had, everything else is checked, and it says so.
///
/// # Errors
/// At the first thing that is wrong, or when cargo-deny cannot be built.
pub(crate) fn check(checkout: &Checkout) -> anyhow::Result<()> {
    let deny = program()?;
    exec::say("licences, bans and sources of dependencies");
    exec::run(command(&deny, checkout).args([
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    match fetch(&deny, checkout) {
        Ok(()) => {
            exec::say("advisories on dependencies");
            exec::run(command(&deny, checkout).args(["--offline", "check", "advisories"]))
        }
        Err(error) => {
            exec::say(format_args!(
                "ADVISORIES WERE NOT CHECKED: {error:#}. docs/src/supply.md says when they last were"
            ));
            Ok(())
        }
    }
}

/// Brings the database of advisories up to date.
fn fetch(deny: &Path, checkout: &Checkout) -> anyhow::Result<()> {
    let mut fetch = Command::new("timeout");
    let inner = command(deny, checkout);
    fetch.current_dir(checkout.root()).arg(FETCH_SECONDS).arg(inner.get_program()).args(inner.get_args());
    fetch.args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0");
    let output = fetch.output().context("running cargo-deny")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("their database cannot be fetched ({})", reason(&said))
}

/// The line of cargo-deny's output that says what went wrong.
fn reason(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| line.contains("ERROR") || line.starts_with("error"))
        .or_else(|| lines().next_back())
        .map_or("no answer in time", |line| line.split_once("[ERROR]").map_or(line, |(_, rest)| rest.trim()))
}

fn command(deny: &Path, checkout: &Checkout) -> Command {
    let mut command = Command::new(deny);
    command.current_dir(checkout.root()).args(["--locked", "--all-features"]);
    command
}

fn program() -> anyhow::Result<PathBuf> {
    let root = host::cache()?.join(format!("tools/cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let _lock = host::Lock::wait(&host::cache()?.join("tools/lock"), "installing a tool")?;
    if program.exists() {
        return Ok(program); // installed while we waited
    }
    std::fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Elsewhere than in the checkout, whose settings are not for it.
    install.current_dir(&root).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    // Unoptimised it takes a second longer to run, and half the time to build.
    install.env("CARGO_PROFILE_DEV_DEBUG", "0");
    install
        .args(["install", "--debug", "--locked", "--version", VERSION, "--root"])
        .arg(&root)
        .arg("cargo-deny");
    host::run_with_progress(
        &mut install,
        &format!("building cargo-deny {VERSION} (a minute or two, once)"),
        &root.join("install.log"),
    )
    .context("installing cargo-deny")?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_line() {
        let said =
            "2026-01-01 00:00:00 [ERROR] failed to fetch advisory database x: no route\n\nCaused by:\n  y\n";
        assert_eq!(reason(said), "failed to fetch advisory database x: no route");
        assert_eq!(reason("a\n\n b\n"), "b");
        assert_eq!(reason(""), "no answer in time");
    }
}
