//! `sealedenv-bench`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    sealedenv_bench::main().await
}
