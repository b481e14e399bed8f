//! `sealedenv-webhook`.

use std::process::ExitCode;

// Requests are decided on these threads, so their number bounds how many objects are taken apart at one time.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    sealedenv_webhook::run::main().await
}
