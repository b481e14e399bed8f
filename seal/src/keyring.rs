//! The private keys at hand, and the order in which they are tried.

use std::collections::BTreeMap;

use age::DecryptError;
use age_core::format::{FileKey, Stanza};

use crate::header::X25519_TAG;
use crate::{Fingerprint, Identity};

/// The most times that a key is tried on a stanza for one value. A trial is most of what opening costs, and the file
/// decides how many stanzas there are: with three, no file costs more than three ordinary ones of its length. A file
/// with a true hint needs one.
pub(crate) const MAX_TRIALS: usize = 3;

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
    /// The pairs of a key and a stanza that are worth a try, at most [`MAX_TRIALS`], the likeliest first: each key that
    /// the hint names with the stanza at its own place in the hint; then those keys with the other stanzas; then the
    /// other keys. The order is part of the format, for it decides what opens.
    fn trials<'s>(&'s self, stanzas: &'s [&'s Stanza]) -> impl Iterator<Item = (&'s Identity, &'s Stanza)> {
        let named = || {
            self.to.iter().enumerate().filter_map(|(place, fingerprint)| {
                self.ring.0.get(fingerprint).map(|identity| (identity, Some(place)))
            })
        };
        let others = self
            .ring
            .0
            .iter()
            .filter(|(fingerprint, _)| !self.to.contains(fingerprint))
            .map(|(_, identity)| (identity, None));
        let in_place = named().filter_map(|(identity, place)| Some((identity, *stanzas.get(place?)?)));
        let elsewhere = named().chain(others).flat_map(move |(identity, place)| {
            let rest = stanzas.iter().enumerate().filter(move |(at, _)| Some(*at) != place);
            rest.map(move |(_, stanza)| (identity, *stanza))
        });
        in_place.chain(elsewhere).take(MAX_TRIALS)
    }
}

impl age::Identity for Hinted<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let native: Vec<&Stanza> = stanzas.iter().filter(|stanza| stanza.tag == X25519_TAG).collect();
        self.trials(&native).find_map(|(identity, stanza)| identity.unwrap_stanza(stanza))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

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
    fn the_keys_that_the_hint_names_are_tried_first_at_their_own_places() {
        let (ring, of) = keys(3);
        let (_, strangers) = keys(2);
        assert_eq!(trials(&ring, &[of[1]], 1), [(1, 0), (0, 0), (2, 0)]);
        assert_eq!(trials(&ring, &[strangers[0], of[2], strangers[1]], 3), [(2, 1), (2, 0), (2, 2)]);
        assert_eq!(trials(&ring, &[of[2], of[0]], 2), [(2, 0), (0, 1), (2, 1)]);
        assert_eq!(trials(&ring, &[of[2], of[0], of[1]], 3), [(2, 0), (0, 1), (1, 2)]);
        // A place in the hint that no stanza has.
        assert_eq!(trials(&ring, &[strangers[0], of[0]], 1), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn without_a_fitting_hint_every_pair_is_tried_once() {
        let (ring, _) = keys(2);
        let (_, strangers) = keys(50);
        for hint in [&[][..], &strangers] {
            // In order, and within the bound.
            assert_eq!(trials(&ring, hint, 1), [(0, 0), (1, 0)]);
            assert_eq!(trials(&ring, hint, 2), [(0, 0), (0, 1), (1, 0)]);
            assert_eq!(trials(&ring, hint, 4), [(0, 0), (0, 1), (0, 2)]);
        }
    }

    #[test]
    fn a_true_hint_finds_every_key_with_one_trial() {
        let (ring, of) = keys(20);
        let (_, strangers) = keys(30);
        let hint: Vec<Fingerprint> =
            strangers[..15].iter().chain(&of).chain(&strangers[15..]).copied().collect();
        assert_eq!(trials(&ring, &hint, 50)[0], (0, 15));
        for (place, fingerprint) in hint.iter().enumerate().skip(15).take(20) {
            let hint: Vec<Fingerprint> =
                hint.iter().map(|of| if of == fingerprint { *of } else { strangers[0] }).collect();
            assert_eq!(trials(&ring, &hint, 50)[0], (place - 15, place));
        }
    }

    proptest! {
        /// The work that a file can cause, counted: trials, whatever the header, the hint and the keys.
        #[test]
        fn no_file_causes_more_trials_than_the_bound(
            size in 0..12_usize,
            stanzas in 0..=100_usize,
            named in proptest::collection::vec((any::<Index>(), any::<bool>()), 0..60),
        ) {
            let (ring, of) = keys(size);
            let stranger = Identity::generate().recipient().fingerprint();
            let mut hint: Vec<Fingerprint> = Vec::new();
            for (at, ours) in named {
                let fingerprint = if ours && size > 0 { of[at.index(size)] } else { stranger };
                // A hint that names one twice is refused before.
                if fingerprint == stranger || !hint.contains(&fingerprint) {
                    hint.push(fingerprint);
                }
            }
            let tried = trials(&ring, &hint, stanzas);
            prop_assert_eq!(tried.len(), MAX_TRIALS.min(size * stanzas));
        }
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
