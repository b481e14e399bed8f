//! The inside of a volume: versions of its files, of which `..data` names one. The node plugin writes it into a tmpfs that
//! it mounted, the agent into one that the kubelet made for the pod.
//!
//! Everything is found through the descriptor of a directory, one name at a time, and no link is ever followed: neither
//! a path that somebody thought up nor a link that somebody planted leads out of the volume.

mod tree;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, fchown, fstat, mkdirat, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sealedenv_delivery::{Content, File, FilePath};

/// Names the version that counts.
const DATA: &str = "..data";
/// `..data` before it is renamed.
const NEXT: &str = "..data_next";
/// In each version: what it is of. Only the writer may read it.
const LABEL: &str = "..sealedenv";
/// More than any label has.
const MAX_LABEL: usize = 512;
/// Where the kubelet mounts the ServiceAccount token below `/run/secrets`.
const SERVICE_ACCOUNT: [&str; 2] = ["kubernetes.io", "serviceaccount"];

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The SealedEnv.
    pub environment: String,
    /// The digest that the operator gave with the files.
    pub digest: String,
    /// Whether an older version still lies beside it.
    pub stale: bool,
}

/// Whose the files of a volume are, and who may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user; the writer's own where none is given.
    pub uid: Option<u32>,
    /// The group: the pod's `fsGroup`.
    pub gid: Option<u32>,
    /// Permission bits of a file that says none itself.
    pub mode: u32,
}

/// A volume by its root directory.
#[derive(Clone, Copy, Debug)]
pub struct Volume<'a> {
    root: BorrowedFd<'a>,
}

/// A version to be written.
pub struct Version<'a> {
    /// The SealedEnv.
    pub environment: &'a str,
    /// The digest that the operator gave.
    pub digest: &'a str,
    /// The files.
    pub files: &'a [File],
    /// Files of the version before that stay as they are, where there are any.
    pub keep: &'a [FilePath],
    /// Whose the files are.
    pub ownership: Ownership,
    /// Whether `kubernetes.io/serviceaccount` is to be a real directory.
    pub service_account_directory: bool,
    /// Name of the version: no other has had it in this volume.
    pub stamp: &'a str,
}

/// Why a version was not written. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file wants a place where something else is.
    #[error("file {0} is in the way of another or of the ServiceAccount token")]
    Conflict(String),
    /// The file system is full.
    #[error("writing the files: the tmpfs is full")]
    Full(#[source] io::Error),
    /// Anything else.
    #[error("writing the files")]
    Io(#[source] io::Error),
}

impl From<Errno> for WriteError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOSPC | Errno::DQUOT => Self::Full(error.into()),
            _ => Self::Io(error.into()),
        }
    }
}

impl Version<'_> {
    /// The lengths of what is written.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.files
            .iter()
            .map(|file| file.content.len())
            .chain([self.environment.len() + self.digest.len() + 2])
    }

    /// How many directories and links are made, at most.
    pub fn names(&self) -> usize {
        // Each part of each path could be a directory, and each path's first one a link.
        self.paths().map(|path| path.segments().count() + 1).sum::<usize>() + 8
    }

    fn paths(&self) -> impl Iterator<Item = &FilePath> {
        self.files.iter().map(|file| &file.path).chain(self.keep)
    }
}

