//! What is asked of a store, and what comes of it.

use std::time::Duration;

use sealedenv_seal::Plain;

/// What goes over the wire: the same for all who want something of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// Where the store keeps it, e.g. `secret/data/checkout`.
    pub path: String,
    /// One version of it. None: the newest.
    pub version: Option<String>,
}

/// What came of one [`Ask`].
///
/// The five are never taken for one another: a cascade goes on from [`Outcome::NotFound`] by itself and from no other,
/// and what is kept in an outage is not what is kept when a store says that there is nothing.
pub enum Outcome {
    /// It is there.
    Found(Read),
    /// The store says that it has none, or not that version.
    NotFound,
    /// The store says that whoever asks may not have it.
    Denied,
    /// The store could not be asked, or could not answer. Nothing is known.
    Unavailable {
        /// When to ask again, where it says so.
        retry_after: Option<Duration>,
    },
    /// It answered something that is no answer.
    Malformed,
}

/// An outcome, and whose it is. What is decided without the store says nothing of whether the store is there.
pub struct Answer {
    /// What came of the question.
    pub outcome: Outcome,
    /// Who says so.
    pub by: By,
    /// When to ask again, where what is known does not hold for an interval.
    pub again: Option<Duration>,
}

/// Who an outcome comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The store, or its silence.
    Store,
    /// This side of it: the guard, a path that is none, a credential that is not to be had.
    Here,
}

impl Answer {
    /// Decided without the store.
    pub fn here(outcome: Outcome) -> Self {
        Self { outcome, by: By::Here, again: None }
    }

    /// And to be asked for again after that time.
    #[must_use]
    pub fn again(self, after: Duration) -> Self {
        Self { again: Some(after), ..self }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, by: By::Store, again: None }
    }
}

/// What a store holds under a path.
pub struct Read {
    /// As it came: text, bytes, or JSON that [`crate::pick::pick`] takes a value out of.
    pub content: Plain,
    /// What tells it from another version.
    pub version: Option<String>,
    /// For how long it may be used, where that is limited.
    pub lease: Option<Lease>,
}

/// The right to a value for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What the store calls it. It is no secret, and gives nothing to who knows it.
    pub id: String,
    /// For how long from the answer on.
    pub lasts: Duration,
    /// Whether the store makes it longer on request.
    pub renewable: bool,
}

impl Outcome {
    /// The word for status, metrics and audit records, e.g. `NotFound`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Found(_) => "Found",
            Self::NotFound => "NotFound",
            Self::Denied => "Denied",
            Self::Unavailable { .. } => "Unavailable",
            Self::Malformed => "Malformed",
        }
    }
}
