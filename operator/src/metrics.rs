//! What the operator counts. Every metric, with its labels, stands in docs/src/metrics.md.

use std::fmt::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sealedenv_audit::Log;

use crate::apply::WriteError;
use crate::leader::{NotLeading, Role};
use crate::objects::Objects;
use crate::opened::Opened;
use crate::queue::Queues;
use crate::reconcile::ReconcileError;

/// What every metric's name begins with.
pub const METRICS_PREFIX: &str = "sealedenv_operator";

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do: nothing was opened, nothing written.
    Unchanged,
    /// The object is as its spec says.
    Ready,
    /// It is not; its status says why.
    NotReady,
    /// It is gone.
    Gone,
    /// Another replica leads by now, and goes on with it.
    Left,
    /// It will be tried again.
    Error,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Unchanged, Self::Ready, Self::NotReady, Self::Gone, Self::Left, Self::Error];

    /// Of a reconcile that ended in an error.
    pub(crate) fn of_error(error: &ReconcileError) -> Self {
        if NotLeading::is_in(error) { Self::Left } else { Self::Error }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Gone => "gone",
            Self::Left => "left",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fault {
    reason: &'static str,
}

/// Of a metric that can be absent.
type NoLabels = [(&'static str, &'static str); 0];

/// Reasons of errors, each a series from the start: an alert on an increase sees the first one.
const ERRORS: [&str; 6] = ["read", "write_secret", "write_status", "conflict", "audit", "panic"];

fn reason(error: &ReconcileError) -> &'static str {
    match error {
        ReconcileError::Read(_) => "read",
        ReconcileError::Write(WriteError::Secret { .. } | WriteError::Refused { .. }) => "write_secret",
        ReconcileError::Write(WriteError::Status(_)) => "write_status",
        ReconcileError::Write(WriteError::Stale) | ReconcileError::Moving => "conflict",
        ReconcileError::NotRecorded(_) => "audit",
        ReconcileError::Panicked => "panic",
    }
}

/// The operator's metrics. Clones share the numbers.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Ended, Counter>,
    seconds: Family<Ended, Histogram, fn() -> Histogram>,
    errors: Family<Fault, Counter>,
    opened: Counter,
    unopened: Family<Fault, Counter>,
    audit_failures: Counter,
    records: Records,
    keys: Gauge,
    key_made: Family<NoLabels, Gauge>,
    undecodable: Gauge,
    leader: Gauge,
    leader_transitions: Counter,
    /// What waits for a worker.
    pub queues: Queues,
    /// The state of each object.
    pub objects: Objects,
}

