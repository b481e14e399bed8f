//! The cluster's sealing keys: which there are, which is current, and when a new one is made.
//!
//! - [`decide`](mod@decide) is pure: facts about key Secrets in, decisions out.
//! - `digests` keeps the key of the digests.
//! - [`store`] reads and writes the Secrets and the SealingKey; [`watch`] calls it when they change.
//!
//! The identities stand in Secrets of the operator's namespace. A Secret of this kind is added by hand or by a
//! restore as well as by the operator, and is used as soon as it is there.

pub mod decide;
mod digests;
pub mod store;
pub mod watch;

use sealedenv_seal::Keyring;

/// The keys that values are opened with, at one moment.
pub struct Ring {
    /// The identities.
    pub keyring: Keyring,
    /// Fingerprint of the set: changes when a key is added or removed.
    pub fingerprint: String,
}

impl Ring {
    /// Takes the identities over.
    pub fn new(keyring: Keyring) -> Self {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        for fingerprint in keyring.fingerprints() {
            hash.update(fingerprint.to_string());
        }
        let fingerprint = hex::encode(&hash.finalize()[..8]);
        Self { keyring, fingerprint }
    }
}
