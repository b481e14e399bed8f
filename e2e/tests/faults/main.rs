//! What happens to values, Secrets and the trail while things fail. `cargo xtask test faults` provides the cluster and
//! runs one test at a time, because what one breaks all others would see.
//!
//! Each test ends with the [`oracle`]: all Secrets right, trails valid, nothing lost, no restart that was not meant.

mod audit_sinks;
mod canary;
mod certificates;
mod clock;
mod control_plane;
mod crowd;
mod hostile;
mod leader;
mod load;
mod namespaces;
mod operator;
mod oracle;
