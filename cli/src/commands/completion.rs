//! `sealedenv completion`

use clap_complete::Shell;

use crate::console::write_out;
use crate::failure::{Exit, Failure};

/// Print the completion script of a shell
///
/// For bash: source <(sealedenv completion bash)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, mut command: clap::Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sealedenv", &mut script);
    write_out(&script)?;
    Ok(Exit::Ok)
}
