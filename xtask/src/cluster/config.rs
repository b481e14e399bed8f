//! Configuration files and command lines of every component, as pure functions of what the cluster is to be.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::layout::{Addresses, Layout, Mode, NODE};

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/sealedenv/pause:v1";
/// Where the kubelet keeps pods, as charts expect it; inside the node's mount namespace only.
pub(crate) const KUBELET_ROOT: &str = "/var/lib/kubelet";
/// The name that pods look Services up under.
pub(crate) const DOMAIN: &str = "cluster.local";

/// What all configuration derives from.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) mode: Mode,
    pub(crate) addresses: Addresses,
}

/// One program to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<String>,
}

/// Components of the control plane that come first: the others need a working API.
pub(crate) const API: [&str; 2] = ["etcd", "kube-apiserver"];
const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
const ON_NODE: [&str; 3] = ["kubelet", "kube-proxy", "cluster-dns"];
/// The process that keeps the node's namespaces.
pub(crate) const HOLDER: &str = "node";
/// The container runtime, from the distribution.
pub(crate) const CONTAINERD: &str = "containerd";

/// Names of the components that are in our own binary, in the order of starting.
pub(crate) fn own(mode: Mode) -> Vec<&'static str> {
    names(mode).into_iter().filter(|name| ![HOLDER, CONTAINERD].contains(name)).collect()
}

/// Names of all that runs in a mode, in the order of starting.
pub(crate) fn names(mode: Mode) -> Vec<&'static str> {
    match mode {
        Mode::ControlPlane => [&API[..], &CONTROLLERS].concat(),
        Mode::Full => [&[HOLDER, CONTAINERD][..], &API, &CONTROLLERS, &ON_NODE].concat(),
    }
}

