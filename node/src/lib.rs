//! The node plugin: the CSI driver `csi.sealedenv.dev`, which gives pods the files of a SealedEnv in memory.
//! docs/src/node.md tells what is on disk at each step, and what each failure leaves.
//!
//! | question | where |
//! |---|---|
//! | which paths are touched at all? | [`target`], pure; [`place`] opens them |
//! | what does the kubelet ask for? | [`request`], pure |
//! | what does that mean, given what is there? | [`publish`], pure |
//! | where do files come from? | [`source`] |
//! | how is a tmpfs made, shown and taken away? | [`mount`] |
//! | how do files get into it, all at once? | [`sealedenv_volume`], which the agent uses as well |
//! | what does the kubelet call? | [`node`], [`identity`], [`registration`] |
//! | how is it put together? | [`run`](mod@run), [`args`] |
//!
//! # Promises
//!
//! * It holds no key, and needs no right in the cluster: the operator decides whose files are given, and records it first.
//! * A target is empty or complete. A refresh that fails leaves what was there, and is no error to the kubelet.
//! * Nothing is mounted on, unmounted or removed that it did not make; no link is followed.
//! * No line is logged, and no message sent, with any part of a token or a value in it.

pub mod args;
pub mod identity;
pub mod metrics;
pub mod mount;
pub mod node;
pub mod place;
pub mod publish;
pub mod registration;
pub mod request;
pub mod run;
pub mod socket;
pub mod source;
pub mod target;
mod volumes;
pub mod wire;

/// The name of the driver.
pub const DRIVER: &str = "csi.sealedenv.dev";

/// Runs the plugin until a signal or a failure to start.
///
/// # Panics
/// When the system gives no threads or no event queue to run on.
#[tokio::main(worker_threads = 2)]
pub async fn main() -> std::process::ExitCode {
    run::main().await
}
