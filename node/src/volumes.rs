//! What is remembered of volumes while the process lives: who works on one, when to ask again, what went wrong last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedMutexGuard;

use crate::target::Target;

/// All volumes. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes(Arc<Mutex<HashMap<Target, Volume>>>);

#[derive(Debug, Default)]
struct Volume {
    turn: Arc<tokio::sync::Mutex<()>>,
    has_files: bool,
    due: Option<Instant>,
    failure: Option<String>,
}

/// The right to work on a volume; the next one waits until it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Volumes {
    /// Waits for the volume to be free.
    pub(crate) async fn turn(&self, target: &Target) -> Turn {
        let turn = self.lock().entry(target.clone()).or_default().turn.clone();
        turn.lock_owned().await
    }

    /// When the operator wants to be asked again.
    pub(crate) fn due(&self, target: &Target) -> Option<Instant> {
        self.lock().get(target).and_then(|volume| volume.due)
    }

    /// Whether this process saw files in the volume.
    pub(crate) fn has_files(&self, target: &Target) -> bool {
        self.lock().get(target).is_some_and(|volume| volume.has_files)
    }

    /// The volume has what the operator has.
    pub(crate) fn fresh(&self, target: &Target, due: Option<Instant>) {
        let mut volumes = self.lock();
        let volume = volumes.entry(target.clone()).or_default();
        (volume.has_files, volume.due, volume.failure) = (true, due, None);
    }

    /// The volume has what it had.
    pub(crate) fn stale(&self, target: &Target, failure: String) {
        let mut volumes = self.lock();
        let volume = volumes.entry(target.clone()).or_default();
        (volume.has_files, volume.due, volume.failure) = (true, None, Some(failure));
    }

    /// Why the last refresh failed, if it did.
    pub(crate) fn failure(&self, target: &Target) -> Option<String> {
        self.lock().get(target).and_then(|volume| volume.failure.clone())
    }

    /// How many volumes could not be refreshed.
    pub(crate) fn count_stale(&self) -> usize {
        self.lock().values().filter(|volume| volume.failure.is_some()).count()
    }

    /// The volume is gone. Whoever waits for its turn gets it all the same.
    pub(crate) fn forget(&self, target: &Target) {
        let mut volumes = self.lock();
        // Ours and the map's: nobody else waits, so nobody can come to hold another lock for the same volume.
        if volumes.get(target).is_some_and(|volume| Arc::strong_count(&volume.turn) <= 2) {
            volumes.remove(target);
        } else if let Some(volume) = volumes.get_mut(target) {
            (volume.has_files, volume.due, volume.failure) = (false, None, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Volume>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::target::Layout;

    fn target() -> Target {
        Layout::new(Path::new("/k")).target("/k/pods/u/volumes/kubernetes.io~csi/v/mount").unwrap()
    }

    #[tokio::test]
    async fn a_volume_is_worked_on_by_one_at_a_time_also_while_it_is_forgotten() {
        let (volumes, target) = (Volumes::default(), target());
        let first = volumes.turn(&target).await;
        let waiting = tokio::spawn({
            let (volumes, target) = (volumes.clone(), target.clone());
            async move { volumes.turn(&target).await }
        });
        while Arc::strong_count(&volumes.lock()[&target].turn) < 3 {
            tokio::task::yield_now().await;
        }
        volumes.forget(&target);
        assert!(!waiting.is_finished());
        let third = volumes.turn(&target);
        assert!(volumes.lock().contains_key(&target), "forgotten while somebody waits");
        drop(first);
        let second = waiting.await.unwrap();
        drop(second);
        let third = third.await;
        volumes.forget(&target);
        assert!(volumes.lock().is_empty());
        drop(third);
    }

    #[test]
    fn a_failure_lasts_until_the_next_success() {
        let (volumes, target) = (Volumes::default(), target());
        volumes.fresh(&target, Some(Instant::now()));
        volumes.stale(&target, "away".to_owned());
        assert!(volumes.has_files(&target));
        assert_eq!((volumes.due(&target), volumes.count_stale()), (None, 1));
        assert_eq!(volumes.failure(&target).as_deref(), Some("away"));
        volumes.fresh(&target, None);
        assert_eq!((volumes.failure(&target), volumes.count_stale()), (None, 0));
    }
}
