//! Which connections are open, and which of them may be closed to make room.
//!
//! A cap alone would let a few thousand half-open connections lock everybody out until they time out. So when there
//! is no room, the connection that has waited longest gives way: first those that never finished a request (a
//! half-open handshake, a header that trickles in), then idle ones. A connection with a request in hand is never
//! closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The open connections of one server. Clones share the table.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: usize,
    next: u64,
    /// Those without a request in hand, in the order in which they give way.
    waiting: BTreeMap<Rank, Arc<Notify>>,
}

/// Sorts those that never finished a request first, then by how long they have been waiting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    served: bool,
    since: u64,
}

/// One open connection; dropping it takes it out of the table.
pub(crate) struct Ticket {
    table: Connections,
    closing: Arc<Notify>,
    rank: Mutex<Option<Rank>>,
}

impl Connections {
    /// Number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.lock().open
    }

    /// Enters a new connection, which is waiting.
    pub(crate) fn enter(&self) -> Ticket {
        let closing = Arc::new(Notify::new());
        let mut table = self.lock();
        table.open += 1;
        let rank = table.wait(false, &closing);
        drop(table);
        Ticket { table: self.clone(), closing, rank: Mutex::new(Some(rank)) }
    }

    /// Tells the connection that gives way first to close. False if all have a request in hand.
    pub(crate) fn shed(&self) -> bool {
        let Some((_, closing)) = self.lock().waiting.pop_first() else { return false };
        closing.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn wait(&mut self, served: bool, closing: &Arc<Notify>) -> Rank {
        let rank = Rank { served, since: self.next };
        self.next += 1;
        self.waiting.insert(rank, closing.clone());
        rank
    }
}

impl Ticket {
    /// A request is in hand.
    pub(crate) fn busy(&self) {
        if let Some(rank) = self.rank().take() {
            self.table.lock().waiting.remove(&rank);
        }
    }

    /// The request is answered; the connection waits for the next one.
    pub(crate) fn idle(&self) {
        let rank = self.table.lock().wait(true, &self.closing);
        *self.rank() = Some(rank);
    }

    /// Whether a request is in hand or has been answered.
    pub(crate) fn has_served(&self) -> bool {
        self.rank().is_none_or(|rank| rank.served)
    }

    /// Waits until this connection was chosen to give way.
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }

    fn rank(&self) -> MutexGuard<'_, Option<Rank>> {
        self.rank.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.busy();
        self.table.lock().open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closing(ticket: &Ticket) -> bool {
        use std::future::Future;
        let mut future = Box::pin(ticket.closing());
        future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn who_never_served_gives_way_first_and_who_is_busy_never() {
        let connections = Connections::default();
        let (served, busy, old, new) =
            (connections.enter(), connections.enter(), connections.enter(), connections.enter());
        served.busy();
        served.idle();
        busy.busy();
        assert_eq!(connections.len(), 4);
        let mut order = Vec::new();
        while connections.shed() {
            order.push([&served, &busy, &old, &new].map(is_closing));
        }
        assert_eq!(
            order,
            [[false, false, true, false], [false, false, false, true], [true, false, false, false]],
            "old, new, served, in this order; busy not at all"
        );
        assert!(busy.has_served() && served.has_served() && !old.has_served());
    }

    #[test]
    fn leaving_makes_room() {
        let connections = Connections::default();
        let ticket = connections.enter();
        drop(connections.enter());
        assert_eq!(connections.len(), 1);
        drop(ticket);
        assert_eq!(connections.len(), 0);
        assert!(!connections.shed());
    }
}
