//! What is read: files and standard input, always with a bound, never copied where it would stay behind.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use sealedenv_seal::Plain;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::failure::{Exit, Fault};

/// The name for standard input on a command line.
const DASH: &str = "-";

/// Hands out standard input, once.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    taken_by: Option<&'static str>,
}

/// Something to read.
pub(crate) struct Source {
    file: File,
    name: String,
}

/// Why something was not read.
#[derive(Debug, Error)]
pub(crate) enum InputError {
    /// It could not be opened.
    #[error("cannot open {name}")]
    Open {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Reading it failed.
    #[error("cannot read {name}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It is longer than what is read.
    #[error("{name} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        name: String,
        /// The bound in bytes.
        limit: usize,
    },
    /// It is not text.
    #[error("{name} is not UTF-8 text")]
    NotText {
        /// The file.
        name: String,
    },
    /// Two arguments want standard input.
    #[error("{first} and {second} both read standard input")]
    StdinTwice {
        /// Who has it.
        first: &'static str,
        /// Who wants it too.
        second: &'static str,
    },
}

impl Fault for InputError {
    fn exit(&self) -> Exit {
        match self {
            Self::StdinTwice { .. } => Exit::Usage,
            _ => Exit::Failure,
        }
    }
}

impl Stdin {
    /// Standard input for `what`, an argument as the user knows it.
    pub(crate) fn take(&mut self, what: &'static str) -> Result<Source, InputError> {
        if let Some(first) = self.taken_by.replace(what) {
            return Err(InputError::StdinTwice { first, second: what });
        }
        let name = "standard input".to_owned();
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(fd) => Ok(Source { file: File::from(fd), name }),
            Err(source) => Err(InputError::Open { name, source }),
        }
    }

    /// A file, or standard input for `-`.
    pub(crate) fn open(&mut self, path: &Path, what: &'static str) -> Result<Source, InputError> {
        if path.as_os_str() == DASH { self.take(what) } else { Source::open(path) }
    }
}

impl Source {
    /// A file.
    pub(crate) fn open(path: &Path) -> Result<Self, InputError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self { file, name }),
            Err(source) => Err(InputError::Open { name, source }),
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// All of it as text, if it has at most `limit` bytes.
    pub(crate) fn read_text(self, limit: usize) -> Result<String, InputError> {
        let name = self.name.clone();
        let bytes = self.read(limit)?;
        match str::from_utf8(bytes.expose()) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(InputError::NotText { name }),
        }
    }

    /// All of it, if it has at most `limit` bytes.
    pub(crate) fn read(mut self, limit: usize) -> Result<Plain, InputError> {
        // One byte more than allowed shows that there is more; one more than expected shows the end without growing.
        let expected = self.file.metadata().map_or(0, |of| usize::try_from(of.len()).unwrap_or(usize::MAX));
        let mut buffer = Zeroizing::new(vec![0; expected.max(16 << 10).min(limit) + 1]);
        let mut len = 0;
        loop {
            if len > limit {
                return Err(InputError::TooLarge { name: self.name, limit });
            }
            if len == buffer.len() {
                let mut larger = Zeroizing::new(vec![0; (len * 2).min(limit + 1)]);
                larger[..len].copy_from_slice(&buffer);
                buffer = larger;
            }
            match self.file.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(InputError::Read { name: self.name, source }),
            }
        }
        buffer.truncate(len);
        Ok(Plain::new(std::mem::take(&mut buffer)))
    }
}

/// A path as the user gave it, for a message.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str() == DASH { "standard input".to_owned() } else { path.display().to_string() }
}

/// Parses a path argument; an empty one is an error rather than the current folder.
pub(crate) fn path_argument(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("the file name is empty") } else { Ok(PathBuf::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn source(bytes: &[u8]) -> Source {
        let (reader, mut writer) = io::pipe().expect("pipe");
        let bytes = bytes.to_vec();
        std::thread::spawn(move || writer.write_all(&bytes));
        Source { file: File::from(std::os::fd::OwnedFd::from(reader)), name: "x".to_owned() }
    }

    #[test]
    fn all_is_read_up_to_the_bound_and_not_one_byte_more() {
        for limit in [0, 1, 100, 40 << 10] {
            for len in [0, 1, limit / 2, limit].into_iter().filter(|len| *len <= limit) {
                let bytes = vec![b'a'; len];
                let read =
                    source(&bytes).read(limit).unwrap_or_else(|error| panic!("{len} of {limit}: {error}"));
                assert!(read.expose() == bytes, "{len} of {limit}");
            }
            let error = source(&vec![b'a'; limit + 1]).read(limit).err().expect("too large");
            assert_eq!(error.to_string(), format!("x has more than {limit} bytes"));
        }
    }

    #[test]
    fn a_file_is_read_whole_and_a_folder_is_not() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(&vec![b'x'; 100_000]).expect("write");
        let read = Source::open(file.path()).and_then(|source| source.read(200_000)).expect("read");
        assert_eq!(read.len(), 100_000);
        let folder = file.path().parent().expect("folder");
        let error = Source::open(folder).and_then(|source| source.read(10)).err().expect("error");
        assert!(matches!(error, InputError::Read { .. }), "{error}");
    }

    #[test]
    fn standard_input_is_handed_out_once() {
        let mut stdin = Stdin::default();
        assert!(stdin.take("--env-file").is_ok());
        let error = stdin.open(Path::new("-"), "--recipients-file").err().expect("error");
        assert_eq!(error.to_string(), "--env-file and --recipients-file both read standard input");
        assert_eq!(error.exit(), Exit::Usage);
    }
}
