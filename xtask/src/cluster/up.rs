//! Starting a cluster, from nothing to the first pod's possibility.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{Checkout, exec, host};

use super::{
    build::Binaries,
    config::{self, API, CONTAINERD, Plan},
    images,
    layout::{self, Addresses, Layout, Mode, Ports, Record},
    leftovers::{self, Leftovers},
    node,
    process::{self, Identity},
    status,
};

/// How long a step may take on a machine that others keep busy.
const PATIENCE: Duration = Duration::from_mins(4);

/// Sees that a cluster is up: starts one, or finds the running one good. Leftovers of a dead one are removed first.
pub(super) fn up(checkout: &Checkout, layout: &Layout, mode: Mode) -> anyhow::Result<Record> {
    let _lock = lock()?;
    if let Some(record) = running(checkout, layout, mode)? {
        return Ok(record);
    }
    if mode == Mode::Full {
        may_run_pods()?;
    }
    let binaries = Binaries::ensure(checkout)?;
    let started = Instant::now();
    let record = Record {
        mode,
        boot: process::boot_id()?,
        addresses: addresses(mode)?,
        binaries: binaries.dir().to_owned(),
        ready: false,
        made: if mode == Mode::Full { node::missing_mount_points() } else { vec![] },
    };
    layout.claim(&record)?;
    start(layout, &record, &binaries)
        .with_context(|| format!("starting the cluster; its logs are in {}/logs", layout.root().display()))?;
    let record = Record { ready: true, ..record };
    layout.write(&record)?;
    exec::say(format_args!("the cluster is up after {:.0} s", started.elapsed().as_secs_f32()));
    Ok(record)
}

/// One lock for everything that starts or stops a cluster: ranges of addresses and mount points are the machine's.
pub(super) fn lock() -> anyhow::Result<host::Lock> {
    host::Lock::wait(&host::cache()?.join("cluster/lock"), "starting or stopping a cluster")
}

/// The running cluster, if it is whole. A broken one is removed and none returned.
fn running(checkout: &Checkout, layout: &Layout, mode: Mode) -> anyhow::Result<Option<Record>> {
    if let Some(record) = layout.record()?.filter(|record| record.ready) {
        let dead = dead(layout, &record);
        if dead.is_empty() {
            if mode == Mode::Full && record.mode == Mode::ControlPlane {
                bail!("a cluster without a node is up\nhint: cargo xtask cluster down");
            }
            if !host::is_executable(&record.binaries.join("kubectl")) {
                bail!(
                    "the programs of the running cluster were deleted, in {}\nhint: cargo xtask cluster down, then up",
                    record.binaries.display()
                );
            }
            let api = || Ok(status::api_version(layout, &record).is_some());
            wait_for(layout, &record, "the running cluster's API", api)?;
            if Binaries::expected(checkout).is_ok_and(|expected| expected.dir() != record.binaries) {
                exec::say(
                    "the running cluster was built from other sources; `cluster down` makes room for a new one",
                );
            }
            return Ok(Some(record));
        }
        exec::say(format_args!("a cluster was here, but these are gone: {}; starting anew", dead.join(", ")));
    } else if !Leftovers::find(layout)?.is_empty() {
        exec::say("removing what another cluster left");
    }
    leftovers::remove(layout).context("removing what another cluster left")?;
    Ok(None)
}

/// Names of the components that should run and do not.
pub(super) fn dead(layout: &Layout, record: &Record) -> Vec<&'static str> {
    config::names(record.mode)
        .into_iter()
        .filter(|name| !process::noted(layout, name).is_some_and(|process| process.is_alive()))
        .collect()
}

/// Says what is missing on this machine for a node; what Debian's packages can give is installed.
fn may_run_pods() -> anyhow::Result<()> {
    const HINT: &str =
        "hint: `cargo xtask cluster up --control-plane-only` needs none of that, and runs no pods";
    if !host::is_root() {
        bail!("a cluster that runs pods needs root\n{HINT}");
    }
    let status = fs::read_to_string("/proc/self/status").context("reading our own privileges")?;
    let wanted = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_CHROOT", 18), ("CAP_SYS_ADMIN", 21)];
    let lacking = host::lacking_capabilities(&status, &wanted);
    if !lacking.is_empty() {
        bail!("root lacks {} here, which running pods needs\n{HINT}", lacking.join(", "));
    }
    host::ensure_packages(&NEEDS)
}

macro_rules! program {
    ($package:literal, $($name:literal),+) => {
        host::Need { package: $package, present: || [$($name),+].iter().all(|name| host::find_program(name).is_some()) }
    };
}

const NEEDS: [host::Need; 7] = [
    program!("containerd", "containerd", "ctr", "containerd-shim-runc-v2"),
    program!("runc", "runc"),
    program!("iptables", "iptables", "iptables-restore"),
    program!("iproute2", "ip"),
    program!("util-linux", "unshare", "nsenter", "setsid"),
    program!("busybox-static", "busybox"),
    host::Need { package: "containernetworking-plugins", present: || cni_plugins().is_some() },
];

/// Where the distribution keeps the network plugins.
fn cni_plugins() -> Option<PathBuf> {
    let complete = |dir: &Path| {
        ["bridge", "host-local", "portmap", "loopback"].iter().all(|name| dir.join(name).exists())
    };
    ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]
        .map(PathBuf::from)
        .into_iter()
        .find(|dir| complete(dir))
}

