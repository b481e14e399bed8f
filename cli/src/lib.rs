//! The `sealedenv` command line, also installed as `kubectl-sealedenv`.
//!
//! One module of `commands` does one command. What they share: `failure` (errors, hints, exit codes), `console`
//! (what is said, and where), `input` (bounded reading), `recipients`, `identities`, `scope` and `cluster` (arguments),
//! `yaml` (a tree with places, edits in place), `manifest`, `validation` and `consumers` (the pure parts of commands).
//!
//! Values are held in [`sealedenv_seal::Plain`] only, come from files or standard input, never from arguments, and
//! leave through standard output only where that is the command's purpose (`value open`).

mod cluster;
mod commands;
mod console;
mod consumers;
mod failure;
mod file_edit;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identities;
mod input;
mod manifest;
mod names;
mod process;
mod recipients;
mod scope;
mod terminal;
mod validation;
mod yaml;

use std::process::ExitCode;

/// Parses the command line, runs the command, says why it failed.
pub fn main() -> ExitCode {
    process::keep_to_itself();
    match commands::Invocation::of(std::env::args_os()) {
        Ok(invocation) => invocation.run().into(),
        Err(exit) => exit.into(),
    }
}
