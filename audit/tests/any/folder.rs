//! A folder with a trail in it.
#![allow(dead_code)] // each test binary uses its part

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sealedenv_audit::{FileSink, Head, Notice, Rotation, Sink as _, SinkError, Start, append, verify_files};

use super::{numbered, time};

pub(crate) const NEVER: Rotation = Rotation { max_bytes: 0 };

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.at("audit.jsonl")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Appends records as the log does, and gives what the sink had to say.
pub(crate) fn write(sink: &mut FileSink, count: u64) -> Result<Vec<Notice>, SinkError> {
    let resumed = sink.resume()?;
    let mut head = Head::at(resumed.position, "op-0");
    for _ in 0..count {
        let (line, next) = append(&head, time(0), &numbered(head.seq + 1));
        sink.append(&[line])?;
        head = next;
    }
    Ok(resumed.notices)
}

pub(crate) fn lines(path: &Path) -> u64 {
    verify_files(path, Start::Genesis).unwrap().lines
}

pub(crate) fn open(path: impl Into<PathBuf>) -> Result<FileSink, SinkError> {
    FileSink::open(path, NEVER)
}

/// This test binary again, running one of the ignored tests below as another process.
pub(crate) fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("AUDIT_PATH", path);
    command
}
