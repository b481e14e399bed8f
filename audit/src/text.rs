//! Lines as bytes, read with a bound.

use std::io::{BufRead, ErrorKind, Result};

use crate::line::MAX_LINE;

/// How reading a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// A whole line; the newline is not in the buffer.
    Newline,
    /// Nothing was left.
    Eof,
    /// Bytes without a newline were left; they are in the buffer.
    Torn,
    /// No newline within [`MAX_LINE`] bytes; the buffer has the beginning, the reader stands behind it.
    TooLong,
}

/// Reads one line of at most [`MAX_LINE`] bytes, so that a hostile file cannot take memory.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<LineEnd> {
    line.clear();
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if buffer.is_empty() {
            return Ok(if line.is_empty() { LineEnd::Eof } else { LineEnd::Torn });
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let end = newline.unwrap_or(buffer.len());
        let room = MAX_LINE - line.len();
        let taken = end.min(room);
        line.extend_from_slice(&buffer[..taken]);
        if end > room {
            reader.consume(taken);
            return Ok(LineEnd::TooLong);
        }
        reader.consume(end + usize::from(newline.is_some()));
        if newline.is_some() {
            return Ok(LineEnd::Newline);
        }
    }
}

/// Reads on behind the next newline, keeping nothing.
pub(crate) fn skip_line(reader: &mut impl BufRead) -> Result<()> {
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(buffer.len(), |at| at + 1);
        reader.consume(taken);
        if newline.is_some() || taken == 0 {
            return Ok(());
        }
    }
}
