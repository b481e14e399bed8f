//! What is too large for a vector, and what must not grow.

use sealedenv_seal::{
    Identity, Keyring, MAX_HEADER, MAX_RECIPIENTS, MAX_TEXT, MAX_VALUE, OpenPolicy, Place, Recipient, Scope,
    SealError, Sealed, open, seal,
};

use crate::generate::forge::{Built, CHUNK, Forge, text};
use crate::generate::{ALICE, BOB};
use crate::{plain, ring};

const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "API_KEY" };

fn here() -> Scope {
    Scope::strict(HERE.namespace, HERE.name, HERE.key).unwrap()
}

fn alice() -> Recipient {
    ALICE.recipient.parse().unwrap()
}

#[track_caller]
fn refused(expected: &str, text: &str) {
    match Sealed::parse(text) {
        Ok(_) => panic!("accepted"),
        Err(error) => assert_eq!(error.reason(), expected, "{error}"),
    }
}

fn opens(file: &Built) -> Result<Vec<u8>, &'static str> {
    let sealed = Sealed::parse(&file.text()).unwrap();
    open(&HERE, &ring(&[&ALICE]), &sealed, OpenPolicy::default())
        .map(|value| value.expose().to_vec())
        .map_err(|error| error.reason())
}

/// A value of 1 MiB, with chunks that differ.
fn largest() -> Vec<u8> {
    (0..=250).cycle().take(MAX_VALUE).collect()
}

#[test]
fn a_value_of_one_mebibyte_is_the_largest() {
    let sealed = seal(&here(), &[alice()], &plain(&largest())).unwrap();
    let sealed = Sealed::parse(&sealed.to_string()).unwrap();
    let value = open(&HERE, &ring(&[&ALICE]), &sealed, OpenPolicy::default()).unwrap();
    assert!(value.expose() == largest());

    let larger = [largest(), vec![0]].concat();
    let error = seal(&here(), &[alice()], &plain(&larger)).err().unwrap();
    assert!(matches!(error, SealError::TooLarge { len } if len == MAX_VALUE + 1));
    refused("TooLarge", &Forge::usual("larger", &[&ALICE]).value(&larger).build().text());
    let exact = Forge::usual("exact", &[&ALICE]).value(&largest()).build();
    assert!(opens(&exact).unwrap() == largest());
    let payload = [exact.payload(), b"x"].concat();
    refused("TooLarge", &exact.with_payload(&payload).text());
}

#[test]
fn the_text_is_bounded_before_it_is_decoded() {
    let not_even_base64 = format!("sealed:v1:{}", "!".repeat(MAX_TEXT - 9));
    assert_eq!(not_even_base64.len(), MAX_TEXT + 1);
    refused("TooLarge", &not_even_base64);
    refused("NotCanonicalBase64", &not_even_base64[..MAX_TEXT]);
}

#[test]
fn a_header_of_64_kibibytes_is_the_largest() {
    let usual = Forge::usual("header", &[&ALICE]);
    let with = |padding: usize| {
        // Grease with full body lines, then one whose first line makes up the rest.
        let lines = "A".repeat(64) + "\n";
        let forge = usual.clone().raw("-> x-grease\n").raw(&lines.repeat(990)).raw("\n");
        forge.stanza(&format!("y-grease {}", "z".repeat(padding)), b"").build()
    };
    let exact = with(1 + MAX_HEADER - with(1).header_len);
    assert_eq!(exact.header_len, MAX_HEADER);
    assert_eq!(opens(&exact).unwrap(), b"hunter2");
    let larger = with(2 + MAX_HEADER - with(1).header_len);
    assert_eq!(larger.header_len, MAX_HEADER + 1);
    refused("TooLarge", &larger.text());
}

#[test]
fn absurd_headers_are_refused() {
    let usual = || Forge::usual("absurd", &[&ALICE]);
    refused("TooLarge", &usual().stanza(&format!("x-grease {}", "y".repeat(63 << 10)), b"").build().text());
    refused("TooLarge", &usual().raw(&"-> a\n\n".repeat(10_000)).build().text());
    refused("TooLarge", &usual().stanza("x-grease", &vec![0; 48 * 1008]).build().text());
    refused("Malformed", &text(format!("age-encryption.org/v1\n{}", "-> a".repeat(50)).as_bytes()));
    refused("TooLarge", &text(format!("age-encryption.org/v1\n{}", "-> a".repeat(100_000)).as_bytes()));
    let many: Vec<String> = (0..100_000).map(|n| format!("{n:016x}")).collect();
    let hint = Forge::new("hint").scope("v1 strict shop checkout API_KEY");
    let hint = hint.stanza(&format!("sealedenv.dev/to {}", many.join(" ")), b"").x25519(&ALICE).build();
    refused("TooLarge", &hint.text());
}

#[test]
fn a_passphrase_of_any_cost_is_refused_unread() {
    // What the file demands is not even looked at: nothing that could derive a key exists yet when it is refused.
    for cost in 1..=63 {
        let passphrase = format!("scrypt AAAAAAAAAAAAAAAAAAAAAA {cost}");
        let scoped = || Forge::new("passphrase").scope("v1 strict shop checkout API_KEY");
        refused("PassphraseRefused", &scoped().stanza(&passphrase, &[0; 32]).build().text());
        refused("PassphraseRefused", &scoped().x25519(&ALICE).stanza(&passphrase, &[0; 32]).build().text());
        refused("PassphraseRefused", &scoped().stanza(&passphrase, &[0; 32]).x25519(&ALICE).build().text());
    }
}

