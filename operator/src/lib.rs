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
pub fn main() -> std::process::ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads(cores)).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::main()),
        Err(error) => {
            eprintln!("error: starting threads: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Threads for what waits for answers of the API server, which takes most of the processors. With one for each, they wake each
/// other for nearly every answer, and that was a tenth of all CPU time. Opening many values goes to threads of its own; a page
/// of many large objects of a list holds one of these for some time.
fn threads(cores: usize) -> usize {
    (cores / 2).clamp(1, 4)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_few_threads_and_never_none() {
        for (cores, threads) in [(0, 1), (1, 1), (2, 1), (4, 2), (8, 4), (64, 4)] {
            assert_eq!(super::threads(cores), threads, "{cores} cores");
        }
    }
}
