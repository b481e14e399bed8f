//! The format as others see it: golden vectors, bounds, properties.

// What is allowed in tests is allowed in the functions they share.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../examples/vectors/generate/mod.rs"]
mod generate;

mod bounds;
mod cctv;
mod properties;
mod vectors;

use std::io::Write as _;

use sealedenv_seal::{Identity, Keyring, Plain};

use crate::generate::Key;

fn ring(keys: &[&Key]) -> Keyring {
    Keyring::new(keys.iter().map(|key| Identity::parse(key.identity).unwrap()).collect())
}

fn plain(bytes: &[u8]) -> Plain {
    Plain::from(bytes.to_vec())
}

/// Says a figure past the capture of test output: `cargo xtask test` repeats such lines at its end.
fn fact(text: &str) {
    let line = format!("\nfact: {text}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
