//! Wiring: from flags to a running webhook, and to an exit code.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use clap::Parser as _;
use jiff::Timestamp;
use kube::client::ClientBuilder;
use kube::config::InferConfigError;
use kube::{Client, Config};
use sealedenv_audit::{self as audit, Action, Actor, AuditError, Log, Outcome, Record};
use sealedenv_runtime::api::ApiMetrics;
use sealedenv_runtime::files::Files;
use sealedenv_runtime::log::Format;
use sealedenv_runtime::metrics::Requests;
use sealedenv_runtime::readiness::Readiness;
use sealedenv_runtime::serve::{self, Limits};
use sealedenv_runtime::shutdown::{self, Shutdown};
use sealedenv_runtime::tls::Certificates;
use sealedenv_runtime::{admin, crypto, log, memory, metrics as registry};

use crate::args::Args;
use crate::authorities::Authorities;
use crate::cache::Cache;
use crate::metrics::{CertificateMetrics, METRICS_PREFIX, Metrics};
use crate::mounted;
use crate::registration::Registration;
use crate::rotation::{Plan, Rotation};
use crate::router::{Admission, router};
use crate::trail::{self, Trail};
use crate::waiting;

/// The webhook's name in logs and records.
pub(crate) const COMPONENT: &str = "sealedenv-webhook";

/// How long to go on serving after the signal: API servers keep connections, and learn late that we are going.
const LINGER: Duration = Duration::from_secs(3);

/// Why the webhook ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging could not be set up.
    #[error("setting up logging")]
    Log(#[from] log::InitError),
    /// Signals could not be caught.
    #[error("catching signals")]
    Signals(#[source] std::io::Error),
    /// The system gave no random bytes.
    #[error("making a name for this start of the webhook")]
    Random(#[source] getrandom::Error),
    /// The audit trail could not be opened.
    #[error("opening the audit trail")]
    Audit(#[from] AuditError),
    /// There is no configuration of an API client.
    #[error("finding the API server")]
    Config(#[source] Box<InferConfigError>),
    /// No API client could be made.
    #[error("making an API client")]
    Client(#[source] Box<kube::Error>),
    /// TLS cannot be served.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    /// An address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

impl RunError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Audit(AuditError::NoSink) => Some(
                "give --audit-file or --audit-stdout, or accept the loss with --audit-failure-policy=open",
            ),
            Self::Config(_) | Self::Client(_) => {
                Some("run it in a pod with a ServiceAccount, or set KUBECONFIG")
            }
            Self::Listen { .. } => Some("choose other addresses with --https-listen and --http-listen"),
            Self::Log(_) | Self::Signals(_) | Self::Random(_) | Self::Audit(_) | Self::Tls(_) => None,
        }
    }
}

/// Runs until a signal, or a failure to start.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    // What is put into an object by mistake comes past here, and the private keys of our certificates are in memory.
    if let Err(error) = memory::keep_to_itself() {
        eprintln!("warning: core dumps could not be forbidden: {error}");
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                let _infallible = write!(text, ": {cause}");
                source = cause.source();
            }
            if let Some(hint) = error.hint() {
                let _infallible = write!(text, "\nhint: {hint}");
            }
            eprintln!("{text}");
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
    let about_certificate = CertificateMetrics::register(&mut registry);
    let api = ApiMetrics::register(&mut registry);
    let requests = Requests::register(&mut registry);
    let connections = serve::Counters::register(&mut registry);
    let records = trail::Counters::register(&mut registry);
    let readiness = Readiness::new();
    let (certificate, cache) = (readiness.gate("certificate"), readiness.gate("sealedenvs"));

    let listen = |address| async move {
        serve::listen(address).await.map_err(|source| RunError::Listen { address, source })
    };
    let (probes, listener) = (listen(args.http_listen).await?, listen(args.https_listen).await?);
    let certificates = Certificates::new();
    let tls = certificates.server_config().map_err(RunError::Tls)?;
    let trail = Trail::new(open_log(&args)?, records, Timestamp::now);
    let client = client(&api).await?;
    let api_client = client.clone();

    // Probes are answered until the very end: the last answers are about what is being finished.
    let ended = Shutdown::new();
    let probes = tokio::spawn(admin::serve_on(probes, readiness.clone(), Arc::new(registry), ended.clone()));
    let known = Cache::default();
    let (waiting, queue) = waiting::queue();
    let (settings, authorities) = (Arc::new(args.settings()), Authorities::default());
    let mut tasks = vec![
        tokio::spawn(known.clone().follow(client.clone(), cache, shutdown.clone())),
        tokio::spawn(waiting::report(client.clone(), args.instance.clone(), queue, shutdown.clone())),
        match &args.certificate_dir {
            Some(folder) => tokio::spawn(mounted::keep(
                Files::new(folder),
                certificates,
                about_certificate,
                certificate,
                shutdown.clone(),
            )),
            None => tokio::spawn(registration(&args).keep(
                client,
                rotation(&args),
                certificates,
                about_certificate,
                certificate,
                shutdown.clone(),
            )),
        },
        tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                shutdown.triggered().await;
                readiness.end();
            }
        }),
    ];
    if settings.operator.is_some() {
        let follow = authorities.clone().follow(api_client, args.namespace.clone(), shutdown.clone());
        tasks.push(tokio::spawn(follow));
    }
    record(&trail, &args, Action::Start).await;

    let admission = Admission {
        environments: Arc::new(known),
        settings,
        authorities,
        trail: trail.clone(),
        metrics,
        waiting,
    };
    let router = router(admission).layer(from_fn_with_state(requests, Requests::layer));
    let limits = Limits { linger: LINGER, ..Limits::default() };
    tracing::info!(address = %args.https_listen, version = env!("CARGO_PKG_VERSION"), "serving");
    serve::serve(listener, Some(tls), router, limits, connections, shutdown).await;

    for task in tasks {
        if task.await.is_err() {
            tracing::error!("a task ended in a panic");
        }
    }
    record(&trail, &args, Action::Stop).await;
    let _panic_was_logged = tokio::task::spawn_blocking(|| drop(trail)).await;
    ended.trigger();
    let _panic_was_logged = probes.await;
    Ok(())
}

