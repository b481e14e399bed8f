//! Runs the built `sealedenv`.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, clippy::panic, reason = "in tests")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary that this test was built with.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_sealedenv");

/// What a run gave.
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output, as bytes.
    pub(crate) out: Vec<u8>,
    /// Standard error.
    pub(crate) err: String,
}

impl Run {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.out).expect("text")
    }

    /// Standard output without its last line break, of a run that must have gone well.
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.err);
        self.text().trim_end_matches('\n')
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", output.status)),
            out: output.stdout,
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// `sealedenv` with these arguments, in a folder.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.current_dir(folder).args(args).env_remove("KUBECONFIG").env("HOME", folder);
    command
}

/// Runs with this on standard input.
pub(crate) fn with_input(mut command: Command, input: &[u8]) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawned");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    // A command that refuses its arguments does not read.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("writer");
    output.into()
}

/// Runs in a folder with nothing on standard input.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Run {
    with_input(command(folder, args), b"")
}

/// Makes an identity file in a folder and gives its recipient.
pub(crate) fn keygen(folder: &Path, file: &str) -> String {
    run(folder, &["keygen", "-o", file]).ok().to_owned()
}

/// Seals a value for `shop/checkout`.
pub(crate) fn sealed(folder: &Path, recipient: &str, key: &str, value: &[u8]) -> String {
    let args = ["-q", "value", "seal", "-n", "shop", "--name", "checkout", "-k", key, "-r", recipient];
    with_input(command(folder, &args), value).ok().to_owned()
}

/// Opens a value of `shop/checkout`.
pub(crate) fn opened(folder: &Path, identity: &str, key: &str, sealed: &str) -> Run {
    let args = ["value", "open", "-n", "shop", "--name", "checkout", "-k", key, "-i", identity];
    with_input(command(folder, &args), sealed.as_bytes())
}
