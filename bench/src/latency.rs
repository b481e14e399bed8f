//! Low load: how long from the create of a SealedEnv until its Secret is visible to others.
//!
//! Objects of the floor and objects for the operator are created in turn, five a second of each, so that both meet the
//! same machine. A watch says when a Secret is visible.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;

use crate::api::{Cluster, SEALED_ENV, SECRET, exists};
use crate::objects::{SealedEnv, Template};
use crate::stats::milliseconds;
use crate::throughput::name;

/// Objects of each kind a second.
pub const RATE: u32 = 5;

/// Milliseconds of each object.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// Of the floor.
    pub floor: Vec<f64>,
    /// Through the operator.
    pub operator: Vec<f64>,
}

/// Measures so many objects of each. The operator watches `watched` and not `floor`.
///
/// # Errors
/// When a write fails or a Secret does not come.
pub async fn measure(
    cluster: &Cluster,
    floor: &str,
    watched: &str,
    count: usize,
    env: &SealedEnv,
    template: &Template,
) -> Result<Latencies> {
    let mut of_floor = cluster.observe(SECRET, floor, exists);
    let mut of_operator = cluster.observe(SECRET, watched, exists);
    let mut tasks = Vec::new();
    let mut ticker = tokio::time::interval(Duration::from_secs(1) / (2 * RATE));
    for index in 0..2 * count {
        ticker.tick().await;
        let (cluster, env, template) = (cluster.clone(), env.clone(), template.clone());
        let namespace = if index % 2 == 0 { floor } else { watched }.to_owned();
        let name = name(index / 2);
        tasks.push(tokio::spawn(async move {
            let (envs, body) = (SEALED_ENV.within(&namespace), env.named(&name));
            let start = Instant::now();
            let owner = cluster.create(&envs, body).await?;
            if index % 2 == 0 {
                let secrets = SECRET.within(&namespace);
                let secret = cluster.apply(&secrets, &name, template.secret(&name, &owner)).await?;
                cluster.patch_status(&envs, &name, template.status(&name, &owner, &secret)).await?;
            }
            anyhow::Ok((index % 2 == 0, name, start))
        }));
    }
    let started = try_join_all(tasks).await.context("a task panicked")?;
    of_floor.wait(count).await?;
    of_operator.wait(count).await?;
    let (seen_floor, seen_operator) = (of_floor.times(), of_operator.times());
    let mut latencies = Latencies::default();
    for one in started {
        let (is_floor, name, start) = one?;
        if is_floor {
            latencies.floor.push(took(&seen_floor, &name, start)?);
        } else {
            latencies.operator.push(took(&seen_operator, &name, start)?);
        }
    }
    Ok(latencies)
}

fn took(seen: &HashMap<String, Instant>, name: &str, start: Instant) -> Result<f64> {
    let at = seen.get(name).with_context(|| format!("Secret {name} was not seen"))?;
    Ok(milliseconds(at.saturating_duration_since(start)))
}
