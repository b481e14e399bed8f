//! The files of one trail: the current one and those rotated away.
//!
//! `audit.jsonl` is written to; `audit.jsonl.1` is the oldest that was rotated away, `audit.jsonl.2` the next. A
//! number is never given twice while a higher one exists, so rotating is one rename and nothing else moves.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The rotated files of a trail with their numbers, oldest first.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut found = Vec::new();
    for item in fs::read_dir(folder(path))? {
        let item = item?;
        if let Some(number) = number_of(name, &item.file_name()) {
            found.push((number, path.with_file_name(item.file_name())));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// One file of a trail. The current one is open already, for rotation may rename it at any time.
pub(crate) struct Part {
    path: PathBuf,
    file: Option<File>,
}

impl Part {
    /// The file and its path.
    pub(crate) fn open(self) -> Result<(PathBuf, File), (PathBuf, io::Error)> {
        match self.file.map_or_else(|| File::open(&self.path), Ok) {
            Ok(file) => Ok((self.path, file)),
            Err(error) => Err((self.path, error)),
        }
    }
}

/// All files of a trail in the order of their lines: the rotated ones, then the current one if it exists. Never
/// empty. What a rotation does meanwhile makes no hole.
///
/// # Errors
/// The folder or the current file cannot be read, or there is no file of that trail at all
/// ([`io::ErrorKind::NotFound`]).
pub(crate) fn open_trail(path: &Path) -> io::Result<Vec<Part>> {
    for _ in 0..16 {
        // Opened before listing: if a rotation comes between, the file shows up among the rotated ones, and another
        // one may be missing between the two; then look again.
        let current = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let older = rotated(path)?;
        let id = current.as_ref().map(File::metadata).transpose()?.map(|meta| (meta.dev(), meta.ino()));
        let moved = older.iter().rev().any(|(_, file)| {
            fs::symlink_metadata(file).is_ok_and(|meta| Some((meta.dev(), meta.ino())) == id)
        });
        if moved {
            continue;
        }
        let mut parts: Vec<Part> = older.into_iter().map(|(_, path)| Part { path, file: None }).collect();
        parts.extend(current.map(|file| Part { path: path.to_owned(), file: Some(file) }));
        return if parts.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(parts) };
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The folder a file stands in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with `.suffix` after its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
    name.push(OsString::from(format!(".{suffix}")));
    path.with_file_name(name)
}

/// The number of a rotated file, if `candidate` is `name.<n>` with n ≥ 1 in plain decimal.
fn number_of(name: &OsStr, candidate: &OsStr) -> Option<u64> {
    let rest = candidate.as_encoded_bytes().strip_prefix(name.as_encoded_bytes())?.strip_prefix(b".")?;
    let text = std::str::from_utf8(rest).ok()?;
    let number: u64 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_number_and_others_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        assert_eq!(open_trail(&path).err().unwrap().kind(), io::ErrorKind::NotFound);
        for name in ["2", "10", "1", "01", "0", "+3", "torn-1", "4x", ""] {
            fs::write(dir.path().join(format!("audit.jsonl.{name}")), "").unwrap();
        }
        fs::write(dir.path().join("xaudit.jsonl.5"), "").unwrap();
        let names = || -> Vec<String> {
            let parts = open_trail(&path).unwrap();
            parts.iter().map(|part| part.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(), ["audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.10"]);
        fs::write(&path, "").unwrap();
        assert_eq!(names(), ["audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.10", "audit.jsonl"]);
    }
}
