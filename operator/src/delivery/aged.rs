//! A connection that ends at a certain age, or when it is told to, whatever its peer does.
//!
//! tonic ends a connection's life in one of two ways: it says so and waits for calls in hand, for as long as they take, or
//! it breaks off without a word. Here it says so, and this is the end of the waiting.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sealedenv_runtime::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that fails from some time on.
pub(crate) struct Aged<S> {
    stream: S,
    /// None: it has come.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Aged<S> {
    /// One that lasts that long, and not beyond `ending`.
    pub(crate) fn new(stream: S, life: Duration, ending: Shutdown) -> Self {
        let end = async move {
            ending.sleep(life).await;
        };
        Self { stream, end: Some(Box::pin(end)) }
    }

    /// Fails at the end, and has whoever waits for the peer woken then.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_pending()) {
            return Ok(());
        }
        self.end = None;
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Aged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Aged<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIFE: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_does_not_keep_it_open() {
        let (ours, mut peer) = tokio::io::duplex(16);
        let mut ours = Aged::new(ours, LIFE, Shutdown::new());
        peer.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        ours.read_exact(&mut read).await.unwrap();
        let start = tokio::time::Instant::now();
        let error = ours.read_exact(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, LIFE));
        assert_eq!(ours.read_exact(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "for good");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_does_not_keep_it_open() {
        let (ours, _peer) = tokio::io::duplex(16);
        let mut ours = Aged::new(ours, LIFE, Shutdown::new());
        let start = tokio::time::Instant::now();
        let error = ours.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, LIFE));
        let error = ours.write_vectored(&[io::IoSlice::new(&[0; 64])]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "however it is written");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_it_is_told_to_while_it_waits_for_its_peer() {
        let (ours, _peer) = tokio::io::duplex(16);
        let ending = Shutdown::new();
        let mut ours = Aged::new(ours, LIFE, ending.clone());
        let start = tokio::time::Instant::now();
        let writing = tokio::spawn(async move { ours.write_all(&[0; 64]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        ending.trigger();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(1)));
    }
}
