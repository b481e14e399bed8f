//! A kubelet's directory in a folder, and an operator that says what it is told to say.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::mount::{UnmountFlags, unmount};
use sealedenv_delivery::client::FetchError as ClientError;
use sealedenv_delivery::{Answer, Content, File, FilePath, Files, Outcome, Reason, Refused, Token, Wanted};
use sealedenv_node::mount::{Linux, Mounted, Mounts};
use sealedenv_node::node::Plugin;
use sealedenv_node::source::{FetchError, Source};
use sealedenv_node::target::Layout;
use sealedenv_node::wire::csi::node_server::Node as _;
use sealedenv_node::wire::csi::volume_capability::{AccessType, MountVolume};
use sealedenv_node::wire::csi::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, VolumeCapability,
};
use tonic::{Request, Status};

/// In every token of these tests.
pub const TOKEN_CANARY: &str = "canary-token-7f3a";
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// What the operator says.
#[derive(Clone, Default)]
pub enum Says {
    Files {
        digest: String,
        files: Vec<(String, String)>,
        keep: Vec<String>,
    },
    Refused(Reason),
    #[default]
    Away,
}

#[derive(Default)]
struct Script {
    says: Says,
    hint: Duration,
    asked: Vec<Option<String>>,
}

/// The operator.
#[derive(Clone, Default)]
pub struct Operator(Arc<Mutex<Script>>);

impl Operator {
    pub fn says(&self, says: Says) {
        self.0.lock().unwrap().says = says;
    }

    /// Files by path and content, under a digest.
    pub fn gives(&self, digest: &str, files: &[(&str, &str)]) {
        self.keeps(digest, files, &[]);
    }

    pub fn keeps(&self, digest: &str, files: &[(&str, &str)], keep: &[&str]) {
        self.says(Says::Files {
            digest: digest.to_owned(),
            files: files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect(),
            keep: keep.iter().map(|path| (*path).to_owned()).collect(),
        });
    }

    pub fn hints(&self, hint: Duration) {
        self.0.lock().unwrap().hint = hint;
    }

    /// The digests that were held when it was asked, so far.
    pub fn asked(&self) -> Vec<Option<String>> {
        self.0.lock().unwrap().asked.clone()
    }
}

impl Source for Operator {
    async fn fetch(&self, _: &Token, wanted: Wanted) -> Result<Answer, FetchError> {
        tokio::task::yield_now().await;
        let mut script = self.0.lock().unwrap();
        script.asked.push(wanted.held.clone());
        let refresh_after = script.hint;
        let outcome = match &script.says {
            Says::Files { digest, .. } if wanted.held.as_ref() == Some(digest) => {
                Outcome::Unchanged { refresh_after }
            }
            Says::Files { digest, files, keep } => Outcome::Files(Files {
                digest: digest.clone(),
                files: files
                    .iter()
                    .map(|(path, content)| File {
                        path: FilePath::parse(path).unwrap(),
                        content: Content::new(content.clone().into_bytes()),
                        mode: None,
                    })
                    .collect(),
                keep: keep.iter().map(|path| FilePath::parse(path).unwrap()).collect(),
                refresh_after,
            }),
            Says::Refused(reason) => {
                Outcome::Refused(Refused { reason: *reason, message: "ask its owner".to_owned() })
            }
            Says::Away => {
                let status = Box::new(Status::unavailable("no route to the operator"));
                return Err(FetchError::Client(ClientError::Unavailable(status)));
            }
        };
        Ok(Answer { name: wanted.name, outcome })
    }
}

/// A kubelet's root directory, and the plugin.
pub struct Bench<M: Mounts = Linux> {
    pub folder: PathBuf,
    pub operator: Operator,
    pub plugin: Plugin<Operator, M>,
    owned: Option<tempfile::TempDir>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|linux| linux)
    }
}

