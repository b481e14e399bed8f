//! Asking for a value on a terminal.
//!
//! The crates for this either drop control characters from what was typed, or ask before they turn the echo off. A
//! value has to arrive as it was typed or pasted, whatever its length, and must not be shown.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use sealedenv_seal::{MAX_VALUE, Plain};
use zeroize::Zeroizing;

const INTERRUPT: u8 = 0x03; // Ctrl-C
const END: u8 = 0x04; // Ctrl-D
const ERASE_LINE: u8 = 0x15; // Ctrl-U
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

/// Whether standard input is a terminal.
pub(crate) fn is_stdin() -> bool {
    io::stdin().is_terminal()
}

/// Asks for one line on the terminal that is standard input. Nothing of it is shown.
pub(crate) fn ask(prompt: &str) -> io::Result<Plain> {
    let stdin = io::stdin();
    let hidden = Hidden::new(stdin.as_fd())?;
    // Only now, so that nothing that is typed at once can be shown. Without a screen there is nobody to ask.
    write!(io::stderr(), "{}: ", sealedenv_audit::escape(prompt))?;
    let line = read_line(std::fs::File::from(stdin.as_fd().try_clone_to_owned()?));
    drop(hidden);
    writeln!(io::stderr())?;
    line
}

/// A terminal that shows nothing of what is typed and hands over every byte; as it was before when dropped.
struct Hidden<F: AsFd> {
    terminal: F,
    before: Termios,
}

impl<F: AsFd> Hidden<F> {
    fn new(terminal: F) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        // Not line by line, or the kernel would cut a line at 4,095 bytes.
        hidden.local_modes &=
            !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl<F: AsFd> Drop for Hidden<F> {
    fn drop(&mut self) {
        // There is nothing else to try.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads up to Enter or Ctrl-D, with the keys for erasing.
fn read_line(mut from: impl Read) -> io::Result<Plain> {
    // Of the largest size from the start, so that no copy stays behind; pages that are not used cost nothing.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 1));
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        if from.read(&mut *byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Err(io::Error::other("interrupted")),
            ERASE_LINE => line.clear(),
            erase if BACKSPACE.contains(&erase) => {
                // A whole character: its following bytes are 10xxxxxx.
                while line.pop().is_some_and(|last| last & 0b1100_0000 == 0b1000_0000) {}
            }
            _ if line.len() == MAX_VALUE => {
                return Err(io::Error::other("the value is too large to be sealed"));
            }
            other => line.push(other),
        }
    }
    Ok(Plain::new(std::mem::take(&mut line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_was_typed() {
        for (typed, line) in [
            (&b"hunter2\n"[..], &b"hunter2"[..]),
            (b"a\tb\x1b[A\n", b"a\tb\x1b[A"),
            (b"hunterX\x7f2\r", b"hunter2"),
            ("aä€\x7f\x08\n".as_bytes(), b"a"),
            (b"wrong\x15right\x04more", b"right"),
            (b"\x7f\n", b""),
            (b"no end", b"no end"),
        ] {
            let read = read_line(typed).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.expose(), line);
        }
        assert!(read_line(&b"hun\x03ter2\n"[..]).is_err());
        let long = [vec![b'x'; MAX_VALUE], b"\n".to_vec()].concat();
        assert_eq!(read_line(&long[..]).unwrap_or_else(|error| panic!("{error}")).len(), MAX_VALUE);
        assert!(read_line(&vec![b'x'; MAX_VALUE + 1][..]).is_err());
    }
}
