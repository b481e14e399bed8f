//! `sealedenv-webhook`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    sealedenv_webhook::run::main().await
}
