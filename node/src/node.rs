//! CSI's Node service: what the kubelet calls.

mod error;
mod volume;

use std::sync::Arc;
use std::time::Instant;

use sealedenv_delivery::{Outcome, Wanted};
use sealedenv_runtime::report;
use tonic::{Request, Response, Status};

pub use self::error::NodeError;
use self::volume::Disk;
use crate::metrics::{Metrics, Refreshed};
use crate::mount::Mounts;
use crate::publish::{self, Found, Step};
use crate::request::{self, Publish};
use crate::source::Source;
use crate::target::{Layout, Target};
use crate::volumes::{Turn, Volumes};
use crate::wire::csi::node_server::Node;
use crate::wire::csi::node_service_capability::rpc::Type as Capability;
use crate::wire::csi::node_service_capability::{Rpc, Type};
use crate::wire::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeCondition, VolumeUsage, volume_usage::Unit,
};

/// The service.
pub struct Plugin<S, M> {
    node: String,
    source: S,
    disk: Arc<Disk<M>>,
    volumes: Volumes,
    metrics: Metrics,
}

/// What a publish came to, apart from errors.
enum Done {
    Made,
    Refreshed(Refreshed),
}

impl<S: Source, M: Mounts> Plugin<S, M> {
    /// The service of a node.
    pub(crate) fn new(
        node: String,
        layout: Layout,
        source: S,
        mounts: M,
        metrics: Metrics,
        volumes: Volumes,
    ) -> Self {
        Self { node, source, disk: Arc::new(Disk { layout, mounts }), volumes, metrics }
    }

    /// The service of a node, with nothing known of its volumes and metrics of its own: for tests.
    pub fn for_tests(node: &str, layout: Layout, source: S, mounts: M) -> Self {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        Self::new(node.to_owned(), layout, source, mounts, metrics, Volumes::default())
    }

