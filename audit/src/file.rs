//! The sink that keeps a file: lock, checks before each append, rotation.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};

use crate::{
    chain::Position,
    disk::{Disk, Kernel},
    files::{beside, folder, rotated},
    recover,
    sink::{Notice, Resumed, Sink, SinkError},
};

/// When a file is rotated away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes that a file does not exceed, unless by one write that is larger by itself. 0 means never
    /// to rotate.
    pub max_bytes: u64,
}

/// Keeps a trail in a file (mode 0600) with rotated predecessors.
///
/// # Guarantees
/// - [`Sink::append`] returns after `fdatasync`: the lines survive a crash of process and machine.
/// - One writer: the file is locked with `flock`, and a second sink on it fails with [`SinkError::Locked`].
/// - Before each append the path must still name the open file, with the size this sink left it. Otherwise the
///   append fails, and the next [`Sink::resume`] opens what is there now and says so in the trail.
/// - Lines that were written in part are cut off again, or set aside when the file is opened next.
///
/// # Assumptions
/// The folder exists, is on a local file system with working `flock`, and only this sink rotates the file.
pub struct FileSink {
    path: PathBuf,
    rotation: Rotation,
    disk: Box<dyn Disk>,
    open: Option<Open>,
    /// The file that was open last, and the last line in it that this process knows to be durable.
    last: Option<(FileId, Position)>,
    notices: Vec<Notice>,
}

/// The file that is written to.
struct Open {
    file: Locked,
    id: FileId,
    len: u64,
    at: Position,
}

/// A file with an exclusive `flock`, given back when it is dropped.
struct Locked(File);

impl Drop for Locked {
    /// Closing the file is not enough: a process that is being started at this moment holds a copy of the descriptor
    /// until it executes its program, and the lock with it.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock); // closing is all that is left to do
    }
}

/// A write that failed, and whether the file is again as it was before.
struct Unwritten {
    source: io::Error,
    cut_off: bool,
}

/// What tells one file from another: device and inode.
type FileId = (u64, u64);

impl Default for Rotation {
    /// 64 MiB.
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

// === impl FileSink ===

impl FileSink {
    /// A sink for a path. Nothing is touched before the first record, and a sink that cannot be opened then is
    /// tried again with each record.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> Self {
        Self::with_disk(path.into(), rotation, Box::new(Kernel))
    }

