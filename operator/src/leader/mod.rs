//! Which replica works: leader election over a Lease, and the proof of leadership that every write needs.
//!
//! - [`decide`] says what to do about the Lease, purely; [`lease`] reads and writes it; [`elect`] ties both together.
//! - [`Leadership`] is what the rest of the operator asks. [`crate::client`] asks it at every write to the API server,
//!   [`crate::trail`] at every record.
//!
//! Every replica watches everything, so that one can take over at once. Only the leader works on objects, makes keys,
//! and writes.

pub mod clock;
pub mod decide;
pub mod elect;
pub mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use clock::{Steady, Tick};

/// What this replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It watches, and leaves the work to the leader.
    Standby,
    /// It works. The number tells one time of leading from the next.
    Leader(u64),
}

/// A write was not done, because this replica does not lead, or cannot be certain that it still does.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this replica does not lead")]
pub struct NotLeading;

impl NotLeading {
    /// Whether an error, or one of its causes, is this.
    pub fn is_in(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut causes = std::iter::successors(Some(error), |e| e.source());
        causes.any(<dyn std::error::Error>::is::<Self>)
    }
}

/// Whether this replica leads. Clones share it.
#[derive(Clone)]
pub struct Leadership(Arc<Inner>);

struct Inner {
    clock: Steady,
    /// Until when acting is allowed, in nanoseconds of the clock; 0 for a standby, the largest number without election.
    until: AtomicU64,
    /// Until when what was begun may still be finished: as above, and kept when leadership is given up in order.
    finish: AtomicU64,
    role: watch::Sender<Role>,
    /// When the former leader gave its last sign, in nanoseconds of the clock.
    vacant: AtomicU64,
    /// Since when the audit trail has taken nothing.
    unfit: watch::Sender<Option<Tick>>,
    /// Writes to the API server that have been sent and not been answered.
    writes: AtomicUsize,
    written: Notify,
}

/// Leadership at one moment, to be looked at again later: it holds as long as the same time of leading goes on.
#[derive(Clone)]
pub struct Claim {
    of: Leadership,
    term: u64,
}

/// A write that is on its way. Dropped when it has been answered or given up.
pub struct Write(Leadership);

impl Leadership {
    /// Without election: this process always leads.
    pub fn alone() -> Self {
        Self::new(Steady::system(), u64::MAX, Role::Leader(0))
    }

    /// A standby, until an election says otherwise.
    pub fn elected(clock: Steady) -> Self {
        Self::new(clock, 0, Role::Standby)
    }

    fn new(clock: Steady, until: u64, role: Role) -> Self {
        Self(Arc::new(Inner {
            clock,
            until: AtomicU64::new(until),
            finish: AtomicU64::new(until),
            role: watch::Sender::new(role),
            vacant: AtomicU64::new(0),
            unfit: watch::Sender::new(None),
            writes: AtomicUsize::new(0),
            written: Notify::new(),
        }))
    }

    /// Whether this replica leads for certain, at this very moment.
    pub fn leads(&self) -> bool {
        self.0.clock.now().nanos() < self.0.until.load(Ordering::SeqCst)
    }

    /// Leadership at this moment, if there is any.
    pub fn claim(&self) -> Option<Claim> {
        let Role::Leader(term) = *self.0.role.borrow() else { return None };
        self.leads().then(|| Claim { of: self.clone(), term })
    }

    /// The role, and every change of it.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.0.role.subscribe()
    }

    /// Waits until this replica leads.
    pub async fn gained(&self) {
        let mut roles = self.roles();
        // The sender lives in `self`, so the channel cannot close while we wait.
        let _leads = roles.wait_for(|role| matches!(role, Role::Leader(_)) && self.leads()).await;
    }

    /// Begins a write.
    ///
    /// # Errors
    /// [`NotLeading`]: it must not be sent.
    pub fn begin_write(&self) -> Result<Write, NotLeading> {
        // Counted before looking: `quiet` after `lose` misses none.
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        let write = Write(self.clone());
        if self.leads() { Ok(write) } else { Err(NotLeading) }
    }

    /// Notes that the audit trail took what it was given.
    pub(crate) fn fit(&self) {
        self.0.unfit.send_if_modified(|since| since.take().is_some());
    }

    /// Notes that the audit trail did not take what it was given.
    pub(crate) fn unfit(&self) {
        let now = self.0.clock.now();
        self.0.unfit.send_if_modified(|since| {
            let news = since.is_none();
            since.get_or_insert(now);
            news
        });
    }

    fn fitness(&self) -> watch::Receiver<Option<Tick>> {
        self.0.unfit.subscribe()
    }

    /// The moment.
    pub(crate) fn now(&self) -> Tick {
        self.0.clock.now()
    }

    /// When the former leader gave its last sign, as this replica saw it: what happened later may have been seen by no
    /// leader.
    pub(crate) fn vacant_since(&self) -> Tick {
        Tick::after(Duration::from_nanos(self.0.vacant.load(Ordering::SeqCst)))
    }

    fn vacant(&self, since: Tick) {
        self.0.vacant.store(since.nanos(), Ordering::SeqCst);
    }

    /// Leads until then, unless it is told again.
    ///
    /// When it was not certain any more by now, this is a new term though nobody has told of an end: what was left in
    /// between, because this replica did not lead, is looked at again.
    pub fn lead_until(&self, until: Tick) {
        let lapsed = !self.leads();
        self.0.finish.store(until.nanos(), Ordering::SeqCst);
        self.0.until.store(until.nanos(), Ordering::SeqCst);
        self.0.role.send_if_modified(|role| match role {
            Role::Leader(_) if !lapsed => false,
            Role::Leader(_) | Role::Standby => {
                *role = Role::Leader(until.nanos());
                true
            }
        });
    }

    /// Leads no longer. What is on its way is finished or, once leadership would not be certain, given up.
    pub fn lose(&self) {
        self.0.until.store(0, Ordering::SeqCst);
        self.0.role.send_if_modified(|role| {
            let led = *role != Role::Standby;
            *role = Role::Standby;
            led
        });
    }

    /// Waits until no write is on its way. Says whether that came true in time.
    async fn quiet(&self, longest: Duration) -> bool {
        let quiet = async {
            loop {
                let written = self.0.written.notified();
                if self.0.writes.load(Ordering::SeqCst) == 0 {
                    return;
                }
                written.await;
            }
        };
        tokio::time::timeout(longest, quiet).await.is_ok()
    }
}

