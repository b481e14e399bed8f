//! The metric registry, build information, and request metrics.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What is running, for the metric `<prefix>_build_info`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Build {
    /// Version of the program, such as `0.1.0`.
    pub version: String,
    /// Name of the program.
    pub component: String,
}

/// A registry whose metric names all start with `prefix` and `_`, holding `<prefix>_build_info` already.
pub fn registry(prefix: &str, build: &Build) -> Registry {
    let mut registry = Registry::with_prefix(prefix);
    // A gauge of 1 and not the OpenMetrics `info` type, which the Prometheus text parser does not know.
    let info = Family::<Build, ConstGauge<u64>, fn() -> ConstGauge<u64>>::new_with_constructor(|| {
        ConstGauge::new(1)
    });
    drop(info.get_or_create(build));
    registry.register("build_info", "What is running; the value is always 1", info);
    registry
}

/// What a registry exposes, with every value 1 and in a fixed order: for tests that hold documentation, alerts and dashboards to it.
///
/// In the text format of Prometheus and not of OpenMetrics, for which the tools that lint names do not read.
pub fn shape(registry: &Registry) -> String {
    let mut text = String::new();
    let _infallible = prometheus_client::encoding::text::encode(&mut text, registry);
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), ..) => None,
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let total = if counters.contains(&name) { "_total" } else { "" };
                Some(format!("# {what} {name}{total} {rest}\n"))
            }
            _ => line.rsplit_once(' ').map(|(series, _)| format!("{series} 1\n")),
        }
    };
    // A family's series come in no order: those that follow each other are sorted.
    let mut lines: Vec<String> = text.lines().filter_map(line).collect();
    for series in lines.chunk_by_mut(|a, b| a.starts_with('#') == b.starts_with('#')) {
        if !series[0].starts_with('#') {
            series.sort_unstable();
        }
    }
    lines.concat()
}

/// Labels of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    path: String,
    status: u16,
}

/// The label of one route: `[("path", …)]`.
type Route = [(&'static str, String); 1];

/// Counts requests by route and status, and times them by route. Clones share the numbers.
///
/// Only routes of the router become labels; anything else is `other`, so that a caller cannot create series.
#[derive(Clone, Debug)]
pub struct Requests {
    total: Family<Labels, Counter<u64, AtomicU64>>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
}

impl Requests {
    /// Adds `http_requests_total{path,status}` and `http_request_duration_seconds{path}` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Self { total: Family::default(), seconds: Family::new_with_constructor(buckets) };
        registry.register("http_requests", "Requests answered, by route and status", requests.total.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from reading a request's header to its answer, by route",
            Unit::Seconds,
            requests.seconds.clone(),
        );
        requests
    }

    /// Middleware for `axum::middleware::from_fn_with_state(requests, Requests::layer)`.
    pub async fn layer(State(requests): State<Self>, request: Request, next: Next) -> Response {
        let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
        let start = Instant::now();
        let response = next.run(request).await;
        requests.seconds.get_or_create(&[("path", path.clone())]).observe(start.elapsed().as_secs_f64());
        requests.total.get_or_create(&Labels { path, status: response.status().as_u16() }).inc();
        response
    }
}

/// From 0.25 ms to 8 s: admission is budgeted in milliseconds and given up after seconds.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}
