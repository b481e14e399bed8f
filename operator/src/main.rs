//! `sealedenv-operator`; see the library.

use sealedenv_runtime::memory::{self, Wiping};

/// Opened values pass through buffers of HTTP, TLS and JSON.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

fn main() -> std::process::ExitCode {
    sealedenv_operator::main()
}
