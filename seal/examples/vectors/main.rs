//! Writes the golden vectors of `seal/vectors/`. The same run always writes the same bytes.
//!
//!     cargo run -p sealedenv-seal --example vectors
//!
//! It has a writer of its own (`generate/forge.rs`), not the one under test: vectors of refusals need files that no
//! honest writer makes, with a MAC that is valid all the same. The vectors `foreign-*` were made once by other
//! programs and are not written here.

use std::io;
use std::path::Path;

mod generate;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for case in generate::all() {
        std::fs::write(folder.join(case.name), case.file())?;
    }
    Ok(())
}
