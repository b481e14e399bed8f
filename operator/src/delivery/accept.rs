//! Connections of the delivery API: TLS, bounded in number altogether and for each address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use sealedenv_delivery::server::Peer;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::aged::Aged;

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Connections that may wait to be accepted.
const WAITING: u32 = 1024;

/// After an error of accept that is not the connection's own: out of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(20);

/// The most bytes of an answer that the kernel holds for a connection. They are nobody's by then: what is counted was given
/// back when they were taken. TLS holds as many at most, which is rustls' own bound.
const UNSENT: u32 = 64 << 10;

/// Most open connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Altogether.
    pub(crate) all: usize,
    /// From one address. More than one pod may stand behind an address, where the network hides them.
    pub(crate) each: usize,
}

/// Open connections by address.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place among them, given back when it is dropped.
struct Place {
    open: Open,
    address: IpAddr,
}

/// A connection that counts while it lasts.
pub(crate) struct Connection {
    stream: Aged<TlsStream<TcpStream>>,
    peer: Peer,
    _place: Place,
}

/// Listens at an address, with little room for what is not sent: connections inherit it.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(UNSENT)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Accepts until shutdown, connections that last `life` at most. No error of one connection, and none of accept, ends it.
pub(crate) fn connections(
    listener: TcpListener,
    tls: TlsAcceptor,
    most: Most,
    life: Duration,
    shutdown: Shutdown,
) -> ReceiverStream<io::Result<Connection>> {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        let open = Open::default();
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, place) = match accepted {
                Ok((stream, from)) => match open.enter(from.ip().to_canonical(), most) {
                    Some(place) => (stream, place),
                    None => continue,
                },
                Err(error) => {
                    tracing::debug!(%error, "the delivery API cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (tls, send) = (tls.clone(), send.clone());
            tokio::spawn(async move {
                let _no_delay_is_an_optimisation = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let ending = Shutdown::new();
                        let stream = Aged::new(stream, life, ending.clone());
                        let address = place.address;
                        let peer = Peer::new(address, move || {
                            tracing::warn!(%address, "a peer does not read its answer");
                            ending.trigger();
                        });
                        // Nobody takes it any more only at shutdown.
                        let _ = send.send(Ok(Connection { stream, peer, _place: place })).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake of the delivery API failed"),
                    Err(_) => {}
                }
            });
        }
    });
    ReceiverStream::new(receive)
}

impl Open {
    /// A place, unless there are too many already.
    fn enter(&self, address: IpAddr, most: Most) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let each = open.get(&address).copied().unwrap_or_default();
        if all >= most.all || each >= most.each {
            return None;
        }
        open.insert(address, each + 1);
        Some(Place { open: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    /// Without it, HTTP/2 writes the head of an answer and the answer one after the other, each encrypted for itself.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_each_is_given_back() {
        let open = Open::default();
        let most = Most { all: 3, each: 2 };
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = open.enter(a, most).unwrap();
        let second = open.enter(a, most).unwrap();
        assert!(open.enter(a, most).is_none(), "too many from one address");
        let third = open.enter(b, most).unwrap();
        assert!(open.enter(b, most).is_none(), "too many altogether");
        drop(first);
        assert!(open.enter(b, most).is_some());
        drop((second, third));
        assert!(open.0.lock().unwrap().is_empty(), "nothing is kept of who has gone");
    }
}
