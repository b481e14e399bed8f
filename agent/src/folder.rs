//! The folder of one SealedEnv: an `emptyDir` in memory, which the kubelet made for the pod.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use sealedenv_delivery::Files;
use sealedenv_volume::{Ownership, Version, Volume, WriteError, stamp};

/// On a directory that the kubelet gave to the pod's `fsGroup`.
const SETGID: u32 = 0o2000;

/// The folder of one SealedEnv.
#[derive(Debug)]
pub struct Folder {
    name: String,
    root: OwnedFd,
    token_place: bool,
}

impl Folder {
    /// Opens the folder `name` in `above`, which must be there. `token_place`: it is to have one for the ServiceAccount
    /// token.
    ///
    /// # Errors
    /// It is not there, or no directory.
    pub fn open(above: &Path, name: &str, token_place: bool) -> io::Result<Self> {
        let above = fs::File::open(above)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(above.as_fd(), name, flags, Mode::empty())?;
        Ok(Self { name: name.to_owned(), root, token_place })
    }

    /// The SealedEnv.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest of what it holds; none where that is not whole, or of something else.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn held(&self) -> Result<Option<String>, Errno> {
        let held = Volume::new(self.root.as_fd()).held()?;
        Ok(held.filter(|held| held.environment == self.name).map(|held| held.digest))
    }

    /// Swaps other files in. On failure it is as before.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn swap(&self, files: &Files, now: Timestamp) -> Result<(), WriteError> {
        let stat = fstat(&self.root)?;
        Volume::new(self.root.as_fd()).swap(&Version {
            environment: &self.name,
            digest: &files.digest,
            files: &files.files,
            keep: &files.keep,
            ownership: ownership(stat.st_mode, stat.st_gid),
            service_account_directory: self.token_place,
            stamp: &stamp(now),
        })
    }

    /// Removes versions that do not count any more.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn tidy(&self) -> Result<(), Errno> {
        Volume::new(self.root.as_fd()).tidy()
    }
}

/// Whose files are, by what the kubelet made of the folder: with an `fsGroup` its group reads them, and every user without.
/// Their user is the agent's own; which users the pod's containers run as is none of its business.
fn ownership(mode: u32, gid: u32) -> Ownership {
    if mode & SETGID == 0 {
        Ownership { uid: None, gid: None, mode: 0o444 }
    } else {
        Ownership { uid: None, gid: Some(gid), mode: 0o440 }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::time::Duration;

    use sealedenv_delivery::{Content, File, FilePath};

    use super::*;

    fn files(digest: &str, text: &str) -> Files {
        let path = FilePath::parse("KEY").unwrap();
        let file = File { path, content: Content::new(text.as_bytes().to_vec()), mode: None };
        Files {
            digest: digest.to_owned(),
            files: vec![file],
            keep: Vec::new(),
            refresh_after: Duration::from_mins(1),
        }
    }

    #[test]
    fn an_fs_group_reads_and_without_one_everybody() {
        assert_eq!(ownership(0o40777, 0), Ownership { uid: None, gid: None, mode: 0o444 });
        assert_eq!(ownership(0o42777, 2000), Ownership { uid: None, gid: Some(2000), mode: 0o440 });
        for (mode, expected) in [(0o777, 0o444), (0o2777, 0o440)] {
            let above = tempfile::tempdir().unwrap();
            fs::create_dir(above.path().join("checkout")).unwrap();
            fs::set_permissions(above.path().join("checkout"), fs::Permissions::from_mode(mode)).unwrap();
            let folder = Folder::open(above.path(), "checkout", false).unwrap();
            folder.swap(&files("d1", "one"), Timestamp::now()).unwrap();
            let file = fs::metadata(above.path().join("checkout/KEY")).unwrap();
            assert_eq!(file.mode() & 0o7777, expected);
        }
    }

    #[test]
    fn what_is_of_another_sealed_env_is_not_held() {
        let above = tempfile::tempdir().unwrap();
        fs::create_dir(above.path().join("checkout")).unwrap();
        let folder = Folder::open(above.path(), "checkout", true).unwrap();
        assert_eq!(folder.held().unwrap(), None);
        folder.swap(&files("d1", "one"), Timestamp::now()).unwrap();
        assert_eq!(folder.held().unwrap().as_deref(), Some("d1"));
        assert!(above.path().join("checkout/kubernetes.io/serviceaccount").is_dir());
        fs::rename(above.path().join("checkout"), above.path().join("other")).unwrap();
        assert_eq!(Folder::open(above.path(), "other", true).unwrap().held().unwrap(), None);
    }

    #[test]
    fn only_a_directory_is_opened() {
        let above = tempfile::tempdir().unwrap();
        symlink("/", above.path().join("link")).unwrap();
        fs::write(above.path().join("file"), "").unwrap();
        for name in ["link", "file", "missing"] {
            assert!(Folder::open(above.path(), name, false).is_err(), "{name}");
        }
    }
}
