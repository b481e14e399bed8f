//! The `sealedenv` command; see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sealedenv_cli::main()
}
