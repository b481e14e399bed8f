//! The few calls that change a file's content, behind a trait so that tests can make each of them fail.

use std::{fs::File, io, io::Write as _};

/// What a sink does to its open file.
pub(crate) trait Disk: Send {
    /// Appends some of the bytes and says how many.
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable (`fdatasync`).
    fn sync(&mut self, file: &File) -> io::Result<()>;
    /// Cuts the file to a length.
    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()>;
}

/// The real calls.
pub(crate) struct Kernel;

impl Disk for Kernel {
    fn write(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
}
