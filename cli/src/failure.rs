//! How a command fails: what is said, and with which exit code.

use std::error::Error;
use std::io;

/// How a command ended. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, nothing found.
    Ok = 0,
    /// It failed, or it found what it was asked to look for.
    Failure = 1,
    /// The command line is wrong, or what was to be checked could not be read.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that a command shows: its `Display` is the `error:` line, joined with those of its sources.
///
/// Texts are lower case and without a full stop. They never hold a value or a private key.
pub(crate) trait Fault: Error + Send + Sync + 'static {
    /// What to do about it: the `hint:` line.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The exit code.
    fn exit(&self) -> Exit {
        Exit::Failure
    }

    /// Whether nothing is to be said: the reader of our output has gone, as in `… | head`.
    fn is_silent(&self) -> bool {
        false
    }
}

/// A [`Fault`] on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    message: Option<String>,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// The same, with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The text after `error: `, unless nothing is to be said.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The text after `hint: `.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl<F: Fault> From<F> for Failure {
    fn from(fault: F) -> Self {
        Self { message: (!fault.is_silent()).then(|| chain(&fault)), hint: fault.hint(), exit: fault.exit() }
    }
}

/// An error's text and those of its sources, outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = said(error);
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&said(source));
        next = source.source();
    }
    text
}

/// One error's own text. Those of the operating system lose their capital and their number.
fn said(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    if !error.is::<io::Error>() {
        return text;
    }
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {what}")]
    struct Outer {
        what: &'static str,
        source: io::Error,
    }

    impl Fault for Outer {
        fn hint(&self) -> Option<String> {
            Some("look elsewhere".to_owned())
        }
    }

    #[test]
    fn the_chain_is_joined_once_and_in_one_voice() {
        let failure = Failure::from(Outer { what: "x.yaml", source: io::Error::from_raw_os_error(2) });
        assert_eq!(failure.message(), Some("cannot read x.yaml: no such file or directory"));
        assert_eq!(failure.hint(), Some("look elsewhere"));
        assert_eq!(failure.exit(), Exit::Failure);
    }
}
