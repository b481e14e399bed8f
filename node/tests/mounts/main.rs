//! The plugin on real mounts. Needs root and no cluster: `cargo xtask test node` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod bench;
mod concurrent;
mod death;
mod hostile;
mod publish;
mod refresh;
mod secrecy;
mod unpublish;
