//! How long a pod takes until it runs: with files in memory beside the same pod with a Secret, one by one and many at
//! once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::{NAMESPACE, Options, Place, SECRET, in_memory, pod};
use crate::api::POD;
use crate::report::{Line, number};
use crate::stats::{median, milliseconds, range};

/// Longest time for pods to run, or to be gone.
const PATIENCE: Duration = Duration::from_mins(3);

fn with_secret() -> Value {
    json!({ "secret": { "secretName": SECRET } })
}

/// Pods in pairs: one of each kind after the other, the order changing.
pub(super) async fn pairs(place: &Place, options: &Options) -> Result<(Line, Vec<Vec<String>>)> {
    let mut took: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    // The first of each kind meets cold caches.
    for index in 0..=options.pairs {
        let order = if index % 2 == 0 { [0, 1] } else { [1, 0] };
        for kind in order {
            let volume = if kind == 0 { in_memory() } else { with_secret() };
            let name = format!("pair-{index}-{kind}");
            let (_, millis) = run(place, &pod(&name, &options.image, &volume)).await?;
            if index > 0 {
                took[kind].push(millis);
            }
            delete(place, &[name]).await?;
        }
    }
    let [memory, secret] = &took;
    let mean =
        |sample: &[f64]| sample.iter().sum::<f64>() / f64::from(u32::try_from(sample.len()).unwrap_or(1));
    let note = format!(
        "mean {} ms of {} ms, medians {} and {}; {} pairs",
        number(mean(memory)),
        number(mean(secret)),
        number(median(memory).unwrap_or_default()),
        number(median(secret).unwrap_or_default()),
        memory.len()
    );
    let what = "a pod with files in memory, created to Running, beside the same with a Secret";
    let line = Line::at_most(what, mean(memory) / mean(secret), 1.05, " ×", &note);
    let mut rounds =
        vec![vec!["pods".to_owned(), "least ms".to_owned(), "median ms".to_owned(), "most ms".to_owned()]];
    for (name, sample) in [("files in memory", memory), ("Secret", secret)] {
        let (least, most) = range(sample).unwrap_or_default();
        let middle = median(sample).unwrap_or_default();
        rounds.push(vec![name.to_owned(), number(least), number(middle), number(most)]);
    }
    Ok((line, rounds))
}

/// Many at once on one node.
pub(super) async fn at_once(place: &Place, options: &Options) -> Result<Vec<Line>> {
    let mut seconds = [0.0; 2];
    let mut running = 0;
    for (kind, volume) in [in_memory(), with_secret()].iter().enumerate() {
        let names: Vec<String> = (0..options.pods).map(|index| format!("many-{kind}-{index}")).collect();
        let begun = Instant::now();
        let watched = until_running(place, &names);
        let created = async {
            let one = |name: &String| {
                let body = pod(name, &options.image, volume).to_string();
                async move { place.cluster.create(&POD.within(NAMESPACE), body).await }
            };
            try_join_all(names.iter().map(one)).await
        };
        let (seen, _) = tokio::try_join!(watched, created)?;
        seconds[kind] = begun.elapsed().as_secs_f64();
        if kind == 0 {
            running = seen.len();
        }
        delete(place, &names).await?;
    }
    let failed = mount_failures(place).await?;
    let [memory, secret] = seconds;
    let wanted = u32::try_from(options.pods).unwrap_or(u32::MAX);
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    let note = format!("in {} s; the same with a Secret in {} s", number(memory), number(secret));
    Ok(vec![
        Line::at_least(
            format!("of {wanted} pods at once, running"),
            f64::from(running),
            f64::from(wanted),
            "",
            &note,
        ),
        Line::at_most("mounts that failed meanwhile", failed, 0.0, "", ""),
    ])
}

/// Events that say so.
async fn mount_failures(place: &Place) -> Result<f64> {
    let events = format!("/api/v1/namespaces/{NAMESPACE}/events?fieldSelector=reason%3DFailedMount");
    let list = place.cluster.get(&events).await?;
    let items = list["items"].as_array().context("a list of events")?;
    for event in items {
        crate::say(format_args!("{}: {}", event["involvedObject"]["name"], event["message"]));
    }
    Ok(f64::from(u32::try_from(items.len()).unwrap_or(u32::MAX)))
}

/// Creates a pod and waits until it runs: its UID, and milliseconds.
pub(super) async fn run(place: &Place, pod: &Value) -> Result<(String, f64)> {
    let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    let names = [name.clone()];
    let begun = Instant::now();
    let watched = until_running(place, &names);
    let collection = POD.within(NAMESPACE);
    let (seen, written) = tokio::try_join!(watched, place.cluster.create(&collection, pod.to_string()))?;
    let at = seen.get(&name).context("a pod that runs")?;
    Ok((written.uid, milliseconds(at.duration_since(begun))))
}

/// Waits until all of them run; when each was seen to.
async fn until_running(place: &Place, names: &[String]) -> Result<HashMap<String, Instant>> {
    let api: Api<Pod> = Api::namespaced(place.cluster.client(), NAMESPACE);
    let mut seen = HashMap::new();
    let watch = async {
        loop {
            let mut events = api.watch(&WatchParams::default(), "0").await?.boxed();
            while let Some(event) = events.try_next().await? {
                let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
                let name = pod.metadata.name.unwrap_or_default();
                let phase = pod.status.and_then(|status| status.phase);
                if phase.as_deref() == Some("Running") && names.contains(&name) {
                    seen.entry(name).or_insert_with(Instant::now);
                }
                if seen.len() == names.len() {
                    return anyhow::Ok(());
                }
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, watch).await;
    match in_time {
        Ok(watched) => watched.context("watching pods").map(|()| seen),
        Err(_) => bail!("{} of {} pods run after {PATIENCE:?}", seen.len(), names.len()),
    }
}

/// Deletes pods and waits until they are gone.
pub(super) async fn delete(place: &Place, names: &[String]) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(place.cluster.client(), NAMESPACE);
    let now = DeleteParams::default().grace_period(1);
    try_join_all(names.iter().map(|name| api.delete(name, &now))).await.context("deleting pods")?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let left = api.list_metadata(&ListParams::default()).await.context("listing pods")?;
        if !left.items.iter().any(|pod| pod.metadata.name.as_ref().is_some_and(|name| names.contains(name))) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("pods are still there")
}
