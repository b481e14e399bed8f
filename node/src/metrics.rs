//! What the plugin counts.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::mount::Linux;
use crate::volumes::Volumes;

/// What every metric's name begins with.
pub const METRICS_PREFIX: &str = "sealedenv_node";

type Outcome = [(&'static str, &'static str); 1];

/// Publishes, refreshes and unpublishes. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    publishes: Family<Outcome, Counter>,
    refreshes: Family<Outcome, Counter>,
    unpublishes: Family<Outcome, Counter>,
    seconds: Histogram,
}

/// What became of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// New files were swapped in.
    Changed,
    /// There was nothing new.
    Unchanged,
    /// The files that were there stay.
    Failed,
}

const fn word(good: bool) -> &'static str {
    if good { "ok" } else { "failed" }
}

impl Metrics {
    /// Adds the counters to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            publishes: Family::default(),
            refreshes: Family::default(),
            unpublishes: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
        };
        // From the start, so that an alert on an increase sees the first one.
        drop(metrics.publishes.get_or_create(&[("outcome", word(false))]));
        drop(metrics.refreshes.get_or_create(&[("outcome", word(false))]));
        drop(metrics.unpublishes.get_or_create(&[("outcome", word(false))]));
        registry.register(
            "publishes",
            "First publishes of a volume, by outcome; the kubelet repeats one that failed",
            metrics.publishes.clone(),
        );
        registry.register(
            "refreshes",
            "Later publishes of a volume, by outcome; one that failed left the files that were there",
            metrics.refreshes.clone(),
        );
        registry.register("unpublishes", "Unpublishes of a volume, by outcome", metrics.unpublishes.clone());
        registry.register_with_unit(
            "publish_duration",
            "Time that a first publish took, the operator's answer included",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }

    pub(crate) fn published(&self, good: bool, took: Duration) {
        self.publishes.get_or_create(&[("outcome", word(good))]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn refreshed(&self, refreshed: Refreshed) {
        let word = match refreshed {
            Refreshed::Changed => "changed",
            Refreshed::Unchanged => "unchanged",
            Refreshed::Failed => "failed",
        };
        self.refreshes.get_or_create(&[("outcome", word)]).inc();
    }

    pub(crate) fn unpublished(&self, good: bool) {
        self.unpublishes.get_or_create(&[("outcome", word(good))]).inc();
    }
}

/// Reads at each scrape what is known of volumes and of the kernel.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) volumes: Volumes,
    pub(crate) mounts: Linux,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "stale_volumes",
            "Volumes whose last refresh failed; they have the files from before.",
            self.volumes.count_stale() as u64,
        )?;
        match self.mounts.noswap() {
            None => Ok(()),
            Some(noswap) => gauge(
                "tmpfs_noswap",
                "Whether the kernel keeps volumes out of swap; absent until one was made.",
                u64::from(noswap),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_runtime::metrics::{Build, registry, shape};

    use crate::volumes::Volumes;

    /// Every metric there is, each with a series.
    fn exposition() -> String {
        let build = Build { version: "0.0.0".to_owned(), component: crate::run::COMPONENT.to_owned() };
        let mut registry = registry(METRICS_PREFIX, &build);
        let metrics = Metrics::register(&mut registry);
        metrics.published(true, Duration::from_millis(1));
        metrics.unpublished(true);
        for refreshed in [Refreshed::Changed, Refreshed::Unchanged, Refreshed::Failed] {
            metrics.refreshed(refreshed);
        }
        let folder = tempfile::tempdir().unwrap();
        let mounts = Linux::new(folder.path()).unwrap();
        // Known once something was mounted, or could not be.
        mounts.pretend_noswap();
        registry.register_collector(Box::new(State { volumes: Volumes::default(), mounts }));
        shape(&registry)
    }

    #[test]
    fn the_exposition_is_the_one_that_docs_are_held_to() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sealedenv/tests/metrics/node.txt");
        let found = exposition();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(golden, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(golden).unwrap_or_default();
        assert!(found == wanted, "it is now (UPDATE_EXPECTED=1 takes it over):\n{found}");
    }
}
