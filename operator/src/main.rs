//! `sealedenv-operator`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    sealedenv_operator::run::main().await
}
