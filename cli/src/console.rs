//! What is said and where: results to standard output, talk to standard error.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use clap::ValueEnum;
use sealedenv_audit::escape;
use thiserror::Error;

use crate::failure::{Failure, Fault};

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The `--output` of commands that have one.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `apiVersion` of every JSON result. Fields are added to it, never changed or taken away.
pub(crate) const JSON_VERSION: &str = "cli.sealedenv.dev/v1";

const ERROR: &str = "\x1b[1;31merror:\x1b[0m ";
const WARNING: &str = "\x1b[1;33mwarning:\x1b[0m ";
const HINT: &str = "\x1b[1;36mhint:\x1b[0m ";

/// What is said after a success, on standard error.
///
/// Here as in [`warning`] and [`error`], every text is made safe for a terminal and stays on one line. Colour is only
/// where a terminal shows it (`NO_COLOR` and `CLICOLOR_FORCE` are heeded).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    quiet: bool,
}

impl Console {
    /// With `quiet`, nothing of it is said. Warnings and errors are.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// A receipt: what was done.
    pub(crate) fn receipt(self, text: &str) {
        if !self.quiet {
            say("", &escape(text));
        }
    }

    /// What to do next, after a success.
    pub(crate) fn hint(self, text: &str) {
        if !self.quiet {
            say(HINT, &escape(text));
        }
    }
}

/// Something that did not stop the command and should be looked at.
pub(crate) fn warning(text: &str) {
    say(WARNING, &escape(text));
}

/// Something that was found to be wrong, with what to do about it.
pub(crate) fn error(text: &str, hint: Option<&str>) {
    say(ERROR, &escape(text));
    if let Some(hint) = hint {
        say(HINT, &escape(hint));
    }
}

/// Why the command failed.
pub(crate) fn failure(failure: &Failure) {
    if let Some(message) = failure.message() {
        error(message, failure.hint());
    }
}

/// One line to standard error. Where that fails there is nobody left to tell.
fn say(label: &str, text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{label}{text}");
}

/// Standard output failed.
#[derive(Debug, Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputError(#[source] io::Error);

impl Fault for OutputError {
    fn exit(&self) -> crate::failure::Exit {
        if self.is_silent() { crate::failure::Exit::Ok } else { crate::failure::Exit::Failure }
    }

    fn is_silent(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes a result to standard output, unbuffered: no copy of it stays behind, and no error goes unseen.
pub(crate) fn write_out(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = stdout_file().map_err(OutputError)?;
    out.write_all(bytes).map_err(OutputError)
}

/// Writes lines to standard output, each made safe for a terminal.
pub(crate) fn write_lines<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Result<(), OutputError> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&escape(line.as_ref()));
        text.push('\n');
    }
    write_out(text.as_bytes())
}

/// Writes a result as JSON, indented for reading.
pub(crate) fn write_json(result: &impl serde::Serialize) -> Result<(), OutputError> {
    let mut json = serde_json::to_vec_pretty(result).map_err(|error| OutputError(error.into()))?;
    json.push(b'\n');
    write_out(&json)
}

/// Standard output as a file of our own: without the buffer of the standard library's handle.
pub(crate) fn stdout_file() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// `1 key`, `2 keys`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
