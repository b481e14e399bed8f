//! Connections to stores.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::guard::{Policy, Refused, Target};

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Finds the numbers that a host stands for.
pub type Lookup = Arc<dyn Fn(String) -> Pending<io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Longest time for a connection: the look-up, each number that is tried, and TLS.
pub(super) const CONNECT: Duration = Duration::from_secs(8);

/// Of that, for one number.
const ONE: Duration = Duration::from_secs(3);

/// The most numbers of a host that are tried.
const TRIED: usize = 4;

/// Asks the system.
pub fn system_lookup() -> Lookup {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectFault {
    #[error("the address is refused")]
    Refused(#[from] Refused),
    #[error("nothing answers there")]
    Unreachable,
    #[error("TLS failed")]
    Untrusted,
}

/// Connects to where the policy lets it.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Arc<Policy>,
    tls: TlsConnector,
    lookup: Lookup,
}

/// A connection, with TLS or where that is allowed without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connector {
    pub(super) fn new(
        policy: Arc<Policy>,
        roots: RootCertStore,
        lookup: Lookup,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { policy, tls: TlsConnector::from(Arc::new(config)), lookup })
    }

    async fn connect(self, address: Uri) -> Result<TokioIo<Stream>, ConnectFault> {
        let target = self.policy.target(&address)?;
        tokio::time::timeout(CONNECT, self.connect_to(&target))
            .await
            .map_err(|_| ConnectFault::Unreachable)?
    }

    async fn connect_to(&self, target: &Target) -> Result<TokioIo<Stream>, ConnectFault> {
        let stream = self.reach(target).await?;
        if !target.tls {
            return Ok(TokioIo::new(Stream::Plain(stream)));
        }
        let host = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ConnectFault::Untrusted)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| ConnectFault::Untrusted)?;
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }

    /// A connection to the first number that takes one, of those that may be reached.
    async fn reach(&self, target: &Target) -> Result<TcpStream, ConnectFault> {
        let bare = target.host.trim_start_matches('[').trim_end_matches(']');
        let numbers = if let Ok(number) = bare.parse() {
            vec![number]
        } else {
            let name = if target.whole { format!("{bare}.") } else { bare.to_owned() };
            (self.lookup)(name).await.map_err(|_| ConnectFault::Unreachable)?
        };
        let mut refused = None;
        let allowed: Vec<IpAddr> = numbers
            .into_iter()
            .filter(|number| self.policy.may_reach(*number).map_err(|reason| refused = Some(reason)).is_ok())
            .collect();
        if let (true, Some(reason)) = (allowed.is_empty(), refused) {
            return Err(reason.into());
        }
        for number in allowed.into_iter().take(TRIED) {
            let connecting = TcpStream::connect(SocketAddr::new(number, target.port));
            if let Ok(Ok(stream)) = tokio::time::timeout(ONE, connecting).await {
                let _no_delay_is_an_optimisation = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(ConnectFault::Unreachable)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectFault;
    type Future = Pending<Result<Self::Response, ConnectFault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        Box::pin(self.clone().connect(address))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
