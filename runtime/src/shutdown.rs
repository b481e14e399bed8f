//! One way to tell every task of the process that it is time to end.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal as on_signal};
use tokio::sync::watch;

/// A flag that is raised once and can be awaited by any number of tasks. Clones share the flag.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    /// A flag that is not raised, and that only [`Shutdown::trigger`] raises.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Raises the flag. Doing it again changes nothing.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether the flag is raised.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the flag is raised; returns at once if it is. Safe to drop and call again.
    pub async fn triggered(&self) {
        // The sender lives in `self`, so the channel cannot close while we wait.
        let mut flag = self.0.subscribe();
        let _raised = flag.wait_for(|raised| *raised).await;
    }

    /// Sleeps, but not beyond the shutdown. Returns whether the whole time passed.
    pub async fn sleep(&self, time: std::time::Duration) -> bool {
        tokio::select! {
            biased;
            () = self.triggered() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Shutdown`] that the first SIGTERM or SIGINT raises.
///
/// A second signal ends the process at once with status 1, for a person who does not want to wait.
///
/// # Errors
/// The handlers cannot be registered. Must be called inside a tokio runtime.
pub fn signal() -> io::Result<Shutdown> {
    let mut terminate = on_signal(SignalKind::terminate())?;
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let shutdown = Shutdown::new();
    let flag = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                tracing::info!(signal = name, "shutting down");
                flag.trigger();
            } else {
                tracing::warn!(signal = name, "second signal, ending without waiting");
                std::process::exit(1);
            }
        }
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_flag_before_and_after() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.triggered().await }
        });
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        shutdown.trigger();
        waiting.await.unwrap();
        shutdown.triggered().await;
        assert!(shutdown.is_triggered());
        assert!(!shutdown.sleep(std::time::Duration::from_hours(1)).await);
    }
}
