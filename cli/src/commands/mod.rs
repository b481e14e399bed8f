//! The command tree.

mod audit_show;
mod audit_tail;
mod audit_verify;
mod completion;
mod keygen;
mod manifest;
mod recipients_fetch;
mod reference;
mod trail;
mod validate;
mod value_inspect;
mod value_open;
mod value_seal;
mod who;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::console::{self, Console};
use crate::failure::{Exit, Failure};
use crate::input::Stdin;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, or what was checked has an error
  2  the command line is wrong, or what was to be checked could not be read

Results go to standard output, everything else to standard error. A value is never given as an argument.";

/// Seal environment values for Kubernetes with public keys only
#[derive(Debug, Parser)]
#[command(name = "sealedenv", version, after_help = EXIT_CODES, propagate_version = false, max_term_width = 100)]
struct Cli {
    /// Leave out receipts and hints on success
    #[arg(short, long, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Args),
    /// Learn what to seal to
    #[command(subcommand, arg_required_else_help = true)]
    Recipients(Recipients),
    /// Seal, open and inspect one value
    #[command(subcommand, arg_required_else_help = true)]
    Value(Value),
    Manifest(manifest::Args),
    Validate(validate::Args),
    Who(who::Args),
    /// Read and verify audit trails
    #[command(subcommand, arg_required_else_help = true)]
    Audit(Audit),
    Completion(completion::Args),
    HelpMarkdown(reference::Args),
}

#[derive(Debug, Subcommand)]
enum Recipients {
    Fetch(recipients_fetch::Args),
}

#[derive(Debug, Subcommand)]
enum Value {
    Seal(value_seal::Args),
    Open(value_open::Args),
    Inspect(value_inspect::Args),
}

#[derive(Debug, Subcommand)]
enum Audit {
    Verify(audit_verify::Args),
    Tail(audit_tail::Args),
    Show(audit_show::Args),
}

/// What every command gets.
struct Context {
    console: Console,
    stdin: Stdin,
}

/// A command line that was understood.
pub(crate) struct Invocation(Cli);

impl Invocation {
    /// Understands a command line. `Err` when there is nothing left to do: help was shown, or an error.
    pub(crate) fn of(args: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let args: Vec<OsString> = args.into_iter().collect();
        let parsed = command(args.first().map(OsString::as_os_str))
            .try_get_matches_from(args)
            .and_then(|matches| Cli::from_arg_matches(&matches));
        parsed.map(Self).map_err(|error| refuse(&error))
    }

    /// Runs the command and says why it failed.
    pub(crate) fn run(self) -> Exit {
        let console = Console::new(self.0.quiet);
        let context = Context { console, stdin: Stdin::default() };
        dispatch(self.0.command, context).unwrap_or_else(|failure| {
            console::failure(&failure);
            failure.exit()
        })
    }
}

fn dispatch(command: Command, context: Context) -> Result<Exit, Failure> {
    match command {
        Command::Keygen(args) => keygen::run(&args, &context),
        Command::Recipients(Recipients::Fetch(args)) => recipients_fetch::run(&args, &context),
        Command::Value(Value::Seal(args)) => value_seal::run(&args, context),
        Command::Value(Value::Open(args)) => value_open::run(&args, context),
        Command::Value(Value::Inspect(args)) => value_inspect::run(&args, context),
        Command::Manifest(args) => manifest::run(&args, context),
        Command::Validate(args) => validate::run(&args, context),
        Command::Who(args) => who::run(&args, &context),
        Command::Audit(Audit::Verify(args)) => audit_verify::run(&args, context),
        Command::Audit(Audit::Tail(args)) => audit_tail::run(&args),
        Command::Audit(Audit::Show(args)) => audit_show::run(&args),
        Command::Completion(args) => completion::run(&args, Cli::command()),
        Command::HelpMarkdown(_) => reference::run(Cli::command()),
    }
}

/// The command tree under the name it was called by: kubectl runs plugins as `kubectl-NAME`.
fn command(argv0: Option<&OsStr>) -> clap::Command {
    let is_plugin = argv0
        .and_then(|argv0| Path::new(argv0).file_name())
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"kubectl-"));
    let command = Cli::command();
    if is_plugin { command.bin_name("kubectl sealedenv").display_name("kubectl sealedenv") } else { command }
}

/// Shows help, or what is wrong with the command line.
fn refuse(error: &clap::Error) -> Exit {
    if let Some(stray) = StrayWord::of(error) {
        console::failure(&Failure::from(stray));
        return Exit::Usage;
    }
    // Nobody is left to tell when this fails.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// A word that is no flag where none is expected. It may be a value that somebody meant to seal: it stands in the
/// process list already, and must not go to a log as well.
#[derive(Debug, thiserror::Error)]
enum StrayWord {
    #[error("there is an argument that no command expects (it is not shown: it may be a value)")]
    Argument,
    #[error("there is no such command (it is not shown: it may be a value)")]
    Command { similar: Vec<String> },
}

impl StrayWord {
    fn of(error: &clap::Error) -> Option<Self> {
        match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::UnknownArgument, Some(ContextValue::String(arg))) if !arg.starts_with('-') => {
                Some(Self::Argument)
            }
            (ErrorKind::InvalidSubcommand, _) => {
                let similar = match error.get(ContextKind::SuggestedSubcommand) {
                    Some(ContextValue::Strings(names)) => names.clone(),
                    Some(ContextValue::String(name)) => vec![name.clone()],
                    _ => Vec::new(),
                };
                Some(Self::Command { similar })
            }
            _ => None,
        }
    }
}

impl crate::failure::Fault for StrayWord {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Argument => {
                "values come from standard input or from a file, never from an argument; see --help"
                    .to_owned()
            }
            Self::Command { similar } if similar.is_empty() => "--help lists the commands".to_owned(),
            Self::Command { similar } => format!("did you mean: {}", similar.join(", ")),
        })
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_a_plugin_it_goes_by_kubectls_name() {
        for (argv0, name) in [
            ("/usr/local/bin/kubectl-sealedenv", "kubectl sealedenv"),
            ("/opt/sealedenv", "sealedenv"),
            ("kubectl-sealedenv", "kubectl sealedenv"),
        ] {
            let help = command(Some(OsStr::new(argv0)))
                .try_get_matches_from([argv0, "value", "--help"])
                .expect_err("help")
                .to_string();
            assert!(help.contains(&format!("Usage: {name} value")), "{help}");
        }
    }

    /// No flag turns authentication off, and none takes a value. A new flag has to be looked at here.
    #[test]
    fn the_flags_are_these() {
        let mut flags = Vec::new();
        let mut open = vec![Cli::command()];
        while let Some(command) = open.pop() {
            flags.extend(command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)));
            open.extend(command.get_subcommands().cloned());
        }
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(
            flags.join(" "),
            "context env-file follow identity key kubeconfig lines merge-into name namespace out-file output partial \
             public quiet recipient recipients-file scope strict-secrets trim-newline update update-all"
        );
    }
}