impl Plan<'_> {
    /// The URL of the API server for clients on this machine and on the node.
    pub(crate) fn server(&self) -> String {
        format!("https://{}:{}", self.addresses.api(self.mode), self.addresses.ports.api)
    }

    /// All names and addresses that servers of the cluster are reached by.
    pub(crate) fn hosts(&self) -> String {
        let mut hosts: Vec<String> =
            ["localhost", NODE, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(str::to_owned)
                .into();
        hosts.push(format!("kubernetes.default.svc.{DOMAIN}"));
        hosts.push("127.0.0.1".into());
        hosts.push(self.addresses.api_service().to_string());
        if self.mode == Mode::Full {
            hosts.push(self.addresses.node().to_string());
        }
        hosts.join(",")
    }

    fn pki(&self, name: &str) -> String {
        self.layout.text(&format!("pki/{name}"))
    }

    /// The command line of a component that is in our own binary.
    pub(crate) fn component(&self, name: &'static str) -> Component {
        let args = match name {
            "etcd" => self.etcd(),
            "kube-apiserver" => self.api_server(),
            "kube-controller-manager" => self.controller_manager(),
            "kube-scheduler" => self.scheduler(),
            "kubelet" => self.kubelet(),
            "kube-proxy" => vec![format!("--config={}", self.layout.text("config/kube-proxy.json"))],
            _ => vec![
                format!("--kubeconfig={}", self.pki("cluster-dns.kubeconfig")),
                format!("--listen={}:53", self.addresses.node()),
            ],
        };
        Component { name, args }
    }

    fn etcd(&self) -> Vec<String> {
        let client = format!("https://127.0.0.1:{}", self.addresses.ports.etcd);
        let peer = format!("https://127.0.0.1:{}", self.addresses.ports.etcd_peer);
        vec![
            format!("--name={NODE}"),
            format!("--data-dir={}", self.layout.text("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={NODE}={peer}"),
            "--client-cert-auth=true".into(),
            format!("--trusted-ca-file={}", self.pki("etcd-ca.crt")),
            format!("--cert-file={}", self.pki("etcd.crt")),
            format!("--key-file={}", self.pki("etcd.key")),
            "--peer-client-cert-auth=true".into(),
            format!("--peer-trusted-ca-file={}", self.pki("etcd-ca.crt")),
            format!("--peer-cert-file={}", self.pki("etcd.crt")),
            format!("--peer-key-file={}", self.pki("etcd.key")),
            // The data is thrown away with the cluster: durability would only cost time.
            "--unsafe-no-fsync=true".into(),
            "--quota-backend-bytes=4294967296".into(),
            // The API server serves consistent lists from its cache only with these notices.
            "--watch-progress-notify-interval=5s".into(),
            "--log-level=warn".into(),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let ports = self.addresses.ports;
        let mut args = vec![
            format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd),
            format!("--etcd-cafile={}", self.pki("etcd-ca.crt")),
            format!("--etcd-certfile={}", self.pki("apiserver-etcd-client.crt")),
            format!("--etcd-keyfile={}", self.pki("apiserver-etcd-client.key")),
            format!("--secure-port={}", ports.api),
            format!("--tls-cert-file={}", self.pki("apiserver.crt")),
            format!("--tls-private-key-file={}", self.pki("apiserver.key")),
            format!("--client-ca-file={}", self.pki("ca.crt")),
            format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
            format!("--service-account-key-file={}", self.pki("sa.pub")),
            format!("--service-account-signing-key-file={}", self.pki("sa.key")),
            format!("--service-cluster-ip-range={}", self.addresses.services()),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            format!("--kubelet-client-certificate={}", self.pki("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.pki("apiserver-kubelet-client.key")),
            format!("--kubelet-certificate-authority={}", self.pki("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--requestheader-client-ca-file={}", self.pki("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            format!("--proxy-client-cert-file={}", self.pki("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", self.pki("front-proxy-client.key")),
            "--profiling=false".into(),
        ];
        match self.mode {
            // Inside the node's network namespace, so every address is the node's own.
            Mode::Full => args.extend([
                "--bind-address=0.0.0.0".into(),
                format!("--advertise-address={}", self.addresses.node()),
            ]),
            Mode::ControlPlane => args.extend([
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                // A loopback address is no valid endpoint, and nothing could use it.
                "--endpoint-reconciler-type=none".into(),
            ]),
        }
        args
    }

    fn controller_manager(&self) -> Vec<String> {
        let kubeconfig = self.pki("controller-manager.kubeconfig");
        let mut args = Self::controller(&kubeconfig, self.addresses.ports.controller_manager);
        args.extend([
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", self.pki("sa.key")),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pki("ca.key")),
            "--allocate-node-cidrs=false".into(),
            // A busy two-core machine may delay the kubelet; that is no reason to evict its pods.
            "--node-monitor-grace-period=2m".into(),
        ]);
        args
    }

    fn scheduler(&self) -> Vec<String> {
        Self::controller(&self.pki("scheduler.kubeconfig"), self.addresses.ports.scheduler)
    }

    fn controller(kubeconfig: &str, port: u16) -> Vec<String> {
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            "--leader-elect=false".into(),
            "--kube-api-qps=300".into(),
            "--kube-api-burst=600".into(),
            "--profiling=false".into(),
        ]
    }

    fn kubelet(&self) -> Vec<String> {
        vec![
            format!("--config={}", self.layout.text("config/kubelet.json")),
            format!("--kubeconfig={}", self.pki("kubelet.kubeconfig")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", self.addresses.node()),
            format!("--root-dir={KUBELET_ROOT}"),
        ]
    }

    /// The files that the node's components read: name below the state folder, and text.
    pub(crate) fn node_files(&self, cni_plugins: &Path, snapshotter: &str) -> Vec<(&'static str, String)> {
        vec![
            ("config/containerd.toml", self.containerd(cni_plugins, snapshotter)),
            ("config/cni/10-pods.conflist", self.cni().to_string()),
            ("config/kubelet.json", self.kubelet_config().to_string()),
            ("config/kube-proxy.json", self.kube_proxy_config().to_string()),
            // Only the cluster's own names exist: there is no way out of the machine.
            ("config/resolv.conf", format!("nameserver {}\n", self.addresses.node())),
        ]
    }

    fn containerd(&self, cni_plugins: &Path, snapshotter: &str) -> String {
        let path = |relative: &str| Value::from(self.layout.text(relative)); // JSON strings are TOML strings
        format!(
            r#"version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Root may lack CAP_SYS_RESOURCE (a sandboxed CI machine); without this every sandbox then fails.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins}
conf_dir = {cni}
"#,
            root = path("containerd/root"),
            state = path("containerd/state"),
            socket = path("containerd/sock"),
            opt = path("containerd/opt"),
            plugins = Value::from(cni_plugins.to_string_lossy()),
            cni = path("config/cni"),
        )
    }

    fn cni(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": true,
                    "hairpinMode": true,
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.layout.text("cni"),
                        "ranges": [[{
                            "subnet": self.addresses.pods(),
                            "gateway": self.addresses.node().to_string(),
                        }]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet_config(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.pki("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.pki("kubelet-server.crt"),
            "tlsPrivateKeyFile": self.pki("kubelet-server.key"),
            "containerRuntimeEndpoint": format!("unix://{}", self.layout.text("containerd/sock")),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.layout.group()),
            "enforceNodeAllocatable": ["none"],
            "failSwapOn": false,
            "failCgroupV1": false,
            "oomScoreAdj": 0,
            "clusterDNS": [self.addresses.node().to_string()],
            "clusterDomain": DOMAIN,
            "resolvConf": self.layout.text("config/resolv.conf"),
            "volumePluginDir": self.layout.text("volume-plugins"),
            "readOnlyPort": 0,
            // The machine's disk and memory belong to its owner: no eviction and no image collection because they are busy.
            "evictionHard": {
                "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                "imagefs.available": "0%", "imagefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": 250,
            "serializeImagePulls": false,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 300,
            "kubeAPIBurst": 600,
        })
    }

    fn kube_proxy_config(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": NODE,
            "bindAddress": "0.0.0.0",
            "clientConnection": {"kubeconfig": self.pki("kube-proxy.kubeconfig")},
            "clusterCIDR": self.addresses.pods(),
            // Pods share one bridge: an answer must come back through the node to be translated.
            "iptables": {"masqueradeAll": true, "localhostNodePorts": false, "minSyncPeriod": "200ms"},
            // The kernel's limits are not ours to change from a network namespace.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "oomScoreAdj": 0,
        })
    }
}

/// The bridge that pods are plugged into, inside the node's network namespace.
pub(crate) const BRIDGE: &str = "pods0";

/// What the API needs before the first test: the rights of the cluster's DNS.
pub(crate) fn first_objects() -> Value {
    let meta = json!({"name": "sealedenv:cluster-dns"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta,
            "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sealedenv:cluster-dns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-dns"}],
        },
    ]})
}

/// Folders below the state folder that a cluster starts with.
pub(crate) fn folders(mode: Mode) -> Vec<&'static str> {
    let mut folders = vec!["logs", "run", "etcd"];
    if mode == Mode::Full {
        folders.extend([
            "config",
            "config/cni",
            "containerd",
            "kubelet",
            "volume-plugins",
            "cni",
            "cni-cache",
            "var-log",
            "sysctl",
            "images",
        ]);
    }
    folders
}

