//! How the static program of all components is linked, so that it is small. Other builds are left alone: the linker that
//! rustc brings, and only for x86-64, knows both.
//!
//! - Addresses that are known only when it is loaded stand in their short form (DT_RELR): 1.7 MB of 25. A static program
//!   relocates itself, so only the C library that is linked in has to know the form: glibc since 2.36.
//! - Functions of the same machine code are one (`--icf=all`): 0.9 MB. They have the same address then, which Rust allows, and
//!   nothing here compares addresses of functions.
#![allow(clippy::print_stdout, reason = "cargo reads it")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_static = of_target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if is_static && of_target("ARCH") == "x86_64" {
        for option in ["-z,pack-relative-relocs", "--icf=all"] {
            println!("cargo::rustc-link-arg-bins=-Wl,{option}");
        }
    }
}
