//! The embedded cluster: a real Kubernetes on this machine, for tests and for people without one.
//!
//! `e2e/cluster` is built into one program that is every component of the pinned release. [`ensure_up`] starts it with
//! a container runtime from the distribution on a node that is a network and a mount namespace, so that nothing of it
//! is the machine's but one link, one route and one control group; [`down`] takes all of it away.
//! docs/src/embedded-cluster.md is the page for people.

mod build;
mod component;
mod config;
mod images;
mod layout;
mod leftovers;
mod node;
mod process;
mod status;
mod up;

use std::{
    io::Write as _,
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};

use crate::{Checkout, exec};

pub use images::{BUSYBOX, BUSYBOX_VARRUN};
pub use layout::Mode;
pub use status::{Component, Status};

use layout::{Layout, Record};

const NOT_UP: &str = "no cluster is up\nhint: cargo xtask cluster up";

/// The embedded cluster: a real Kubernetes on this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start it, and wait until it runs pods. Does nothing when it is up.
    Up {
        /// Only etcd, API server, controller manager and scheduler: runs no pods, needs no root.
        #[arg(long)]
        control_plane_only: bool,
    },
    /// Stop it and remove everything of it: processes, mounts, links, data.
    Down,
    /// Say what runs. Exits 1 when the cluster is not fully up.
    Status {
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the path of the admin's kubeconfig.
    Kubeconfig,
    /// Import image archives (`docker save` form) for pods to use.
    Load {
        /// The archives.
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// End components and leave all others running, to see what those do. `start` brings them back.
    Stop {
        /// The components, ended in this order.
        #[arg(required = true, value_parser = component::names())]
        components: Vec<String>,
        /// At once, without a chance to finish anything.
        #[arg(long)]
        kill: bool,
    },
    /// Start components that were stopped, and wait until the API server answers.
    Start {
        /// The components, started in this order.
        #[arg(required = true, value_parser = component::names())]
        components: Vec<String>,
    },
    /// Set etcd's data aside under a name. etcd is stopped meanwhile.
    Snapshot {
        /// Any word.
        #[arg(value_parser = component::snapshot_name)]
        name: String,
    },
    /// Put data back that `snapshot` has set aside. All of the cluster's own components are started anew; pods run on.
    Restore {
        /// The word that `snapshot` was given.
        #[arg(value_parser = component::snapshot_name)]
        name: String,
    },
    /// Run the bundled kubectl on it.
    Kubectl {
        /// Arguments of kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a command in the node's network and mount namespaces, to look around.
    Node {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
}

/// Form of printed results.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs one of the subcommands.
///
/// # Errors
/// What went wrong, with a hint where there is one.
pub fn run(checkout: &Checkout, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { control_plane_only } => {
            let mode = if *control_plane_only { Mode::ControlPlane } else { Mode::Full };
            let layout = Layout::from_env()?;
            up::up(checkout, &layout, mode)?;
            exec::say(format_args!("export KUBECONFIG={}", layout.kubeconfig().display()));
        }
        Command::Down => {
            if !down()? {
                exec::say("no cluster was here");
            }
        }
        Command::Status { output } => {
            let status = status()?;
            let text = match output {
                Output::Text => status.lines().join("\n"),
                Output::Json => serde_json::to_string_pretty(&status)?,
            };
            writeln!(std::io::stdout(), "{text}")?;
            return Ok(if status.up { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Kubeconfig => {
            let info = info()?.context(NOT_UP)?;
            writeln!(std::io::stdout(), "{}", info.kubeconfig.display())?;
        }
        Command::Load { images } => {
            for image in images {
                load(image)?;
            }
        }
        Command::Stop { components, kill } => component::stop(&Layout::from_env()?, components, *kill)?,
        Command::Start { components } => component::start(&Layout::from_env()?, components)?,
        Command::Snapshot { name } => component::snapshot(&Layout::from_env()?, name)?,
        Command::Restore { name } => component::restore(&Layout::from_env()?, name)?,
        Command::Kubectl { args } => {
            let error = info()?.context(NOT_UP)?.kubectl().args(args).exec();
            return Err(error).context("starting kubectl");
        }
        Command::Node { args } => {
            let layout = Layout::from_env()?;
            let holder = process::noted(&layout, config::HOLDER)
                .filter(process::Identity::is_alive)
                .context("no cluster with a node is up\nhint: cargo xtask cluster up")?;
            let mut words = node::enter(&holder).into_iter().chain(args.iter().cloned());
            let error = std::process::Command::new(words.next().unwrap_or_default())
                .args(words)
                .env(layout::MARK, layout.root())
                .exec();
            return Err(error).context("entering the node");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How to use a cluster that is up.
#[derive(Debug, Clone)]
pub struct ClusterInfo {
    /// Whether it has a node.
    pub mode: Mode,
    /// The admin's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The bundled kubectl; [`Self::kubectl`] runs it with that kubeconfig.
    pub kubectl: PathBuf,
    /// Everything that the cluster keeps.
    pub state_dir: PathBuf,
    /// Logs of its components, one file each.
    pub logs: PathBuf,
    /// Where pods reach a server that listens on this machine. Useless without a node.
    pub host_address: Ipv4Addr,
    layout: Layout,
    record: Record,
}

impl ClusterInfo {
    fn new(layout: Layout, record: Record) -> Self {
        Self {
            mode: record.mode,
            kubeconfig: layout.kubeconfig(),
            kubectl: record.binaries.join("kubectl"),
            state_dir: layout.root().to_owned(),
            logs: layout.path("logs"),
            host_address: record.addresses.host(),
            layout,
            record,
        }
    }

    /// The bundled kubectl, set to this cluster and to no other.
    pub fn kubectl(&self) -> std::process::Command {
        status::kubectl(&self.layout, &self.record)
    }

    /// containerd's own client, set to the images and containers of this cluster's node.
    pub fn ctr(&self) -> std::process::Command {
        images::ctr(&self.layout)
    }
}

/// Sees that a cluster with a node is up.
///
/// # Errors
/// When this machine cannot run one, or it does not start.
pub fn ensure_up(checkout: &Checkout) -> anyhow::Result<ClusterInfo> {
    start(checkout, Mode::Full)
}

/// Sees that a cluster is up, with a node or without.
///
/// # Errors
/// When this machine cannot run one, or it does not start.
pub fn start(checkout: &Checkout, mode: Mode) -> anyhow::Result<ClusterInfo> {
    let layout = Layout::from_env()?;
    let record = up::up(checkout, &layout, mode)?;
    Ok(ClusterInfo::new(layout, record))
}

/// The cluster, if `up` has started one and all its processes run. Whether they are well, [`status()`] asks.
///
/// # Errors
/// When its folder cannot be read.
pub fn info() -> anyhow::Result<Option<ClusterInfo>> {
    let layout = Layout::from_env()?;
    let record = layout.record()?.filter(|record| record.ready && up::dead(&layout, record).is_empty());
    Ok(record.map(|record| ClusterInfo::new(layout, record)))
}

/// What runs and what does not.
///
/// # Errors
/// When its folder cannot be read.
pub fn status() -> anyhow::Result<Status> {
    Status::read(&Layout::from_env()?)
}

/// Imports one image archive for pods to use.
///
/// # Errors
/// When no cluster with a node is up or containerd does not take the archive.
pub fn load(image: &Path) -> anyhow::Result<()> {
    let cluster = info()?.context(NOT_UP)?;
    if cluster.mode == Mode::ControlPlane {
        bail!("the cluster has no node that could use an image\nhint: cargo xtask cluster down, then up");
    }
    images::import(&cluster.layout, &[image.to_owned()])
}

/// Stops the cluster and removes everything of it. Returns whether there was any.
///
/// # Errors
/// When something cannot be removed. What was is gone, and another try goes on from there.
pub fn down() -> anyhow::Result<bool> {
    let layout = Layout::from_env()?;
    let _lock = up::lock()?;
    leftovers::remove(&layout)
}