fn addresses(mode: Mode) -> anyhow::Result<Addresses> {
    let wanted = std::env::var("SEALEDENV_CLUSTER_NET").ok().filter(|text| !text.is_empty());
    if mode == Mode::ControlPlane {
        // Services get addresses that nobody can use.
        return Ok(Addresses::new(layout::free_prefix("", wanted.as_deref())?, free_ports()?));
    }
    let routes = exec::read(Command::new("ip").args(["-4", "route", "show", "table", "all"]))?;
    Ok(Addresses::new(layout::free_prefix(&routes, wanted.as_deref())?, Ports::USUAL))
}

/// Ports that are free on the loopback interface; all are held until the last is found, so they differ.
fn free_ports() -> anyhow::Result<Ports> {
    let held = (0..5)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()
        .context("looking for free ports")?;
    let mut ports = held.iter().filter_map(|socket| Some(socket.local_addr().ok()?.port()));
    let mut next = || ports.next().context("looking for free ports");
    Ok(Ports {
        api: next()?,
        etcd: next()?,
        etcd_peer: next()?,
        controller_manager: next()?,
        scheduler: next()?,
    })
}

fn start(layout: &Layout, record: &Record, binaries: &Binaries) -> anyhow::Result<()> {
    let plan = Plan { layout, mode: record.mode, addresses: record.addresses };
    for folder in config::folders(record.mode) {
        fs::create_dir_all(layout.path(folder)).with_context(|| format!("making {folder}"))?;
    }
    exec::read(
        Command::new(binaries.program("sealedenv-cluster"))
            .args([
                "pki",
                "--node",
                layout::NODE,
                "--server",
                &plan.server(),
                "--hosts",
                &plan.hosts(),
                "--dir",
            ])
            .arg(layout.path("pki")),
    )
    .context("making keys and certificates")?;

    let node = match record.mode {
        Mode::Full => prepare_node(&plan, record)?,
        Mode::ControlPlane => vec![],
    };
    let begin = |name: &'static str| -> anyhow::Result<Identity> {
        let component = plan.component(name);
        process::start(layout, name, &node, &binaries.program(name), &component.args)
    };

    exec::say("starting etcd and the API server");
    for name in API {
        begin(name)?;
    }
    if record.mode == Mode::Full {
        let socket = || Ok(exec::read(images::ctr(layout).arg("version")).is_ok());
        wait_for(layout, record, "containerd", socket)?;
        images::import_all(layout, binaries).context("importing images")?;
    }
    wait_for(layout, record, "the API server", || Ok(status::api_version(layout, record).is_some()))?;

    exec::say(if record.mode == Mode::Full {
        "starting controllers and the node"
    } else {
        "starting controllers"
    });
    if record.mode == Mode::Full {
        apply_first_objects(layout, record)?;
    }
    for name in config::names(record.mode).into_iter().filter(|name| process::noted(layout, name).is_none()) {
        begin(name)?;
    }
    let account =
        || Ok(exec::read(status::kubectl(layout, record).args(["get", "serviceaccount", "default"])).is_ok());
    wait_for(layout, record, "the default ServiceAccount", account)?;
    if record.mode == Mode::Full {
        wait_for(layout, record, "the node", || Ok(status::node_ready(layout, record) == Some(true)))?;
    }
    Ok(())
}

/// Makes the node's namespaces and starts containerd there. Returns the words that put a command there too.
fn prepare_node(plan: &Plan<'_>, record: &Record) -> anyhow::Result<Vec<String>> {
    let layout = plan.layout;
    exec::say("making the node");
    let plugins = cni_plugins().context("the network plugins are missing")?;
    for (file, text) in plan.node_files(&plugins, node::snapshotter(layout.root())?) {
        fs::write(layout.path(file), text).with_context(|| format!("writing {file}"))?;
    }
    for folder in &record.made {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let holder = node::create(layout, plan.addresses)?;
    let enter = node::enter(&holder);
    let program = host::find_program("containerd").context("containerd is missing")?;
    process::start(
        layout,
        CONTAINERD,
        &enter,
        &program,
        &["--config".into(), layout.text("config/containerd.toml")],
    )?;
    Ok(enter)
}

fn apply_first_objects(layout: &Layout, record: &Record) -> anyhow::Result<()> {
    let mut child = status::kubectl(layout, record)
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("no pipe to kubectl")?;
    stdin.write_all(config::first_objects().to_string().as_bytes()).context("writing to kubectl")?;
    drop(stdin);
    if !child.wait().context("waiting for kubectl")?.success() {
        bail!("kubectl did not take the cluster's first objects");
    }
    Ok(())
}

/// Waits for something to come true. A component that ends in the meantime is a failure at once, shown with its log.
fn wait_for(
    layout: &Layout,
    record: &Record,
    what: &str,
    mut come_true: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut ticker = host::Ticker::quiet(&format!("waiting for {what}"));
    while !come_true()? {
        for name in config::names(record.mode) {
            if process::noted(layout, name).is_some_and(|process| !process.is_alive()) {
                bail!("{name} ended while waiting for {what}\n{}", host::tail(&layout.log(name), 15));
            }
        }
        if start.elapsed() > PATIENCE {
            bail!("waited {} s for {what}\nhint: cargo xtask cluster down, then up", PATIENCE.as_secs());
        }
        ticker.tick();
        std::thread::sleep(Duration::from_millis(150));
    }
    ticker.finish();
    Ok(())
}