impl Claim {
    /// Whether it still holds.
    pub fn holds(&self) -> bool {
        *self.of.0.role.borrow() == Role::Leader(self.term) && self.of.leads()
    }
}

impl Write {
    /// Whether it must be given up: another replica may act by now.
    pub fn is_overdue(&self) -> bool {
        let Inner { clock, finish, .. } = &*self.0.0;
        clock.now().nanos() >= finish.load(Ordering::SeqCst)
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if self.0.0.writes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.written.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::after(Duration::from_secs(seconds))
    }

    fn set_clock() -> (Arc<Mutex<Tick>>, Leadership) {
        let now = Arc::new(Mutex::new(at(1)));
        let clock = Arc::clone(&now);
        (now, Leadership::elected(Steady::from_fn(move || *clock.lock().unwrap())))
    }

    #[tokio::test]
    async fn leadership_ends_by_itself_when_it_is_not_renewed() {
        let (now, leadership) = set_clock();
        assert!(!leadership.leads() && leadership.claim().is_none() && leadership.begin_write().is_err());
        leadership.lead_until(at(10));
        let claim = leadership.claim().unwrap();
        let write = leadership.begin_write().unwrap();
        assert!(claim.holds() && !write.is_overdue());
        *now.lock().unwrap() = at(10);
        // Nobody has told it yet: as after a pause of the process.
        assert_eq!(*leadership.roles().borrow(), Role::Leader(at(10).nanos()));
        assert!(!leadership.leads() && !claim.holds() && leadership.claim().is_none());
        assert!(write.is_overdue() && leadership.begin_write().is_err());
    }

    #[tokio::test]
    async fn a_claim_does_not_survive_into_the_next_time_of_leading() {
        let (now, leadership) = set_clock();
        leadership.lead_until(at(10));
        let claim = leadership.claim().unwrap();
        leadership.lead_until(at(12));
        assert!(claim.holds(), "a renewal changes nothing");
        leadership.lose();
        assert!(!claim.holds());
        *now.lock().unwrap() = at(11);
        leadership.lead_until(at(20));
        assert!(leadership.leads() && !claim.holds());
    }

    #[tokio::test]
    async fn a_renewal_that_comes_too_late_begins_a_new_term() {
        let (now, leadership) = set_clock();
        leadership.lead_until(at(10));
        let mut roles = leadership.roles();
        *now.lock().unwrap() = at(9);
        leadership.lead_until(at(12));
        assert!(!roles.has_changed().unwrap(), "a renewal in time changes nothing");
        let claim = leadership.claim().unwrap();
        *now.lock().unwrap() = at(12);
        assert!(leadership.begin_write().is_err(), "what comes now is left");
        leadership.lead_until(at(20));
        assert!(roles.has_changed().unwrap(), "and looked at again");
        assert_eq!(*roles.borrow_and_update(), Role::Leader(at(20).nanos()));
        assert!(leadership.leads() && !claim.holds());
    }

    #[tokio::test]
    async fn giving_up_waits_for_what_is_on_its_way() {
        let (_, leadership) = set_clock();
        leadership.lead_until(at(10));
        let write = leadership.begin_write().unwrap();
        leadership.lose();
        assert!(leadership.begin_write().is_err(), "nothing new is sent");
        assert!(!write.is_overdue(), "what was sent is finished");
        assert!(!leadership.quiet(Duration::from_millis(20)).await);
        let waiting = tokio::spawn({
            let leadership = leadership.clone();
            async move { leadership.quiet(Duration::from_mins(1)).await }
        });
        tokio::task::yield_now().await;
        drop(write);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn it_is_found_among_causes() {
        let wrapped = kube::Error::Service(Box::new(NotLeading));
        assert!(NotLeading::is_in(&wrapped) && !NotLeading::is_in(&std::io::Error::other("x")));
    }
}
