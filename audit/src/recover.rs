//! Looking at the end of a trail before the first append: where does the chain stand, is the last line whole, do the
//! last lines link?

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    chain::Position,
    disk::Disk,
    file::sync_folder,
    files::{beside, rotated},
    line::ParseError,
    sink::{Notice, SinkError},
    verify::{Broken, Start, Verifier, Why},
};

/// How much of a file's end is checked before it is appended to. At least three lines of any length.
const WINDOW: u64 = 256 << 10;

/// What stands on disk.
pub(crate) struct Found {
    /// The last whole line.
    pub(crate) position: Position,
    /// Whether the line that the process had written last is among those that were checked.
    pub(crate) has_last: bool,
    /// The torn line that was set aside.
    pub(crate) torn: Option<Notice>,
}

/// Sets a torn last line aside, checks the end of the chain, and says where it stands.
pub(crate) fn recover(
    path: &Path,
    file: &File,
    disk: &mut dyn Disk,
    last: Option<Position>,
) -> Result<Found, SinkError> {
    let cannot_read = |source| SinkError::Open { path: path.to_owned(), source };
    let len = file.metadata().map_err(cannot_read)?.len();
    let end = end_of_lines(file, len).map_err(cannot_read)?;
    let tail = check_tail(file, end, path, last).map_err(|stop| stop.into_error(path))?;
    let tail = match tail {
        Some(tail) => tail,
        None => tail_of_rotated(path, last)?,
    };
    // Last, so that a trail that is refused is left exactly as it was found.
    let torn = if end < len {
        let set_aside = |source| SinkError::SetAside { path: path.to_owned(), source };
        let (side, hash) = copy_aside(path, file, end, len).map_err(set_aside)?;
        if let Err(error) = disk.truncate(file, end).and_then(|()| disk.sync(file)) {
            let _ = fs::remove_file(&side); // the original is still whole; or each further try would leave a copy
            return Err(set_aside(error));
        }
        let name = side.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(Notice::TornTail { bytes: len - end, file: name, hash })
    } else {
        None
    };
    Ok(Found { position: tail.position, has_last: last.is_none_or(|last| tail.has(last)), torn })
}

/// The end of a chain as it was read.
struct Tail {
    position: Position,
    has_last: bool,
}

impl Tail {
    fn has(&self, last: Position) -> bool {
        self.has_last || self.position == last
    }
}

/// Why the end of a trail could not be used.
enum Stop {
    Unreadable(io::Error),
    Broken(Broken),
}

impl Stop {
    fn into_error(self, path: &Path) -> SinkError {
        match self {
            Self::Unreadable(source) => SinkError::Open { path: path.to_owned(), source },
            Self::Broken(broken) => SinkError::Broken(broken),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Where the last newline ends; 0 if there is none.
fn end_of_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 64 << 10];
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Checks the last whole lines of a file, those before `end`. None if there is no line.
fn check_tail(file: &File, end: u64, path: &Path, last: Option<Position>) -> Result<Option<Tail>, Stop> {
    if end == 0 {
        return Ok(None);
    }
    let from = end.saturating_sub(WINDOW);
    let mut window = vec![0; usize::try_from(end - from).unwrap_or(0)];
    file.read_exact_at(&mut window, from)?;
    // A window that begins inside a line begins to count behind it.
    let skipped =
        if from == 0 { 0 } else { window.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1) };
    let Some(lines) = window.get(skipped..window.len() - 1) else {
        // One line fills the window: no line is that long.
        return Err(broken(file, from, path, 0, 0, Why::Unparsable(ParseError::TooLong)));
    };
    let mut verifier = Verifier::new(Start::Anywhere);
    let mut has_last = false;
    for (index, line) in lines.split(|&byte| byte == b'\n').enumerate() {
        if let Err(why) = verifier.push(line) {
            let before = from + skipped as u64;
            return Err(broken(file, before, path, index as u64, verifier.good(), why));
        }
        has_last |= last == Some(verifier.position());
    }
    Ok(Some(Tail { position: verifier.position(), has_last }))
}

/// The end of the newest rotated file that has lines; the beginning of a chain if there is none.
fn tail_of_rotated(path: &Path, last: Option<Position>) -> Result<Tail, SinkError> {
    let cannot_read = |source| SinkError::Open { path: path.to_owned(), source };
    for (_, older) in rotated(path).map_err(cannot_read)?.into_iter().rev() {
        if let Some(tail) = tail_of_file(&older, last).map_err(|stop| stop.into_error(&older))? {
            return Ok(tail);
        }
    }
    Ok(Tail { position: Position::GENESIS, has_last: false })
}

fn tail_of_file(path: &Path, last: Option<Position>) -> Result<Option<Tail>, Stop> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let end = end_of_lines(&file, len)?;
    let tail = check_tail(&file, end, path, last)?;
    if end < len {
        let good = tail.as_ref().map_or(0, |tail| tail.position.seq);
        return Err(broken(&file, end, path, 0, good, Why::Unterminated));
    }
    Ok(tail)
}

/// A bad line, `index` lines behind the offset `before`, numbered as it stands in the file.
fn broken(file: &File, before: u64, path: &Path, index: u64, good: u64, why: Why) -> Stop {
    match newlines_before(file, before) {
        Ok(lines) => Stop::Broken(Broken { file: Some(path.to_owned()), line: lines + index + 1, good, why }),
        Err(error) => Stop::Unreadable(error),
    }
}

fn newlines_before(file: &File, offset: u64) -> io::Result<u64> {
    let mut reader = file.try_clone()?;
    reader.seek(SeekFrom::Start(0))?;
    let mut left = reader.take(offset);
    let mut chunk = vec![0; 64 << 10];
    let mut lines = 0;
    loop {
        let n = left.read(&mut chunk)?;
        if n == 0 {
            return Ok(lines);
        }
        lines += chunk[..n].split(|&byte| byte == b'\n').count() as u64 - 1;
    }
}

/// Copies the torn end of a file into the first free `<file>.torn-<n>`, durably.
fn copy_aside(path: &Path, file: &File, from: u64, to: u64) -> io::Result<(PathBuf, [u8; 32])> {
    for number in 1..=u32::MAX {
        let side = beside(path, &format!("torn-{number}"));
        let mut out = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&side) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        let copied = copy_range(file, from, to, &mut out).and_then(|hash| sync_folder(path).map(|()| hash));
        return match copied {
            Ok(hash) => Ok((side, hash)),
            Err(error) => {
                let _ = fs::remove_file(&side); // half a copy is of no use; the original is still whole
                Err(error)
            }
        };
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn copy_range(file: &File, from: u64, to: u64, out: &mut File) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).map_or(chunk.len(), |left| left.min(chunk.len()));
        file.read_exact_at(&mut chunk[..want], at)?;
        out.write_all(&chunk[..want])?;
        hasher.update(&chunk[..want]);
        at += want as u64;
    }
    out.sync_all()?;
    Ok(hasher.finalize().into())
}
