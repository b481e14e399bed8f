//! What the webhook counts about its own decisions.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::decision::Kind;

/// Which of the two webhooks was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Webhook {
    /// Injection into pods.
    Inject,
    /// Validation of SealedEnvs.
    Validate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    webhook: Webhook,
    outcome: Kind,
    dry_run: bool,
}

/// The label `[("webhook", …)]`.
type Asked = [(&'static str, Webhook); 1];

/// Admissions by outcome, and the time they took. Clones share the numbers.
#[derive(Clone)]
pub struct Metrics {
    total: Family<Labels, Counter>,
    seconds: Family<Asked, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Adds `admissions_total{webhook,outcome,dry_run}` and `admission_duration_seconds{webhook}` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let metrics = Self { total: Family::default(), seconds: Family::new_with_constructor(buckets) };
        registry.register("admissions", "Admission requests by outcome", metrics.total.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from an admission request's body to its answer, the audit record included",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }

    pub(crate) fn observe(&self, webhook: Webhook, outcome: Kind, dry_run: bool, took: Duration) {
        self.total.get_or_create(&Labels { webhook, outcome, dry_run }).inc();
        self.seconds.get_or_create(&[("webhook", webhook)]).observe(took.as_secs_f64());
    }
}

impl EncodeLabelValue for Webhook {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Inject => "inject",
            Self::Validate => "validate",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Valid => "valid",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_the_labels_that_the_docs_name() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.observe(Webhook::Inject, Kind::Injected, false, Duration::from_millis(1));
        metrics.observe(Webhook::Validate, Kind::Refused, true, Duration::from_millis(1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"admissions_total{webhook="inject",outcome="injected",dry_run="false"} 1"#,
            r#"admissions_total{webhook="validate",outcome="refused",dry_run="true"} 1"#,
            r#"admission_duration_seconds_count{webhook="inject"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing from:\n{text}");
        }
    }
}
