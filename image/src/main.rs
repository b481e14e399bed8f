//! All components in one program; see the library.

fn main() -> std::process::ExitCode {
    sealedenv_image::main()
}
