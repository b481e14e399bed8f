//! An answer on its way out.
//!
//! A call is over for gRPC when its answer is made. Its bytes are not gone by then: they wait for as long as the peer
//! likes, in the body and then in the connection's buffers. What must last until they are written travels with them
//! ([`Sending::keep`]), and a peer that does not take them in time ([`LONGEST`]) loses its connection.

use std::any::Any;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tonic::server::NamedService;

/// How long a peer may take to read an answer that something is kept for: 2 Mbit/s for the largest there is.
const LONGEST: Duration = Duration::from_secs(30);

/// Who is at the other end of a connection. What accepts connections gives it to tonic as their `ConnectInfo`.
#[derive(Clone)]
pub struct Peer {
    /// Where it calls from.
    pub address: IpAddr,
    end: Arc<dyn Fn() + Send + Sync>,
}

/// What lasts until the answer to one call is written.
#[derive(Clone, Default)]
pub struct Sending(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

/// A service whose answers carry their [`Sending`] with them.
#[derive(Clone)]
pub struct Carrying<S>(S);

/// Dropped with the last byte of an answer.
struct Kept {
    _sending: Sending,
    _written: oneshot::Sender<()>,
}

/// Bytes of an answer, which the connection holds until they are written.
struct Piece {
    bytes: Bytes,
    _kept: Arc<Kept>,
}

struct Carried {
    body: Body,
    kept: Arc<Kept>,
}

impl Peer {
    /// `end` ends the connection. It is called once for each answer that the peer does not read in time.
    pub fn new(address: IpAddr, end: impl Fn() + Send + Sync + 'static) -> Self {
        Self { address, end: Arc::new(end) }
    }
}

impl Sending {
    /// Drops it when the answer is written, or is not going to be.
    pub fn keep(&self, it: impl Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(it));
    }
}

impl<S> Carrying<S> {
    pub(super) fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for Carrying<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Carrying<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            let Some(sending) = response.extensions_mut().remove::<Sending>() else { return Ok(response) };
            let (written, waiting) = oneshot::channel();
            if let Some(peer) = peer {
                tokio::spawn(async move {
                    if tokio::time::timeout(LONGEST, waiting).await.is_err() {
                        (peer.end)();
                    }
                });
            }
            let kept = Arc::new(Kept { _sending: sending, _written: written });
            Ok(response.map(|body| Body::new(Carried { body, kept })))
        })
    }
}

impl HttpBody for Carried {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let carried = |bytes| Bytes::from_owner(Piece { bytes, _kept: Arc::clone(&self.kept) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(carried))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with a message of three bytes, for which `kept` is kept.
    #[derive(Clone)]
    struct Three {
        kept: Arc<()>,
    }

    impl Service<http::Request<Body>> for Three {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let sending = Sending::default();
            sending.keep(Arc::clone(&self.kept));
            let mut response = http::Response::new(Body::new(Once(Some(Bytes::from_static(b"abc")))));
            response.extensions_mut().insert(sending);
            std::future::ready(Ok(response))
        }
    }

    struct Once(Option<Bytes>);

    impl HttpBody for Once {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    async fn piece(body: &mut Body) -> Option<Bytes> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    /// An answer, how often its peer was ended, and what tells whether it is kept.
    async fn answered() -> (http::Response<Body>, Arc<AtomicUsize>, std::sync::Weak<()>) {
        let (kept, ended) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let weak = Arc::downgrade(&kept);
        let mut request = http::Request::new(Body::empty());
        let count = Arc::clone(&ended);
        let end = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        request.extensions_mut().insert(Peer::new(IpAddr::from([10, 0, 0, 1]), end));
        let response = Carrying::new(Three { kept }).call(request).await.unwrap();
        (response, ended, weak)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_lasts_until_the_last_byte_and_no_longer() {
        let (response, ended, kept) = answered().await;
        let mut body = response.into_body();
        let mut first = piece(&mut body).await.unwrap();
        assert!(piece(&mut body).await.is_none());
        drop(body); // the call is over for HTTP, and its bytes are in the connection's hands
        let rest = first.split_off(1);
        drop(first);
        assert_eq!((&rest[..], kept.strong_count()), (&b"bc"[..], 1), "a byte waits still");
        drop(rest);
        assert_eq!(kept.strong_count(), 0);
        tokio::time::sleep(LONGEST * 2).await;
        assert_eq!(ended.load(Ordering::Relaxed), 0, "it was in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_in_time_loses_its_connection() {
        let (response, ended, kept) = answered().await;
        tokio::time::sleep(LONGEST / 2).await;
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        tokio::time::sleep(LONGEST).await;
        assert_eq!((ended.load(Ordering::Relaxed), kept.strong_count()), (1, 1));
        drop(response);
        assert_eq!(kept.strong_count(), 0);
    }
}
