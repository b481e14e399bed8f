//! What travels, made from `node/proto/` by `cargo xtask gen`. No message has `Debug`: tokens travel in them.
#![allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    rust_2018_idioms,
    rustdoc::all,
    unreachable_pub,
    reason = "made from the .proto files, which document it"
)]

/// CSI, version 1.
pub mod csi {
    include!("wire/csi/csi.v1.rs");
}

/// The kubelet's plugin registration, version 1.
pub mod registration {
    include!("wire/registration/pluginregistration.rs");
}
