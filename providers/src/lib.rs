//! Asks secret stores. Which of them may be asked, what for and when, and what an answer means.
//!
//! | question | where |
//! |---|---|
//! | may a store point there? | [`guard`], pure |
//! | what of an answer is the value? | [`pick`], pure |
//! | what is asked next, and when? | [`schedule`], pure |
//! | how is it asked? | [`transport`] |
//! | what does each kind of store do? | [`provider`]: `vault`, `aws`, `gcp`, `kubernetes`, `onepassword`, each behind a feature of its name |
//! | what came of it? | [`Outcome`] |
//!
//! An [`Outcome`] has no text. What a store says of a failure has held tokens and values elsewhere; it ends here.
//! docs/src/providers.md is the description.

// Not every kind of store needs every part of what they share.
#![cfg_attr(
    not(all(
        feature = "aws",
        feature = "gcp",
        feature = "kubernetes",
        feature = "onepassword",
        feature = "vault"
    )),
    allow(dead_code)
)]

#[cfg(feature = "aws")]
pub mod aws;
pub mod credential;
#[cfg(feature = "gcp")]
pub mod gcp;
pub mod guard;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "onepassword")]
pub mod onepassword;
mod outcome;
pub mod pick;
pub mod provider;
pub mod schedule;
#[cfg(test)]
mod scripted;
#[cfg(any(feature = "aws", feature = "gcp"))]
mod session;
pub mod transport;
#[cfg(feature = "vault")]
pub mod vault;

pub use outcome::{Answer, Ask, By, Lease, Outcome, Read};
