//! Transcripts of the command line, as data: `tests/cmd/*.trycmd` and `*.toml`.
//!
//! `TRYCMD=overwrite cargo test -p sealedenv-cli --test cmd` writes what it says now; read the diff.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .env("HOME", "/nonexistent")
        .env("KUBECONFIG", "")
        .case("tests/cmd/*.trycmd")
        .case("tests/cmd/*.toml");
}
