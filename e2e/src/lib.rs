//! Harness for black-box tests: runs kubectl and the built binaries, never the libraries.
//!
//! - [`setting`]: where everything is, from the environment that `cargo xtask test` sets.
//! - [`cluster`]: kubectl, temporary namespaces, waiting on conditions.
//! - [`flux`]: Flux at work in one namespace, and git for it.
//! - [`page`]: the pages of the book, for tests that run what they say.
//! - [`operator`]: operators that a test starts by itself; [`proxy`]: a way to the API server that it can cut.
//! - [`seal`](mod@seal): the CLI as a developer would use it, and manifests.
//! - [`requests`]: many requests to the API server at once.
//! - [`release`]: the pods that the chart installed, and other values for the time of a test.
//! - [`process`]: processes of pods, signals, and what is in their memory.
//!
//! Tests wait on conditions with a deadline. What a wait last saw is part of its failure.

pub mod cluster;
pub mod flux;
pub mod operator;
pub mod page;
pub mod process;
pub mod proxy;
pub mod release;
pub mod requests;
pub mod seal;
pub mod setting;
