//! A target on this machine: its directory, opened step by step so that no link on the way is followed.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;
use sealedenv_volume::Volume;

use crate::mount::{MountError, Mounts};
use crate::publish::{Foreign, Found};
use crate::target::{Layout, Target};

/// The directory above a target, open.
#[derive(Debug)]
pub struct Place {
    parent: OwnedFd,
    leaf: &'static str,
}

/// Why a target could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Its directory cannot be opened, or a link stands on the way.
    #[error("opening the directory of the target")]
    Open(#[source] io::Error),
    /// What stands there cannot be told.
    #[error("looking at the target")]
    Look(#[source] io::Error),
    /// The mounts there cannot be told.
    #[error("looking at the target")]
    Mounts(#[source] MountError),
    /// The directory cannot be made.
    #[error("making the target")]
    Make(#[source] io::Error),
    /// The directory cannot be removed.
    #[error("removing the target")]
    Remove(#[source] io::Error),
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Place {
    /// Opens the directory above a target. None: it is not there.
    ///
    /// # Errors
    /// Something on the way is not a directory, or cannot be opened.
    pub fn open(layout: &Layout, target: &Target) -> Result<Option<Self>, PlaceError> {
        let way = OFlags::PATH | FOLDER;
        // The kubelet's root may itself be reached through a link: an administrator made it.
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = match rustix::fs::open(layout.pods(), root, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|error| PlaceError::Open(error.into()))?,
        };
        for name in target.folders() {
            folder = match openat(&folder, name, way, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(None),
                opened => opened.map_err(|error| PlaceError::Open(error.into()))?,
            };
        }
        Ok(Some(Self { parent: folder, leaf: layout.leaf() }))
    }

    /// The directory above.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// The name in it.
    pub fn name(&self) -> &'static str {
        self.leaf
    }

    /// What stands there.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn look(&self, mounts: &impl Mounts) -> Result<Found, PlaceError> {
        let look = |error: Errno| PlaceError::Look(error.into());
        let kind = match statat(&self.parent, self.leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            stat => FileType::from_raw_mode(stat.map_err(look)?.st_mode),
        };
        match kind {
            FileType::Directory => {}
            FileType::Symlink => return Ok(Found::Foreign(Foreign::Link)),
            _ => return Ok(Found::Foreign(Foreign::File)),
        }
        let mounted = mounts.at(&self.path().map_err(look)?).map_err(PlaceError::Mounts)?;
        match mounted.last() {
            Some(top) if top.is_ours() => {
                let root = self.root().map_err(look)?;
                Ok(Found::Ours(Volume::new(root.as_fd()).held().map_err(look)?))
            }
            Some(_) => Ok(Found::Foreign(Foreign::Mount)),
            None if self.is_empty().map_err(look)? => Ok(Found::EmptyDirectory),
            None => Ok(Found::Foreign(Foreign::Directory)),
        }
    }

    /// Whether there is a mount with files of a SealedEnv on it, asked without the kernel's list of mounts. When in doubt
    /// there is none.
    pub fn has_files(&self) -> bool {
        let files = || -> Result<bool, Errno> {
            let root = self.root()?;
            let is_mount = fstat(&root)?.st_dev != statat(&self.parent, ".", AtFlags::empty())?.st_dev;
            Ok(is_mount && Volume::new(root.as_fd()).held()?.is_some())
        };
        files().unwrap_or(false)
    }

    /// The directory itself, or the root of what is mounted on it, to read.
    ///
    /// # Errors
    /// It is not there, or not a directory.
    pub fn root(&self) -> Result<OwnedFd, Errno> {
        openat(&self.parent, self.leaf, OFlags::RDONLY | FOLDER, Mode::empty())
    }

    /// Makes the directory where it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn make(&self) -> Result<OwnedFd, PlaceError> {
        match mkdirat(&self.parent, self.leaf, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(PlaceError::Make(error.into())),
        }
        self.root().map_err(|error| PlaceError::Make(error.into()))
    }

    /// Removes the directory, which must be empty.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self) -> Result<(), PlaceError> {
        match unlinkat(&self.parent, self.leaf, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(PlaceError::Remove(error.into())),
        }
    }

    /// The path of the target without links, as the kernel lists mounts.
    fn path(&self) -> Result<PathBuf, Errno> {
        use std::os::unix::ffi::OsStringExt as _;
        let link = format!("/proc/self/fd/{}", self.parent.as_raw_fd());
        let path = readlinkat(rustix::fs::CWD, link, Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())).join(self.leaf))
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        for entry in Dir::new(self.root()?)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
