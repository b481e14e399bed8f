//! csi-sanity, the CSI project's own test of a driver, over the sockets that a kubelet has. Needs root and no cluster:
//! `cargo xtask test node` builds it and runs this.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealedenv_delivery::{Answer, Content, File, FilePath, Files, Outcome, Token, Wanted};
use sealedenv_node::identity::About;
use sealedenv_node::mount::Linux;
use sealedenv_node::node::Plugin;
use sealedenv_node::socket;
use sealedenv_node::source::{FetchError, Source};
use sealedenv_node::target::Layout;
use sealedenv_node::wire::csi::controller_server::{Controller, ControllerServer};
use sealedenv_node::wire::csi::controller_service_capability::rpc::Type as Capability;
use sealedenv_node::wire::csi::controller_service_capability::{Rpc, Type};
use sealedenv_node::wire::csi::identity_server::IdentityServer;
use sealedenv_node::wire::csi::node_server::NodeServer;
use sealedenv_node::wire::csi::*;
use sealedenv_runtime::shutdown::Shutdown;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const CSI_SANITY: &str = "SEALEDENV_NODE_CSI_SANITY";

/// What is not tried, and why not. A skip that is not listed here fails the test.
const SKIPPED: [(&str, &str); 11] = [
    ("should work", "needs a controller in the driver: inline volumes have none"),
    ("should be idempotent", "as above; mounts::refresh and mounts::unpublish do it"),
    ("NodeStageVolume should fail when no volume id is provided", STAGE),
    ("NodeStageVolume should fail when no staging target path is provided", STAGE),
    ("NodeStageVolume should fail when no volume capability is provided", STAGE),
    ("NodeUnstageVolume should fail when no volume id is provided", STAGE),
    ("NodeUnstageVolume should fail when no staging target path is provided", STAGE),
    ("NodeExpandVolume should fail when no volume id is provided", EXPAND),
    ("NodeExpandVolume should fail when no volume path is provided", EXPAND),
    ("NodeExpandVolume should fail when volume is not found", EXPAND),
    ("NodeExpandVolume should work if node-expand is called after node-publish", EXPAND),
];
const STAGE: &str = "no STAGE_UNSTAGE_VOLUME: a volume is mounted in one step";
const EXPAND: &str = "no EXPAND_VOLUME: a volume has the size of its content";

struct Always;

impl Source for Always {
    async fn fetch(&self, _: &Token, wanted: Wanted) -> Result<Answer, FetchError> {
        let file = File {
            path: FilePath::parse("KEY").unwrap(),
            content: Content::new(b"value".to_vec()),
            mode: None,
        };
        let files =
            Files { digest: "d1".to_owned(), files: vec![file], keep: vec![], refresh_after: Duration::ZERO };
        Ok(Answer { name: wanted.name, outcome: Outcome::Files(files) })
    }
}

