//! From a `.env` file to a `SealedEnv`, new or merged into one that exists. Pure: text in, text out.
//!
//! [`plan`] decides what happens to each key; [`plan::Plan::seal`] seals; [`render`] writes a new manifest; [`merge`]
//! edits an existing one without touching any other line.

pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod render;

/// Where a key stands in a `SealedEnv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Block {
    /// Sealed, in `spec.data`.
    Data,
    /// In plain text, in `spec.public`.
    Public,
}

impl Block {
    /// The field under `spec`.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Public => "public",
        }
    }
}

/// A text to stand under a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which block.
    pub(crate) block: Block,
    /// Which key.
    pub(crate) key: String,
    /// Whether the key stands there already.
    pub(crate) replaces: bool,
    /// The sealed value, or the plain text of a public one.
    pub(crate) text: String,
}
