//! Who values are sealed to: `-r` and `-R`.

use std::path::PathBuf;

use sealedenv_seal::{Fingerprint, MAX_RECIPIENTS, Recipient, RecipientError};
use thiserror::Error;

use crate::failure::{Exit, Fault};
use crate::input::{InputError, Stdin, path_argument, shown};

/// The largest file of recipients that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// `-r` and `-R`.
#[derive(Debug, clap::Args)]
pub(crate) struct RecipientArgs {
    /// Public key to seal to (age1…); repeat it for several
    #[arg(short, long = "recipient", value_name = "RECIPIENT")]
    recipients: Vec<String>,

    /// File of public keys to seal to, one a line, with # comments; - is standard input
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE", value_parser = path_argument)]
    recipients_files: Vec<PathBuf>,
}

/// Why the recipients could not be had. A text that is not one is not repeated: it may be a private key.
#[derive(Debug, Error)]
pub(crate) enum RecipientsError {
    /// Nobody to seal to.
    #[error("no recipient: give one with --recipient or --recipients-file")]
    None,
    /// The n-th `-r` is no recipient.
    #[error("--recipient number {number}")]
    Argument {
        /// Which one, from 1.
        number: usize,
        /// Why not.
        source: RecipientError,
    },
    /// A line is no recipient.
    #[error("{file}, line {line}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// Why not.
        source: RecipientError,
    },
    /// A file holds none.
    #[error("{file} names no recipient")]
    EmptyFile {
        /// The file.
        file: String,
    },
    /// More than a value can be sealed to. Never a part of them.
    #[error("{count} different recipients are more than the {MAX_RECIPIENTS} that a value can be sealed to")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A file could not be read.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl Fault for RecipientsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("print the cluster's with: sealedenv recipients fetch".to_owned()),
            Self::Argument { source, .. } | Self::Line { source, .. } => hint_of(source),
            Self::EmptyFile { .. } => Some("write one recipient (age1…) a line".to_owned()),
            Self::TooMany { .. } => None,
            Self::Input(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::None | Self::Argument { .. } => Exit::Usage,
            Self::Input(error) => error.exit(),
            _ => Exit::Failure,
        }
    }
}

fn hint_of(error: &RecipientError) -> Option<String> {
    match error {
        RecipientError::Identity => Some(
            "seal to its public key, and replace this private key if others could read it here".to_owned(),
        ),
        _ => None,
    }
}

impl RecipientArgs {
    /// Whether any was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.recipients.is_empty() && self.recipients_files.is_empty()
    }

    /// All of them, each once, in the order given; at least one.
    pub(crate) fn read(&self, stdin: &mut Stdin) -> Result<Vec<Recipient>, RecipientsError> {
        if self.is_empty() {
            return Err(RecipientsError::None);
        }
        let mut found = Vec::new();
        for (index, text) in self.recipients.iter().enumerate() {
            let parsed = text.parse();
            found.push(parsed.map_err(|source| RecipientsError::Argument { number: index + 1, source })?);
        }
        for path in &self.recipients_files {
            let file = shown(path);
            let text = stdin.open(path, "--recipients-file")?.read_text(MAX_FILE)?;
            found.extend(parse_file(&text, &file)?);
        }
        distinct(found)
    }
}

/// The recipients of a file.
fn parse_file(text: &str, file: &str) -> Result<Vec<Recipient>, RecipientsError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.parse();
        found.push(parsed.map_err(|source| RecipientsError::Line {
            file: file.to_owned(),
            line: index + 1,
            source,
        })?);
    }
    if found.is_empty() { Err(RecipientsError::EmptyFile { file: file.to_owned() }) } else { Ok(found) }
}

fn distinct(all: Vec<Recipient>) -> Result<Vec<Recipient>, RecipientsError> {
    let mut seen = std::collections::HashSet::new();
    let all: Vec<Recipient> = all.into_iter().filter(|recipient| seen.insert(recipient.clone())).collect();
    if all.len() > MAX_RECIPIENTS { Err(RecipientsError::TooMany { count: all.len() }) } else { Ok(all) }
}

/// Fingerprints as one text.
pub(crate) fn listed(fingerprints: impl IntoIterator<Item = Fingerprint>) -> String {
    let all: Vec<String> = fingerprints.into_iter().map(|fingerprint| fingerprint.to_string()).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::chain;
    use sealedenv_seal::Identity;

    fn recipient() -> Recipient {
        Identity::generate().recipient()
    }

    #[test]
    fn comments_blanks_and_line_ends_are_no_recipients() {
        let (a, b) = (recipient(), recipient());
        let text = format!("\u{feff}# cluster/prod\r\n{a}\r\n\r\n  {b}  ");
        assert_eq!(parse_file(&text, "f").expect("recipients"), [a, b]);
    }

    #[test]
    fn a_bad_line_is_named_and_never_shown() {
        let identity = Identity::generate().to_text();
        let private = str::from_utf8(identity.expose()).expect("text");
        let pq = format!("age1pq1{}", "q".repeat(100));
        for (line, says) in [
            ("hunter2", "f, line 2: not an age recipient (age1…)"),
            (private, "f, line 2: this is an identity (a private key), not a recipient"),
            (pq.as_str(), "f, line 2: recipients of type mlkem768x25519 are not supported"),
        ] {
            let error = parse_file(&format!("# x\n{line}\n"), "f").expect_err("refused");
            assert_eq!(chain(&error), says);
            assert!(!format!("{error:?}").contains(line));
        }
        assert_eq!(chain(&parse_file("# only\n", "f").expect_err("empty")), "f names no recipient");
    }

    #[test]
    fn one_too_many_is_an_error_and_not_a_part_of_them() {
        let mut all: Vec<Recipient> = (0..MAX_RECIPIENTS).map(|_| recipient()).collect();
        all.push(all[0].clone());
        assert_eq!(distinct(all.clone()).expect("fits").len(), MAX_RECIPIENTS);
        all.push(recipient());
        assert!(
            matches!(distinct(all), Err(RecipientsError::TooMany { count }) if count == MAX_RECIPIENTS + 1)
        );
    }
}
