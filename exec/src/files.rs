//! Files of SealedEnvs as environment variables.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Names the version of the files that counts.
const DATA: &str = "..data";

/// The longest `NAME=VALUE` that Linux hands to a program, its end included.
const LONGEST: usize = 128 << 10;

/// How often a version is read that goes away meanwhile: each time a newer one is there.
const TRIES: usize = 5;

/// Why files cannot become variables. No message has any part of a value.
#[derive(Debug)]
pub(crate) enum FilesError {
    /// A folder cannot be read.
    Folder(PathBuf, io::Error),
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A value with a byte that no variable can have.
    Nul(PathBuf),
    /// A value that no variable can hold.
    TooLong(PathBuf),
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => {
                write!(f, "there are no files of a SealedEnv in {}: {error}", path.display())
            }
            Self::File(path, error) => write!(f, "reading {}: {error}", path.display()),
            Self::Nul(path) => write!(
                f,
                "{} holds a zero byte, and so cannot be an environment variable: read the file instead",
                path.display()
            ),
            Self::TooLong(path) => write!(
                f,
                "{} is longer than an environment variable can be, 128 KiB: read the file instead",
                path.display()
            ),
        }
    }
}

/// A variable for each file whose name can be that of one. Of two folders with the same name the later one's counts.
pub(crate) fn variables(from: &[PathBuf]) -> Result<BTreeMap<OsString, OsString>, FilesError> {
    let mut all = BTreeMap::new();
    for folder in from {
        let mut tries = 1;
        let found = loop {
            match of_one(folder) {
                Err(FilesError::File(_, error))
                    if error.kind() == io::ErrorKind::NotFound && tries < TRIES =>
                {
                    tries += 1;
                }
                found => break found?,
            }
        };
        all.extend(found);
    }
    Ok(all)
}

/// All of one version: `..data` is followed once.
fn of_one(folder: &Path) -> Result<Vec<(OsString, OsString)>, FilesError> {
    let unreadable = |error| FilesError::Folder(folder.to_owned(), error);
    let version = fs::canonicalize(folder.join(DATA)).map_err(unreadable)?;
    let mut variables = Vec::new();
    for entry in fs::read_dir(&version).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let path = version.join(&name);
        if !is_variable(&name) || !is_file(&path)? {
            continue;
        }
        // Shown as the pod's owner knows it.
        let known = folder.join(&name);
        let room = LONGEST.saturating_sub(name.len() + 2);
        let mut value = Vec::new();
        let file = File::open(&path).map_err(|error| FilesError::File(known.clone(), error))?;
        let most = u64::try_from(room).unwrap_or(u64::MAX);
        file.take(most + 1)
            .read_to_end(&mut value)
            .map_err(|error| FilesError::File(known.clone(), error))?;
        if value.len() > room {
            return Err(FilesError::TooLong(known));
        }
        if value.contains(&0) {
            return Err(FilesError::Nul(known));
        }
        variables.push((name, OsString::from_vec(value)));
    }
    Ok(variables)
}

fn is_file(path: &Path) -> Result<bool, FilesError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(error) => Err(FilesError::File(path.to_owned(), error)),
    }
}

/// As Kubernetes has it for `envFrom`, so that a pod has the same variables whichever way its values come.
fn is_variable(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(inside)
        && name != b"."
        && !name.starts_with(b"..")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// A folder as the kubelet, the node plugin and the agent write it.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..v1")).unwrap();
        symlink("..v1", folder.path().join(DATA)).unwrap();
        for (name, content) in files {
            fs::write(folder.path().join("..v1").join(name), content).unwrap();
            symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        folder
    }

    fn read(folders: &[&tempfile::TempDir]) -> Result<Vec<(String, Vec<u8>)>, FilesError> {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        let all = variables(&folders)?;
        Ok(all.into_iter().map(|(name, value)| (name.into_string().unwrap(), value.into_vec())).collect())
    }

    fn pair(name: &str, value: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), value.to_vec())
    }

    #[test]
    fn each_file_is_a_variable_byte_for_byte_and_the_later_folder_wins() {
        let first =
            folder(&[("A", b"1"), ("BOTH", b"1"), ("EMPTY", b""), ("LINES", b"a\nb\n"), ("RAW", b"\xff")]);
        let second = folder(&[("BOTH", b"2")]);
        let all = read(&[&first, &second]).unwrap();
        let expected = [
            pair("A", b"1"),
            pair("BOTH", b"2"),
            pair("EMPTY", b""),
            pair("LINES", b"a\nb\n"),
            pair("RAW", b"\xff"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_can_be_no_variable_is_left_out() {
        let folder = folder(&[("GOOD", b"1"), ("1ST", b"x"), ("..sealedenv", b"x"), ("a.b-c", b"2")]);
        fs::create_dir(folder.path().join("..v1/conf")).unwrap();
        symlink("/etc/passwd", folder.path().join("..v1/LINK")).unwrap();
        assert_eq!(read(&[&folder]).unwrap(), [pair("GOOD", b"1"), pair("a.b-c", b"2")]);
    }

    #[test]
    fn what_no_variable_can_hold_is_an_error_that_names_the_file_and_no_value() {
        let longest = vec![b'x'; LONGEST - 5];
        assert_eq!(read(&[&folder(&[("KEY", &longest)])]).unwrap().len(), 1);
        let longer = vec![b'x'; LONGEST - 4];
        for (value, why) in [(&longer[..], "longer"), (b"canary\0", "zero byte")] {
            let message = read(&[&folder(&[("KEY", value)])]).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("/KEY"), "{message}");
            assert!(!message.contains("canary") && !message.contains("xxx"), "{message}");
        }
        let empty = tempfile::tempdir().unwrap();
        let message = read(&[&empty]).unwrap_err().to_string();
        assert!(message.starts_with("there are no files of a SealedEnv in /"), "{message}");
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_is_one_for_kubernetes(name in "[-._A-Za-z0-9=\\x00é ]{0,6}") {
            let taken = is_variable(OsStr::new(&name));
            prop_assert!(!taken || !name.contains(['=', '\0', ' ', 'é']));
            prop_assert!(!taken || !(name.is_empty() || name.starts_with("..") || name == "."));
            prop_assert!(!taken || !name.as_bytes()[0].is_ascii_digit());
        }
    }
}
