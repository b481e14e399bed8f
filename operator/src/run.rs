//! Wiring: from flags to a running operator, and to an exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use kube::Client;
use sealedenv_audit::{self as audit, Action, Actor, ActorKind, AuditError, Log, Outcome, Record};
use sealedenv_runtime::api::ApiMetrics;
use sealedenv_runtime::readiness::{Gate, Readiness};
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::{self, Shutdown};
use sealedenv_runtime::{admin, crypto, log, memory, metrics as registry, report};

use tokio::task::JoinHandle;

use crate::args::Args;
use crate::client::{self, ConnectError};
use crate::clock::Clock;
use crate::controller::{self, Extent};
use crate::delivery::book::Book;
use crate::delivery::metrics::Deliveries;
use crate::delivery::serve::{self as delivery, Parts, ServeError};
use crate::digest::DigestKey;
use crate::keys::decide::Start;
use crate::keys::store::{Keys, KeysError};
use crate::keys::watch::follow;
use crate::known::{Waiting, Written};
use crate::leader::clock::Steady;
use crate::leader::decide::Timing;
use crate::leader::elect::{self, Candidate};
use crate::leader::lease::LeaseApi;
use crate::leader::{Leadership, Role};
use crate::metrics::{METRICS_PREFIX, Metrics};
use crate::notices::Notices;
use crate::reconcile::Context;
use crate::secrets::Secrets;
use crate::trail::Trail;

/// How many bytes of sealed values may wait in memory for their turn. What does not fit is read again. What was there
/// once stays with the C library: 16 MiB of values cost 25 MiB at rest.
const WAITING_BYTES: usize = 6 << 20;

/// How long work that was begun may take after the signal to end. With the seconds that giving up the Lease and the
/// last record may take, it stays below Kubernetes' own 30 s.
const FINISH: Duration = Duration::from_secs(18);

/// How often to look whether the first key is there by now, and the first pause when the API server does not answer.
const KEYS_AGAIN: Duration = Duration::from_secs(1);

