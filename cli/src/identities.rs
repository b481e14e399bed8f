//! Private keys from files: `-i`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealedenv_seal::{Identity, IdentityError, Keyring, Plain};
use thiserror::Error;

use crate::failure::Fault;
use crate::input::{InputError, Source};

/// The largest identity file that is read, in bytes.
const MAX_FILE: usize = 64 << 10;
/// The most identities that are taken from one file.
const MAX_IDENTITIES: usize = 256;

/// Why identities could not be had. None of a file's text is repeated.
#[derive(Debug, Error)]
pub(crate) enum IdentitiesError {
    /// Others than the owner can get at it.
    #[error("{file} can be reached by others than its owner (mode {mode:04o})")]
    TooOpen {
        /// The file.
        file: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is no identity.
    #[error("{file}, line {line}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// Why not.
        source: IdentityError,
    },
    /// It is encrypted itself.
    #[error("{file} is itself encrypted with a passphrase, which is not supported")]
    Encrypted {
        /// The file.
        file: String,
    },
    /// It is not text.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: String,
    },
    /// It holds none.
    #[error("{file} holds no identity")]
    Empty {
        /// The file.
        file: String,
    },
    /// It holds too many. Never a part of them.
    #[error("{file} holds more than {MAX_IDENTITIES} identities")]
    TooMany {
        /// The file.
        file: String,
    },
    /// It could not be read.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl Fault for IdentitiesError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooOpen { file, .. } => Some(format!("chmod 600 {file}")),
            Self::Line { source: IdentityError::Recipient, .. } => {
                Some("the identity file is the one that keygen --out-file wrote".to_owned())
            }
            Self::Encrypted { file } => Some(format!("decrypt it into a pipe: -i <(age -d {file})")),
            _ => None,
        }
    }
}

/// The keyring of some identity files.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Keyring, IdentitiesError> {
    let mut all = Vec::new();
    for path in paths {
        let source = open(path)?;
        let file = source.name().to_owned();
        all.extend(parse(&source.read(MAX_FILE)?, &file)?);
    }
    Ok(Keyring::new(all))
}

/// Opens an identity file, unless others can reach it. What is checked is the open file, not its name.
fn open(path: &Path) -> Result<Source, IdentitiesError> {
    let source = Source::open(path)?;
    let file = source.name().to_owned();
    let metadata =
        source.file().metadata().map_err(|source| InputError::Read { name: file.clone(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(IdentitiesError::TooOpen { file, mode });
    }
    Ok(source)
}

/// The identities of a file in age-keygen's form: one a line, with comments.
fn parse(bytes: &Plain, file: &str) -> Result<Vec<Identity>, IdentitiesError> {
    let of = || file.to_owned();
    let encrypted = [&b"age-encryption.org/"[..], b"-----BEGIN AGE ENCRYPTED FILE-----"];
    if encrypted.iter().any(|start| bytes.expose().starts_with(start)) {
        return Err(IdentitiesError::Encrypted { file: of() });
    }
    let text = str::from_utf8(bytes.expose()).map_err(|_| IdentitiesError::NotText { file: of() })?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if found.len() == MAX_IDENTITIES {
            return Err(IdentitiesError::TooMany { file: of() });
        }
        let parsed = Identity::parse(line);
        found.push(parsed.map_err(|source| IdentitiesError::Line { file: of(), line: index + 1, source })?);
    }
    if found.is_empty() { Err(IdentitiesError::Empty { file: of() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::chain;
    use std::io::Write as _;

    fn parse_text(text: &str) -> Result<Vec<Identity>, IdentitiesError> {
        parse(&Plain::from(text.to_owned()), "f")
    }

    fn text_of(identity: &Identity) -> String {
        String::from_utf8(identity.to_text().expose().to_vec()).expect("text")
    }

    #[test]
    fn the_form_of_age_keygen_is_read() {
        let (a, b) = (Identity::generate(), Identity::generate());
        let text =
            format!("# created: x\n# public key: {}\n{}\r\n\n{}", a.recipient(), text_of(&a), text_of(&b));
        let read = parse_text(&text).unwrap_or_else(|error| panic!("{error}"));
        let recipients: Vec<_> = read.iter().map(Identity::recipient).collect();
        assert_eq!(recipients, [a.recipient(), b.recipient()]);
    }

    #[test]
    fn what_is_no_identity_is_named_by_its_line_and_never_shown() {
        let public = Identity::generate().recipient().to_string();
        let broken = text_of(&Identity::generate()).replace('1', "2");
        for (line, says) in [
            ("hunter2", "f, line 2: not an age identity (AGE-SECRET-KEY-1…)"),
            (broken.as_str(), "f, line 2: not an age identity (AGE-SECRET-KEY-1…)"),
            (public.as_str(), "f, line 2: this is a recipient (a public key), not an identity"),
            ("AGE-SECRET-KEY-PQ-1QQQ", "f, line 2: identities of type mlkem768x25519 are not supported"),
            ("AGE-PLUGIN-YUBIKEY-1QQQ", "f, line 2: identities of type plugin are not supported"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "f, line 2: identities of type ssh are not supported"),
        ] {
            let error = parse_text(&format!("# x\n{line}\n")).err().expect("refused");
            assert_eq!(chain(&error), says);
            assert!(!format!("{error:?}").contains(line), "{error:?}");
        }
        assert!(matches!(parse_text("# none\n"), Err(IdentitiesError::Empty { .. })));
        assert!(matches!(parse_text("age-encryption.org/v1\n"), Err(IdentitiesError::Encrypted { .. })));
        let many = format!("{}\n", text_of(&Identity::generate())).repeat(MAX_IDENTITIES + 1);
        assert!(matches!(parse_text(&many), Err(IdentitiesError::TooMany { .. })));
        let bytes = Plain::from(vec![0xff, 0xfe]);
        assert!(matches!(parse(&bytes, "f"), Err(IdentitiesError::NotText { .. })));
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        writeln!(file, "{}", text_of(&Identity::generate())).expect("write");
        for mode in 0..=0o777_u32 {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode | 0o400)).expect("chmod");
            let read = read(&[file.path().to_owned()]);
            let others = mode & 0o077;
            if others == 0 {
                assert_eq!(read.unwrap_or_else(|error| panic!("{mode:o}: {error}")).len(), 1);
            } else {
                let error = read.err().unwrap_or_else(|| panic!("{mode:o} was accepted"));
                assert!(error.hint().expect("hint").starts_with("chmod 600 "));
            }
        }
    }
}
