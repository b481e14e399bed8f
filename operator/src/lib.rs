//! The operator: opens sealed values with the cluster's keys and reconciles them into Secrets.
//!
//! - [`plan`] decides about one SealedEnv, purely; [`keys::decide`] decides about keys, purely.
//! - [`opened`], [`files`] and [`digest`] prepare their input, also purely.
//! - [`reconcile`](mod@reconcile) looks, asks `plan`, records, writes and tells; `apply` does the writes.
//! - [`controller`] turns watches into a queue of objects; [`known`] and [`secrets`] are what it remembers.
//! - [`delivery`] gives values to pods that hold them in memory, on leader and standbys alike.
//! - [`leader`] decides which replica works; [`client`] lets no write pass without that.
//! - [`metrics`] counts; [`queue`] and [`objects`] are what it looks at when it is asked.
//! - [`run`](mod@run) wires it all to flags, signals and servers.

mod apply;
pub mod args;
pub mod arrival;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod controller;
pub mod delivery;
mod departed;
pub mod digest;
pub mod files;
pub mod keys;
pub mod known;
pub mod leader;
pub mod metrics;
pub mod notices;
pub mod objects;
pub mod opened;
pub mod plan;
pub mod queue;
pub mod reason;
pub mod reconcile;
pub mod repairs;
pub mod run;
pub mod secrets;
pub mod trace;
pub mod trail;
pub mod undecodable;
mod watching;

/// The operator's name in audit records and Events.
pub const ACTOR: &str = "sealedenv-operator";

/// Runs the operator until a signal or a failure to start.
///
/// # Panics
/// When the system gives no threads or no event queue to run on.
#[tokio::main]
pub async fn main() -> std::process::ExitCode {
    run::main().await
}
