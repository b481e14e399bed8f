//! The sealed value format: one value, sealed to public keys and bound to its scope.
//!
//! A sealed value is a line of text, `sealed:v1:` and base64, that may stand in a git repository or in a
//! `SealedEnv` object. Anyone who has a [`Recipient`] (a public key) can [`seal`]; only who has a fitting
//! [`Identity`] (the private key) can [`open`], and only in the place it was sealed for.
//! `docs/src/format.md` specifies the format completely.
//!
//! | you have | you want | use |
//! |---|---|---|
//! | a value, a scope, public keys | a sealed value | [`Plain`], [`Scope`], [`Recipient`], [`seal`] |
//! | text from an object or a file | its facts, with no key | [`Sealed::parse`], [`Sealed::scope`], [`Sealed::recipients`] |
//! | a sealed value and private keys | the value | [`Identity`], [`Keyring`], [`Place`], [`open`] |
//! | a plain `.env` file | keys and values | [`dotenv::read`] |
//!
//! # Cautions
//!
//! - What [`Sealed`] tells with no key is **not authenticated**: whoever can edit the text can change the scope
//!   and the recipients shown. Only [`open`] proves them, by the header's MAC.
//! - A sealed value does not say who made it. Public keys are public: anyone can seal anything for any scope.
//! - [`Plain`] and [`Identity`] cannot be printed, cloned or serialized, and are wiped when dropped. Whoever calls
//!   [`Plain::expose`] takes on that duty for every copy made.
//!
//! # Example
//!
//! ```
//! use sealedenv_seal::{Identity, Keyring, OpenPolicy, Place, Plain, Scope, Sealed, open, seal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::generate();
//! let scope = Scope::strict("shop", "checkout", "STRIPE_API_KEY")?;
//! let text = seal(&scope, &[identity.recipient()], &Plain::from(b"hunter2".to_vec()))?.to_string();
//!
//! let sealed: Sealed = text.parse()?;
//! let ring = Keyring::new(vec![identity]);
//! let here = Place { namespace: "shop", name: "checkout", key: "STRIPE_API_KEY" };
//! assert_eq!(open(&here, &ring, &sealed, OpenPolicy::default())?.expose(), b"hunter2");
//!
//! let elsewhere = Place { namespace: "other", ..here };
//! let refused = open(&elsewhere, &ring, &sealed, OpenPolicy::default()).err().expect("refused");
//! assert_eq!(refused.reason(), "ScopeMismatch");
//! # Ok(())
//! # }
//! ```
//!
//! This crate is a leaf: no Kubernetes, no async, no clock, no files, no environment.

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod agreement;
pub mod dotenv;
mod header;
mod identity;
mod keyring;
#[cfg(any(test, not(any(target_arch = "aarch64", target_arch = "x86_64"))))]
mod no_agreement;
mod one_chunk;
mod open;
mod plain;
mod recipient;
mod scope;
mod seal;
mod sealed;
mod small_order;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use no_agreement as agreement;

pub use identity::{Identity, IdentityError};
pub use keyring::Keyring;
pub use open::{OpenError, OpenPolicy, open};
pub use plain::Plain;
pub use recipient::{Fingerprint, FingerprintError, Recipient, RecipientError};
pub use scope::{Place, Scope, ScopeError, ScopeField, ScopeKind, ScopeKindError};
pub use seal::{SealError, seal};
pub use sealed::{ParseError, Sealed};

/// What every sealed value of this version starts with.
pub const PREFIX: &str = "sealed:v1:";

/// The largest value that can be sealed, in bytes. A Kubernetes Secret holds no more than this in all its keys.
pub const MAX_VALUE: usize = 1 << 20;

/// The largest age header that is read, in bytes, from its first byte to the line feed after the MAC.
pub const MAX_HEADER: usize = 64 << 10;

/// The most stanzas a header may have, of every type.
pub const MAX_STANZAS: usize = 100;

/// The most words that the first lines of all stanzas may have together: types and arguments. The age crate makes a text of
/// each.
pub const MAX_WORDS: usize = 512;

/// The longest header line, in bytes without its line feed.
pub const MAX_LINE: usize = 1 << 10;

/// The longest first line of a post-quantum stanza, in bytes: its encapsulated key is an argument and exceeds
/// [`MAX_LINE`]. Such a stanza is not opened yet, but has to be read to be named.
pub const MAX_LINE_POST_QUANTUM: usize = 2 << 10;

/// The most recipients one value can be sealed to, so that their fingerprints fit in one header line.
pub const MAX_RECIPIENTS: usize = 50;

/// The longest text that is looked at, in bytes: checked before anything is allocated.
pub const MAX_TEXT: usize = PREFIX.len() + (MAX_HEADER + header::MAX_PAYLOAD).div_ceil(3) * 4;
