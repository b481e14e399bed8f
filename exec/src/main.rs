//! `sealedenv-exec`; see the library.

fn main() -> std::process::ExitCode {
    sealedenv_exec::main()
}
