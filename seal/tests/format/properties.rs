//! What holds for every value, place and damage.

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use sealedenv_seal::{Keyring, OpenPolicy, PREFIX, Place, Recipient, Scope, Sealed, open, seal};

use crate::generate::{ALICE, BOB, CAROL, Key};
use crate::{fact, plain, ring};

const KEYS: [Key; 3] = [ALICE, BOB, CAROL];
const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "API_KEY" };

static RING: LazyLock<Keyring> = LazyLock::new(|| ring(&[&ALICE]));

fn recipient(key: &Key) -> Recipient {
    key.recipient.parse().unwrap()
}

/// A file sealed for [`HERE`] to Alice and Bob.
fn file(value: &[u8]) -> Vec<u8> {
    let scope = Scope::strict(HERE.namespace, HERE.name, HERE.key).unwrap();
    let sealed = seal(&scope, &[recipient(&ALICE), recipient(&BOB)], &plain(value)).unwrap();
    BASE64_STANDARD.decode(&sealed.to_string()[PREFIX.len()..]).unwrap()
}

fn opens(text: &str) -> bool {
    Sealed::parse(text).is_ok_and(|sealed| open(&HERE, &RING, &sealed, OpenPolicy::default()).is_ok())
}

fn file_opens(file: &[u8]) -> bool {
    opens(&format!("{PREFIX}{}", BASE64_STANDARD.encode(file)))
}

fn header_len(file: &[u8]) -> usize {
    let mac = file.windows(5).position(|window| window == b"\n--- ").unwrap();
    mac + 5 + 43 + 1
}

/// Where the header's last line begins: the line feed before the MAC.
fn mac_at(file: &[u8]) -> usize {
    header_len(file) - "\n--- \n".len() - 43
}

/// The header's stanzas, each with what stands before it, up to the MAC.
fn stanzas(file: &[u8]) -> Vec<Vec<u8>> {
    let header = String::from_utf8(file[..mac_at(file)].to_vec()).unwrap();
    // At the start of a line only: an argument of grease may end in an arrow, too.
    header.split("\n-> ").skip(1).map(|stanza| format!("\n-> {stanza}").into_bytes()).collect()
}

fn scopes() -> impl Strategy<Value = (Scope, [String; 3])> {
    let name = "[-._A-Za-z0-9]{1,8}";
    let valid = (name, name, name, 0..3)
        .prop_filter("reserved", |(namespace, name, key, _)| Scope::strict(namespace, name, key).is_ok());
    valid.prop_map(|(namespace, name, key, kind)| {
        let scope = match kind {
            0 => Scope::strict(&namespace, &name, &key),
            1 => Scope::namespace(&namespace, &key),
            _ => Scope::cluster(&key),
        };
        (scope.unwrap(), [namespace, name, key])
    })
}

/// Runs a property, and says how often.
fn holds<S: Strategy>(what: &str, cases: u32, strategy: S, property: impl Fn(S::Value) -> TestCaseResult) {
    // Found failures become named tests; no file of seeds is kept.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(&strategy, property) {
        panic!("{what}: {failure}");
    }
    fact(&format!("property: {what}: {cases} cases"));
}

#[test]
fn what_is_sealed_opens_in_its_scope_and_nowhere_else() {
    let strategy = (
        scopes(),
        vec(any::<u8>(), 0..300),
        any::<Index>(),
        subsequence(vec![0, 1, 2], 0..=3),
        "[-._A-Za-z0-9]{1,8}",
    );
    holds("sealed, then opened", 200, strategy, |((scope, names), value, reader, others, foreign)| {
        let [namespace, name, key] = names;
        let reader = reader.index(3);
        let mut to: Vec<Recipient> = others.iter().map(|n| recipient(&KEYS[*n])).collect();
        to.push(recipient(&KEYS[reader]));
        let sealed = seal(&scope, &to, &plain(&value)).unwrap();
        let sealed = Sealed::parse(&sealed.to_string()).unwrap();
        prop_assert_eq!(sealed.scope(), Some(&scope));
        let place = Place { namespace: &namespace, name: &name, key: &key };
        let ring = ring(&[&KEYS[reader]]);
        let opened = open(&place, &ring, &sealed, OpenPolicy::default()).unwrap();
        prop_assert_eq!(opened.expose(), &value);

        for elsewhere in [
            Place { namespace: &foreign, ..place },
            Place { name: &foreign, ..place },
            Place { key: &foreign, ..place },
        ] {
            let expected = if scope.admits(&elsewhere) { Ok(()) } else { Err("ScopeMismatch") };
            let opened = open(&elsewhere, &ring, &sealed, OpenPolicy { allow_unscoped: true });
            prop_assert_eq!(opened.map(|_| ()).map_err(|error| error.reason()), expected);
        }
        Ok(())
    });
}

#[test]
fn any_change_of_a_byte_is_refused() {
    let strategy = (any::<Index>(), 1..=255_u8, 0..100_usize);
    holds("a byte changed", 200, strategy, |(at, change, len)| {
        let mut file = file(&vec![b'v'; len]);
        let at = at.index(file.len());
        file[at] ^= change;
        prop_assert!(!file_opens(&file), "byte {at} of {file:?}");
        Ok(())
    });
}

#[test]
fn any_change_of_the_text_is_refused() {
    let strategy = (any::<Index>(), any::<char>(), 0..3);
    holds("a letter changed, added or taken out", 200, strategy, |(at, letter, kind)| {
        let sealed = format!("{PREFIX}{}", BASE64_STANDARD.encode(file(b"value")));
        let at = at.index(sealed.len());
        let mut changed: Vec<char> = sealed.chars().collect();
        match kind {
            0 => changed[at] = letter,
            1 => changed.insert(at, letter),
            _ => {
                changed.remove(at);
            }
        }
        let changed: String = changed.into_iter().collect();
        prop_assert!(changed == sealed || !opens(&changed), "{changed}");
        Ok(())
    });
}

