//! Wiring: from flags to a running plugin, and to an exit code.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use sealedenv_runtime::log::Format;
use sealedenv_runtime::readiness::Readiness;
use sealedenv_runtime::shutdown::{self, Shutdown};
use sealedenv_runtime::{admin, crypto, log, memory, metrics as registry, report, serve};
use tonic::service::Routes;

use crate::args::Args;
use crate::identity::About;
use crate::metrics::{METRICS_PREFIX, Metrics, State};
use crate::mount::{Linux, MountError};
use crate::node::Plugin;
use crate::registration::{self, Registrar};
use crate::socket::{self, SocketError};
use crate::source::{Operator, OperatorSettings};
use crate::target::Layout;
use crate::wire::csi::identity_server::IdentityServer;
use crate::wire::csi::node_server::NodeServer;
use crate::wire::registration::registration_server::RegistrationServer;
use crate::{DRIVER, volumes::Volumes};

/// The plugin's name in logs and metrics.
pub(crate) const COMPONENT: &str = "sealedenv-node";

/// Why the plugin ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging could not be set up.
    #[error("setting up logging")]
    Log(#[from] log::InitError),
    /// Signals could not be caught.
    #[error("catching signals")]
    Signals(#[source] std::io::Error),
    /// Nothing can be mounted.
    #[error("making ready to mount")]
    Mounts(#[from] MountError),
    /// The address for probes cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A socket cannot be served.
    #[error("serving the kubelet")]
    Socket(#[from] SocketError),
}

impl RunError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Mounts(_) => Some(
                "run it as root with CAP_SYS_ADMIN, and give it a --stage-dir that it can write and nobody else uses",
            ),
            Self::Socket(_) => Some(
                "mount plugins/csi.sealedenv.dev and plugins_registry of the kubelet's root directory at the same paths",
            ),
            Self::Listen { .. } => Some("choose another address with --http-listen"),
            Self::Log(_) | Self::Signals(_) => None,
        }
    }
}

/// Runs until a signal, or a failure to start.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    // Values and tokens are in memory.
    if let Err(error) = memory::keep_to_itself() {
        eprintln!("warning: core dumps could not be forbidden: {error}");
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::to_stderr(&error, error.hint());
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), RunError> {
    let format = if std::io::stderr().is_terminal() { Format::Text } else { Format::Json };
    log::init(args.log_format.unwrap_or(format), &args.log_level)?;
    crypto::install();
    let shutdown = shutdown::signal().map_err(RunError::Signals)?;

    let build =
        registry::Build { version: env!("CARGO_PKG_VERSION").to_owned(), component: COMPONENT.to_owned() };
    let mut registry = registry::registry(METRICS_PREFIX, &build);
    let metrics = Metrics::register(&mut registry);
    let (volumes, mounts) = (Volumes::default(), Linux::new(&args.stage_dir)?);
    registry.register_collector(Box::new(State { volumes: volumes.clone(), mounts: mounts.clone() }));
    let readiness = Readiness::new();
    let registered = readiness.gate("registration");

    let address = args.http_listen;
    let probes = serve::listen(address).await.map_err(|source| RunError::Listen { address, source })?;
    let ended = Shutdown::new();
    let probes = tokio::spawn(admin::serve_on(probes, readiness.clone(), Arc::new(registry), ended.clone()));

    let operator = Operator::new(OperatorSettings {
        endpoint: args.operator,
        server_name: args.operator_server_name,
        authorities: args.operator_ca,
        token: args.token_file,
    });
    let layout = Layout::new(&args.kubelet_root);
    let plugin = Plugin::new(args.node_name, layout, operator, mounts, metrics, volumes);
    let endpoint = args.kubelet_root.join("plugins").join(DRIVER).join("csi.sock");
    let driver = Routes::new(IdentityServer::new(About)).add_service(NodeServer::new(plugin));
    let registrar = Registrar { endpoint: endpoint.clone(), registered };
    let registrar = Routes::new(RegistrationServer::new(registrar));
    let registry = args.kubelet_root.join("plugins_registry").join(registration::SOCKET);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving the kubelet");
    let served = tokio::try_join!(
        socket::serve(endpoint, driver, shutdown.clone()),
        socket::serve(registry, registrar, shutdown.clone()),
    );
    readiness.end();
    ended.trigger();
    let _panic_was_logged = probes.await;
    served?;
    Ok(())
}
