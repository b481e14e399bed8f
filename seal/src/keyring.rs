//! The private keys at hand, and the order in which they are tried.

use std::collections::BTreeMap;

use age::DecryptError;
use age_core::format::{FileKey, Stanza};

use crate::{Fingerprint, Identity};

/// The most times that a key is tried on a stanza for one value. Each costs a scalar multiplication, and the file
/// decides how many stanzas there are; a file with a true hint needs one.
const MAX_TRIALS: usize = 512;

const X25519_TAG: &str = "X25519";

/// Private keys to open values with. Can be shared between threads; its memory is wiped when it is dropped.
pub struct Keyring(BTreeMap<Fingerprint, Identity>);

impl Keyring {
    /// Takes the identities over. One that is given twice is kept once. An empty keyring opens nothing.
    pub fn new(identities: Vec<Identity>) -> Self {
        Self(identities.into_iter().map(|identity| (identity.recipient().fingerprint(), identity)).collect())
    }

    /// The fingerprints of the keys, in ascending order.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.0.keys().copied()
    }

    /// Whether the key of that fingerprint is at hand.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.0.contains_key(fingerprint)
    }

    /// How many different keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A keyring with the hint of one file: to the age crate, one identity.
pub(crate) struct Hinted<'a> {
    pub(crate) ring: &'a Keyring,
    pub(crate) to: &'a [Fingerprint],
}

impl Hinted<'_> {
    /// The pairs of a key and a stanza that are worth a try, at most [`MAX_TRIALS`], the likeliest first: the keys that
    /// the hint names, each with the stanza at its own place in the hint before the others; then the other keys.
    fn trials<'s>(&'s self, stanzas: &'s [&'s Stanza]) -> impl Iterator<Item = (&'s Identity, &'s Stanza)> {
        let named = self.to.iter().enumerate().filter_map(|(place, fingerprint)| {
            self.ring.0.get(fingerprint).map(|identity| (identity, Some(place)))
        });
        let others = self
            .ring
            .0
            .iter()
            .filter(|(fingerprint, _)| !self.to.contains(fingerprint))
            .map(|(_, identity)| (identity, None));
        let pairs = named.chain(others).flat_map(move |(identity, place)| {
            let first = place.and_then(|place| stanzas.get(place));
            let rest = stanzas.iter().enumerate().filter(move |(at, _)| Some(*at) != place);
            first.into_iter().chain(rest.map(|(_, stanza)| stanza)).map(move |stanza| (identity, *stanza))
        });
        pairs.take(MAX_TRIALS)
    }
}

impl age::Identity for Hinted<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let native: Vec<&Stanza> = stanzas.iter().filter(|stanza| stanza.tag == X25519_TAG).collect();
        self.trials(&native)
            .find_map(|(identity, stanza)| age::Identity::unwrap_stanza(identity.as_age(), stanza))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of that many keys, and their fingerprints in its order.
    fn keys(number: usize) -> (Keyring, Vec<Fingerprint>) {
        let ring = Keyring::new((0..number).map(|_| Identity::generate()).collect());
        let fingerprints = ring.fingerprints().collect();
        (ring, fingerprints)
    }

    /// The trials as pairs of numbers: which key of the ring, which stanza.
    fn trials(ring: &Keyring, to: &[Fingerprint], stanzas: usize) -> Vec<(usize, usize)> {
        let owned: Vec<Stanza> = (0..stanzas)
            .map(|n| Stanza { tag: X25519_TAG.to_owned(), args: vec![n.to_string()], body: Vec::new() })
            .collect();
        let stanzas: Vec<&Stanza> = owned.iter().collect();
        let number =
            |identity: &Identity| ring.0.values().position(|known| std::ptr::eq(known, identity)).unwrap();
        let hinted = Hinted { ring, to };
        let tried = hinted.trials(&stanzas);
        tried.map(|(identity, stanza)| (number(identity), stanza.args[0].parse().unwrap())).collect()
    }

    #[test]
    fn the_key_that_the_hint_names_is_tried_first_at_its_own_place() {
        let (ring, of) = keys(3);
        let (_, strangers) = keys(2);
        assert_eq!(trials(&ring, &[of[1]], 1), [(1, 0), (0, 0), (2, 0)]);
        let hint = [strangers[0], of[2], strangers[1]];
        let expected = [(2, 1), (2, 0), (2, 2), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
        assert_eq!(trials(&ring, &hint, 3), expected);
        assert_eq!(trials(&ring, &[of[2], of[0]], 2)[..2], [(2, 0), (2, 1)]);
    }

    #[test]
    fn without_a_fitting_hint_every_pair_is_tried_once() {
        let (ring, _) = keys(3);
        let (_, strangers) = keys(50);
        for hint in [&[][..], &strangers] {
            let mut tried = trials(&ring, hint, 4);
            assert_eq!(tried.len(), 12);
            tried.dedup();
            assert_eq!(tried.len(), 12);
        }
        // A place in the hint that no stanza has.
        let (ring, of) = keys(1);
        let hint = [&strangers[..], &of].concat();
        assert_eq!(trials(&ring, &hint, 2), [(0, 0), (0, 1)]);
    }

    #[test]
    fn no_more_than_the_bound_are_tried() {
        let (ring, of) = keys(6);
        assert_eq!(trials(&ring, &[], 98).len(), MAX_TRIALS);
        assert_eq!(trials(&ring, &of, 98).len(), MAX_TRIALS);
        assert_eq!(trials(&ring, &of[..5], 85).len(), 510);
    }

    #[test]
    fn a_key_given_twice_is_kept_once() {
        let text = Identity::generate().to_text();
        let read = || Identity::parse(str::from_utf8(text.expose()).unwrap()).unwrap();
        let ring = Keyring::new(vec![read(), Identity::generate(), read()]);
        assert_eq!(ring.len(), 2);
        assert!(ring.contains(&read().recipient().fingerprint()));
        assert!(!ring.contains(&Identity::generate().recipient().fingerprint()));
        assert!(!ring.is_empty() && Keyring::new(Vec::new()).is_empty());
    }
}
