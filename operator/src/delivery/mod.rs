//! Memory delivery: values that never rest in etcd go from here to pods, through the node plugin or the agent.
//!
//! - [`ladder`] decides who may have what, purely; `review` asks whose a token is.
//! - [`desk`] answers a call: gathers facts, climbs, opens, has it recorded, and only then gives.
//! - `ca` keeps the certificates, `accept` the connections, [`serve`](mod@serve) ties them to the contract's server.
//!
//! Every replica serves. Nothing is written but the trail, which each replica has for itself, so it needs no leadership.
//! docs/src/delivery.md is the description.

mod accept;
mod ca;
pub mod desk;
pub mod ladder;
pub mod metrics;
mod refusals;
mod review;
pub mod serve;

pub use ca::Bundle;
