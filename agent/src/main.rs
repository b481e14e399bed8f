//! The agent; see the library.

use sealedenv_runtime::memory::{self, Wiping};

/// Values and tokens pass through buffers of gRPC and TLS.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

fn main() -> std::process::ExitCode {
    sealedenv_agent::main()
}
