//! Has the addresses in the image's program that are known only when it is loaded written in the short form (DT_RELR), which
//! saves 1.7 MB of 25. A static program relocates itself, so only the C library that is linked in has to know the form: glibc
//! since 2.36. A dynamic build on an older system would not start, and is left alone.
#![allow(clippy::print_stdout, reason = "cargo reads it")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
