//! Where the cluster keeps its things, which addresses it uses, and what it wrote down about itself.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::host;

/// Name of the node, and of the cluster in the kubeconfig.
pub(crate) const NODE: &str = "sealedenv";
/// How the names of all clusters' links begin.
pub(crate) const LINK_PREFIX: &str = "senv-";
/// Every process of the cluster carries this variable with the state folder as its value, containers excepted.
pub(crate) const MARK: &str = "SEALEDENV_CLUSTER_PROCESS";

/// The state folder and the paths in it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// `SEALEDENV_CLUSTER_DIR`, or the usual place: short for root, because Unix sockets below it allow 108 bytes.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = if let Some(root) = set("SEALEDENV_CLUSTER_DIR") {
            root
        } else if host::is_root() {
            "/var/lib/sealedenv-cluster".into()
        } else {
            set("XDG_STATE_HOME")
                .or_else(|| set("HOME").map(|home| home.join(".local/state")))
                .context("no state folder: none of SEALEDENV_CLUSTER_DIR, XDG_STATE_HOME and HOME is set")?
                .join("sealedenv-cluster")
        };
        Self::at(root)
    }

    fn at(root: PathBuf) -> anyhow::Result<Self> {
        if !root.is_absolute() || root.components().count() < 3 {
            bail!(
                "SEALEDENV_CLUSTER_DIR must be an absolute path of at least two folders, not {}",
                root.display()
            );
        }
        if root.to_str().is_none_or(|text| text.len() > 60 || text.contains(char::is_whitespace)) {
            bail!(
                "the cluster's folder must be a path of at most 60 characters without blanks, not {}\n\
                 hint: set SEALEDENV_CLUSTER_DIR; Unix sockets below it leave no more room",
                root.display()
            );
        }
        Ok(Self { root })
    }

    #[cfg(test)]
    pub(crate) fn for_test(root: &str) -> Self {
        Self::at(root.into()).unwrap()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The host's end of the cable to the node. Named after the folder, so that several clusters can be up, and one whose
    /// folder was deleted can still be taken away. The kernel allows 15 characters.
    pub(crate) fn link(&self) -> String {
        format!("{LINK_PREFIX}{}", self.short_name())
    }

    /// The control group that all pods are below.
    pub(crate) fn group(&self) -> String {
        format!("sealedenv-{}", self.short_name())
    }

    fn short_name(&self) -> String {
        hex::encode(&Sha256::digest(self.root.as_os_str().as_bytes())[..4])
    }

    /// A path below the state folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The same as text, for configuration files. `at` saw to it that the folder is UTF-8.
    pub(crate) fn text(&self, relative: &str) -> String {
        self.path(relative).to_string_lossy().into_owned()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("pki/admin.kubeconfig")
    }

    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.path("logs").join(format!("{component}.log"))
    }

    pub(crate) fn pid_file(&self, component: &str) -> PathBuf {
        self.path("run").join(format!("{component}.json"))
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.path("containerd/sock")
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.path("sealedenv-cluster.json")
    }

    /// Makes the folder ours. One that holds anything else is refused: `down` deletes the whole of it.
    pub(crate) fn claim(&self, record: &Record) -> anyhow::Result<()> {
        if self.root.exists() && self.record()?.is_none() && !self.is_blank()? {
            bail!(
                "{} exists and is not a cluster's folder, so it is left alone\n\
                 hint: set SEALEDENV_CLUSTER_DIR to a folder that may be made and deleted",
                self.root.display()
            );
        }
        fs::create_dir_all(&self.root).with_context(|| format!("making {}", self.root.display()))?;
        self.write(record)
    }

    /// Empty but for a record that was being written when we were stopped.
    fn is_blank(&self) -> anyhow::Result<bool> {
        for entry in fs::read_dir(&self.root).with_context(|| format!("reading {}", self.root.display()))? {
            if entry?.path() != self.record_file().with_extension("new") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Replaces the record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let (file, new) = (self.record_file(), self.record_file().with_extension("new"));
        fs::write(&new, serde_json::to_vec_pretty(record)?)
            .and_then(|()| fs::rename(&new, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// What the folder says about its cluster; none when there is no cluster in it.
    pub(crate) fn record(&self) -> anyhow::Result<Option<Record>> {
        let file = self.record_file();
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        let record: Record = serde_json::from_slice(&text).with_context(|| {
            format!(
                "reading {}: written by another version of xtask? Delete the folder by hand",
                file.display()
            )
        })?;
        Ok(Some(record))
    }
}

/// How much of a cluster it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// With a node that runs pods. Needs root.
    Full,
    /// etcd, API server, controller manager and scheduler on the loopback interface.
    ControlPlane,
}

/// The marker that makes a folder ours, and what `down` and `status` need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) mode: Mode,
    /// Kernel's boot id: processes of another boot are gone, whatever their numbers say.
    pub(crate) boot: String,
    pub(crate) addresses: Addresses,
    /// The folder in the cache with the programs that were started.
    pub(crate) binaries: PathBuf,
    /// Whether `up` came to its end.
    pub(crate) ready: bool,
    /// Empty folders that were made outside the state folder as mount points.
    pub(crate) made: Vec<PathBuf>,
}

/// All addresses and ports of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// First two octets of the /16 that the cluster takes.
    pub(crate) prefix: [u8; 2],
    pub(crate) ports: Ports,
}