impl<M: Mounts> Bench<M> {
    /// With mounts of one's own.
    pub fn with(mounts: impl FnOnce(Linux) -> M) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Self::at(folder.path(), mounts);
        bench.owned = Some(folder);
        bench
    }

    /// On a folder that stays: as if the plugin were started anew.
    pub fn at(folder: &Path, mounts: impl FnOnce(Linux) -> M) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount: run them as root, by `cargo xtask test node`"
        );
        listen();
        let folder = folder.canonicalize().unwrap();
        let linux = Linux::new(&folder.join("stage")).unwrap();
        let operator = Operator::default();
        let layout = Layout::new(&folder.join("kubelet"));
        let plugin = Plugin::for_tests("node-1", layout, operator.clone(), mounts(linux));
        Self { folder, operator, plugin, owned: None }
    }

    /// The directory of a volume, which the kubelet makes.
    pub fn volume(&self, name: &str) -> PathBuf {
        let path = self.folder.join("kubelet/pods/uid-1/volumes/kubernetes.io~csi").join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The target of the volume that most tests have.
    pub fn target(&self) -> PathBuf {
        self.volume("checkout").join("mount")
    }

    pub fn read(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.target().join(below)).ok()
    }

    pub fn request(&self) -> NodePublishVolumeRequest {
        request(&self.target())
    }

    pub async fn publish(&self) -> Result<(), Status> {
        self.publish_as(self.request()).await
    }

    pub async fn publish_as(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.plugin.node_publish_volume(Request::new(request)).await.map(drop)
    }

    pub async fn unpublish(&self) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: "csi-1".to_owned(),
            target_path: self.target().to_str().unwrap().to_owned(),
        };
        self.plugin.node_unpublish_volume(Request::new(request)).await.map(drop)
    }

    pub async fn stats(&self) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: "csi-1".to_owned(),
            volume_path: self.target().to_str().unwrap().to_owned(),
            ..NodeGetVolumeStatsRequest::default()
        };
        Ok(self.plugin.node_get_volume_stats(Request::new(request)).await?.into_inner())
    }

    /// The mounts at the target.
    pub fn mounts(&self) -> Vec<Mounted> {
        sealedenv_node::mount::parse(&fs::read("/proc/self/mountinfo").unwrap(), &self.target())
    }

    /// How many mounts there are below the folder.
    pub fn count_mounts(&self) -> usize {
        mounts_below(&self.folder).len()
    }

    /// Nothing of a volume is left: not a mount, not a file, not a stage.
    pub fn assert_nothing_left(&self) {
        assert_eq!(mounts_below(&self.folder), Vec::<PathBuf>::new());
        assert!(fs::symlink_metadata(self.target()).is_err(), "the target is still there");
        assert_eq!(fs::read_dir(self.folder.join("stage")).unwrap().count(), 0, "stages are left");
    }
}

impl<M: Mounts> Drop for Bench<M> {
    fn drop(&mut self) {
        if self.owned.is_some() {
            for path in mounts_below(&self.folder).into_iter().rev() {
                let _best_effort = unmount(&path, UnmountFlags::DETACH);
            }
        }
    }
}

pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

pub fn tokens(pod: &str) -> String {
    let claims = format!(r#"{{"kubernetes.io":{{"pod":{{"uid":"{pod}"}}}}}}"#);
    let token = format!("e30.{}.{TOKEN_CANARY}", URL_SAFE_NO_PAD.encode(claims));
    format!(r#"{{"sealedenv.dev":{{"token":"{token}"}}}}"#)
}

pub fn request(target: &Path) -> NodePublishVolumeRequest {
    let attributes = [
        ("sealedenv", "checkout"),
        ("csi.storage.k8s.io/pod.name", "checkout-0"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "uid-1"),
        ("csi.storage.k8s.io/ephemeral", "true"),
        (TOKENS, &tokens("uid-1")),
    ];
    let mount = AccessType::Mount(MountVolume::default());
    NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: target.to_str().unwrap().to_owned(),
        volume_capability: Some(VolumeCapability { access_type: Some(mount), access_mode: None }),
        volume_context: HashMap::from(attributes.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        readonly: true,
        ..NodePublishVolumeRequest::default()
    }
}

/// Everything that any test logged, from trace on.
pub static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Keeper;

impl std::io::Write for Keeper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(|| Keeper)
            .init();
    });
}
