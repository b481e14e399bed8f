//! `sealedenv-webhook`; see the library.

use sealedenv_runtime::memory::{self, Wiping};

/// What is put into an object by mistake comes past here before it is refused.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

fn main() -> std::process::ExitCode {
    sealedenv_webhook::main()
}
