//! What a pod asks for when its files changed.

use crate::text::quoted;

/// The signals that a program may take for "read your files again", or for "end, to be started again".
const SIGNALS: [&str; 7] = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGINT", "SIGQUIT", "SIGTERM"];

/// The longest program with its arguments, in bytes. It stands in the spec of each pod.
const MAX_EXEC: usize = 1024;

/// The most arguments of a program.
const MAX_ARGUMENTS: usize = 16;

/// What happens when files changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OnChange {
    /// The first process of each container is sent this signal.
    Signal(&'static str),
    /// The agent runs a program of its own image.
    Exec {
        /// An absolute path.
        program: String,
        /// Without the program's name.
        arguments: Vec<String>,
    },
}

impl OnChange {
    /// `signal=NAME`, or `exec=` and a program with its arguments. An error is the rest of a sentence about the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(words) = text.strip_prefix("exec=") {
            return exec(words);
        }
        let name = text.strip_prefix("signal=");
        let known = name.and_then(|name| SIGNALS.into_iter().find(|known| *known == name));
        known.map(Self::Signal).ok_or_else(|| {
            let signals = SIGNALS.join(", ");
            format!("must be signal= and one of {signals}, or exec= and a program, not {}", quoted(text))
        })
    }
}

/// There is no shell, so that nothing in it means anything but itself.
fn exec(text: &str) -> Result<OnChange, String> {
    if text.len() > MAX_EXEC {
        return Err(format!("holds a program with its arguments of more than {MAX_EXEC} bytes"));
    }
    if text.contains(char::is_control) {
        return Err(format!("holds a control character, in {}", quoted(text)));
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    let program = words.next().unwrap_or_default();
    if !program.starts_with('/') || program.ends_with('/') {
        return Err(format!(
            "must have an absolute path of a program behind exec=, not {}",
            quoted(&program)
        ));
    }
    let arguments: Vec<String> = words.collect();
    if arguments.len() > MAX_ARGUMENTS {
        return Err(format!("gives the program more than {MAX_ARGUMENTS} arguments"));
    }
    Ok(OnChange::Exec { program, arguments })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn program(words: &[&str]) -> OnChange {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        OnChange::Exec { program: words[0].clone(), arguments: words[1..].to_vec() }
    }

    #[test]
    fn a_signal_or_a_program_with_arguments_is_read() {
        let most = format!("/x{}", " a".repeat(MAX_ARGUMENTS));
        let words: Vec<&str> = most.split(' ').collect();
        for (text, expected) in [
            ("signal=SIGHUP", OnChange::Signal("SIGHUP")),
            ("exec=/reload", program(&["/reload"])),
            ("exec=/bin/sh -c true", program(&["/bin/sh", "-c", "true"])),
            ("exec=/a  --x=1   $(B) 'c", program(&["/a", "--x=1", "$(B)", "'c"])),
            (&format!("exec={most}"), program(&words)),
        ] {
            assert_eq!(OnChange::parse(text).as_ref(), Ok(&expected), "{text}");
        }
        for name in SIGNALS {
            assert_eq!(OnChange::parse(&format!("signal={name}")), Ok(OnChange::Signal(name)));
        }
    }

    #[test]
    fn whatever_is_in_doubt_is_refused_and_told() {
        let many = format!("exec=/x{}", " a".repeat(MAX_ARGUMENTS + 1));
        let long = format!("exec=/{}", "x".repeat(MAX_EXEC));
        for (text, why) in [
            ("", "must be signal= and one of SIGHUP, "),
            ("SIGHUP", "must be signal= "),
            ("signal=HUP", "must be signal= "),
            ("signal=SIGKILL", "or exec= and a program, not \"signal=SIGKILL\""),
            ("signal=SIGHUP ", "must be signal= "),
            ("Exec=/x", "must be signal= "),
            ("exec=", "must have an absolute path of a program behind exec=, not \"\""),
            ("exec=   ", "must have an absolute path"),
            ("exec=reload", "must have an absolute path of a program behind exec=, not \"reload\""),
            ("exec=./reload", "must have an absolute path"),
            ("exec=/", "must have an absolute path"),
            ("exec=/bin/ x", "must have an absolute path"),
            ("exec=/x a\tb", "holds a control character"),
            ("exec=/x\0", "holds a control character"),
            ("exec=/x\na", "holds a control character"),
            (&many, "gives the program more than 16 arguments"),
            (&long, "holds a program with its arguments of more than 1024 bytes"),
        ] {
            let told = OnChange::parse(text).unwrap_err();
            assert!(told.contains(why), "{text:?}: {told}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_bounded_and_plain(text in "(exec=/?)?[ -~\\n\u{80}-\u{ff}]{0,40}") {
            if let Ok(OnChange::Exec { program, arguments }) = OnChange::parse(&text) {
                prop_assert!(program.starts_with('/') && arguments.len() <= MAX_ARGUMENTS);
                let words = [&[program][..], &arguments].concat();
                prop_assert!(words.iter().all(|word| !word.is_empty() && !word.contains(' ')));
                let again = format!("exec={}", words.join(" "));
                prop_assert_eq!(OnChange::parse(&again).is_ok(), true);
                prop_assert!(!again.contains(char::is_control));
            }
        }
    }
}
