//! Digests that stand in status and audit, and fingerprints of input.
//!
//! A plain hash of a short value can be guessed. A [`DigestKey`] makes digests that say "same" or "different" and
//! nothing else to whoever lacks the key.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac as _};
use sealedenv_crds::SealedEnvSpec;
use sealedenv_seal::Plain;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files::Modes;

/// Changes when the same input should give another Secret than an older operator gave: then everything is
/// reconciled once after the upgrade.
const OUTPUT_VERSION: &str = "1";

/// Digest of one value: long enough to show that somebody changed it, who has one try and does not see what comes of it
/// beforehand.
pub type ValueDigest = [u8; 3];

/// What tells a [`DigestKey`] from others.
pub type Mark = [u8; 4];

/// The key of all digests. No Debug, Display, Clone or Serialize; wiped when dropped.
pub struct DigestKey(Zeroizing<[u8; 32]>);

impl DigestKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Takes the key's bytes.
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A copy of a key's bytes, if they are as many as it takes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        (bytes.len() == Self::LEN).then(|| key.copy_from_slice(bytes))?;
        Some(Self(key))
    }

    /// A new key.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        getrandom::fill(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// Whether both are the same key.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// The key's bytes, for its Secret.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Digest of the content of a Secret, 32 hex digits. Names and values are length-prefixed, so that no two
    /// different contents are the same bytes.
    pub fn of(&self, content: &BTreeMap<String, Plain>) -> String {
        self.of_files(content, &Modes::new(), &[])
    }

    /// Digest of one value of one SealedEnv. The same value elsewhere has another.
    pub fn of_value(&self, place: [&str; 3], value: &Plain) -> ValueDigest {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else {
            return ValueDigest::default();
        };
        // No name of a key is that long, so no content has these bytes.
        mac.update(&(u64::MAX - 2).to_be_bytes());
        for part in place.iter().map(|part| part.as_bytes()).chain([value.expose()]) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let [a, b, c, ..] = <[u8; 32]>::from(mac.finalize().into_bytes());
        [a, b, c]
    }

    /// Tells this key from others.
    pub fn mark(&self) -> Mark {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else {
            return Mark::default();
        };
        mac.update(&(u64::MAX - 3).to_be_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(mac.finalize().into_bytes());
        [a, b, c, d]
    }

    /// Digest of files, which are another delivery when their content or their permissions are others, or when pods are
    /// to keep others of those that they have.
    pub fn of_files(&self, content: &BTreeMap<String, Plain>, modes: &Modes, keep: &[&str]) -> String {
        // HMAC takes a key of any length, so this cannot fail; an empty digest would only cost a rewrite.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else {
            return String::new();
        };
        for (name, value) in content {
            for part in [name.as_bytes(), value.expose()] {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
        }
        // Told apart from a file by the length: none is that long.
        for (path, mode) in modes.iter().filter(|(path, _)| content.contains_key(*path)) {
            mac.update(&u64::MAX.to_be_bytes());
            mac.update(&(path.len() as u64).to_be_bytes());
            mac.update(path.as_bytes());
            mac.update(&mode.to_be_bytes());
        }
        for path in keep {
            mac.update(&(u64::MAX - 1).to_be_bytes());
            mac.update(&(path.len() as u64).to_be_bytes());
            mac.update(path.as_bytes());
        }
        hex::encode(&mac.finalize().into_bytes()[..16])
    }
}

/// Fingerprint of a spec, 32 hex digits. It covers sealed text and public values only, so it needs no key.
///
/// While it and the Secret stay the same there is nothing to do. `unopened_with` is the fingerprint of the key
/// set when some value did not open: with other keys it is worth another try.
pub fn input(spec: &SealedEnvSpec, unopened_with: Option<&str>) -> String {
    struct Hasher(Sha256);
    impl std::io::Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha256::new());
    hasher.0.update(OUTPUT_VERSION);
    // Maps of strings and enums always serialise; a failure would only lead to one more reconcile.
    if serde_json::to_writer(&mut hasher, spec).is_err() {
        hasher.0.update(b"unserialisable");
    }
    let spec = hex::encode(&hasher.0.finalize()[..16]);
    match unopened_with {
        None => spec,
        Some(ring) => format!("{spec}/{ring}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(pairs: &[(&str, &str)]) -> BTreeMap<String, Plain> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Plain::from(v.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn digest_depends_on_key_names_and_values() {
        let key = DigestKey::new([7; 32]);
        let base = key.of(&content(&[("A", "1"), ("B", "2")]));
        assert_eq!(base.len(), 32);
        assert_eq!(base, key.of(&content(&[("B", "2"), ("A", "1")])));
        for other in [
            key.of(&content(&[("A", "1"), ("B", "3")])),
            key.of(&content(&[("A", "1"), ("C", "2")])),
            key.of(&content(&[("A", "1B2")])),
            key.of(&content(&[("A", "12"), ("B", "")])),
            key.of(&content(&[])),
            DigestKey::new([8; 32]).of(&content(&[("A", "1"), ("B", "2")])),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_digest_of_a_value_is_of_its_place() {
        let key = DigestKey::new([7; 32]);
        let of = |place, value: &str| key.of_value(place, &Plain::from(value.as_bytes().to_vec()));
        let base = of(["shop", "checkout", "A"], "1");
        assert_eq!(base, of(["shop", "checkout", "A"], "1"));
        let others = [
            of(["shop", "checkout", "A"], "2"),
            of(["shop", "checkout", "B"], "1"),
            of(["shop", "billing", "A"], "1"),
            of(["test", "checkout", "A"], "1"),
            of(["shop", "checkout", "A1"], ""),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_ne!(key.mark(), DigestKey::new([8; 32]).mark());
    }

    #[test]
    fn a_file_of_another_mode_is_another_delivery() {
        let key = DigestKey::new([7; 32]);
        let content = content(&[("a", "1"), ("b", "2")]);
        let with = |modes: &[(&str, u32)]| {
            let modes = modes.iter().map(|(path, mode)| ((*path).to_owned(), *mode)).collect();
            key.of_files(&content, &modes, &[])
        };
        assert_eq!(with(&[]), key.of(&content));
        assert_eq!(with(&[("gone", 0o400)]), key.of(&content));
        let different = [with(&[]), with(&[("a", 0o400)]), with(&[("a", 0o440)]), with(&[("b", 0o400)])];
        assert_eq!(different.iter().collect::<std::collections::BTreeSet<_>>().len(), different.len());
    }

    #[test]
    fn what_pods_are_to_keep_is_a_part_of_the_delivery() {
        let (key, content) = (DigestKey::new([7; 32]), content(&[("a", "1")]));
        let keep = |names: &[&str]| key.of_files(&content, &Modes::new(), names);
        assert_eq!(keep(&[]), key.of(&content));
        let different = [keep(&[]), keep(&["b"]), keep(&["c"]), keep(&["b", "c"]), keep(&["bc"])];
        assert_eq!(different.iter().collect::<std::collections::BTreeSet<_>>().len(), different.len());
    }

    #[test]
    fn input_follows_the_spec_and_the_key_set() {
        let mut spec = SealedEnvSpec::default();
        spec.data.insert("A".into(), "sealed:v1:x".into());
        let base = input(&spec, None);
        assert_eq!(base, input(&spec.clone(), None));
        assert_ne!(base, input(&spec, Some("r1")));
        assert_ne!(input(&spec, Some("r2")), input(&spec, Some("r1")));
        spec.suspend = true;
        assert_ne!(base, input(&spec, None));
    }
}
