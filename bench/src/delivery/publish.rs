//! How long the node plugin takes for a volume, the operator's answer included: asked as the kubelet asks, beside a real
//! pod's own volume.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sealedenv_node::wire::csi::node_client::NodeClient;
use sealedenv_node::wire::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use sealedenv_node::wire::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use serde_json::json;
use tonic::transport::Endpoint;

use super::{AUDIENCE, DRIVER, MEMORY, NAMESPACE, Options, Place, in_memory, pod, pods, token};
use crate::objects::{KEYS, plain};
use crate::report::{Line, number};
use crate::stats::{milliseconds, quantile};

/// Where the chart puts it: the kubelet's root.
const ROOT: &str = "/var/lib/kubelet";
const CARRIER: &str = "carrier";

/// Measures it.
pub(super) async fn measure(place: &Place, options: &Options) -> Result<Line> {
    let (uid, _) = pods::run(place, &pod(CARRIER, &options.image, &in_memory())).await?;
    let token = token(&place.cluster, CARRIER, &uid).await?;
    let socket = place.plugin.root(&format!("{ROOT}/plugins/{DRIVER}/csi.sock"));
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy();
    let mut plugin = NodeClient::new(channel);
    let volumes = format!("{ROOT}/pods/{uid}/volumes/kubernetes.io~csi");
    let mut took = Vec::new();
    for index in 0..options.publishes {
        let volume = format!("{volumes}/bench-{index}");
        let target = format!("{volume}/mount");
        // The kubelet makes the folder of a volume, and takes it away.
        let folder = place.plugin.root(&volume);
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let request = publish(&target, &uid, &token);
        let begun = Instant::now();
        let published = plugin.node_publish_volume(request).await;
        took.push(milliseconds(begun.elapsed()));
        let right = published.map(drop).map_err(anyhow::Error::from).and_then(|()| check(place, &target));
        let request = NodeUnpublishVolumeRequest { volume_id: id(&target), target_path: target };
        let unpublished = plugin.node_unpublish_volume(request).await;
        right.with_context(|| format!("volume {index}"))?;
        unpublished.with_context(|| format!("taking away volume {index}"))?;
        fs::remove_dir(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    pods::delete(place, &[CARRIER.to_owned()]).await?;
    let of = |share| quantile(&took, share).unwrap_or_default();
    let note = format!("p50 {}, {} volumes", number(of(0.5)), took.len());
    Ok(Line::at_most("a publish of the node plugin, p99", of(0.99), 20.0, " ms", &note))
}

/// Whether the files are there: no speed counts that is not right.
fn check(place: &Place, target: &str) -> Result<()> {
    for (key, value) in plain() {
        let path = place.plugin.root(&format!("{target}/{key}"));
        let found = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(found == value, "{key} is not its value");
    }
    let links = fs::read_dir(place.plugin.root(target))?.count();
    ensure!(links == KEYS + 2, "{links} entries");
    Ok(())
}

fn id(target: &str) -> String {
    format!("csi-{target}")
}

fn publish(target: &str, uid: &str, token: &str) -> NodePublishVolumeRequest {
    let tokens = json!({ AUDIENCE: { "token": token, "expirationTimestamp": "2100-01-01T00:00:00Z" } });
    let attributes = [
        ("sealedenv", MEMORY),
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", CARRIER),
        ("csi.storage.k8s.io/pod.namespace", NAMESPACE),
        ("csi.storage.k8s.io/pod.uid", uid),
        ("csi.storage.k8s.io/serviceAccount.tokens", &tokens.to_string()),
    ];
    let capability = VolumeCapability {
        access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeReaderOnly.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    };
    NodePublishVolumeRequest {
        volume_id: id(target),
        target_path: target.to_owned(),
        volume_capability: Some(capability),
        readonly: true,
        volume_context: HashMap::from(attributes.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        ..NodePublishVolumeRequest::default()
    }
}