/// Kernel settings of the whole machine that the kubelet would change. It gets copies to write to instead.
pub(crate) const SYSCTLS: [&str; 5] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

/// What the node sees in place of the machine's own folders: where, and which folder below the state folder.
pub(crate) fn binds() -> [(PathBuf, &'static str); 3] {
    [(KUBELET_ROOT.into(), "kubelet"), ("/var/lib/cni".into(), "cni-cache"), ("/var/log".into(), "var-log")]
}

#[cfg(test)]
mod tests {
    use super::super::layout::Ports;
    use super::*;

    fn with_plan(mode: Mode, check: impl FnOnce(&Plan<'_>)) {
        let layout = Layout::for_test("/var/lib/c");
        let ports =
            Ports { api: 1001, etcd: 1002, etcd_peer: 1003, controller_manager: 1004, scheduler: 1005 };
        check(&Plan { layout: &layout, mode, addresses: Addresses::new([10, 50], ports) });
    }

    fn own(mode: Mode) -> Vec<&'static str> {
        names(mode).into_iter().filter(|name| ![HOLDER, CONTAINERD].contains(name)).collect()
    }

    fn flag<'a>(args: &'a [String], name: &str) -> &'a str {
        let found: Vec<_> = args.iter().filter_map(|arg| arg.strip_prefix(&format!("--{name}="))).collect();
        assert_eq!(found.len(), 1, "--{name} in {args:?}");
        found[0]
    }

    #[test]
    fn without_a_node_nothing_listens_beyond_the_loopback_interface() {
        with_plan(Mode::ControlPlane, |plan| {
            assert_eq!(own(Mode::ControlPlane).len(), 4);
            for name in own(Mode::ControlPlane) {
                let args = plan.component(name).args;
                let listening: Vec<_> = args
                    .iter()
                    .filter(|arg| arg.starts_with("--listen-") || arg.starts_with("--bind-"))
                    .collect();
                assert!(!listening.is_empty(), "{name} would listen on its default address");
                for arg in listening {
                    assert!(arg.contains("127.0.0.1"), "{name} {arg}");
                }
            }
            assert_eq!(plan.server(), "https://127.0.0.1:1001");
        });
    }

    #[test]
    fn components_agree_on_ports_and_keys() {
        with_plan(Mode::Full, |plan| {
            let (etcd, api) = (plan.component("etcd").args, plan.component("kube-apiserver").args);
            assert_eq!(flag(&etcd, "listen-client-urls"), flag(&api, "etcd-servers"));
            assert_eq!(flag(&etcd, "trusted-ca-file"), flag(&api, "etcd-cafile"));
            assert_eq!(flag(&etcd, "client-cert-auth"), "true");
            assert_eq!(flag(&api, "secure-port"), "1001");
            assert_eq!(flag(&api, "authorization-mode"), "Node,RBAC");
            let controllers = plan.component("kube-controller-manager").args;
            assert_eq!(
                flag(&controllers, "service-account-private-key-file"),
                flag(&api, "service-account-signing-key-file")
            );
            let kubelet = plan.kubelet_config();
            assert_eq!(kubelet["authentication"]["x509"]["clientCAFile"], flag(&api, "client-ca-file"));
            assert_eq!(kubelet["authentication"]["anonymous"]["enabled"], false);
        });
    }

    #[test]
    fn pods_services_and_the_cable_share_the_range_and_nothing_else() {
        with_plan(Mode::Full, |plan| {
            let cni = plan.cni();
            assert_eq!(cni["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.50.0.0/18");
            assert_eq!(cni["plugins"][0]["ipam"]["ranges"][0][0]["gateway"], "10.50.0.1");
            let api = plan.component("kube-apiserver").args;
            assert_eq!(flag(&api, "service-cluster-ip-range"), "10.50.128.0/17");
            assert_eq!(flag(&api, "advertise-address"), flag(&plan.component("kubelet").args, "node-ip"));
            assert!(plan.hosts().split(',').any(|host| host == "10.50.128.1"), "{}", plan.hosts());
            assert!(plan.hosts().split(',').any(|host| host == "10.50.0.1"), "{}", plan.hosts());
        });
    }

    #[test]
    fn the_runtime_keeps_everything_below_the_state_folder_and_asks_for_no_privilege_it_may_lack() {
        with_plan(Mode::Full, |plan| {
            let files = plan.node_files(Path::new("/usr/lib/cni"), "overlayfs");
            let (_, text) = files.iter().find(|(name, _)| *name == "config/containerd.toml").unwrap();
            for line in ["root = ", "state = ", "address = ", "path = ", "conf_dir = "]
                .map(|key| format!("{key}\"/var/lib/c/"))
            {
                assert!(text.contains(&format!("\n{line}")), "{line} in {text}");
            }
            assert!(text.contains("\nrestrict_oom_score_adj = true\n"), "{text}");
            assert!(text.contains("\nsnapshotter = \"overlayfs\"\n"), "{text}");
            let folders = folders(Mode::Full);
            for (name, _) in files {
                assert!(
                    folders.contains(&name.rsplit_once('/').unwrap().0),
                    "the folder of {name} is not made"
                );
            }
        });
    }
}
