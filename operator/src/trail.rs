//! The audit trail, for async callers.
//!
//! A record counts when [`Trail::record`] has returned `Ok`; until then nothing it speaks of may be released (I5).
//! The log itself gathers what many workers wait for into one flush. What a replica records of its work needs
//! leadership, up to the moment of writing: one that was paused and replaced adds no line afterwards. Deliveries to pods
//! are everybody's, leader or not; each replica has them on its own trail.

use std::sync::Arc;

use sealedenv_audit::{AuditError, Log, Record};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::leader::{Leadership, NotLeading};

/// A handle for workers.
#[derive(Clone)]
pub struct Trail {
    log: Arc<Log>,
    clock: Clock,
    leadership: Leadership,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// No sink took it.
    #[error("recording on the audit trail")]
    Refused(#[source] AuditError),
    /// It is for another replica to do, and to record.
    #[error("recording on the audit trail")]
    NotLeading(#[source] NotLeading),
    /// It took too long: what was looked at may not be so any more.
    #[error("recording on the audit trail: it came too late")]
    Late,
    /// The runtime is shutting down.
    #[error("recording on the audit trail: the operator is shutting down")]
    Cancelled,
}

impl Trail {
    /// A trail over a log, of a process that leads when `leadership` says so.
    pub fn new(log: Arc<Log>, clock: Clock, leadership: Leadership) -> Self {
        Self { log, clock, leadership }
    }

    /// Waits until the log has taken all of the records, or none.
    ///
    /// # Errors
    /// When no sink took them, or this replica does not lead.
    pub async fn record(&self, records: Vec<Record>) -> Result<(), NotRecorded> {
        let claim = self.leadership.claim().ok_or(NotRecorded::NotLeading(NotLeading))?;
        self.write(records, move || claim.holds()).await
    }

    /// The same for what concerns this process only, its start and its end: needs no leadership.
    ///
    /// # Errors
    /// When no sink took them.
    pub async fn record_own(&self, records: Vec<Record>) -> Result<(), NotRecorded> {
        self.write(records, || true).await
    }

    /// The same for what a replica gives to pods: standbys do so too, each on its own trail. `still` is looked at when
    /// the record's turn has come; a process that was stopped meanwhile releases nothing on what it saw before.
    ///
    /// # Errors
    /// When no sink took them. [`NotRecorded::NotLeading`] cannot happen; what is no longer so is [`NotRecorded::Late`].
    pub async fn record_delivery(
        &self,
        records: Vec<Record>,
        still: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), NotRecorded> {
        match self.write(records, still).await {
            Err(NotRecorded::NotLeading(_)) => Err(NotRecorded::Late),
            answer => answer,
        }
    }

    async fn write(
        &self,
        records: Vec<Record>,
        still: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), NotRecorded> {
        if records.is_empty() {
            return Ok(());
        }
        let (told, taken) = oneshot::channel();
        self.log.submit(self.clock.now(), records, still, |ended| {
            let _ = told.send(ended); // who asked may have gone
        });
        match taken.await.map_err(|_| NotRecorded::Cancelled)? {
            Ok(()) => {
                self.leadership.fit();
                Ok(())
            }
            Err(AuditError::Withheld) => Err(NotRecorded::NotLeading(NotLeading)),
            Err(error) => {
                self.leadership.unfit();
                Err(NotRecorded::Refused(error))
            }
        }
    }
}
