//! `sealedenv value seal`

use sealedenv_seal::{MAX_VALUE, Plain, ScopeKind, SealError, seal};
use thiserror::Error;

use super::Context;
use crate::console::{counted, write_lines};
use crate::failure::{Exit, Failure, Fault};
use crate::input::InputError;
use crate::recipients::{RecipientArgs, listed};
use crate::scope;
use crate::terminal;

/// Seal the value on standard input
///
/// Every byte of standard input is sealed, a line break at its end too: use printf rather than echo, or --trim-newline.
/// On a terminal, one line is asked for and not shown. Needs no cluster and no private key.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it may be opened: strict (namespace, name, key), namespace (namespace, key) or cluster (key)
    #[arg(long, value_name = "KIND", value_parser = scope::kind, default_value = "strict")]
    scope: ScopeKind,

    /// Namespace of the SealedEnv
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,

    /// Name of the SealedEnv
    #[arg(long)]
    name: Option<String>,

    /// Key in the SealedEnv
    #[arg(short, long)]
    key: String,

    #[command(flatten)]
    recipients: RecipientArgs,

    /// Leave out one line break at the end of the value
    #[arg(long)]
    trim_newline: bool,
}

/// Why nothing was sealed.
#[derive(Debug, Error)]
enum ValueSealError {
    /// The value could not be had.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The terminal could not be read.
    #[error("cannot read the value from the terminal")]
    Terminal(#[source] std::io::Error),
    /// Sealing failed.
    #[error("cannot seal the value")]
    Seal(#[from] SealError),
}

impl Fault for ValueSealError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Input(InputError::TooLarge { .. }) => {
                Some("a Kubernetes Secret holds at most 1 MiB in all its keys".to_owned())
            }
            Self::Terminal(_) => Some("pipe the value in: printf %s … | sealedenv value seal …".to_owned()),
            Self::Input(_) | Self::Seal(_) => None,
        }
    }
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    let scope = scope::exact(args.scope, args.namespace.as_deref(), args.name.as_deref(), &args.key)?;
    // Before the recipients: `-R -` would leave nothing for the value.
    let stdin = context.stdin.take("the value")?;
    let to = args.recipients.read(&mut context.stdin)?;
    let value = if terminal::is_stdin() {
        terminal::ask(&format!("value of {} (not shown)", args.key)).map_err(ValueSealError::Terminal)?
    } else {
        let value = stdin.read(MAX_VALUE).map_err(ValueSealError::Input)?;
        if args.trim_newline { without_line_break(value) } else { value }
    };
    let sealed = seal(&scope, &to, &value).map_err(ValueSealError::Seal)?;
    write_lines([sealed.to_string()])?;
    context.console.receipt(&format!(
        "sealed {} for {scope}, to {}",
        counted(value.len(), "byte"),
        listed(to.iter().map(sealedenv_seal::Recipient::fingerprint))
    ));
    if is_line(&value) {
        context
            .console
            .hint("the value ends with a line break, which was sealed too; --trim-newline leaves it out");
    }
    Ok(Exit::Ok)
}

/// One text line with its line break: what `echo` gives.
fn is_line(value: &Plain) -> bool {
    value.expose().strip_suffix(b"\n").is_some_and(|line| !line.contains(&b'\n'))
}

fn without_line_break(value: Plain) -> Plain {
    let bytes = value.expose();
    let Some(line) = bytes.strip_suffix(b"\n") else { return value };
    Plain::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_trimmed_and_no_more() {
        for (value, trimmed) in [
            (&b"v"[..], &b"v"[..]),
            (b"v\n", b"v"),
            (b"v\r\n", b"v"),
            (b"v\n\n", b"v\n"),
            (b"v\r", b"v\r"),
            (b"\n", b""),
            (b"", b""),
            (b"\xff\n", b"\xff"),
        ] {
            assert_eq!(without_line_break(Plain::from(value.to_vec())).expose(), trimmed);
        }
    }

    #[test]
    fn a_hint_is_given_for_what_echo_writes_and_not_for_a_file() {
        let is_line = |value: &[u8]| is_line(&Plain::from(value.to_vec()));
        assert!(is_line(b"v\n"));
        assert!(!is_line(b"v"));
        assert!(!is_line(b"-----BEGIN\nx\n-----END\n"));
    }
}
