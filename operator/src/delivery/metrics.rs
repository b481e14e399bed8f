//! What is counted of deliveries.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::consumers::Tally;
use super::ladder::RUNGS;

/// How a SealedEnv that was asked for was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Why a call, or a SealedEnv that was asked for, was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

/// How a pod stands to what its SealedEnv is now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Clones share the numbers.
#[derive(Clone)]
pub struct Deliveries {
    answers: Family<Outcome, Counter>,
    refusals: Family<Refusal, Counter>,
    seconds: Histogram,
    pods: Family<State, Gauge>,
}

impl Default for Deliveries {
    fn default() -> Self {
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 12));
        let deliveries = Self {
            answers: Family::default(),
            refusals: Family::default(),
            seconds,
            pods: Family::default(),
        };
        // Each a series from the start: an alert on an increase sees the first one.
        for outcome in ["released", "unchanged", "refused"] {
            drop(deliveries.answers.get_or_create(&Outcome { outcome }));
        }
        for reason in RUNGS.iter().map(|rung| rung.name).chain(OTHERS) {
            drop(deliveries.refusals.get_or_create(&Refusal { reason }));
        }
        deliveries.pods(Tally::default());
        deliveries
    }
}

/// Reasons beside the rungs.
const OTHERS: [&str; 5] = ["Opened", "Sized", "Room", "ApiServer", "Time"];

impl Deliveries {
    /// Adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let deliveries = Self::default();
        let all = deliveries.clone();
        registry.register(
            "deliveries",
            "SealedEnvs that pods asked for, by how they were answered",
            all.answers,
        );
        registry.register(
            "delivery_refusals",
            "Calls, or SealedEnvs in them, that were refused, by what was missing",
            all.refusals,
        );
        registry.register_with_unit(
            "delivery_duration",
            "Time from a call of the delivery API to its answer",
            Unit::Seconds,
            all.seconds,
        );
        registry.register(
            "delivery_pods",
            "Pods with files in memory, by what they have, as this replica last saw it. Each sees nearly all: take the largest",
            all.pods,
        );
        deliveries
    }

    /// Pods of all SealedEnvs.
    pub(crate) fn pods(&self, sum: Tally) {
        for (state, pods) in [("current", sum.current), ("outdated", sum.outdated), ("refused", sum.refused)]
        {
            self.pods.get_or_create(&State { state }).set(pods);
        }
    }

    pub(crate) fn released(&self) {
        self.answers.get_or_create(&Outcome { outcome: "released" }).inc();
    }

    pub(crate) fn unchanged(&self) {
        self.answers.get_or_create(&Outcome { outcome: "unchanged" }).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.answers.get_or_create(&Outcome { outcome: "refused" }).inc();
        self.refusals.get_or_create(&Refusal { reason }).inc();
    }

    /// A whole call was refused.
    pub(crate) fn turned_away(&self, reason: &'static str) {
        self.refusals.get_or_create(&Refusal { reason }).inc();
    }

    pub(crate) fn took(&self, seconds: f64) {
        self.seconds.observe(seconds);
    }
}
