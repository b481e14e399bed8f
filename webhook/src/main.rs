//! `sealedenv-webhook`; see the library.

fn main() -> std::process::ExitCode {
    sealedenv_webhook::main()
}
