//! All components in one program; see the library.

use sealedenv_runtime::memory::{self, Wiping};

/// Opened values pass through buffers of HTTP, TLS and JSON, and past here come values that were put into an object by
/// mistake.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

fn main() -> std::process::ExitCode {
    sealedenv_image::main()
}
