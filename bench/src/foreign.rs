//! Secrets of others: the operator must neither keep them nor wait for them.

use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::api::{Cluster, SECRET};
use crate::objects::base64;
use crate::process::Memory;
use crate::reconcile::Operator;
use crate::throughput::AT_ONCE;

/// Bytes of each.
pub const SIZE: usize = 100 << 10;

/// The operator beside so many Secrets of others.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// How many.
    pub secrets: usize,
    /// Memory at rest without and with them.
    pub memory: [Memory; 2],
    /// From start to ready without and with them.
    pub ready: [Duration; 2],
}

/// Starts the operator with nothing else in the cluster, makes the Secrets, and starts it again.
///
/// # Errors
/// When something does not come to an end.
pub async fn measure(
    cluster: &Cluster,
    operator: &Operator<'_>,
    namespace: &str,
    count: usize,
) -> Result<Foreign> {
    let without = rest(operator).await?;
    // Half of them look like releases of Helm, of which real clusters are full.
    let data = base64(&vec![b'x'; SIZE]);
    let collection = SECRET.within(namespace);
    let one = |index: usize| {
        let type_ = if index.is_multiple_of(2) { "Opaque" } else { "helm.sh/release.v1" };
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"foreign-{index:05}","labels":{{"owner":"helm"}}}},"type":"{type_}","data":{{"release":"{data}"}}}}"#
        );
        let collection = &collection;
        async move { cluster.create(collection, body).await.map(drop) }
    };
    stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let with = rest(operator).await?;
    cluster.delete_all(SECRET, namespace).await?;
    Ok(Foreign { secrets: count, memory: [without.0, with.0], ready: [without.1, with.1] })
}

/// Memory at rest and time to ready; of three starts the one in the middle.
async fn rest(operator: &Operator<'_>) -> Result<(Memory, Duration)> {
    let mut starts = Vec::new();
    for _ in 0..3 {
        let (program, ready) = operator.start(&[]).await?;
        program.wait_idle().await?;
        starts.push((program.memory()?, ready));
        program.stop().await?;
    }
    starts.sort_by_key(|(_, ready)| *ready);
    Ok(starts[1])
}