/// A client whose requests are counted.
async fn client(metrics: &ApiMetrics) -> Result<Client, RunError> {
    let config = Config::infer().await.map_err(|error| RunError::Config(Box::new(error)))?;
    let builder = ClientBuilder::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
    Ok(builder.with_layer(metrics).build())
}

fn registration(args: &Args) -> Registration {
    Registration {
        configuration: args.webhook_configuration.clone(),
        service: args.service_name.clone(),
        namespace: args.namespace.clone(),
    }
}

fn rotation(args: &Args) -> Rotation {
    Rotation::new(Plan::new(&args.service_name, &args.namespace, args.certificate_lifetime))
}

fn open_log(args: &Args) -> Result<Log, RunError> {
    let (file, policy) = (args.audit_file.as_deref(), args.audit_failure_policy.into());
    Ok(Log::of_service(file, args.audit_stdout, name_of_this_start(args)?, policy)?)
}

/// What the audit trail calls this process. A former start of the same pod is another writer.
fn name_of_this_start(args: &Args) -> Result<String, RunError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(RunError::Random)?;
    Ok(audit::writer(&args.instance, random))
}

/// Puts our own start or stop on the trail. Neither gives anything to anybody, so neither waits for a sink that fails:
/// that shows in the log, in a metric, and in every admission that is refused.
async fn record(trail: &Trail, args: &Args, action: Action) {
    let record = Record::new(action, Actor::webhook(args.instance.as_str()), Outcome::Ok)
        .detail(concat!("version ", env!("CARGO_PKG_VERSION")));
    if trail.record(record).await.is_err() {
        tracing::warn!(action = action.as_str(), "not on the audit trail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_name_of_its_own() {
        let args = Args::parse_from(["sealedenv-webhook", "--instance", "hook-0"]);
        let [former, this] = [(); 2].map(|()| name_of_this_start(&args).unwrap());
        assert!(former.starts_with("hook-0_") && this.starts_with("hook-0_"), "{former} {this}");
        assert_ne!(former, this);
    }
}
