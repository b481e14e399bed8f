//! `bench webhook`: what the webhook adds to the creation of pods, and that others do not wait for it.
//!
//! Annotated and plain pods are created in turn, in blocks of some seconds, at the same rate and until admission is
//! done (`dryRun`): what is left out is etcd, which is the same for both. The API server calls the webhook as for any
//! pod, over TLS, through its Service.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;

use crate::api::{Cluster, POD, SEALED_ENV, has_status};
use crate::objects::SealedEnv;
use crate::report::{Conditions, Line, Report, number};
use crate::stats::{median, milliseconds, quantile, range};
use crate::{Common, counters, say};

/// Settings of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Pods a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds of each block of annotated, and of plain pods.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// How many pairs of blocks.
    #[arg(long, default_value_t = 15)]
    blocks: usize,
}

const NAMESPACE: &str = "bench-webhook";
const WEBHOOK: &str = "inject.sealedenv.dev";

/// Runs the bench on a cluster with the chart installed.
///
/// # Errors
/// When something cannot be measured.
pub async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut conditions = Conditions::at_start();
    let cluster = Cluster::connect(&common.kubeconfig).await?;
    cluster.namespace(NAMESPACE).await?;
    cluster.clear(NAMESPACE).await?;
    let key = cluster.get("/apis/sealedenv.dev/v1alpha1/sealingkeys/cluster").await?;
    let recipient = key["status"]["recipients"][0].as_str().context("the SealingKey names no recipient")?;
    let env = SealedEnv::seal(&common.binaries, recipient)?;
    let mut observer = cluster.observe(SEALED_ENV, NAMESPACE, has_status);
    cluster.create(&SEALED_ENV.within(NAMESPACE), env.named("checkout")).await?;
    observer.wait(1).await?;

    say("warming up");
    // The namespace's ServiceAccount may take a moment; until then no pod is admitted.
    let start = Instant::now();
    while let Err(error) = cluster.try_create(&POD.within(NAMESPACE), pod(true)).await {
        if start.elapsed() > Duration::from_secs(30) {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for annotated in [true, false, true, false] {
        block(&cluster, annotated, options.rate, options.seconds.min(3)).await?;
    }
    let (mut annotated, mut plain) = (Vec::new(), Vec::new());
    let (mut calls, mut others) = (0.0, 0.0);
    let mut seconds = 0.0;
    for index in 0..2 * options.blocks {
        // Pairs in the order AB BA AB …
        let with = index % 4 == 0 || index % 4 == 3;
        let before = Calls::read(&cluster).await?;
        let took = block(&cluster, with, options.rate, options.seconds).await?;
        let after = Calls::read(&cluster).await?;
        if with {
            annotated.push(took);
            calls += after.count - before.count;
            seconds += after.seconds - before.seconds;
        } else {
            plain.push(took);
            others += after.count - before.count;
        }
    }
    conditions.note();
    cluster.clear(NAMESPACE).await?;

    let mut lines = Vec::new();
    let title = format!("added to the creation of a pod at {} pods/s", options.rate);
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        if let Some(added) = Added::of(&annotated, &plain, share) {
            let what = format!("{title}, {name}");
            if name == "p99" {
                lines.push(Line::at_most(what, added.middle, 3.0, " ms", &added.note));
            } else {
                lines.push(Line::told(what, format!("{} ms ({})", number(added.middle), added.note)));
            }
        }
    }
    let mean = 1000.0 * seconds / f64::max(calls, 1.0);
    lines.push(Line::told("mean of a call as the API server counts it", format!("{} ms", number(mean))));
    let pods =
        |blocks: &[Vec<f64>]| u32::try_from(blocks.iter().map(Vec::len).sum::<usize>()).unwrap_or(u32::MAX);
    let what = format!("calls for {} pods without the annotation", pods(&plain));
    lines.push(Line::at_most(what, others, 0.0, "", ""));
    let pods = pods(&annotated);
    lines.push(Line::at_least(format!("calls for {pods} pods with it"), calls, f64::from(pods), "", ""));
    Ok(Report { title: "webhook", lines, rounds: Vec::new(), conditions })
}

/// What annotated pods take longer than plain ones.
struct Added {
    /// Of the pairs of blocks, the middle one.
    middle: f64,
    note: String,
}

impl Added {
    /// Pair by pair: something else that the machine does in one block then spoils one pair, and not the result.
    fn of(annotated: &[Vec<f64>], plain: &[Vec<f64>], share: f64) -> Option<Self> {
        let of_blocks = |blocks: &[Vec<f64>]| -> Option<Vec<f64>> {
            blocks.iter().map(|block| quantile(block, share)).collect()
        };
        let (with, without) = (of_blocks(annotated)?, of_blocks(plain)?);
        let pairs: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
        let (least, most) = range(&pairs)?;
        let note = format!(
            "{} ms with, {} ms without; pairs {} to {}",
            number(median(&with)?),
            number(median(&without)?),
            number(least),
            number(most)
        );
        Some(Self { middle: median(&pairs)?, note })
    }
}

/// What the API server counted of its calls.
struct Calls {
    count: f64,
    seconds: f64,
}

impl Calls {
    async fn read(cluster: &Cluster) -> Result<Self> {
        let text = cluster.metrics().await?;
        let sum = |name: &str| {
            let metric = format!("apiserver_admission_webhook_admission_duration_seconds_{name}");
            counters::sum(&text, &metric, |labels| labels.get("name") == WEBHOOK)
        };
        Ok(Self { count: sum("count"), seconds: sum("sum") })
    }
}

/// Milliseconds of each creation of a block.
async fn block(cluster: &Cluster, annotated: bool, rate: u32, seconds: u32) -> Result<Vec<f64>> {
    let mut ticker = tokio::time::interval(Duration::from_secs(1) / rate);
    let collection = POD.within(NAMESPACE);
    let mut tasks = Vec::new();
    for _ in 0..rate * seconds {
        ticker.tick().await;
        let (cluster, collection) = (cluster.clone(), collection.clone());
        tasks.push(tokio::spawn(async move {
            let body = pod(annotated);
            let start = Instant::now();
            cluster.try_create(&collection, body).await?;
            anyhow::Ok(milliseconds(start.elapsed()))
        }));
    }
    try_join_all(tasks).await.context("a task panicked")?.into_iter().collect()
}

fn pod(annotated: bool) -> String {
    // Both have an annotation, so that they differ in nothing but what is asked for.
    let name = if annotated { "sealedenv.dev/inject" } else { "example.com/no-inject" };
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"generateName":"web-","annotations":{{"{name}":"checkout"}}}},"spec":{{"containers":[{{"name":"web","image":"localhost/none:v1"}},{{"name":"helper","image":"localhost/none:v1"}}]}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_block_does_not_decide() {
        let block = |at: f64| vec![at; 100];
        let with = [block(5.0), block(90.0), block(6.0)];
        let without = [block(4.0), block(4.0), block(4.0)];
        let added = Added::of(&with, &without, 0.99).unwrap();
        assert!((added.middle - 2.0).abs() < 1e-9, "{}", added.middle);
        assert!(added.note.contains("pairs 1 to 86"), "{}", added.note);
        assert!(Added::of(&[], &[], 0.99).is_none());
    }
}
