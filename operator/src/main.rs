//! `sealedenv-operator`.

use std::process::ExitCode;

use sealedenv_runtime::memory::{self, Wiping};

/// Opened values pass through buffers of HTTP, TLS and JSON.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

#[tokio::main]
async fn main() -> ExitCode {
    sealedenv_operator::run::main().await
}
