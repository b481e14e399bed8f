//! The `sealedenv` command.
fn main() {}
