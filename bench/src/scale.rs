//! Many objects at rest: memory, and a restart that must not write.

use std::time::Duration;

use anyhow::Result;

use crate::api::{Cluster, SEALED_ENV, has_status};
use crate::counters;
use crate::objects::SealedEnv;
use crate::process::Memory;
use crate::reconcile::Operator;
use crate::throughput::{create, verify};

/// What so many objects came to.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// How many SealedEnvs.
    pub objects: usize,
    /// After all of them were created and reconciled, by the operator that did it.
    pub after_load: Memory,
    /// After a restart, at rest.
    pub after_restart: Memory,
    /// From the restart to ready.
    pub ready: Duration,
    /// Writes that the API server counted from before the restart until the operator was at rest.
    pub writes: f64,
}

/// Creates the objects through a fresh operator, and restarts it.
///
/// # Errors
/// When something does not come to an end, or an object is not right.
pub async fn measure(
    cluster: &Cluster,
    operator: &Operator<'_>,
    namespace: &str,
    count: usize,
    env: &SealedEnv,
) -> Result<Scale> {
    let (program, _) = operator.start(&[]).await?;
    let mut observer = cluster.observe(SEALED_ENV, namespace, has_status);
    create(cluster, namespace, count, SEALED_ENV, |name| env.named(name)).await?;
    observer.wait(count).await?;
    drop(observer);
    program.wait_idle().await?;
    let after_load = program.memory()?;
    program.stop().await?;
    verify(cluster, namespace, count).await?;

    let before = cluster.metrics().await?;
    let (program, ready) = operator.start(&[]).await?;
    program.wait_idle().await?;
    let after_restart = program.memory()?;
    let writes = writes(&cluster.metrics().await?) - writes(&before);
    program.stop().await?;
    Ok(Scale { objects: count, after_load, after_restart, ready, writes })
}

/// Writes of what the operator could touch. Leases are not among them: holding one is no work on objects.
fn writes(metrics: &str) -> f64 {
    counters::sum(metrics, "apiserver_request_total", |labels| {
        ["secrets", "sealedenvs", "sealingkeys", "events"].contains(&labels.get("resource"))
            && ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&labels.get("verb"))
    })
}

/// What each object costs: slope of memory at rest between the smallest and the largest measurement, in KiB, and where
/// that leads for a number of objects, in MiB.
#[allow(clippy::cast_precision_loss)]
pub fn extrapolate(scales: &[Scale], objects: usize) -> Option<(f64, f64)> {
    let first = scales.iter().min_by_key(|s| s.objects)?;
    let last = scales.iter().max_by_key(|s| s.objects)?;
    if first.objects == last.objects {
        return None;
    }
    let slope = (last.after_restart.now - first.after_restart.now) / (last.objects - first.objects) as f64;
    let there = last.after_restart.now + slope * (objects as f64 - last.objects as f64);
    Some((slope * 1024.0, there))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in tests they are the report of a failure")]
mod tests {
    use super::*;

    fn at(objects: usize, now: f64) -> Scale {
        let memory = Memory { now, peak: now, anonymous: now };
        Scale { objects, after_load: memory, after_restart: memory, ready: Duration::ZERO, writes: 0.0 }
    }

    #[test]
    fn memory_is_extrapolated_along_the_slope() {
        let (kib, there) =
            extrapolate(&[at(10_000, 30.0), at(20_000, 39.0), at(40_000, 60.0)], 100_000).unwrap();
        assert!((kib - 1.024).abs() < 1e-9, "{kib}");
        assert!((there - 120.0).abs() < 1e-9, "{there}");
        assert_eq!(extrapolate(&[at(10_000, 30.0)], 100_000), None);
    }

    #[test]
    fn only_writes_of_objects_count_as_writes() {
        let metrics = "apiserver_request_total{code=\"200\",resource=\"secrets\",verb=\"APPLY\"} 2\n\
            apiserver_request_total{code=\"200\",resource=\"sealedenvs\",subresource=\"status\",verb=\"PATCH\"} 3\n\
            apiserver_request_total{code=\"200\",resource=\"secrets\",verb=\"LIST\"} 50\n\
            apiserver_request_total{code=\"200\",resource=\"leases\",verb=\"PUT\"} 70\n";
        assert!((writes(metrics) - 5.0).abs() < 1e-9);
    }
}
