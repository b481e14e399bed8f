//! The agent: two containers that the webhook adds to a pod, and that give it the files of SealedEnvs in memory. No node
//! plugin is needed, and no privilege. docs/src/agent.md tells how they come into a pod and what each failure leaves.
//!
//! | question | where |
//! |---|---|
//! | when is the operator asked again? | [`pace`], pure |
//! | whose are the files? | [`folder`] |
//! | whom is it to trust? | [`trust`] |
//! | who is told that files changed? | [`signal`], [`program`] |
//! | what does one look at the operator do? | [`round`](mod@round) |
//! | how is it put together? | [`run`](mod@run), [`args`] |
//!
//! # Promises
//!
//! * It holds no key and no credential for the API server: what it shows the operator is a token for the operator only.
//! * A folder is empty or complete. A refresh that fails leaves what was there.
//! * No line is logged with any part of a token or a value in it.

pub mod args;
pub mod folder;
pub mod pace;
pub mod program;
pub mod round;
pub mod run;
pub mod signal;
pub mod trust;

/// Runs the agent until its files are there (`init`) or until a signal (`refresh`).
///
/// # Panics
/// When the system gives no event queue to run on.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> std::process::ExitCode {
    run::main().await
}
