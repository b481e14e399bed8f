//! What happens to values, Secrets and the trail while things fail. `cargo xtask test faults` provides the cluster and
//! runs one test at a time, because what one breaks all others would see.
//!
//! Each test ends with the [`oracle`]: all Secrets right, trails valid, nothing lost, no restart that was not meant.

mod agent;
mod audit_sinks;
mod canary;
mod certificates;
mod clock;
mod control_plane;
mod crowd;
mod hostile;
mod leader;
mod load;
mod memory;
mod namespaces;
mod node_plugin;
mod operator;
mod oracle;

/// Tells a figure. It is asserted nowhere: how fast a machine is, is no matter of right or wrong.
fn fact(figure: impl std::fmt::Display) {
    use std::io::Write as _;
    // Not by a macro, whose output is shown for failed tests only.
    let _ = writeln!(std::io::stdout(), "fact: faults: {figure}");
}
