//! The sink that keeps a file.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use crate::{
    chain::Position,
    sink::{Resumed, Sink, SinkError},
    verify::verify,
};

/// When a file is rotated away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes that a file does not exceed, unless by one write that is larger by itself.
    pub max_bytes: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

/// Keeps a trail in a file (mode 0600) with rotated predecessors.
pub struct FileSink {
    path: PathBuf,
    #[allow(dead_code)]
    rotation: Rotation,
    open: Option<File>,
}

impl FileSink {
    /// A sink for a path. Nothing is touched before the first record.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> Self {
        Self { path: path.into(), rotation, open: None }
    }

    /// A sink whose file was opened, locked, checked and recovered.
    ///
    /// # Errors
    /// [`SinkError`], when the sink could not take a line now.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> Result<Self, SinkError> {
        let mut sink = Self::new(path, rotation);
        sink.resume()?;
        Ok(sink)
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn resume(&mut self) -> Result<Resumed, SinkError> {
        let failed = |source| SinkError::Open { path: self.path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(failed)?;
        let read = File::open(&self.path).map_err(failed)?;
        let head = verify(BufReader::new(read)).map_err(SinkError::Broken)?;
        self.open = Some(file);
        Ok(Resumed { position: Position { seq: head.seq, hash: head.prev }, notices: Vec::new() })
    }

    fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
        let failed = |source| SinkError::Write { sink: "file".to_owned(), source };
        let Some(file) = &mut self.open else { return Err(failed(std::io::ErrorKind::NotConnected.into())) };
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_data().map_err(failed)
    }
}
