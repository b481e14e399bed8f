//! The accept loop of every server of the project, plain or TLS.
//!
//! # Guarantees
//! * No error on one connection, and no error of `accept` itself, ends the loop. When file descriptors run out, the
//!   connection that has waited longest gives way.
//! * A handshake, the first request, and idleness are bounded in time; open connections are bounded in number.
//! * On shutdown it keeps serving for [`Limits::linger`] while telling clients to close, because load balancers and
//!   pooled connections learn late; then it stops accepting and finishes what is in hand, for at most
//!   [`Limits::finish`].
//!
//! # Why HTTP/1 only
//! The callers are probes, scrapers and API servers at tens of requests a second. HTTP/2 would add its reset and
//! continuation floods and save nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::connections::{Connections, Ticket};
use crate::shutdown::Shutdown;

/// How many connections give way when there is no file descriptor for a new one.
const SHED_AT_ONCE: usize = 8;

/// How often it is said that connections cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest time from the handshake to the end of the first request's header.
    pub first_request: Duration,
    /// Longest time between requests, and for a later header. Longer than the 90 s for which Go clients (the API
    /// server is one) keep an idle connection: the client must be the one to close, or its next request is lost.
    pub idle: Duration,
    /// Most open connections; beyond it the one that waited longest gives way.
    pub connections: usize,
    /// How long to go on serving after the shutdown was triggered.
    pub linger: Duration,
    /// How long requests in hand may take after that.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(5),
            idle: Duration::from_mins(2),
            connections: 512,
            linger: Duration::ZERO,
            finish: Duration::from_secs(5),
        }
    }
}

/// What a server counted. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    accepted: Counter,
    shed: Counter,
    handshakes_failed: Counter,
    accept_errors: Counter,
}

impl Counters {
    /// Adds `connections_accepted_total`, `connections_shed_total`, `tls_handshakes_failed_total` and
    /// `accept_errors_total` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        registry.register("connections_accepted", "Connections accepted", counters.accepted.clone());
        registry.register("connections_shed", "Connections closed to make room", counters.shed.clone());
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or took too long",
            counters.handshakes_failed.clone(),
        );
        registry.register(
            "accept_errors",
            "Connections that could not be accepted",
            counters.accept_errors.clone(),
        );
        counters
    }
}

/// Listens on `address`.
///
/// # Errors
/// What the operating system says, for example that the address is in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` on `listener`, over TLS if `tls` is given, until `shutdown`. See the module's guarantees.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    counters: Counters,
    shutdown: Shutdown,
) {
    let server = Server {
        tls: tls.map(TlsAcceptor::from),
        router,
        limits,
        counters,
        lingering: shutdown,
        finishing: Shutdown::new(),
    };
    let connections = Connections::default();
    let mut tasks = JoinSet::new();
    let mut warned = None;
    let mut end = pin!(server.end_of_accepting());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut end => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                server.counters.accepted.inc();
                if server.make_room(&connections) {
                    tasks.spawn(server.clone().connection(stream, connections.enter()));
                }
            }
            Err(error) => server.after_accept_error(&error, &connections, &mut warned).await,
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    server.finishing.trigger();
    let finished =
        tokio::time::timeout(limits.finish, async { while tasks.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::warn!(connections = tasks.len(), "closing connections that did not finish in time");
    }
    tasks.shutdown().await;
}

#[derive(Clone)]
struct Server {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    counters: Counters,
    /// Still serving, but every answer asks the client to close.
    lingering: Shutdown,
    /// Only what is in hand is finished.
    finishing: Shutdown,
}

impl Server {
    async fn end_of_accepting(&self) {
        self.lingering.triggered().await;
        tokio::time::sleep(self.limits.linger).await;
    }

    /// Whether one more connection may be opened. Who cannot be, because every other has a request in hand, is
    /// closed unheard.
    fn make_room(&self, connections: &Connections) -> bool {
        // Those already told to close count until they are gone, so one is shed for each that comes.
        if connections.len() < self.limits.connections {
            return true;
        }
        self.counters.shed.inc();
        connections.shed()
    }

    async fn after_accept_error(
        &self,
        error: &io::Error,
        connections: &Connections,
        warned: &mut Option<Instant>,
    ) {
        self.counters.accept_errors.inc();
        // The connection died in the backlog: its own affair.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
        ) {
            return;
        }
        // Out of file descriptors or memory. It lasts, so it is not said each time.
        if warned.is_none_or(|last| last.elapsed() > WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections; closing those that wait");
        }
        let shed = (0..SHED_AT_ONCE).take_while(|_| connections.shed()).count();
        self.counters.shed.inc_by(shed as u64);
        // Those that were shed need a moment to go; with nobody to shed, accepting again at once would only spin.
        tokio::time::sleep(Duration::from_millis(if shed == 0 { 20 } else { 1 })).await;
    }

    async fn connection(self, stream: TcpStream, ticket: Ticket) {
        let _no_delay_is_an_optimisation = stream.set_nodelay(true);
        let Some(acceptor) = &self.tls else { return self.http(stream, ticket).await };
        let handshake = tokio::select! {
            () = ticket.closing() => return,
            () = self.finishing.triggered() => return,
            handshake = tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)) => handshake,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, ticket).await,
            Ok(Err(error)) => {
                self.counters.handshakes_failed.inc();
                tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => {
                self.counters.handshakes_failed.inc();
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ticket: Ticket) {
        let ticket = Arc::new(ticket);
        let answer = service_fn(|request: hyper::Request<Incoming>| {
            ticket.busy();
            let router = self.router.clone();
            let ticket = ticket.clone();
            async move {
                let Ok(mut response) = router.oneshot(request.map(Body::new)).await;
                if self.lingering.is_triggered() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                ticket.idle();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let mut first_request = pin!(tokio::time::sleep(self.limits.first_request));
        let mut waiting_for_first = true;
        let mut finishing = false;
        loop {
            tokio::select! {
                _closed = &mut connection => return,
                () = ticket.closing() => return,
                () = &mut first_request, if waiting_for_first => {
                    waiting_for_first = false;
                    if !ticket.has_served() {
                        return;
                    }
                }
                () = self.finishing.triggered(), if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
