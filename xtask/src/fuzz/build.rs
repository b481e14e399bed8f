//! Builds the fuzz targets: libFuzzer on the pinned toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{Checkout, exec, host};

/// What cargo-fuzz passes for coverage, without a sanitizer: that would need a nightly compiler, and looks for what
/// code without `unsafe` cannot do.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// libFuzzer is C++.
const COMPILER: [host::Need; 1] =
    [host::Need { package: "g++", present: || host::find_program("g++").is_some() }];

/// Builds every target and gives the folder of the programs.
pub(super) fn all(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    host::ensure_packages(&COMPILER)?;
    let target = checkout.target().join("fuzz");
    fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    let host = host_triple(checkout)?;
    let versions = Versions::of(checkout, &target)?;
    let mut build = exec::cargo(checkout.root());
    build.args(["build", "--quiet", "--release", "--bins", "--manifest-path", "fuzz/Cargo.toml"]);
    // With a target named, build scripts and macros are built without coverage.
    build.args(["--target", &host]).env("CARGO_TARGET_DIR", &target);
    build.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}")).env_remove("RUSTFLAGS");
    host::run_with_progress(&mut build, "building the fuzz targets", &target.join("build.log"))?;
    versions.settle()?;
    Ok(target.join(host).join("release"))
}

/// The platform that we run on, in the compiler's words.
fn host_triple(checkout: &Checkout) -> anyhow::Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let said = exec::read(rustc.current_dir(checkout.root()).arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// The versions that the targets are built with: those of the main workspace, whose lock file is taken as the beginning
/// of theirs. So what is fuzzed is what ships, and nobody has to keep two lock files alike.
struct Versions {
    main: String,
    /// What the last finished build began with.
    settled: PathBuf,
}

impl Versions {
    fn of(checkout: &Checkout, target: &Path) -> anyhow::Result<Self> {
        let read =
            |file: &Path| fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
        let main = read(&checkout.root().join("Cargo.lock"))?;
        let ours = checkout.root().join("fuzz/Cargo.lock");
        let settled = target.join("Cargo.lock.main");
        if !ours.exists() || fs::read_to_string(&settled).ok().as_ref() != Some(&main) {
            fs::write(&ours, &main).with_context(|| format!("writing {}", ours.display()))?;
        }
        Ok(Self { main, settled })
    }

    fn settle(self) -> anyhow::Result<()> {
        fs::write(&self.settled, self.main).with_context(|| format!("writing {}", self.settled.display()))
    }
}