/// What the audit log counts by itself; nothing before it is open.
#[derive(Clone, Default)]
struct Records(Arc<OnceLock<Arc<Log>>>);

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Collector for Records {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let counted = self.0.get().map(|log| log.counters()).unwrap_or_default();
        for (name, help, value) in [
            ("audit_records_taken", "Audit records that at least one sink took.", counted.taken),
            (
                "audit_records_failed",
                "Audit records that no sink took, refused to their author.",
                counted.failed,
            ),
            ("audit_records_lost", "Audit records that no sink took, lost.", counted.lost),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            // From 1 ms, the API server's own speed, to 32 s, far beyond its time-outs.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            errors: Family::default(),
            opened: Counter::default(),
            unopened: Family::default(),
            audit_failures: Counter::default(),
            records: Records::default(),
            keys: Gauge::default(),
            key_made: Family::default(),
            undecodable: Gauge::default(),
            leader: Gauge::default(),
            leader_transitions: Counter::default(),
            queues: Queues::default(),
            objects: Objects::default(),
        };
        for outcome in Outcome::ALL {
            drop(metrics.reconciles.get_or_create(&Ended { outcome: outcome.word() }));
        }
        for reason in ERRORS {
            drop(metrics.errors.get_or_create(&Fault { reason }));
        }
        metrics
    }
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let all = metrics.clone();
        registry.register("reconciles", "Reconciles by how they ended", all.reconciles);
        registry.register_with_unit(
            "reconcile_duration",
            "Time from a worker's taking up an object to the end of its work, by how it ended",
            Unit::Seconds,
            all.seconds,
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that failed and will be tried again, by reason",
            all.errors,
        );
        registry.register("opened_values", "Sealed values that were opened", all.opened);
        registry.register(
            "unopened_values",
            "Sealed values that could not be opened, by reason",
            all.unopened,
        );
        registry.register(
            "audit_failures",
            "Reconciles held back because no audit sink took the record",
            all.audit_failures,
        );
        registry.register("sealing_keys", "Usable sealing keys in the cluster's key Secrets", all.keys);
        registry.register_with_unit(
            "current_sealing_key_created_timestamp",
            "When the sealing key that new values are sealed to was made; absent where that is not known",
            Unit::Seconds,
            all.key_made,
        );
        registry.register(
            "undecodable_sealedenvs",
            "SealedEnvs that do not decode as this version's, and are left alone",
            all.undecodable,
        );
        registry.register("leader", "Whether this replica leads: 1 or 0", all.leader);
        registry.register(
            "leader_transitions",
            "How often this replica began or ceased to lead",
            all.leader_transitions,
        );
        registry.register_collector(Box::new(all.records));
        registry.register_collector(Box::new(all.queues));
        registry.register_collector(Box::new(all.objects));
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

    /// Counts a reconcile that came to an end, and the time it took.
    pub fn ended(&self, outcome: Outcome, took: Duration) {
        let ended = Ended { outcome: outcome.word() };
        self.reconciles.get_or_create(&ended).inc();
        self.seconds.get_or_create(&ended).observe(took.as_secs_f64());
    }

    /// Counts why a reconcile is tried again; that it ended is counted by [`Metrics::ended`].
    pub(crate) fn failed(&self, error: &ReconcileError) {
        self.errors.get_or_create(&Fault { reason: reason(error) }).inc();
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failures.inc();
    }

    /// Tells from now on what the audit log counts. One log only: the first.
    pub fn follow(&self, log: &Arc<Log>) {
        drop(self.records.0.set(Arc::clone(log)));
    }

    /// How many keys there are, and when the current one was made.
    pub(crate) fn keys(&self, usable: usize, current_made: Option<Timestamp>) {
        self.keys.set(i64::try_from(usable).unwrap_or(i64::MAX));
        match current_made {
            Some(made) => drop(self.key_made.get_or_create(&[]).set(made.as_second())),
            None => self.key_made.clear(),
        }
    }

    /// So many objects more (or fewer) do not decode.
    pub(crate) fn undecodable(&self, more: i64) {
        self.undecodable.inc_by(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use sealedenv_runtime::api::ApiMetrics;
    use sealedenv_runtime::metrics::{Build, registry, shape};
    use tower::{Layer as _, ServiceExt as _};

    use crate::known::Known;

    /// Every metric there is, each with a series.
    fn exposition() -> String {
        let build = Build { version: "0.0.0".into(), component: crate::ACTOR.into() };
        let mut registry = registry(METRICS_PREFIX, &build);
        let metrics = Metrics::register(&mut registry);
        crate::delivery::metrics::Deliveries::register(&mut registry).took(0.007);
        let api = ApiMetrics::register(&mut registry);
        metrics.ended(Outcome::Ready, Duration::from_millis(7));
        metrics.unopened.get_or_create(&Fault { reason: "NoIdentity" }).inc();
        metrics.keys(1, Some(Timestamp::UNIX_EPOCH));
        let mut writer = Writer::<Known>::default();
        metrics.objects.add(writer.as_reader());
        metrics.objects.limit(1);
        let env = serde_json::json!({
            "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "Delivered", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "keys": [{"name": "A", "class": "secret", "source": "Sealed", "state": "Ready",
                    "lastGoodAt": "2026-01-01T00:00:00Z"}],
            },
        });
        writer.apply_watcher_event(&Event::Apply(Known::strip(serde_json::from_value(env).unwrap()).0));
        let answer = |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new())));
        let ask = Request::get("/api/v1/secrets?watch=true").body(()).unwrap();
        let asked = api.layer(tower::service_fn(answer)).oneshot(ask);
        drop(futures::executor::block_on(asked).unwrap());
        shape(&registry)
    }

    #[test]
    fn the_exposition_is_the_one_that_docs_alerts_and_dashboard_are_held_to() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sealedenv/tests/metrics/operator.txt");
        let found = exposition();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(golden, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(golden).unwrap_or_default();
        assert!(found == wanted, "it is now (UPDATE_EXPECTED=1 takes it over):\n{found}");
    }

    #[test]
    fn the_first_error_of_each_reason_is_an_increase() {
        let text = exposition();
        for reason in ERRORS {
            let line = format!("sealedenv_operator_reconcile_errors_total{{reason=\"{reason}\"}} 1");
            assert!(text.contains(&line), "{line} is missing from:\n{text}");
        }
        let metrics = Metrics::default();
        for error in [ReconcileError::Moving, ReconcileError::Panicked] {
            assert!(ERRORS.contains(&reason(&error)));
            metrics.failed(&error);
        }
        assert_eq!(metrics.errors.get_or_create(&Fault { reason: "panic" }).get(), 1);
    }

    #[test]
    fn the_age_of_a_key_that_is_not_known_is_not_told() {
        let metrics = Metrics::default();
        metrics.keys(2, Some(Timestamp::UNIX_EPOCH));
        metrics.keys(2, None);
        assert!(metrics.key_made.get(&[]).is_none());
        assert_eq!(metrics.keys.get(), 2);
    }
}
