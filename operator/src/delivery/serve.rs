//! The delivery API's server: the contract over HTTP/2 and TLS, with bounds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use sealedenv_delivery::server::service;
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;

use super::accept::{self, Most, connections};
use super::ca::{Bundle, Ca};
use super::desk::Desk;
use crate::controller::Extent;
use crate::leader::clock::Steady;
use crate::reconcile::Context;

/// Connections. A node plugin keeps one, or two while it changes to the next; an agent opens one when it asks, once a
/// minute, and closes it. So 64 are enough for one node's pods where its address hides them, and 2,048 for 2,000 nodes
/// of a single replica. An idle one costs some tens of KiB in TLS, HTTP/2 and the kernel, of the 256 MiB there are.
const MOST: Most = Most { all: 2048, each: 64 };

/// How long a connection lives at most. Then it is made anew, with the certificate and the replicas of that time.
const AGE: Duration = Duration::from_mins(10);

/// How long calls in hand may take when a connection's time is over.
const AGE_GRACE: Duration = Duration::from_secs(10);

/// Longest time for a call, should the desk not end it.
const CALL: Duration = Duration::from_secs(10);

/// How often a quiet connection is looked after, and how long its sign of life is waited for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Calls at the same time on one connection.
const STREAMS: u32 = 16;

/// Largest header of a call: two tokens, and what HTTP needs.
const HEADER: u32 = 20 << 10;

/// How long to go on serving after the signal to end: clients learn late that this replica goes.
const LINGER: Duration = Duration::from_secs(3);

/// Where and as whom the API is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
    /// Names that clients may call it by.
    pub names: Vec<String>,
    /// The operator's namespace, where the authorities are kept.
    pub namespace: String,
    /// User name of the node plugin's ServiceAccount.
    pub plugin_user: String,
}

impl Settings {
    /// For the Service `service` of `namespace`, and the node plugin's ServiceAccount beside it.
    pub fn new(listen: SocketAddr, service: &str, namespace: &str, plugin_account: &str) -> Self {
        let host = format!("{service}.{namespace}.svc");
        Self {
            listen,
            names: vec![format!("{host}.cluster.local"), host, format!("{service}.{namespace}")],
            namespace: namespace.to_owned(),
            plugin_user: format!("system:serviceaccount:{namespace}:{plugin_account}"),
        }
    }
}

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("setting up TLS")]
    Tls(#[source] io::Error),
}

/// What the API works with.
pub struct Parts {
    /// Keys, trail, API server.
    pub ctx: Arc<Context>,
    /// Asks for the facts about a call. It need neither wait for leadership, which no question takes, nor be patient with a
    /// busy API server: a call has no time for that.
    pub client: Client,
    /// Where SealedEnvs are watched.
    pub extents: Vec<Extent>,
    /// A clock that goes on while the machine sleeps.
    pub steady: Steady,
    /// What is counted.
    pub metrics: super::metrics::Deliveries,
    /// Opened when there is a certificate.
    pub ready: Gate,
}

/// Serves until shutdown, from the moment when there is a certificate.
///
/// # Errors
/// [`ServeError`], before anything is served.
pub fn start(
    settings: Settings,
    parts: Parts,
    shutdown: Shutdown,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let Settings { listen, names, namespace, plugin_user } = settings;
    let Parts { ctx, client, extents, steady, metrics, ready } = parts;
    let bound = accept::listen(listen);
    let listener = bound.map_err(|source| ServeError::Listen { address: listen, source })?;
    let certificates = Certificates::new();
    let tls = certificates.server_config_for(b"h2").map_err(|e| ServeError::Tls(io::Error::other(e)))?;
    let bundle = Bundle::default();
    let ca = Ca {
        client: ctx.client.clone(),
        namespace,
        names,
        clock: ctx.clock.clone(),
        leadership: ctx.leadership.clone(),
        certificates,
        bundle: bundle.clone(),
        ready,
    };
    let desk = Desk::new(ctx, client, extents, plugin_user, bundle, steady, metrics);
    tracing::info!(address = %listen, "serving the delivery API");
    Ok(vec![
        tokio::spawn(ca.run(shutdown.clone())),
        tokio::spawn(serve(listener, TlsAcceptor::from(tls), desk, shutdown)),
    ])
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, desk: Desk, shutdown: Shutdown) {
    let ending = Shutdown::new();
    tokio::spawn({
        let ending = ending.clone();
        async move {
            shutdown.triggered().await;
            tokio::time::sleep(LINGER).await;
            ending.trigger();
        }
    });
    let incoming = connections(listener, tls, MOST, AGE + AGE_GRACE, ending.clone());
    let served = Server::builder()
        .timeout(CALL)
        .max_connection_age(AGE)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER)
        .serve_with_incoming_shutdown(service(desk), incoming, async move { ending.triggered().await })
        .await;
    if let Err(error) = served {
        tracing::error!(error = chain(&error), "the delivery API ended");
    }
}
