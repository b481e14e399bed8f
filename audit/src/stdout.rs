//! The sink that writes to standard output, or to any other stream.

use std::io::{self, Write};

use crate::{
    chain::Position,
    sink::{Resumed, Sink, SinkError},
};

/// Writes lines to a stream. A new process starts a new chain: nothing can be read back from a stream.
///
/// What takes the stream (a container runtime, a log collector) decides how durable it is.
pub struct StdoutSink<W = Stdout> {
    name: String,
    out: W,
    at: Position,
    torn: bool,
}

/// Standard output without the buffer of [`io::Stdout`], which would blur how far a failed write got.
#[derive(Debug, Default)]
pub struct Stdout(());

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StdoutSink {
    /// Standard output of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::over("stdout", Stdout::default())
    }
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write + Send> StdoutSink<W> {
    /// Any other stream.
    #[must_use]
    pub fn over(name: impl Into<String>, out: W) -> Self {
        Self { name: name.into(), out, at: Position::GENESIS, torn: false }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let mut left = bytes;
        while !left.is_empty() {
            match self.out.write(left) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    left = &left[n..];
                    self.torn = !left.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> SinkError {
        SinkError::Write { sink: self.name.clone(), source }
    }
}

impl<W: Write + Send> Sink for StdoutSink<W> {
    fn name(&self) -> &str {
        &self.name
    }

    /// Ends a line that was written in part, so that the next one stands on a line of its own. The mark keeps a line
    /// that lacked nothing but its newline from becoming a whole one: the chain goes on from the line before it.
    fn resume(&mut self) -> Result<Resumed, SinkError> {
        if self.torn {
            self.write(b" #torn\n")?;
        }
        Ok(Resumed { position: self.at, notices: Vec::new() })
    }

    fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
        for line in lines {
            self.write(format!("{line}\n").as_bytes())?;
            self.at = self.at.after(line);
        }
        self.out.flush().map_err(|source| self.failed(source))
    }
}
