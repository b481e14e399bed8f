//! `sealedenv-operator`; see the library.

fn main() -> std::process::ExitCode {
    sealedenv_operator::main()
}
