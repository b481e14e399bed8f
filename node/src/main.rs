//! `sealedenv-node`; see the library.

use sealedenv_runtime::memory::{self, Wiping};

/// Values and tokens pass through buffers of HTTP, TLS and gRPC.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

fn main() -> std::process::ExitCode {
    sealedenv_node::main()
}
