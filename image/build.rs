//! How the static program of all components is linked, so that it is small. A build for a developer's machine is left alone.
//!
//! - Addresses that are known only when it is loaded stand in their short form (DT_RELR): 1.7 MB of 25. A static program
//!   relocates itself, so only the C library that is linked in has to know the form: glibc since 2.36.
//! - Functions of the same machine code are one (`--icf=all`, of the linker that rustc brings): 0.9 MB. They have the same
//!   address then, which Rust allows, and nothing here compares addresses of functions.
#![allow(clippy::print_stdout, reason = "cargo reads it")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        for option in ["-z,pack-relative-relocs", "--icf=all"] {
            println!("cargo::rustc-link-arg-bins=-Wl,{option}");
        }
    }
}