#[test]
fn an_armored_file_is_refused_by_name() {
    let error = Sealed::parse(&text(b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n")).err().unwrap();
    assert!(error.to_string().contains("armored"), "{error}");
}

/// That many stanzas of somebody else.
fn strangers(number: usize) -> Forge {
    let scoped = Forge::new("strangers").scope("v1 strict shop checkout API_KEY");
    (0..number).fold(scoped, |forge, _| forge.x25519(&BOB))
}

#[test]
fn strangers_stanzas_cost_no_more_than_three_trials() {
    assert_eq!(opens(&strangers(2).x25519(&ALICE).build()).unwrap(), b"hunter2");
    for number in [3, 10, 98] {
        let file = strangers(number).x25519(&ALICE).build();
        assert_eq!(opens(&file), Err("NoIdentity"), "{number}");
        let sealed = Sealed::parse(&file.text()).unwrap();
        let error = open(&HERE, &ring(&[&ALICE]), &sealed, OpenPolicy::default()).err().unwrap();
        let left = format!("; {} combinations of a key and a stanza were not tried", number + 1 - 3);
        assert!(error.to_string().ends_with(&left), "{error}");
    }
}

#[test]
fn a_true_hint_is_enough_however_many_stanzas_there_are() {
    // As many fingerprints as one line takes.
    let hint: Vec<String> =
        (0..58).map(|n| format!("{n:016x}")).chain([ALICE.fingerprint.to_owned()]).collect();
    let hinted = strangers(58).stanza(&format!("sealedenv.dev/to {}", hint.join(" ")), b"").x25519(&ALICE);
    let full = (0..39).fold(hinted, |forge, _| forge.x25519(&BOB));
    assert_eq!(opens(&full.build()).unwrap(), b"hunter2");
}

#[test]
fn a_value_for_fifty_opens_with_each_key_of_a_ring_of_twenty() {
    let identities: Vec<Identity> = (0..50).map(|_| Identity::generate()).collect();
    let to: Vec<Recipient> = identities.iter().map(Identity::recipient).collect();
    let all = seal(&here(), &to, &plain(b"v")).unwrap();
    let copy =
        |identity: &Identity| Identity::parse(str::from_utf8(identity.to_text().expose()).unwrap()).unwrap();
    // One key that fits among nineteen that do not, at every place; and all twenty that fit.
    for (at, identity) in identities.iter().enumerate() {
        let mut keys: Vec<Identity> = (0..19).map(|_| Identity::generate()).collect();
        keys.push(copy(identity));
        assert!(open(&HERE, &Keyring::new(keys), &all, OpenPolicy::default()).is_ok(), "{at}");
    }
    let keys = identities[20..40].iter().map(copy).collect();
    assert!(open(&HERE, &Keyring::new(keys), &all, OpenPolicy::default()).is_ok());
}

#[test]
fn fifty_recipients_are_the_most() {
    let to: Vec<Recipient> =
        (0..=MAX_RECIPIENTS).map(|_| sealedenv_seal::Identity::generate().recipient()).collect();
    let error = seal(&here(), &to, &plain(b"v")).err().unwrap();
    assert!(matches!(error, SealError::TooManyRecipients { count: 51 }));
    let sealed = seal(&here(), &to[..MAX_RECIPIENTS], &plain(b"v")).unwrap();
    assert_eq!(sealed.recipients().len(), MAX_RECIPIENTS);
    assert_eq!(sealed.recipient_stanzas(), MAX_RECIPIENTS);
    assert!(matches!(seal(&here(), &[], &plain(b"v")), Err(SealError::NoRecipients)));

    let twice: Vec<Recipient> = to[..MAX_RECIPIENTS].iter().chain(&to[..MAX_RECIPIENTS]).cloned().collect();
    assert_eq!(seal(&here(), &twice, &plain(b"v")).unwrap().recipients(), sealed.recipients());
}

#[test]
fn chunks_cannot_be_cut_added_or_swapped() {
    let value: Vec<u8> = (0..=250).cycle().take(3 * CHUNK).collect();
    let file = Forge::usual("chunks", &[&ALICE]).value(&value).build();
    assert!(opens(&file).unwrap() == value);
    let (nonce, chunks) = file.payload().split_at(16);
    let chunk = |n: usize| &chunks[n * (CHUNK + 16)..(n + 1) * (CHUNK + 16)];
    let of = |parts: &[&[u8]]| file.clone().with_payload(&[&[nonce], parts].concat().concat());
    for (about, payload) in [
        ("the last chunk cut", of(&[chunk(0), chunk(1)])),
        ("the first chunk only", of(&[chunk(0)])),
        ("a chunk taken out", of(&[chunk(0), chunk(2)])),
        ("two chunks swapped", of(&[chunk(1), chunk(0), chunk(2)])),
        ("a chunk repeated", of(&[chunk(0), chunk(0), chunk(1), chunk(2)])),
        ("a full chunk after the last", of(&[chunks, chunk(2)])),
        ("17 bytes after the last", of(&[chunks, &[0; 17]])),
        ("a byte less", of(&[&chunks[..chunks.len() - 1]])),
    ] {
        assert_eq!(opens(&payload), Err("PayloadDamaged"), "{about}");
    }
    for extra in 1..=16 {
        refused("TrailingBytes", &of(&[chunks, &[0; 16][..extra]]).text());
    }
}
