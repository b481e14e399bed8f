//! Writes the Rust of a .proto file into a folder: `cargo xtask gen` calls it. Needs no protoc.
//!
//! `protogen INCLUDE FILE FOLDER` writes FOLDER/PACKAGE.rs. No message gets `Debug`: tokens and values travel in them.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [include, file, folder] =
        <[PathBuf; 3]>::try_from(std::env::args_os().skip(1).map(PathBuf::from).collect::<Vec<_>>())
            .map_err(|_| "usage: protogen INCLUDE FILE FOLDER")?;
    let files = protox::compile([include.join(file)], [include])?;
    tonic_prost_build::configure()
        .skip_debug(["."])
        .emit_rerun_if_changed(false)
        .out_dir(folder)
        .compile_fds(files)?;
    Ok(())
}
