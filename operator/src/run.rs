//! Wiring: from flags to a running operator, and to an exit code.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use kube::client::ClientBuilder;
use kube::config::InferConfigError;
use kube::{Client, Config};
use sealedenv_audit::{
    Action, Actor, ActorKind, AuditError, FileSink, Log, Outcome, Record, Rotation, Sink, StdoutSink,
};
use sealedenv_runtime::api::ApiMetrics;
use sealedenv_runtime::readiness::{Gate, Readiness};
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::{self, Shutdown};
use sealedenv_runtime::{admin, crypto, log, memory, metrics as registry, report};

use crate::args::Args;
use crate::clock::Clock;
use crate::controller::{self, Extent};
use crate::keys::store::{Keys, KeysError};
use crate::keys::watch::follow;
use crate::known::{Waiting, Written};
use crate::metrics::{METRICS_PREFIX, Metrics};
use crate::notices::Notices;
use crate::reconcile::Context;
use crate::secrets::Secrets;
use crate::trail::Trail;

/// How many bytes of sealed values may wait in memory for their turn. What does not fit is read again.
const WAITING_BYTES: usize = 16 << 20;

/// Exit code for I3: there is no key to work with.
const EXIT_NO_KEY: u8 = 3;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging could not be set up.
    #[error("setting up logging")]
    Log(#[from] log::InitError),
    /// Signals could not be caught.
    #[error("catching signals")]
    Signals(#[source] std::io::Error),
    /// There is no configuration of an API client.
    #[error("finding the API server")]
    Config(#[source] Box<InferConfigError>),
    /// No API client could be made.
    #[error("making an API client")]
    Client(#[source] Box<kube::Error>),
    /// The audit trail could not be opened.
    #[error("opening the audit trail")]
    Audit(#[from] AuditError),
    /// Keys could not be loaded.
    #[error("loading the sealing keys")]
    Keys(#[from] KeysError),
    /// Health and metrics cannot be served.
    #[error("serving health and metrics on {address}")]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

impl RunError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Keys(error) => error.hint(),
            Self::Config(_) | Self::Client(_) => {
                Some("run it in a pod with a ServiceAccount, or set KUBECONFIG")
            }
            Self::Audit(AuditError::NoSink) => Some(
                "give --audit-file or --audit-stdout, or accept the loss with --audit-failure-policy=open",
            ),
            Self::Admin { .. } => Some("choose another address with --http-listen"),
            Self::Log(_) | Self::Signals(_) | Self::Audit(_) => None,
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Keys(KeysError::NoKey(_)) => ExitCode::from(EXIT_NO_KEY),
            Self::Log(_)
            | Self::Signals(_)
            | Self::Config(_)
            | Self::Client(_)
            | Self::Audit(_)
            | Self::Keys(_)
            | Self::Admin { .. } => ExitCode::FAILURE,
        }
    }
}

/// Runs until a signal or a failure to start.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    // A core dump would hold keys and values.
    if let Err(error) = memory::keep_to_itself() {
        eprintln!("warning: core dumps could not be forbidden: {error}");
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::to_stderr(&error, error.hint());
            error.code()
        }
    }
}

async fn run(args: Args) -> Result<(), RunError> {
    log::init(args.log_format, &args.log_level)?;
    match memory::stay_out_of_swap() {
        Ok(memory::Swap::Never) => tracing::info!("all memory is locked: nothing is swapped out"),
        Ok(memory::Swap::Limited(bytes)) => {
            tracing::debug!(bytes, "memory is not locked: the limit on locked memory does not allow it");
        }
        Err(error) => tracing::warn!(error = chain(&error), "memory could not be locked"),
    }
    crypto::install();
    let shutdown = shutdown::signal().map_err(RunError::Signals)?;
    let clock = Clock::system();

    let build = registry::Build { version: env!("CARGO_PKG_VERSION").into(), component: crate::ACTOR.into() };
    let mut registry = registry::registry(METRICS_PREFIX, &build);
    let metrics = Metrics::register(&mut registry);
    metrics.objects.limit(args.object_series);
    let api = ApiMetrics::register(&mut registry);
    let readiness = Readiness::new();
    let (keys_gate, sync_gate) = (readiness.gate("keys"), readiness.gate("sync"));
    let admin = tokio::spawn(admin::serve(args.http_listen, readiness, Arc::new(registry), shutdown.clone()));

    let log = Arc::new(open_log(&args)?);
    metrics.follow(&log);
    let trail = Trail::new(log, clock.clone());
    let client = client(&api).await?;
    let notices = Notices::start(client.clone(), Some(args.instance.clone()));
    let namespace = args.namespace.clone();
    let keys = Keys::new(client.clone(), namespace, clock.clone(), trail.clone(), notices.clone());
    let keys = Arc::new(keys.with_metrics(metrics.clone()));
    let extents = extents(&args);
    keys.start(args.generate_key.into(), &extents).await?;
    keys_gate.set(true);
    let digests = keys.digest_key().await?;
    // A start is no release. Without a sink the operator runs and says so on every object; it does not restart in
    // a loop, which would only hide the cause.
    if let Err(error) = trail.record(vec![own_record(Action::Start)]).await {
        tracing::error!(
            error = chain(&error),
            "the start is not on record; no value is released until a sink takes records"
        );
    }

    let context = Arc::new(Context {
        client,
        clock,
        keys: Arc::clone(&keys),
        digests,
        secrets: Secrets::default(),
        waiting: Waiting::new(WAITING_BYTES),
        written: Written::default(),
        trail: trail.clone(),
        notices,
        metrics,
        failures: crate::backoff::Failures::default(),
    });
    let follower = tokio::spawn(follow(keys, shutdown.clone()));
    let controllers = start_controllers(extents, args.workers, &context, &shutdown, sync_gate);

    let mut admin = admin;
    tokio::select! {
        ended = &mut admin => {
            if let Ok(Err(source)) = ended {
                shutdown.trigger();
                return Err(RunError::Admin { address: args.http_listen, source });
            }
        }
        () = shutdown.triggered() => {}
    }
    tracing::info!("shutting down: finishing what was begun");
    for controller in controllers {
        if controller.await.is_err() {
            tracing::error!("a controller ended in a panic");
        }
    }
    follower.abort();
    if let Err(error) = trail.record(vec![own_record(Action::Stop)]).await {
        tracing::warn!(error = chain(&error), "the stop is not on record");
    }
    Ok(())
}

/// A client whose requests are counted.
async fn client(metrics: &ApiMetrics) -> Result<Client, RunError> {
    let config = Config::infer().await.map_err(|e| RunError::Config(Box::new(e)))?;
    let builder = ClientBuilder::try_from(config).map_err(|e| RunError::Client(Box::new(e)))?;
    Ok(builder.with_layer(metrics).build())
}

/// Where SealedEnvs are watched.
fn extents(args: &Args) -> Vec<Extent> {
    match args.watch_namespaces.as_slice() {
        [] => vec![Extent::Cluster],
        some => some.iter().map(|n| Extent::Namespace(n.trim().to_owned())).collect(),
    }
}

fn start_controllers(
    extents: Vec<Extent>,
    workers: u16,
    context: &Arc<Context>,
    shutdown: &Shutdown,
    synced: Gate,
) -> Vec<tokio::task::JoinHandle<()>> {
    let all = controller::Synced::new(extents.len(), synced);
    let start = |extent: Extent| {
        tracing::info!(?extent, "watching");
        let controller = controller::run(Arc::clone(context), extent, workers, all.clone(), shutdown.clone());
        tokio::spawn(controller)
    };
    extents.into_iter().map(start).collect()
}

fn open_log(args: &Args) -> Result<Log, AuditError> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(path) = &args.audit_file {
        sinks.push(Box::new(FileSink::new(path, Rotation::default())));
    }
    if args.audit_stdout {
        sinks.push(Box::new(StdoutSink::new()));
    }
    Log::open(sinks, args.instance.as_str(), args.audit_failure_policy.into())
}

fn own_record(action: Action) -> Record {
    let actor = Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() };
    Record::new(action, actor, Outcome::Ok).detail(concat!("version ", env!("CARGO_PKG_VERSION")))
}