/// csi-sanity makes each volume by a controller before it publishes it. This one gives it what a kubelet knows of an
/// inline volume. It is no part of the driver.
struct Kubelet;

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl Controller for Kubelet {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let token =
            format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"kubernetes.io":{"pod":{"uid":"uid-1"}}}"#));
        let tokens = format!(r#"{{"sealedenv.dev":{{"token":"{token}"}}}}"#);
        let context = [
            ("sealedenv", "checkout"),
            ("csi.storage.k8s.io/pod.name", "checkout-0"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/pod.uid", "uid-1"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/serviceAccount.tokens", &tokens),
        ];
        let volume = Volume {
            volume_id: request.into_inner().name,
            volume_context: HashMap::from(context.map(|(key, value)| (key.to_owned(), value.to_owned()))),
            ..Volume::default()
        };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        _: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        Ok(Response::new(DeleteVolumeResponse::default()))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let rpc = Rpc { r#type: Capability::CreateDeleteVolume.into() };
        let capabilities = vec![ControllerServiceCapability { r#type: Some(Type::Rpc(rpc)) }];
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        no()
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        no()
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        no()
    }

    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        no()
    }

    async fn get_capacity(
        &self,
        _: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        no()
    }

    async fn create_snapshot(
        &self,
        _: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        no()
    }

    async fn delete_snapshot(
        &self,
        _: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        no()
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        no()
    }

    async fn get_snapshot(
        &self,
        _: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        no()
    }

    async fn controller_expand_volume(
        &self,
        _: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        no()
    }

    async fn controller_get_volume(
        &self,
        _: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        no()
    }

    async fn controller_modify_volume(
        &self,
        _: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        no()
    }
}

/// Runs one group of csi-sanity, and gives how each of its tests ended.
fn run(group: &str, sockets: &[String], root: &Path, volume: &Path) -> BTreeMap<String, String> {
    let program = std::env::var_os(CSI_SANITY)
        .unwrap_or_else(|| panic!("{CSI_SANITY} is not set: run this by `cargo xtask test node`"));
    let report = root.join("report.json");
    let output = Command::new(program)
        .args(sockets)
        .arg(format!("--csi.mountdir={}", volume.display()))
        .arg(format!("--csi.stagingdir={}", root.join("staging").display()))
        .args([&format!("--ginkgo.focus={group}"), "--ginkgo.no-color"])
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let mut outcomes = BTreeMap::new();
    let specs = report[0]["SpecReports"].as_array().unwrap();
    for spec in specs.iter().filter(|spec| spec["LeafNodeType"] == "It") {
        let mut texts: Vec<&str> = spec["ContainerHierarchyTexts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        texts.push(spec["LeafNodeText"].as_str().unwrap());
        if texts[0] == group {
            outcomes.insert(texts[1..].join(" "), spec["State"].as_str().unwrap().to_owned());
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_identity_and_node_groups_of_csi_sanity_pass() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts: run it as root, by `cargo xtask test node`"
    );
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let volumes = root.join("kubelet/pods/uid-1/volumes/kubernetes.io~csi");
    std::fs::create_dir_all(&volumes).unwrap();
    let layout = Layout::new(&root.join("kubelet")).with_leaf("target");
    let plugin = Plugin::for_tests("node-1", layout, Always, Linux::new(&root.join("stage")).unwrap());
    let driver = Routes::new(IdentityServer::new(About)).add_service(NodeServer::new(plugin));
    let controller = Routes::new(ControllerServer::new(Kubelet));
    let sockets = ["csi.sock", "controller.sock"].map(|name| root.join(name));
    let shutdown = Shutdown::new();
    let serving = [(&sockets[0], driver), (&sockets[1], controller)]
        .map(|(path, routes)| tokio::spawn(socket::serve(path.clone(), routes, shutdown.clone())));
    let arguments = [
        format!("--csi.endpoint=unix://{}", sockets[0].display()),
        format!("--csi.controllerendpoint=unix://{}", sockets[1].display()),
    ];
    let volume = volumes.join("checkout");
    let [identity, node] = tokio::task::spawn_blocking({
        let root = root.clone();
        move || {
            [
                // Whose identity is asked for is that of the controller's socket, where there is one.
                run("Identity Service", &arguments[..1], &root, &volume),
                run("Node Service", &arguments, &root, &volume),
            ]
        }
    })
    .await
    .unwrap();
    shutdown.trigger();
    for serving in serving {
        serving.await.unwrap().unwrap();
    }
    assert_eq!(identity.len(), 3, "{identity:#?}");
    assert!(identity.values().all(|state| state == "passed"), "{identity:#?}");
    let (passed, rest): (Vec<_>, Vec<_>) = node.iter().partition(|(_, state)| *state == "passed");
    let rest: BTreeSet<&str> = rest.into_iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(rest, SKIPPED.into_iter().map(|(name, _)| name).collect(), "{node:#?}");
    assert_eq!(passed.len(), 12, "{node:#?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "mounts are left");
}
