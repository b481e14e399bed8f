//! Real pods in a real cluster, with the chart installed. `cargo xtask test e2e` provides both.

mod aside;
mod audit;
mod flux;
mod keys;
mod metrics;
mod pods;
mod refusal;
mod secrets;
mod survival;
