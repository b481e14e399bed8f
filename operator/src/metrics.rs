//! What the operator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sealedenv_crds::{SealedEnvStatus, condition};

use crate::leader::Role;
use crate::opened::Opened;

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Why a value did not open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fault {
    reason: &'static str,
}

/// The operator's metrics.
#[derive(Clone, Default)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    opened: Counter,
    unopened: Family<Fault, Counter>,
    audit_failures: Counter,
    leader: Gauge,
    leader_transitions: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "reconciles",
            "Reconciles by how they ended: ready, not_ready, error",
            metrics.reconciles.clone(),
        );
        registry.register("opened_values", "Sealed values that were opened", metrics.opened.clone());
        registry.register(
            "unopened_values",
            "Sealed values that could not be opened, by reason",
            metrics.unopened.clone(),
        );
        registry.register(
            "audit_failures",
            "Reconciles held back because no audit sink took the record",
            metrics.audit_failures.clone(),
        );
        registry.register("leader", "Whether this replica leads: 1 or 0", metrics.leader.clone());
        registry.register(
            "leader_transitions",
            "How often this replica began or ceased to lead",
            metrics.leader_transitions.clone(),
        );
        metrics
    }

    /// Notes the role at start.
    pub(crate) fn role(&self, role: Role) {
        self.leader.set(i64::from(role != Role::Standby));
    }

    /// Notes another role.
    pub(crate) fn role_changed(&self, role: Role) {
        self.role(role);
        self.leader_transitions.inc();
    }

    pub(crate) fn opened(&self, opened: &Opened) {
        for key in opened.0.values() {
            match &key.value {
                Ok(_) => self.opened.inc(),
                Err(fault) => self.unopened.get_or_create(&Fault { reason: fault.reason }).inc(),
            };
        }
    }

    pub(crate) fn reconciled(&self, status: &SealedEnvStatus) {
        let ready = condition::status_of(&status.conditions, condition::READY) == Some("True");
        self.count(if ready { "ready" } else { "not_ready" });
    }

    pub(crate) fn failed(&self) {
        self.count("error");
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failures.inc();
    }

    fn count(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
    }
}
