//! Steps below a directory that is open. None of them follows a link.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, linkat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use sealedenv_delivery::{Content, FilePath};

const STAY: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Deeper than any path of ours goes.
const DEEPEST: usize = 16;

/// A directory in a directory.
pub(super) fn folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | STAY, Mode::empty())
}

/// The same, made where it is missing.
pub(super) fn make_folder(parent: BorrowedFd<'_>, name: &str, gid: Option<u32>) -> Result<OwnedFd, Errno> {
    let made = mkdirat(parent, name, Mode::from_raw_mode(0o700));
    let folder = match made {
        Ok(()) | Err(Errno::EXIST) => folder(parent, name)?,
        Err(error) => return Err(error),
    };
    if made.is_ok() {
        own(&folder, 0o755, None, gid)?;
    }
    Ok(folder)
}

/// Gives a file its owner and, whatever the umask, its mode.
pub(super) fn own(file: &OwnedFd, mode: u32, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    fchmod(file, Mode::from_raw_mode(mode))
}

/// The directory that a path's last part is in, made where it is missing, and that part.
pub(super) fn way<'a>(
    root: BorrowedFd<'_>,
    path: &'a FilePath,
    gid: Option<u32>,
) -> Result<(OwnedFd, &'a str), Errno> {
    let mut folder = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let (above, last) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    for name in above.split('/').filter(|name| !name.is_empty()) {
        folder = make_folder(folder.as_fd(), name, gid)?;
    }
    Ok((folder, last))
}

/// Writes a file that must not be there yet.
pub(super) fn write(
    folder: BorrowedFd<'_>,
    name: &str,
    content: &Content,
    mode: u32,
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<(), Errno> {
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | STAY;
    let file = openat(folder, name, new, Mode::from_raw_mode(0o600))?;
    let mut rest = content.expose();
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    own(&file, mode, uid, gid)
}

/// Takes a file of another version over, as it is. Where there is none, there is none here either.
pub(super) fn keep(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &FilePath,
    gid: Option<u32>,
) -> Result<(), Errno> {
    let mut folder_from = from.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let (above, last) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    for name in above.split('/').filter(|name| !name.is_empty()) {
        folder_from = match folder(folder_from.as_fd(), name) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            opened => opened?,
        };
    }
    match statat(&folder_from, last, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat if FileType::from_raw_mode(stat?.st_mode) != FileType::RegularFile => return Ok(()),
        _ => {}
    }
    let (folder_to, last) = way(to, path, gid)?;
    linkat(&folder_from, last, &folder_to, last, AtFlags::empty())
}

/// Reads a regular file of at most `most` bytes.
pub(super) fn read(folder: BorrowedFd<'_>, name: &str, most: usize) -> Result<Vec<u8>, Errno> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | STAY, Mode::empty())?;
    let mut bytes = vec![0; most + 1];
    let mut filled = 0;
    loop {
        match rustix::io::read(&file, bytes.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    if filled > most {
        return Err(Errno::FBIG);
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What is in a directory. A name that is no text is none of ours and is left out.
pub(super) fn names(folder: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes a file, a link or a directory with all that is in it.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    remove_to(parent, &CString::new(name).map_err(|_| Errno::INVAL)?, DEEPEST)
}

fn remove_to(parent: BorrowedFd<'_>, name: &CString, depth: usize) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let folder = openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | STAY, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_to(folder.as_fd(), &entry.file_name().to_owned(), depth)?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
