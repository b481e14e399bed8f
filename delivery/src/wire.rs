//! The messages as protobuf knows them: made by `cargo xtask gen` from proto/, and one thing that it cannot make.

#![allow(
    clippy::pedantic,
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    reason = "made from the .proto, which documents it"
)]

use zeroize::Zeroize as _;

include!("wire/sealedenv.delivery.v1.rs");

impl Drop for File {
    fn drop(&mut self) {
        self.content.zeroize();
    }
}
