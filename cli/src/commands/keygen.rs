//! `sealedenv keygen`

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sealedenv_seal::{Identity, Plain};
use thiserror::Error;

use super::Context;
use crate::console::{stdout_file, warning, write_lines, write_out};
use crate::failure::{Exit, Failure, Fault};
use crate::input::path_argument;

/// Make a key pair: an identity (private) and its recipient (public)
///
/// With --out-file, the identity goes to that file, which only its owner can read, and the recipient to standard
/// output. Without, the identity goes to standard output and the recipient to standard error. The form is age-keygen's:
/// age reads it too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File to make for the identity; an existing one is never overwritten
    #[arg(short, long, value_name = "FILE", value_parser = path_argument)]
    out_file: Option<PathBuf>,
}

/// Why no key was made.
#[derive(Debug, Error)]
pub(super) enum KeygenError {
    /// There is something of that name.
    #[error("{file} exists already and is never overwritten")]
    Exists {
        /// The file.
        file: String,
    },
    /// It could not be made or written.
    #[error("cannot write {file}")]
    Write {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
}

impl Fault for KeygenError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => {
                Some("values sealed to a lost key cannot be opened: name another file".to_owned())
            }
            Self::Write { .. } => None,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let identity = Identity::generate();
    let recipient = identity.recipient();
    let text = identity_file(&identity, Timestamp::now());
    if let Some(path) = &args.out_file {
        write_new(path, &text)?;
        write_lines([recipient.to_string()])?;
        context.console.receipt(&format!(
            "wrote the identity to {}; keep it, and give the recipient {} to others",
            path.display(),
            recipient.fingerprint()
        ));
    } else {
        if stdout_is_open_to_others() {
            warning("standard output is a file that others can read: chmod 600 it, or use --out-file");
        }
        write_out(text.expose())?;
        context.console.receipt(&format!("public key: {recipient}"));
    }
    Ok(Exit::Ok)
}

/// What age-keygen writes.
fn identity_file(identity: &Identity, now: Timestamp) -> Plain {
    let head = format!("# created: {now:.0}\n# public key: {}\n", identity.recipient());
    let key = identity.to_text();
    // Of the right size from the start, so that no copy stays behind.
    let mut text = Vec::with_capacity(head.len() + key.len() + 1);
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(key.expose());
    text.push(b'\n');
    Plain::new(text)
}

/// Makes a file that only its owner can read. Where that fails half-way, it is taken away again.
fn write_new(path: &Path, text: &Plain) -> Result<(), KeygenError> {
    let file = path.display().to_string();
    let mut open = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeygenError::Exists { file });
        }
        Err(source) => return Err(KeygenError::Write { file, source }),
    };
    open.write_all(text.expose()).and_then(|()| open.sync_all()).map_err(|source| {
        // Best effort: the error that is reported matters more than a file left empty.
        let _ = std::fs::remove_file(path);
        KeygenError::Write { file, source }
    })
}

fn stdout_is_open_to_others() -> bool {
    let metadata = stdout_file().and_then(|file| file.metadata());
    !io::stdout().is_terminal()
        && metadata.is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_age_keygen() {
        let identity = Identity::generate();
        let now = "2026-01-02T03:04:05.678Z".parse().expect("time");
        let text = identity_file(&identity, now);
        let lines: Vec<&str> = str::from_utf8(text.expose()).expect("text").lines().collect();
        assert_eq!(lines[0], "# created: 2026-01-02T03:04:05Z");
        assert_eq!(lines[1], format!("# public key: {}", identity.recipient()));
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1"));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn only_the_owner_can_read_the_file_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("key.txt");
        write_new(&path, &Plain::from(b"x".to_vec())).expect("written");
        assert_eq!(path.metadata().expect("file").permissions().mode() & 0o777, 0o600);
        let again = write_new(&path, &Plain::from(b"y".to_vec()));
        assert!(matches!(again, Err(KeygenError::Exists { .. })));
        assert_eq!(std::fs::read(&path).expect("file"), b"x");

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).expect("link");
        assert!(matches!(write_new(&link, &Plain::from(b"y".to_vec())), Err(KeygenError::Exists { .. })));
    }
}
