//! What the fuzz targets do: one module a target. Each has `run`, which panics where a promise is broken, and `seeds`,
//! the inputs to begin with.
//!
//! `docs/src/fuzzing.md` says which promise each target holds up, and how they are run.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admission;
pub mod audit_line;
pub mod audit_trail;
pub mod dotenv;
pub mod manifest;
pub mod sealed_open;
pub mod sealed_text;
pub mod template;

/// The writer of vectors: it can write what the crate under test must not.
#[allow(dead_code, clippy::pedantic)]
#[path = "../../seal/examples/vectors/generate/mod.rs"]
mod generate;

use std::path::{Path, PathBuf};

/// A first input and its name.
pub type Seed = (String, Vec<u8>);

/// Names the folder that seeds are to be written to instead of fuzzing.
const SEEDS: &str = "SEALEDENV_FUZZ_SEEDS";

/// Called once before a target's first input. With `SEALEDENV_FUZZ_SEEDS` set, the target writes its seeds into that
/// folder and ends: its seeds are made by the code that it is built from, and no copy of them can grow stale.
pub fn start(seeds: fn() -> Vec<Seed>) {
    let Some(folder) = std::env::var_os(SEEDS) else { return };
    for (name, bytes) in seeds() {
        let file = Path::new(&folder).join(&name);
        if let Err(error) = std::fs::write(&file, bytes) {
            eprintln!("error: writing the seed {}: {error}", file.display());
            std::process::exit(1);
        }
    }
    std::process::exit(0);
}

/// A folder of the checkout.
fn checkout(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}

/// Every file directly in a folder of the checkout whose name ends so, by name, with its bytes.
fn files(folder: &str, end: &str) -> Vec<Seed> {
    let folder = checkout(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<Seed> = entries
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.is_file())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            name.ends_with(end).then(|| (name, std::fs::read(&path).expect("a file that is there")))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no seed in {}", folder.display());
    found
}
