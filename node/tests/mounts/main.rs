//! The plugin on real mounts. Needs root and no cluster: `cargo xtask test node` runs it.

mod bench;
mod concurrent;
mod death;
mod hostile;
mod publish;
mod refresh;
mod secrecy;
mod unpublish;