/// The longest pause.
const KEYS_AT_MOST: Duration = Duration::from_secs(15);

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
    /// No API client could be made.
    #[error("connecting to the API server")]
    Client(#[from] ConnectError),
    /// The system gave no random bytes.
    #[error("making a name for this start of the operator")]
    Random(#[source] getrandom::Error),
    /// The audit trail could not be opened.
    #[error("opening the audit trail")]
    Audit(#[from] AuditError),
    /// Keys could not be loaded.
    #[error("loading the sealing keys")]
    Keys(#[from] KeysError),
    /// Memory delivery cannot be served.
    #[error("serving Memory delivery")]
    Delivery(#[from] ServeError),
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
            Self::Client(_) => Some("run it in a pod with a ServiceAccount, or set KUBECONFIG"),
            Self::Audit(AuditError::NoSink) => Some(
                "give --audit-file or --audit-stdout, or accept the loss with --audit-failure-policy=open",
            ),
            Self::Admin { .. } => Some("choose another address with --http-listen"),
            Self::Delivery(_) => Some("choose another address with --delivery-listen"),
            Self::Log(_) | Self::Signals(_) | Self::Audit(_) | Self::Random(_) => None,
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Keys(KeysError::NoKey(_)) => ExitCode::from(EXIT_NO_KEY),
            Self::Log(_)
            | Self::Signals(_)
            | Self::Client(_)
            | Self::Audit(_)
            | Self::Keys(_)
            | Self::Random(_)
            | Self::Delivery(_)
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
    let deliveries = Deliveries::register(&mut registry);
    let api = ApiMetrics::register(&mut registry);
    let readiness = Readiness::new();
    let (keys_gate, sync_gate) = (readiness.gate("keys"), readiness.gate("sync"));
    let delivery_gate = args.delivery_listen.is_some().then(|| readiness.gate("delivery"));
    let admin = tokio::spawn(admin::serve(args.http_listen, readiness, Arc::new(registry), shutdown.clone()));

    let steady = Steady::system();
    let leadership =
        if args.leader_elect { Leadership::elected(steady.clone()) } else { Leadership::alone() };
    let me = name_of_this_start(&args)?;
    let policy = args.audit_failure_policy.into();
    let log = Log::of_service(args.audit_file.as_deref(), args.audit_stdout, me.as_str(), policy)?;
    let log = Arc::new(log);
    metrics.follow(&log);
    let trail = Trail::new(log, clock.clone(), leadership.clone());
    let clients = client::connect(&leadership, &api).await?;
    let notices = Notices::start(clients.work.clone(), Some(args.instance.clone()));
    let keys = Keys::new(
        clients.work.clone(),
        args.namespace.clone(),
        clock.clone(),
        trail.clone(),
        notices.clone(),
        leadership.clone(),
    );
    let keys = Arc::new(keys.with_metrics(metrics.clone()));
    // Before the election: a replica that has no key to work with must not hold the Lease either.
    let extents = extents(&args);
    let start = tokio::select! {
        start = patiently(|| keys.start(args.generate_key.into(), &extents)) => start?,
        () = shutdown.triggered() => return Ok(()),
    };
    let election = if args.leader_elect {
        Some(elect::Running::start(candidate(me, &args, clients.election, steady.clone(), &leadership)))
    } else {
        None
    };
    tokio::spawn(show_role(leadership.clone(), metrics.clone()));

    let replica = Replica {
        args,
        extents,
        client: clients.work,
        delivery_client: clients.delivery,
        clock,
        steady,
        leadership,
        keys,
        trail,
        notices,
        metrics,
        shutdown,
        keys_gate,
        sync_gate,
        deliveries,
        delivery_gate,
    };
    let served = replica.serve(start, admin).await;
    if let Some(election) = election {
        election.end().await;
    }
    served
}

/// One running replica.
struct Replica {
    args: Args,
    extents: Vec<Extent>,
    client: Client,
    delivery_client: Client,
    clock: Clock,
    steady: Steady,
    leadership: Leadership,
    keys: Arc<Keys>,
    trail: Trail,
    notices: Notices,
    metrics: Metrics,
    shutdown: Shutdown,
    keys_gate: Gate,
    sync_gate: Gate,
    deliveries: Deliveries,
    delivery_gate: Option<Gate>,
}

impl Replica {
    /// Watches, and works while it leads, until a signal.
    async fn serve(self, start: Start, mut admin: JoinHandle<std::io::Result<()>>) -> Result<(), RunError> {
        let digests = tokio::select! {
            digests = self.prepare(start) => digests?,
            () = self.shutdown.triggered() => return Ok(()),
        };
        self.keys_gate.set(true);
        // A start is no release. Without a sink the operator runs and says so on every object; it does not restart in
        // a loop, which would only hide the cause.
        if let Err(error) = self.trail.record_own(vec![own_record(Action::Start)]).await {
            tracing::error!(
                error = chain(&error),
                "the start is not on record; no value is released until a sink takes records"
            );
        }

        let mut tasks = Vec::new();
        let book = if self.args.delivery_listen.is_some() {
            let notices = Notices::start(self.delivery_client.clone(), Some(self.args.instance.clone()));
            let (clock, metrics, shutdown) =
                (self.clock.clone(), self.deliveries.clone(), self.shutdown.clone());
            let (book, told) = Book::start(self.delivery_client.clone(), clock, notices, metrics, shutdown);
            tasks.push(told);
            book
        } else {
            Book::nowhere()
        };
        let context = Arc::new(Context {
            client: self.client,
            leadership: self.leadership,
            clock: self.clock,
            keys: Arc::clone(&self.keys),
            digests,
            secrets: Secrets::default(),
            waiting: Waiting::new(WAITING_BYTES),
            written: Written::default(),
            trail: self.trail.clone(),
            notices: self.notices,
            metrics: self.metrics,
            failures: crate::backoff::Failures::default(),
            repairs: crate::repairs::Repairs::new(self.steady.clone()),
            book,
        });
        if let (Some(listen), Some(ready)) = (self.args.delivery_listen, self.delivery_gate) {
            let Args { delivery_service, namespace, node_service_account, .. } = &self.args;
            let settings = delivery::Settings::new(listen, delivery_service, namespace, node_service_account);
            let (ctx, extents, steady) = (Arc::clone(&context), self.extents.clone(), self.steady);
            let parts =
                Parts { ctx, client: self.delivery_client, extents, steady, metrics: self.deliveries, ready };
            tasks.extend(delivery::start(settings, parts, self.shutdown.clone())?);
        }
        let controllers =
            start_controllers(self.extents, self.args.workers, &context, &self.shutdown, self.sync_gate);
        tasks.extend(controllers);
        tasks.push(tokio::spawn(follow(self.keys, self.shutdown.clone())));

        let ended = tokio::select! {
            ended = &mut admin => match ended {
                Ok(Err(source)) => Err(RunError::Admin { address: self.args.http_listen, source }),
                _ => Ok(()),
            },
            () = self.shutdown.triggered() => Ok(()),
        };
        self.shutdown.trigger();
        tracing::info!("shutting down: finishing what was begun");
        let finished = async {
            for task in tasks {
                if task.await.is_err() {
                    tracing::error!("a controller ended in a panic");
                }
            }
        };
        if tokio::time::timeout(FINISH, finished).await.is_err() {
            tracing::warn!("not everything was finished in time; the next leader goes on with it");
        }
        if let Err(error) = self.trail.record_own(vec![own_record(Action::Stop)]).await {
            tracing::warn!(error = chain(&error), "the stop is not on record");
        }
        ended
    }

    /// Waits until there are keys to work with: in a new cluster, until this replica or another one has made them.
    async fn prepare(&self, mut start: Start) -> Result<Arc<DigestKey>, RunError> {
        loop {
            if start == Start::Go
                && let Some(key) = patiently(|| self.keys.digest_key()).await?
            {
                return Ok(key);
            }
            tokio::select! {
                () = self.leadership.gained() => {}
                () = tokio::time::sleep(KEYS_AGAIN) => {}
            }
            start = patiently(|| self.keys.start(self.args.generate_key.into(), &self.extents)).await?;
        }
    }
}

/// Tries again while the API server is away or busy. To end instead would leave the next try to the kubelet, whose
/// pauses grow to minutes.
async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, KeysError>) -> Result<T, KeysError> {
    let mut wait = KEYS_AGAIN;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() => {
                tracing::warn!(error = chain(&error), "the sealing keys cannot be looked at yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(KEYS_AT_MOST);
            }
            answer => return answer,
        }
    }
}

/// Tells logs and metrics which replica this is.
async fn show_role(leadership: Leadership, metrics: Metrics) {
    let mut roles = leadership.roles();
    let first = *roles.borrow_and_update();
    metrics.role(first);
    if first == Role::Standby {
        tracing::info!("standing by");
    }
    while roles.changed().await.is_ok() {
        metrics.role_changed(*roles.borrow_and_update());
    }
}

/// What the Lease and the audit trail call this process. The name before `_` is for people; what follows makes it unlike
/// any other process, a former one of the same pod included.
fn name_of_this_start(args: &Args) -> Result<String, RunError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(RunError::Random)?;
    Ok(audit::writer(&args.instance, random))
}

/// This process in the election.
fn candidate(me: String, args: &Args, client: Client, clock: Steady, leadership: &Leadership) -> Candidate {
    let timing = Timing::new(Duration::from_secs(args.lease_seconds.into()));
    let lease = LeaseApi::new(client, &args.namespace, me.clone(), timing.lease(), timing.answer());
    Candidate { me, timing, clock, lease, leadership: leadership.clone() }
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

fn own_record(action: Action) -> Record {
    let actor = Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() };
    Record::new(action, actor, Outcome::Ok).detail(concat!("version ", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_name_of_its_own() {
        let args = Args::parse_from(["sealedenv-operator", "--instance", "op-0"]);
        let [former, this] = [(); 2].map(|()| name_of_this_start(&args).unwrap());
        assert!(former.starts_with("op-0_") && this.starts_with("op-0_"), "{former} {this}");
        assert_ne!(former, this);
    }
}
