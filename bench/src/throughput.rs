//! Many objects at once: how many a second become Secrets with a status, from the first create to the last status.
//!
//! The floor makes the same three writes itself, sixteen objects at a time. Operator and peer get their objects from a
//! client that creates as many at a time. In all rounds the same watch of metadata looks on, so that its cost is in
//! each of them; it says when the last status was written.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::api::{Cluster, Kind, SEALED_ENV, SECRET, has_status};
use crate::objects::{SealedEnv, Template, check};
use crate::program::Program;
use crate::stats::rate;

/// Requests of one client at a time.
pub const AT_ONCE: usize = 16;

/// One round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Objects a second.
    pub rate: f64,
    /// CPU seconds of the program for a thousand objects; nothing for the floor, which is not one.
    pub cpu_per_thousand: Option<f64>,
}

/// Name of the nth object.
pub fn name(index: usize) -> String {
    format!("env-{index:05}")
}

/// The floor: create, apply and patch, all by this client.
///
/// # Errors
/// When a write fails.
pub async fn floor(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
    env: &SealedEnv,
    template: &Template,
) -> Result<Round> {
    let (envs, secrets) = (SEALED_ENV.within(namespace), SECRET.within(namespace));
    let mut observer = cluster.observe(SEALED_ENV, namespace, has_status);
    let start = Instant::now();
    let one = |index: usize| {
        let (envs, secrets) = (&envs, &secrets);
        async move {
            let name = name(index);
            let owner = cluster.create(envs, env.named(&name)).await?;
            let secret = cluster.apply(secrets, &name, template.secret(&name, &owner)).await?;
            cluster.patch_status(envs, &name, template.status(&name, &owner, &secret)).await.map(drop)
        }
    };
    run(count, one).await?;
    observer.wait(count).await?;
    Ok(Round { rate: rate(count, start.elapsed()), cpu_per_thousand: None })
}

/// A program under load: this client creates, and the program does the rest.
///
/// # Errors
/// When a write fails, or the program does not finish.
pub async fn program(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
    kind: Kind,
    body: impl Fn(&str) -> String,
    program: &Program,
) -> Result<Round> {
    let mut observer = cluster.observe(kind, namespace, has_status);
    let cpu = program.cpu()?;
    let start = Instant::now();
    create(cluster, namespace, count, kind, body).await?;
    observer.wait(count).await?;
    let took = start.elapsed();
    let cpu = program.cpu()?.saturating_sub(cpu);
    Ok(Round { rate: rate(count, took), cpu_per_thousand: Some(per_thousand(cpu, count)) })
}

/// Creates so many objects.
///
/// # Errors
/// When a write fails.
pub async fn create(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
    kind: Kind,
    body: impl Fn(&str) -> String,
) -> Result<()> {
    let collection = kind.within(namespace);
    let (collection, body) = (&collection, &body);
    run(count, |index| async move { cluster.create(collection, body(&name(index))).await.map(drop) }).await
}

async fn run<F: Future<Output = Result<()>>>(count: usize, one: impl Fn(usize) -> F) -> Result<()> {
    stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Whether every object of a namespace is ready, and a few of the Secrets hold the values.
///
/// # Errors
/// What is wrong.
pub async fn verify(cluster: &Cluster, namespace: &str, count: usize) -> Result<()> {
    for index in [0, count / 2, count - 1] {
        let name = name(index);
        let env = cluster.get(&format!("{}/{name}", SEALED_ENV.within(namespace))).await?;
        let secret = cluster.get(&format!("{}/{name}", SECRET.within(namespace))).await?;
        check(&env, &secret)?;
    }
    let (envs, secrets) = (SEALED_ENV.within(namespace), SECRET.within(namespace));
    let (envs, secrets) = (cluster.count(&envs).await?, cluster.count(&secrets).await?);
    let wanted = u64::try_from(count).context("a count out of range")?;
    anyhow::ensure!(
        envs == wanted && secrets == wanted,
        "{envs} SealedEnvs and {secrets} Secrets of {wanted}"
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn per_thousand(cpu: Duration, count: usize) -> f64 {
    cpu.as_secs_f64() * 1000.0 / count as f64
}
