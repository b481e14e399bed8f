//! Asks secret stores. Which of them may be asked, what for and when, and what an answer means.
//!
//! | question | where |
//! |---|---|
//! | may a store point there? | [`guard`], pure |
//! | what of an answer is the value? | [`pick`], pure |
//! | what is asked next, and when? | [`schedule`], pure |
//! | how is it asked? | [`transport`] |
//! | what does each kind of store do? | [`provider`]: [`vault`] |
//! | what came of it? | [`Outcome`] |
//!
//! An [`Outcome`] has no text. What a store says of a failure has held tokens and values elsewhere; it ends here.
//! docs/src/providers.md is the description.

pub mod guard;
mod outcome;
pub mod pick;
pub mod provider;
pub mod schedule;
pub mod transport;
pub mod vault;

pub use outcome::{Answer, Ask, By, Lease, Outcome, Read};
