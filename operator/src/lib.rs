//! The operator: opens sealed values with the cluster's keys and reconciles them into Secrets.
//!
//! - [`plan`] decides, purely: what is wanted and what was seen go in, writes, records and status come out.
//! - [`opened`] and [`digest`] prepare its input, also purely.

pub mod digest;
pub mod opened;
pub mod plan;
pub mod reason;