    /// What to do about a request, and the doing of it.
    async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), NodeError> {
        let start = Instant::now();
        let target = self.target(&request.volume_id, &request.target_path)?;
        let turn = self.volumes.turn(&target).await;
        let found = self.on_disk(&target, Disk::look).await;
        let published = match &found {
            Ok(found) => matches!(found, Found::Ours(_)),
            Err(_) => self.volumes.has_files(&target) || self.on_disk(&target, Disk::has_files).await,
        };
        let about = request::environment(&request).unwrap_or("none").to_owned();
        let done = match found {
            Ok(found) => self.carry_out(&request, &target, &found, turn).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(Done::Made) => {
                self.metrics.published(true, start.elapsed());
                tracing::info!(sealedenv = about, pod = target.pod_uid(), "published");
                Ok(())
            }
            Ok(Done::Refreshed(refreshed)) => {
                self.metrics.refreshed(refreshed);
                if refreshed == Refreshed::Changed {
                    tracing::info!(sealedenv = about, pod = target.pod_uid(), "refreshed");
                }
                Ok(())
            }
            // Never an error: there are kubelets that would take the files away (kubernetes#121271).
            Err(error) if published => {
                self.metrics.refreshed(Refreshed::Failed);
                self.volumes.stale(&target, error.told());
                let error = report::chain(&error);
                tracing::warn!(
                    sealedenv = about,
                    pod = target.pod_uid(),
                    error,
                    "not refreshed; the last good files stay"
                );
                Ok(())
            }
            Err(error) => {
                self.metrics.published(false, start.elapsed());
                let told = report::chain(&error);
                tracing::warn!(sealedenv = about, pod = target.pod_uid(), error = told, "not published");
                Err(error)
            }
        }
    }

    async fn carry_out(
        &self,
        request: &NodePublishVolumeRequest,
        target: &Target,
        found: &Found,
        turn: Turn,
    ) -> Result<Done, NodeError> {
        let asked = Publish::read(request, target)?;
        let now = Instant::now();
        let step = publish::decide(found, &asked.environment, now, self.volumes.due(target));
        let (held, tidy) = match step {
            Step::Make => (None, false),
            Step::Refresh { held, tidy } => (held, tidy),
            Step::Leave { tidy } => {
                self.tidy(target, tidy, turn).await?;
                return Ok(Done::Refreshed(Refreshed::Unchanged));
            }
            Step::Refuse(foreign) => return Err(foreign.into()),
        };
        let wanted = Wanted { name: asked.environment.clone(), held };
        let answer = self.source.fetch(&asked.token, wanted).await?;
        let files = match answer.outcome {
            Outcome::Files(files) => files,
            Outcome::Unchanged { refresh_after } => {
                self.tidy(target, tidy, turn).await?;
                self.volumes.fresh(target, publish::due(now, refresh_after));
                return Ok(Done::Refreshed(Refreshed::Unchanged));
            }
            Outcome::Refused(refused) => return Err(NodeError::Refused(refused)),
        };
        let due = publish::due(now, files.refresh_after);
        let made = !matches!(found, Found::Ours(_));
        // The turn goes along: what is begun on disk is finished before anybody else looks, also when the kubelet
        // gives up on this call.
        self.on_disk(target, move |disk, target| {
            let _until_it_is_done = turn;
            let version = volume::Wanted { asked: &asked, files: &files };
            if made { disk.make(target, &version) } else { disk.refresh(target, &version) }
        })
        .await?;
        self.volumes.fresh(target, due);
        Ok(if made { Done::Made } else { Done::Refreshed(Refreshed::Changed) })
    }

    async fn tidy(&self, target: &Target, tidy: bool, turn: Turn) -> Result<(), NodeError> {
        if !tidy {
            return Ok(());
        }
        self.on_disk(target, move |disk, target| {
            let _until_it_is_done = turn;
            disk.tidy(target)
        })
        .await
    }

    async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), NodeError> {
        let target = self.target(&request.volume_id, &request.target_path)?;
        let turn = self.volumes.turn(&target).await;
        let done = self
            .on_disk(&target, move |disk, target| {
                let done = disk.remove(target);
                (done, turn)
            })
            .await;
        let (done, turn) = done;
        self.metrics.unpublished(done.is_ok());
        if done.is_ok() {
            self.volumes.forget(&target);
            tracing::info!(pod = target.pod_uid(), "unpublished");
        }
        drop(turn);
        done
    }

    fn target(&self, volume_id: &str, path: &str) -> Result<Target, NodeError> {
        if volume_id.is_empty() {
            return Err(NodeError::NoVolume);
        }
        Ok(self.disk.layout.target(path)?)
    }

    /// Runs what waits for the kernel where it holds nobody up.
    async fn on_disk<T: Send + 'static>(
        &self,
        target: &Target,
        what: impl FnOnce(&Disk<M>, &Target) -> T + Send + 'static,
    ) -> T {
        let (disk, target) = (Arc::clone(&self.disk), target.clone());
        match tokio::task::spawn_blocking(move || what(&disk, &target)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[tonic::async_trait]
impl<S: Source, M: Mounts> Node for Plugin<S, M> {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.publish(request.into_inner()).await?;
        Ok(Response::new(NodePublishVolumeResponse::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.unpublish(request.into_inner()).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse::default()))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() || request.volume_path.is_empty() {
            return Err(Status::invalid_argument("volume_id and volume_path must be given"));
        }
        let none = || Status::not_found("there is no volume at this path");
        let target = self.disk.layout.target(&request.volume_path).map_err(|_| none())?;
        let stats = self.on_disk(&target, Disk::stats).await?.ok_or_else(none)?;
        let usage = |unit: Unit, total: u64, free: u64| {
            let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            VolumeUsage {
                unit: unit.into(),
                total: number(total),
                available: number(free),
                used: number(total.saturating_sub(free)),
            }
        };
        let failure = self.volumes.failure(&target);
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: vec![
                usage(Unit::Bytes, stats.f_blocks * stats.f_frsize, stats.f_bfree * stats.f_frsize),
                usage(Unit::Inodes, stats.f_files, stats.f_ffree),
            ],
            volume_condition: Some(VolumeCondition {
                abnormal: failure.is_some(),
                message: failure.map_or_else(
                    || "up to date".to_owned(),
                    |failure| format!("the last good files stay: {failure}"),
                ),
            }),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities =
            [Capability::GetVolumeStats, Capability::VolumeCondition, Capability::VolumeMountGroup];
        let capabilities = capabilities
            .map(|capability| NodeServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type: capability.into() })),
            })
            .to_vec();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.clone(),
            ..NodeGetInfoResponse::default()
        }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(Status::unimplemented("volumes are not staged"))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(Status::unimplemented("volumes are not staged"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("volumes have the size of their content"))
    }
}
