//! What the webhook counts about its own decisions.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::decision::Kind;

/// What every metric's name begins with.
pub const METRICS_PREFIX: &str = "sealedenv_webhook";

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
        // From the start, so that an alert on an increase sees the first one.
        for webhook in [Webhook::Inject, Webhook::Validate] {
            for outcome in [Kind::Refused, Kind::Malformed, Kind::Failed] {
                drop(metrics.total.get_or_create(&Labels { webhook, outcome, dry_run: false }));
            }
        }
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

/// How the certificate does that is served. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    not_after: Family<[(&'static str, &'static str); 0], Gauge>,
    errors: Counter,
}

impl CertificateMetrics {
    /// Adds `certificate_not_after_timestamp_seconds` and `certificate_errors_total` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            "certificate_not_after_timestamp",
            "Until when the certificate that is served is valid; absent while there is none",
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        registry.register(
            "certificate_errors",
            "Looks that found no certificate to make, publish or read; what was served before still is",
            metrics.errors.clone(),
        );
        metrics
    }

    pub(crate) fn serves_until(&self, not_after: Timestamp) {
        self.not_after.get_or_create(&[]).set(not_after.as_second());
    }

    pub(crate) fn failed(&self) {
        self.errors.inc();
    }

    #[cfg(test)]
    pub(crate) fn told(&self) -> (Option<i64>, u64) {
        (self.not_after.get(&[]).map(|gauge| gauge.get()), self.errors.get())
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
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use sealedenv_runtime::api::ApiMetrics;
    use sealedenv_runtime::metrics::{Build, Requests, registry, shape};
    use sealedenv_runtime::serve;
    use tower::{Layer as _, ServiceExt as _};

    use crate::trail;

    /// Every metric there is, each with a series.
    async fn exposition() -> String {
        let build = Build { version: "0.0.0".to_owned(), component: crate::run::COMPONENT.to_owned() };
        let mut registry = registry(METRICS_PREFIX, &build);
        let metrics = Metrics::register(&mut registry);
        metrics.observe(Webhook::Inject, Kind::Injected, false, Duration::from_millis(1));
        CertificateMetrics::register(&mut registry).serves_until(Timestamp::UNIX_EPOCH);
        let _connections = serve::Counters::register(&mut registry);
        let _records = trail::Counters::register(&mut registry);
        let requests = Requests::register(&mut registry);
        let router = axum::Router::new()
            .route("/mutate-pods", axum::routing::post(|| std::future::ready("")))
            .layer(axum::middleware::from_fn_with_state(requests, Requests::layer));
        router.oneshot(Request::post("/mutate-pods").body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let answer = |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new())));
        let ask = Request::get("/apis/sealedenv.dev/v1alpha1/sealedenvs?watch=true").body(()).unwrap();
        let api = ApiMetrics::register(&mut registry).layer(tower::service_fn(answer));
        drop(api.oneshot(ask).await.unwrap());
        shape(&registry)
    }

    #[tokio::test]
    async fn the_exposition_is_the_one_that_docs_alerts_and_dashboard_are_held_to() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sealedenv/tests/metrics/webhook.txt");
        let found = exposition().await;
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(golden, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(golden).unwrap_or_default();
        assert!(found == wanted, "it is now (UPDATE_EXPECTED=1 takes it over):\n{found}");
    }

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
