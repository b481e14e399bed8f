//! Reading a trail back: all of it, its end, or its end as it grows.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    files::{Part, open_trail},
    line::{Entry, ParseError},
    text::{LineEnd, read_line, skip_line},
    verify::{Broken, Why},
};

/// An entry and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file.
    pub file: Arc<Path>,
    /// Number of its line in that file, from 1.
    pub line: u64,
    /// The line as it stands, without its newline: canonical JSON, safe to print.
    pub text: String,
    /// The line as it was read.
    pub entry: Entry,
}

/// Iterates over all entries of a trail, rotated files first, in order. It does not check the chain.
///
/// A line that is no entry is an error at its place, and reading goes on behind it; so is a torn last line
/// ([`Why::TornTail`]).
///
/// # Errors
/// The folder cannot be read, or there is no such trail.
pub fn read_all(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = Result<Located, Broken>>> {
    let parts = open_trail(path.as_ref())?;
    let last = parts.len() - 1;
    Ok(parts.into_iter().enumerate().flat_map(move |(index, part)| Lines::of(part, index == last)))
}

/// The last `count` entries (or errors) of a trail. Reads only the files it needs.
///
/// # Errors
/// The folder cannot be read, or there is no such trail.
pub fn tail(path: impl AsRef<Path>, count: usize) -> io::Result<Vec<Result<Located, Broken>>> {
    let parts = open_trail(path.as_ref())?;
    let last = parts.len() - 1;
    let mut found: VecDeque<Result<Located, Broken>> = VecDeque::new();
    for (index, part) in parts.into_iter().enumerate().rev() {
        let wanted = count - found.len();
        if wanted == 0 {
            break;
        }
        let mut newest = VecDeque::new();
        for item in Lines::of(part, index == last) {
            if newest.len() == wanted {
                newest.pop_front();
            }
            newest.push_back(item);
        }
        newest.append(&mut found);
        found = newest;
    }
    Ok(found.into())
}

/// Lines of one file.
struct Lines {
    file: Arc<Path>,
    reader: Option<BufReader<File>>,
    failed: Option<io::ErrorKind>,
    last: bool,
    number: u64,
    good: u64,
    buffer: Vec<u8>,
}

impl Lines {
    fn of(part: Part, last: bool) -> Self {
        let (path, reader, failed) = match part.open() {
            Ok((path, file)) => (path, Some(BufReader::new(file)), None),
            Err((path, error)) => (path, None, Some(error.kind())),
        };
        Self { file: path.into(), reader, failed, last, number: 0, good: 0, buffer: Vec::new() }
    }

    fn broken(&self, why: Why) -> Broken {
        Broken { file: Some(self.file.to_path_buf()), line: self.number, good: self.good, why }
    }

    fn take(&mut self) -> Result<Located, Broken> {
        let entry = Entry::parse(&self.buffer).map_err(|error| self.broken(Why::Unparsable(error)))?;
        self.good = entry.seq;
        // What parsed as canonical JSON is UTF-8.
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        Ok(Located { file: Arc::clone(&self.file), line: self.number, text, entry })
    }
}

impl Iterator for Lines {
    type Item = Result<Located, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(kind) = self.failed.take() {
            return Some(Err(self.broken(Why::Unreadable(kind))));
        }
        let reader = self.reader.as_mut()?;
        self.number += 1;
        let end = read_line(reader, &mut self.buffer);
        match end {
            Ok(LineEnd::Newline) => Some(self.take()),
            Ok(LineEnd::Eof) => {
                self.reader = None;
                None
            }
            Ok(LineEnd::Torn) => {
                self.reader = None;
                Some(Err(self.broken(if self.last { Why::TornTail } else { Why::Unterminated })))
            }
            Ok(LineEnd::TooLong) => {
                if skip_line(reader).is_err() {
                    self.reader = None;
                }
                Some(Err(self.broken(Why::Unparsable(ParseError::TooLong))))
            }
            Err(error) => {
                self.reader = None;
                Some(Err(self.broken(Why::Unreadable(error.kind()))))
            }
        }
    }
}

/// Follows the end of a trail as it grows, over rotation (`tail -F`). The caller decides when to look; of two
/// rotations between two looks, the file in the middle is not seen.
pub struct Follow {
    path: PathBuf,
    open: Option<(File, Position)>,
}

/// How far a followed file was read.
#[derive(Clone, Copy)]
struct Position {
    offset: u64,
    line: u64,
}

impl Follow {
    /// Starts behind the lines that are there now. A file that is not there yet is waited for.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let mut follow = Self { path: path.into(), open: None };
        follow.poll()?;
        Ok(follow)
    }

    /// The entries that were added since the last call, whole lines only.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Result<Located, Broken>>> {
        let mut found = Vec::new();
        if let Some((file, at)) = &mut self.open {
            drain(&self.path, file, at, &mut found)?;
            if same_file(&self.path, file) {
                return Ok(found);
            }
            // Lines written between reading to the end and the rename stand in the file that is still open.
            drain(&self.path, file, at, &mut found)?;
        }
        self.open = match File::open(&self.path) {
            Ok(file) => Some((file, Position { offset: 0, line: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some((file, at)) = &mut self.open {
            drain(&self.path, file, at, &mut found)?;
        }
        Ok(found)
    }
}

fn drain(
    path: &Path,
    file: &mut File,
    at: &mut Position,
    found: &mut Vec<Result<Located, Broken>>,
) -> io::Result<()> {
    let name: Arc<Path> = path.into();
    if file.metadata()?.len() < at.offset {
        *at = Position { offset: 0, line: 0 }; // it was cut; what is there now is new
    }
    file.seek(SeekFrom::Start(at.offset))?;
    let mut lines = Lines {
        file: name,
        reader: Some(BufReader::new(file.try_clone()?)),
        failed: None,
        last: true,
        number: at.line,
        good: 0,
        buffer: Vec::new(),
    };
    while let Some(item) = lines.next() {
        if matches!(&item, Err(broken) if broken.is_torn_tail()) {
            break; // not whole yet; it is read again from its start next time
        }
        at.line = lines.number;
        if let Some(reader) = &mut lines.reader {
            at.offset = reader.stream_position()?;
        }
        found.push(item);
    }
    Ok(())
}

fn same_file(path: &Path, file: &File) -> bool {
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}