impl<'a> Volume<'a> {
    /// The volume whose root directory is open.
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Self { root }
    }

    /// What the volume holds. None where that cannot be told, or where something is missing: then it must be written
    /// anew.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn held(self) -> Result<Option<Held>, Errno> {
        let Some(current) = self.current()? else { return Ok(None) };
        let data = match tree::folder(self.root, &current) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            opened => opened?,
        };
        let label = match tree::read(data.as_fd(), LABEL, MAX_LABEL) {
            Err(Errno::NOENT | Errno::LOOP | Errno::FBIG) => return Ok(None),
            label => label?,
        };
        let Some((environment, digest)) = label_of(&label) else { return Ok(None) };
        for name in tree::names(data.as_fd())? {
            if name != LABEL && !self.leads_to_data(&name)? {
                return Ok(None);
            }
        }
        let stale = self.versions()?.iter().any(|version| *version != current);
        Ok(Some(Held { environment, digest, stale }))
    }

    /// Removes every version but the current one, and whatever an interrupted write left.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn tidy(self) -> Result<(), Errno> {
        let current = self.current()?;
        for version in self.versions()? {
            if Some(&version) != current.as_ref() {
                tree::remove(self.root, &version)?;
            }
        }
        match unlinkat(self.root, NEXT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes a version and makes it the current one, in one step for whoever reads. The version before stays until
    /// [`Volume::tidy`], which this does first.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn swap(self, version: &Version<'_>) -> Result<(), WriteError> {
        self.tidy()?;
        leaves_the_token_alone(version)?;
        let before = self.current()?;
        let name = format!("..{}", version.stamp);
        let gid = version.ownership.gid;
        // Who is not root cannot give the root directory away, and has it from the kubelet as it should be.
        if let Some(gid) = gid
            && fstat(self.root)?.st_gid != gid
        {
            fchown(self.root, None, Some(Gid::from_raw(gid)))?;
        }
        if version.service_account_directory {
            let domain = tree::make_folder(self.root, SERVICE_ACCOUNT[0], gid)?;
            tree::make_folder(domain.as_fd(), SERVICE_ACCOUNT[1], gid)?;
        }
        let mut links = Vec::new();
        let written = self.write(&name, before.as_deref(), version).and_then(|tops| {
            self.link(&tops, &mut links)?;
            symlinkat(&name, self.root, NEXT)?;
            renameat(self.root, NEXT, self.root, DATA)?;
            Ok(tops)
        });
        match written {
            Ok(tops) => Ok(self.unlink_all_but(&tops)?),
            Err(error) => {
                // What was there before counts still; what could not be undone is undone before the next write.
                for link in links {
                    let _tidied_later = unlinkat(self.root, link, AtFlags::empty());
                }
                let _tidied_later = tree::remove(self.root, &name);
                Err(error)
            }
        }
    }

    /// The directory of a new version, complete. Gives the names in it that need a link.
    fn write(
        self,
        name: &str,
        before: Option<&str>,
        version: &Version<'_>,
    ) -> Result<BTreeSet<String>, WriteError> {
        let ownership = version.ownership;
        mkdirat(self.root, name, Mode::from_raw_mode(0o700))?;
        let data = tree::folder(self.root, name)?;
        tree::own(&data, 0o755, None, ownership.gid)?;
        for file in version.files {
            let (folder, last) =
                tree::way(data.as_fd(), &file.path, ownership.gid).map_err(|error| at(&file.path, error))?;
            let mode = file.mode.unwrap_or(ownership.mode)
                | if ownership.gid.is_some() && file.mode.is_some() { 0o040 } else { 0 };
            tree::write(folder.as_fd(), last, &file.content, mode, (ownership.uid, ownership.gid))
                .map_err(|error| at(&file.path, error))?;
        }
        let before = before.map(|before| tree::folder(self.root, before)).transpose()?;
        if let Some(before) = before {
            for path in version.keep {
                tree::keep(before.as_fd(), data.as_fd(), path, ownership.gid)
                    .map_err(|error| at(path, error))?;
            }
        }
        let label = Content::new(format!("{}\n{}\n", version.environment, version.digest).into_bytes());
        let tops = tree::names(data.as_fd())?.into_iter().collect();
        tree::write(data.as_fd(), LABEL, &label, 0o600, (None, None))?;
        Ok(tops)
    }

    /// Links for what has none yet. They lead nowhere until `..data` does.
    fn link(self, tops: &BTreeSet<String>, made: &mut Vec<String>) -> Result<(), WriteError> {
        for name in tops {
            if self.leads_to_data(name)? {
                continue;
            }
            match statat(self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                // A link or file that is none of ours.
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                    unlinkat(self.root, name, AtFlags::empty())?;
                }
                Ok(_) => return Err(WriteError::Conflict(name.clone())),
                Err(error) => return Err(error.into()),
            }
            symlinkat(format!("{DATA}/{name}"), self.root, name)?;
            made.push(name.clone());
        }
        Ok(())
    }

    /// Removes links and files that the current version has no more.
    fn unlink_all_but(self, tops: &BTreeSet<String>) -> Result<(), Errno> {
        for name in tree::names(self.root)? {
            if name.starts_with("..") || tops.contains(&name) {
                continue;
            }
            match unlinkat(self.root, &name, AtFlags::empty()) {
                // A directory: the one for the token.
                Ok(()) | Err(Errno::ISDIR | Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The name of the current version.
    fn current(self) -> Result<Option<String>, Errno> {
        match readlinkat(self.root, DATA, Vec::new()) {
            Ok(name) => Ok(name.into_string().ok().filter(|name| is_version(name))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all versions.
    fn versions(self) -> Result<Vec<String>, Errno> {
        Ok(tree::names(self.root)?.into_iter().filter(|name| is_version(name)).collect())
    }

    /// Whether a name in the root is the link that it should be.
    fn leads_to_data(self, name: &str) -> Result<bool, Errno> {
        match readlinkat(self.root, name, Vec::new()) {
            Ok(link) => Ok(link.to_bytes() == format!("{DATA}/{name}").as_bytes()),
            Err(Errno::NOENT | Errno::INVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A conflict of two files has the file's name; other errors need none.
fn at(path: &FilePath, error: Errno) -> WriteError {
    match error {
        Errno::EXIST | Errno::NOTDIR | Errno::ISDIR => WriteError::Conflict(path.to_string()),
        error => error.into(),
    }
}

/// Files where the token goes would be hidden by it, or hide it.
fn leaves_the_token_alone(version: &Version<'_>) -> Result<(), WriteError> {
    let taken = version.service_account_directory
        && version.paths().any(|path| path.segments().next() == Some(SERVICE_ACCOUNT[0]));
    if taken { Err(WriteError::Conflict(SERVICE_ACCOUNT[0].to_owned())) } else { Ok(()) }
}

/// A name for a version: `2026_11_24_19_00_00.123456789`, by which a person sees how old it is.
pub fn stamp(now: Timestamp) -> String {
    now.strftime("%Y_%m_%d_%H_%M_%S.%9f").to_string()
}

/// Whether a name is that of a version: two dots, and no link of ours.
fn is_version(name: &str) -> bool {
    name.len() > 2 && name.starts_with("..") && name != DATA && name != NEXT && !name.contains('/')
}

fn label_of(label: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(label).ok()?;
    let (environment, rest) = text.split_once('\n')?;
    let digest = rest.strip_suffix('\n').filter(|digest| !digest.contains('\n'))?;
    Some((environment.to_owned(), digest.to_owned()))
}

#[cfg(test)]
mod tests;
