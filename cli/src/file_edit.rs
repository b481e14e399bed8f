//! Replacing a file: all of it or nothing.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::failure::Fault;
use crate::input::{InputError, Source};

/// A text file that is about to be edited.
pub(crate) struct Edited {
    path: PathBuf,
    name: String,
    text: String,
    mode: u32,
    owner: (u32, u32),
}

/// Why a file was not edited. It is as it was.
#[derive(Debug, Error)]
pub(crate) enum EditFileError {
    /// It could not be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// It is a folder, a pipe or the like.
    #[error("{name} is not a regular file")]
    NotAFile {
        /// The file.
        name: String,
    },
    /// Somebody else changed it meanwhile.
    #[error("{name} was changed by somebody else meanwhile")]
    Changed {
        /// The file.
        name: String,
    },
    /// It could not be written.
    #[error("cannot write {name}, which is as it was")]
    Write {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Fault for EditFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("look at it and run the command again".to_owned()),
            _ => None,
        }
    }
}

impl Edited {
    /// Reads a regular file of at most `limit` bytes. A link is followed, and stays a link.
    pub(crate) fn read(path: &Path, limit: usize) -> Result<Self, EditFileError> {
        let name = path.display().to_string();
        let open = |source| InputError::Open { name: name.clone(), source };
        let path = fs::canonicalize(path).map_err(open)?;
        // Before it is opened: opening a pipe would wait for its writer.
        let metadata = fs::metadata(&path).map_err(open)?;
        if !metadata.is_file() {
            return Err(EditFileError::NotAFile { name });
        }
        let text = Source::open(&path)?.read_text(limit)?;
        let mode = metadata.permissions().mode() & 0o7777;
        Ok(Self { path, name, text, mode, owner: (metadata.uid(), metadata.gid()) })
    }

    /// What stands in it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Its name as the user gave it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Puts `text` in the place of what was read, in one step: a reader sees the old file or the new one.
    pub(crate) fn replace(self, text: &str) -> Result<(), EditFileError> {
        let Self { path, name, text: old, mode, owner } = self;
        let failed = |source| EditFileError::Write { name: name.clone(), source };
        let folder = path.parent().unwrap_or(Path::new("/"));
        // Taken away again when it is dropped, unless it took the file's place.
        let mut new = tempfile::Builder::new().prefix(".sealedenv-").tempfile_in(folder).map_err(failed)?;
        new.write_all(text.as_bytes()).map_err(failed)?;
        // Best effort: who may not give a file away owns the new one.
        let _ = fchown(new.as_file(), Some(owner.0), Some(owner.1));
        new.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        if fs::read(&path).map_err(failed)? != old.as_bytes() {
            return Err(EditFileError::Changed { name });
        }
        new.persist(&path).map_err(|error| failed(error.error))?;
        // The rename is done; that it survives a power cut is all that is left, and not every file system tells.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_its_mode_and_its_link_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, link) = (dir.path().join("a.yaml"), dir.path().join("link.yaml"));
        fs::write(&file, "old").expect("write");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("chmod");
        std::os::unix::fs::symlink("a.yaml", &link).expect("link");
        let edited = Edited::read(&link, 100).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(edited.text(), "old");
        edited.replace("new").expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("file"), "new");
        assert_eq!(file.metadata().expect("file").permissions().mode() & 0o7777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 2);
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("a.yaml");
        fs::write(&file, "old").expect("write");
        let edited = Edited::read(&file, 100).unwrap_or_else(|error| panic!("{error}"));
        fs::write(&file, "theirs").expect("write");
        assert!(matches!(edited.replace("ours"), Err(EditFileError::Changed { .. })));
        assert_eq!(fs::read_to_string(&file).expect("file"), "theirs");
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn only_regular_files_of_bounded_text_are_edited() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("a.yaml");
        assert!(matches!(Edited::read(&file, 100), Err(EditFileError::Input(InputError::Open { .. }))));
        assert!(matches!(Edited::read(dir.path(), 100), Err(EditFileError::NotAFile { .. })));
        assert!(matches!(Edited::read(Path::new("/dev/full"), 100), Err(EditFileError::NotAFile { .. })));
        fs::write(&file, [b'x'; 101]).expect("write");
        assert!(matches!(Edited::read(&file, 100), Err(EditFileError::Input(InputError::TooLarge { .. }))));
        fs::write(&file, [0xff]).expect("write");
        assert!(matches!(Edited::read(&file, 100), Err(EditFileError::Input(InputError::NotText { .. }))));
    }
}