#[test]
fn any_part_cut_out_or_doubled_is_refused() {
    holds("a part cut out or doubled", 200, any::<(Index, Index)>(), |(from, to)| {
        let file = file(b"a value of some length");
        let ends = [from.index(file.len() + 1), to.index(file.len() + 1)];
        let (from, to) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        prop_assume!(from != to);
        prop_assert!(!file_opens(&[&file[..from], &file[to..]].concat()));
        prop_assert!(!file_opens(&[&file[..to], &file[from..]].concat()));
        Ok(())
    });
}

#[test]
fn any_mixture_of_two_values_is_refused() {
    // Any stanzas of the two, in any order and number; a MAC and a payload of either.
    let strategy = (vec((any::<bool>(), 0..5_usize), 0..8), any::<bool>(), any::<bool>());
    let files = [file(b"the one"), file(b"the other")];
    let parts = files.each_ref().map(|file| stanzas(file));
    assert_eq!(parts.each_ref().map(Vec::len), [5, 5]);
    let mixed = |picks: &[(bool, usize)], mac: bool, payload: bool| {
        let of = |other: bool| &files[usize::from(other)];
        let mut mixed = b"age-encryption.org/v1".to_vec();
        for (other, n) in picks {
            mixed.extend_from_slice(&parts[usize::from(*other)][*n]);
        }
        mixed.extend_from_slice(&of(mac)[mac_at(of(mac))..header_len(of(mac))]);
        mixed.extend_from_slice(&of(payload)[header_len(of(payload))..]);
        mixed
    };
    holds("a mixture of two files", 600, strategy, |(picks, mac, payload)| {
        let mixed = mixed(&picks, mac, payload);
        prop_assert!(files.contains(&mixed) || !file_opens(&mixed), "{picks:?} {mac} {payload}");
        Ok(())
    });
    // The likeliest to go unnoticed: all stanzas in their places, each of the one file or of the other.
    let mut count = 0;
    for choice in 0..1 << 7 {
        let bit = |n: usize| choice >> n & 1 == 1;
        let picks: Vec<(bool, usize)> = (0..5).map(|n| (bit(n), n)).collect();
        let mixed = mixed(&picks, bit(5), bit(6));
        assert_eq!(file_opens(&mixed), files.contains(&mixed), "{choice:07b}");
        count += 1;
    }
    fact(&format!("property: each part of the one file or of the other: all {count} mixtures"));
}

#[test]
fn any_text_is_read_or_refused() {
    holds("any text", 3000, any::<String>(), |text| {
        let _ = Sealed::parse(&text);
        let _ = Sealed::parse(&format!("{PREFIX}{text}"));
        Ok(())
    });
}

#[test]
fn what_is_read_is_written_back() {
    let strategy = (any::<Vec<u8>>(), header_text(), "[A-Za-z0-9+/=]{0,24}");
    holds("any bytes, with and without a header", 3000, strategy, |(bytes, header, letters)| {
        let text = |file: &[u8]| format!("{PREFIX}{}", BASE64_STANDARD.encode(file));
        for text in [
            text(&bytes),
            text(&[header.as_bytes(), &bytes].concat()),
            text(&[header.as_bytes(), &[0; 40], &bytes].concat()),
            format!("{PREFIX}{letters}"),
        ] {
            if let Ok(sealed) = Sealed::parse(&text) {
                prop_assert_eq!(sealed.to_string(), text);
                // Without the key it cannot open, whatever it says.
                let opened = open(&HERE, &RING, &sealed, OpenPolicy { allow_unscoped: true });
                prop_assert!(opened.is_err());
            }
        }
        Ok(())
    });
}

/// Texts that look like headers, right and wrong.
fn header_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => Just("-> sealedenv.dev/scope v1 strict shop checkout API_KEY\n\n".to_owned()),
        2 => Just("-> sealedenv.dev/scope v1 cluster - - API_KEY\n\n".to_owned()),
        2 => Just("-> sealedenv.dev/to c9c95a863d23c001\n\n".to_owned()),
        6 => Just(format!("-> X25519 C{}\n{}A\n", "A".repeat(42), "B".repeat(42))),
        1 => Just(format!("-> X25519 C{}\n{}\n", "A".repeat(42), "B".repeat(43))),
        1 => Just("-> scrypt AAAAAAAAAAAAAAAAAAAAAA 18\nAAAA\n".to_owned()),
        3 => "-> [!-~]{1,5}( [!-~]{1,4}){0,3}\n([A-Za-z]{64}\n){0,2}[A-P]{0,8}\n",
        1 => "[ -~\n]{0,20}",
    ];
    let mac = prop_oneof![4 => Just(format!("--- {}A\n", "m".repeat(42))), 1 => Just(String::new())];
    (proptest::collection::vec(line, 0..6), mac)
        .prop_map(|(lines, mac)| format!("age-encryption.org/v1\n{}{mac}", lines.concat()))
}

#[test]
fn every_bit_of_a_file_is_bound() {
    let file = file(b"value");
    assert!(file_opens(&file));
    for at in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[at / 8] ^= 1 << (at % 8);
        assert!(!file_opens(&changed), "bit {} of byte {}", at % 8, at / 8);
    }
    fact(&format!("property: a bit flipped: all {} of a file", file.len() * 8));
}

#[test]
fn every_beginning_of_a_text_is_refused() {
    let text = format!("{PREFIX}{}", BASE64_STANDARD.encode(file(b"value")));
    assert!(opens(&text));
    for end in 0..text.len() {
        assert!(!opens(&text[..end]), "{end} letters");
    }
}