    /// A sink whose file was opened, locked, checked and recovered.
    ///
    /// # Errors
    /// [`SinkError`], when the sink could not take a line now.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> Result<Self, SinkError> {
        let mut sink = Self::new(path, rotation);
        sink.ready()?;
        Ok(sink)
    }

    pub(crate) fn with_disk(path: PathBuf, rotation: Rotation, disk: Box<dyn Disk>) -> Self {
        Self { path, rotation, disk, open: None, last: None, notices: Vec::new() }
    }

    /// Opens the file unless it is open, and gives its position.
    fn ready(&mut self) -> Result<Position, SinkError> {
        if let Some(open) = &self.open {
            return Ok(open.at);
        }
        let (file, created) = self.open_locked()?;
        if created {
            sync_folder(&self.path).map_err(|source| self.cannot_open(source))?;
        }
        let last = self.last.map(|(_, position)| position);
        let found = recover::recover(&self.path, &file.0, self.disk.as_mut(), last)?;
        let meta = file.0.metadata().map_err(|source| self.cannot_open(source))?;
        self.notices.extend(found.torn);
        if let Some((before, was)) = self.last {
            if !found.has_last {
                self.notices.push(Notice::Rewound { was });
            } else if found.position != was {
                self.notices.push(Notice::Advanced { was });
            } else if before != id(&meta) {
                self.notices.push(Notice::Replaced);
            }
        }
        // From here on the trail on disk is what counts.
        let open = Open { file, id: id(&meta), len: meta.len(), at: found.position };
        self.last = Some((open.id, open.at));
        self.open = Some(open);
        Ok(found.position)
    }

    /// The file behind the path, locked, and whether it is new. No link is followed, and a pipe or device is
    /// refused without waiting for it.
    fn open_locked(&self) -> Result<(Locked, bool), SinkError> {
        // The path may get another file between opening and locking; then the lock is on the wrong one.
        for _ in 0..8 {
            let (file, created) = match open_append(&self.path, false) {
                Ok(file) => (file, false),
                Err(Errno::NOENT) => match open_append(&self.path, true) {
                    Ok(file) => (file, true),
                    Err(Errno::EXIST) => continue,
                    Err(errno) => return Err(self.cannot_open(errno.into())),
                },
                Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(self.not_regular()),
                Err(errno) => return Err(self.cannot_open(errno.into())),
            };
            let meta = file.metadata().map_err(|source| self.cannot_open(source))?;
            if !meta.is_file() {
                return Err(self.not_regular());
            }
            let file = self.lock(file)?;
            match fs::symlink_metadata(&self.path) {
                Ok(named) if id(&named) == id(&meta) => return Ok((file, created)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.cannot_open(source)),
            }
        }
        Err(SinkError::Replaced { path: self.path.clone() })
    }

    fn lock(&self, file: File) -> Result<Locked, SinkError> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Locked(file)),
            Err(Errno::WOULDBLOCK) => Err(SinkError::Locked { path: self.path.clone() }),
            Err(errno) => Err(self.cannot_open(errno.into())),
        }
    }

    /// Whether the path still names the open file, as this sink left it.
    fn check(&self, open: &Open) -> Result<(), SinkError> {
        match fs::symlink_metadata(&self.path) {
            Ok(named) if id(&named) == open.id => {
                if named.len() == open.len {
                    Ok(())
                } else {
                    Err(SinkError::Changed {
                        path: self.path.clone(),
                        expected: open.len,
                        found: named.len(),
                    })
                }
            }
            Ok(_) => Err(SinkError::Replaced { path: self.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SinkError::Replaced { path: self.path.clone() })
            }
            Err(source) => Err(self.cannot_open(source)),
        }
    }

    /// Moves a full file away and opens the next one. One rename: a crash before or after leaves a whole trail.
    fn rotate(&self, open: &Open) -> Result<Open, SinkError> {
        let failed = |source| SinkError::Rotate { path: self.path.clone(), source };
        let newest = rotated(&self.path).map_err(failed)?.last().map_or(0, |(number, _)| *number);
        let target = beside(&self.path, &newest.saturating_add(1).to_string());
        rename_new(&self.path, &target).map_err(failed)?;
        let file = open_append(&self.path, true).map_err(|errno| failed(errno.into()))?;
        let file = self.lock(file)?;
        sync_folder(&self.path).map_err(failed)?;
        let id = id(&file.0.metadata().map_err(failed)?);
        Ok(Open { file, id, len: 0, at: open.at })
    }

    /// Appends text and makes it durable, or cuts off again what was written in part.
    fn write(&mut self, open: &Open, text: &[u8]) -> Result<(), Unwritten> {
        let mut left = text;
        let mut result = Ok(());
        while !left.is_empty() && result.is_ok() {
            match self.disk.write(&open.file.0, left) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => left = &left[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        result.and_then(|()| self.disk.sync(&open.file.0)).map_err(|source| {
            let cut = self.disk.truncate(&open.file.0, open.len).and_then(|()| self.disk.sync(&open.file.0));
            Unwritten { source, cut_off: cut.is_ok() }
        })
    }

    fn cannot_open(&self, source: io::Error) -> SinkError {
        SinkError::Open { path: self.path.clone(), source }
    }

    fn not_regular(&self) -> SinkError {
        SinkError::NotRegular { path: self.path.clone() }
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn resume(&mut self) -> Result<Resumed, SinkError> {
        let position = self.ready()?;
        Ok(Resumed { position, notices: std::mem::take(&mut self.notices) })
    }

    fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
        // Put back only if the file may be used again; otherwise it is closed, and opened anew by `resume`. It is not
        // opened here: the lines continue the chain that `resume` told.
        let Some(mut open) = self.open.take() else {
            return Err(self.cannot_open(io::ErrorKind::NotConnected.into()));
        };
        self.check(&open)?;
        let text = lines.iter().fold(Vec::new(), |mut text, line| {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
            text
        });
        let full = open.len.saturating_add(text.len() as u64) > self.rotation.max_bytes;
        if self.rotation.max_bytes > 0 && full && open.len > 0 {
            open = self.rotate(&open)?;
        }
        match self.write(&open, &text) {
            Ok(()) => {
                open.len += text.len() as u64;
                open.at = lines.iter().fold(open.at, |at, line| at.after(line));
                self.last = Some((open.id, open.at));
                self.open = Some(open);
                Ok(())
            }
            Err(Unwritten { source, cut_off }) => {
                // What could not be cut off is set aside when the file is opened anew.
                self.open = cut_off.then_some(open);
                Err(SinkError::Write { sink: self.name().to_owned(), source })
            }
        }
    }
}

/// Opens a file for appending; with `create`, only if there is none yet.
fn open_append(path: &Path, create: bool) -> Result<File, Errno> {
    // NONBLOCK: opening a device (a serial line, say) must not wait for it. A pipe opened for both directions does not
    // wait anyway, and on a regular file the flag has no effect.
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = if create { flags | OFlags::CREATE | OFlags::EXCL } else { flags };
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Renames without replacing anything.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag. The lock keeps other writers out of the moment in between.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if to.try_exists()? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

/// Makes new and renamed names durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn id(meta: &fs::Metadata) -> FileId {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests;