/// Ports on the node, or on the loopback interface without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) controller_manager: u16,
    pub(crate) scheduler: u16,
}

impl Ports {
    pub(crate) const USUAL: Self =
        Self { api: 6443, etcd: 2379, etcd_peer: 2380, controller_manager: 10257, scheduler: 10259 };
}

impl Addresses {
    pub(crate) fn new(prefix: [u8; 2], ports: Ports) -> Self {
        Self { prefix, ports }
    }

    fn ip(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.prefix[0], self.prefix[1], third, fourth)
    }

    /// The node's address: of the bridge that its pods are plugged into.
    pub(crate) fn node(self) -> Ipv4Addr {
        self.ip(0, 1)
    }

    /// The whole range, which this machine routes to the node.
    pub(crate) fn all(self) -> String {
        format!("{}/16", self.ip(0, 0))
    }

    pub(crate) fn pods(self) -> String {
        format!("{}/18", self.ip(0, 0))
    }

    pub(crate) fn services(self) -> String {
        format!("{}/17", self.ip(128, 0))
    }

    /// The API server's Service: the first address of the range.
    pub(crate) fn api_service(self) -> Ipv4Addr {
        self.ip(128, 1)
    }

    /// Where pods reach this machine.
    pub(crate) fn host(self) -> Ipv4Addr {
        self.ip(64, 1)
    }

    /// The node's end of the cable.
    pub(crate) fn uplink(self) -> Ipv4Addr {
        self.ip(64, 2)
    }

    /// What clients on this machine connect to.
    pub(crate) fn api(self, mode: Mode) -> Ipv4Addr {
        match mode {
            Mode::Full => self.node(),
            Mode::ControlPlane => Ipv4Addr::LOCALHOST,
        }
    }
}

/// The first two octets of a range that this machine, with these routes, does not use: `SEALEDENV_CLUSTER_NET`, such as
/// `10.98`, or one of the usual ones.
pub(crate) fn free_prefix(routes: &str, wanted: Option<&str>) -> anyhow::Result<[u8; 2]> {
    let candidates: Vec<[u8; 2]> = match wanted {
        Some(text) => vec![parse_prefix(text).with_context(|| {
            format!("SEALEDENV_CLUSTER_NET={text} must be two octets of a private range, such as 10.98")
        })?],
        None => (98..108).map(|second| [10, second]).collect(),
    };
    let mut taken = None;
    for prefix in candidates {
        match colliding_route(routes, prefix) {
            None => return Ok(prefix),
            Some(route) => taken = Some((prefix, route)),
        }
    }
    let ([first, second], route) = taken.context("no range to choose from")?;
    bail!(
        "the cluster would take {first}.{second}.0.0/16, which this machine uses: {route}\n\
         hint: name another private range, such as SEALEDENV_CLUSTER_NET=10.123"
    )
}

fn parse_prefix(text: &str) -> Option<[u8; 2]> {
    let (first, second) = text.split_once('.')?;
    let prefix = [first.parse().ok()?, second.parse().ok()?];
    Ipv4Addr::new(prefix[0], prefix[1], 0, 0).is_private().then_some(prefix)
}

