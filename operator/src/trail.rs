//! The audit trail, for async callers.
//!
//! A record counts when [`Trail::record`] has returned `Ok`; until then nothing it speaks of may be released (I5).
//! The log itself gathers what many workers wait for into one flush.

use std::sync::Arc;

use sealedenv_audit::{AuditError, Log, Record};

use crate::clock::Clock;

/// A handle for workers.
#[derive(Clone)]
pub struct Trail {
    log: Arc<Log>,
    clock: Clock,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// No sink took it.
    #[error("recording on the audit trail")]
    Refused(#[source] AuditError),
    /// The runtime is shutting down.
    #[error("recording on the audit trail: the operator is shutting down")]
    Cancelled,
}

impl Trail {
    /// A trail over a log.
    pub fn new(log: Arc<Log>, clock: Clock) -> Self {
        Self { log, clock }
    }

    /// Waits until the log has taken all of the records, or none.
    ///
    /// # Errors
    /// When no sink took them.
    pub async fn record(&self, records: Vec<Record>) -> Result<(), NotRecorded> {
        if records.is_empty() {
            return Ok(());
        }
        let (log, now) = (Arc::clone(&self.log), self.clock.now());
        let taken = tokio::task::spawn_blocking(move || log.record_all(now, records)).await;
        taken.map_err(|_| NotRecorded::Cancelled)?.map_err(NotRecorded::Refused)
    }
}
