//! Memory delivery: values that never rest in etcd go from here to pods, through the node plugin or the agent.
//!
//! - [`ladder`] decides who may have what, purely; `review` asks whose a token is.
//! - [`desk`] answers a call: gathers facts (`look`), climbs, opens (`opening`), has it recorded (`account`), and only then
//!   gives.
//! - `consumers` decides, purely, what a status tells of pods that hold its values; [`book`] tells it.
//! - [`asking`] is the pod as it is read; `gate` says how many calls are worked on at once.
//! - `ca` keeps the certificates, `accept` the connections, [`serve`](mod@serve) ties them to the contract's server.
//!
//! Every replica serves. Nothing is released by a write: there is the trail, which each replica has for itself, and what
//! statuses tell of pods, which holds only on the version that was read. So it needs no leadership.
//! docs/src/delivery.md is the description.

mod accept;
mod account;
mod aged;
pub mod asking;
pub mod book;
mod ca;
mod consumers;
pub mod desk;
mod gate;
pub mod ladder;
mod look;
pub mod metrics;
mod opening;
mod refusals;
mod review;
pub mod serve;

pub use ca::Bundle;
