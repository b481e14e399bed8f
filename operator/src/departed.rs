//! Deletions of SealedEnvs, for the audit trail. A deletion happens once and leaves nothing behind to look at later, so
//! what no leader can have seen is kept until there is one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealedenv_audit::Record;
use sealedenv_runtime::report::chain;

use crate::leader::Leadership;
use crate::leader::clock::Tick;
use crate::leader::decide::LONGEST;
use crate::trail::{NotRecorded, Trail};

/// How long before its last sign a leader may have stopped looking: as long as it may take to end in order.
const BEFORE: Duration = Duration::from_secs(20);

/// How many are kept at most; the oldest go first.
const KEPT: usize = 4096;

/// Takes deletions, and sees to it that one leader or another records each.
#[derive(Clone)]
pub(crate) struct Departed {
    trail: Trail,
    leadership: Leadership,
    kept: Arc<Mutex<VecDeque<(Tick, Record)>>>,
}

impl Departed {
    /// For that trail.
    pub(crate) fn new(trail: Trail, leadership: Leadership) -> Self {
        Self { trail, leadership, kept: Arc::default() }
    }

    /// Takes one. The Secret goes or stays by Kubernetes' own hand, so nothing waits for this.
    pub(crate) fn take(&self, record: Record) {
        let now = self.leadership.now();
        if self.leadership.leads() {
            self.record(vec![(now, record)]);
        } else {
            self.keep(now, record);
        }
    }

    /// This replica leads from now on: records what the former leader may have missed. It can have recorded some of it
    /// as well, on its own trail; twice is better than never.
    pub(crate) fn lead(&self) {
        let since = self.leadership.vacant_since();
        let kept: Vec<_> = self.lock().drain(..).filter(|(at, _)| *at + BEFORE >= since).collect();
        self.record(kept);
    }

    fn record(&self, departed: Vec<(Tick, Record)>) {
        if departed.is_empty() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let records = departed.iter().map(|(_, record)| record.clone()).collect();
            match this.trail.record(records).await {
                Ok(()) => {}
                Err(NotRecorded::NotLeading(_)) => {
                    for (at, record) in departed {
                        this.keep(at, record);
                    }
                }
                Err(error) => tracing::error!(error = chain(&error), "a deletion is not on record"),
            }
        });
    }

    fn keep(&self, at: Tick, record: Record) {
        let now = self.leadership.now();
        let mut kept = self.lock();
        // What is older, the leader of that time has seen.
        kept.retain(|(at, _)| *at + LONGEST + BEFORE >= now);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((at, record));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Tick, Record)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