/// The first route in the output of `ip -4 route show table all` that collides with the cluster's /16.
fn colliding_route(routes: &str, prefix: [u8; 2]) -> Option<&str> {
    let ours = u32::from(Ipv4Addr::new(prefix[0], prefix[1], 0, 0));
    routes.lines().map(str::trim).find(|route| {
        let mut words = route.split_whitespace();
        let kinds =
            ["local", "broadcast", "unicast", "unreachable", "blackhole", "prohibit", "throw", "multicast"];
        let Some(target) = words.find(|word| !kinds.contains(word)) else { return false };
        let (address, length) = target.split_once('/').unwrap_or((target, "32"));
        let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
            return false;
        };
        // A wider route, the default one above all, is meant to be overridden by a narrower one.
        if length < 16 {
            return false;
        }
        u32::from(address) & 0xffff_0000 == ours
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ready: bool) -> Record {
        Record {
            mode: Mode::Full,
            boot: "b".into(),
            addresses: Addresses::new([10, 98], Ports::USUAL),
            binaries: "/cache".into(),
            ready,
            made: vec![],
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_never_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().join("c")).unwrap();
        fs::create_dir(layout.root()).unwrap();
        fs::write(layout.path("diary"), "dear").unwrap();
        let error = layout.claim(&record(false)).unwrap_err().to_string();
        assert!(error.contains("is not a cluster's folder"), "{error}");
        assert!(layout.path("diary").exists());
        assert!(layout.record().unwrap().is_none());
    }

    #[test]
    fn an_empty_or_half_claimed_folder_is_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().join("c")).unwrap();
        fs::create_dir(layout.root()).unwrap();
        fs::write(layout.record_file().with_extension("new"), "{").unwrap();
        layout.claim(&record(false)).unwrap();
        assert!(!layout.record().unwrap().unwrap().ready);
        layout.claim(&record(true)).unwrap();
        assert!(layout.record().unwrap().unwrap().ready);
    }

    #[test]
    fn paths_that_are_relative_short_long_or_blank_are_refused() {
        for bad in ["state", "/", "/var", "/var/lib/a b"] {
            assert!(Layout::at(bad.into()).is_err(), "{bad}");
        }
        assert!(Layout::at(format!("/var/{}", "x".repeat(60)).into()).is_err());
        assert!(Layout::at("/var/lib/sealedenv-cluster".into()).is_ok());
    }

    #[test]
    fn only_private_ranges_are_taken() {
        assert_eq!(parse_prefix("10.98"), Some([10, 98]));
        assert_eq!(parse_prefix("172.20"), Some([172, 20]));
        for bad in ["8.8", "172.32", "10", "10.98.0", "10.256", "a.b", ""] {
            assert_eq!(parse_prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_cluster_has_names_of_its_own_that_the_kernel_takes() {
        let (one, other) = (Layout::for_test("/var/lib/a"), Layout::for_test("/var/lib/b"));
        assert_ne!(one.link(), other.link());
        assert_ne!(one.group(), other.group());
        assert_eq!(one.link(), Layout::for_test("/var/lib/a").link());
        assert!(one.link().len() <= 15);
    }

    #[test]
    fn a_free_range_is_chosen_unless_one_is_named() {
        let routes = "10.98.0.0/16 via 10.98.64.2 dev senv-1\n10.98.64.0/30 dev senv-1 scope link\n";
        assert_eq!(free_prefix("", None).unwrap(), [10, 98]);
        assert_eq!(free_prefix(routes, None).unwrap(), [10, 99]);
        assert_eq!(free_prefix(routes, Some("172.20")).unwrap(), [172, 20]);
        let error = free_prefix(routes, Some("10.98")).unwrap_err().to_string();
        assert!(error.contains("this machine uses: 10.98.0.0/16 via"), "{error}");
        assert!(free_prefix(routes, Some("8.8")).is_err());
    }

    #[test]
    fn a_route_into_our_range_collides_and_a_wider_one_does_not() {
        let routes = "default via 192.0.2.1 dev eth0\n10.0.0.0/8 via 192.0.2.9 dev eth0\n\
                      local 127.0.0.0/8 dev lo table local\nbroadcast 10.97.255.255 dev x table local\n";
        assert_eq!(colliding_route(routes, [10, 98]), None);
        for route in ["10.98.3.0/24 dev br0", "local 10.98.3.1 dev br0 table local", "10.98.0.0/16 dev tun0"]
        {
            assert_eq!(colliding_route(&format!("{routes}{route}\n"), [10, 98]), Some(route));
        }
    }
}
