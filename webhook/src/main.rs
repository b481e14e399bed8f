//! `sealedenv-webhook`.

use std::process::ExitCode;

use sealedenv_runtime::memory::{self, Wiping};

/// What is put into an object by mistake comes past here before it is refused.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

// Requests are decided on these threads, so their number bounds how many objects are taken apart at one time.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    sealedenv_webhook::run::main().await
}
