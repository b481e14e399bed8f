//! What every kind of store does for the planner.

use std::future::Future;
use std::pin::Pin;

use tokio::time::{Instant, timeout_at};

use crate::transport::{ANSWER, Fault};
use crate::{Answer, Ask, Lease, Outcome};

/// Nothing is known, and nobody said when to ask again.
pub(crate) const AWAY: Outcome = Outcome::Unavailable { retry_after: None };

/// An answer that is waited for.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One store, with the credentials for it. It asks when it is told to: how often is [`crate::schedule`]'s to say.
pub trait Provider: Send + Sync {
    /// The most paths of one call.
    fn batch(&self) -> usize {
        1
    }

    /// Asks, with as few calls as the store's API lets it. One answer for each, in their order.
    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>>;

    /// Makes a lease longer. Where there are none: [`Outcome::NotFound`].
    fn renew<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Renewed> {
        let _ = lease;
        Box::pin(std::future::ready(Err(Outcome::NotFound)))
    }

    /// Ends a lease, so that what it gave is worth nothing. Where there are none: done.
    fn revoke<'a>(&'a self, lease: &'a Lease) -> Answering<'a, Result<(), Outcome>> {
        let _ = lease;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives back what it asked with, so that it is worth nothing to anybody. Whoever has the store calls this when nobody
    /// asks it any more; nothing else does. What leases hang on is left to end when its time is over. What is asked after
    /// that is [`Outcome::Unavailable`].
    fn close(&self) -> Answering<'_, Result<(), Outcome>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The longer lease, or what came instead, which is never [`Outcome::Found`].
pub type Renewed = Result<Lease, Outcome>;

/// Asks for one after the other, all of them within the time of one call.
pub(crate) async fn each<'a, T>(asks: &'a [Ask], ask_for: impl Fn(&'a Ask) -> T) -> Vec<Answer>
where
    T: Future<Output = Answer>,
{
    let deadline = Instant::now() + ANSWER;
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks {
        answers.push(timeout_at(deadline, ask_for(ask)).await.unwrap_or_else(|_| AWAY.into()));
    }
    answers
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(_) => Self::here(Outcome::Denied),
            Fault::Question => Self::here(Outcome::Malformed),
            Fault::TooLarge => Outcome::Malformed.into(),
            // The first is of a standby that cannot hand on what it is asked, as all are while they choose another leader.
            Fault::Redirect | Fault::Unreachable | Fault::Untrusted | Fault::Late | Fault::Broken => {
                AWAY.into()
            }
        }
    }
}
