//! What is well-formed, and refused when it is to be opened.

use super::forge::{Built, CHUNK, Forge};
use super::{ALICE, BOB, CAROL, Case, Key};

const SCOPE: &str = "v1 strict shop checkout API_KEY";
const USUAL: &str = "strict shop/checkout/API_KEY";
const TO_ALICE: &[&Key] = &[&ALICE];

pub(super) fn cases() -> Vec<Case> {
    [places(), unscoped(), keys(), macs_of_scopes(), macs_of_the_rest(), payloads()]
        .into_iter()
        .flatten()
        .collect()
}

fn usual(seed: &'static str) -> Built {
    Forge::usual(seed, &[&ALICE]).build()
}

fn places() -> Vec<Case> {
    let strict = |name, about, namespace, object, key| {
        Case::formed(name, "ScopeMismatch", about, (USUAL, TO_ALICE), &usual(name)).at(namespace, object, key)
    };
    let other = |name, about, args: &str, says: &str, at: [&'static str; 3]| {
        let file = Forge::new(name).scope(args).to(&[&ALICE]).x25519(&ALICE).build();
        Case::formed(name, "ScopeMismatch", about, (says, TO_ALICE), &file).at(at[0], at[1], at[2])
    };
    vec![
        strict("place-namespace", "copied to another namespace", "other", "checkout", "API_KEY"),
        strict("place-name", "copied to another SealedEnv", "shop", "other", "API_KEY"),
        strict("place-key", "copied to another key", "shop", "checkout", "OTHER"),
        strict("place-case", "the key in other letters", "shop", "checkout", "api_key"),
        strict("place-blank", "a blank after the namespace", "shop ", "checkout", "API_KEY"),
        strict("place-shifted", "the same letters, divided otherwise", "shop", "checkout/API", "KEY"),
        strict("place-prefix", "a key that starts alike", "shop", "checkout", "API_KEY_2"),
        other(
            "place-namespace-scope",
            "namespace scope in another namespace",
            "v1 namespace shop - API_KEY",
            "namespace shop/API_KEY",
            ["other", "checkout", "API_KEY"],
        ),
        other(
            "place-namespace-scope-key",
            "namespace scope under another key",
            "v1 namespace shop - API_KEY",
            "namespace shop/API_KEY",
            ["shop", "checkout", "OTHER"],
        ),
        other(
            "place-cluster-scope-key",
            "cluster scope under another key",
            "v1 cluster - - API_KEY",
            "cluster API_KEY",
            ["shop", "checkout", "OTHER"],
        ),
        Case::formed(
            "place-before-keys",
            "ScopeMismatch",
            "the scope is checked before any key is used",
            (USUAL, TO_ALICE),
            &usual("place-before-keys"),
        )
        .at("other", "checkout", "API_KEY")
        .with(&[]),
        Case::formed(
            "place-where-unscoped-allowed",
            "ScopeMismatch",
            "a policy for values without a scope is not one for others",
            (USUAL, TO_ALICE),
            &usual("place-where-unscoped-allowed"),
        )
        .at("other", "checkout", "API_KEY")
        .allowing_unscoped(),
    ]
}

fn unscoped() -> Vec<Case> {
    vec![
        Case::formed(
            "unscoped",
            "Unscoped",
            "an age file that names no scope",
            ("none", &[]),
            &Forge::new("unscoped").x25519(&ALICE).build(),
        ),
        Case::formed(
            "unscoped-with-hint",
            "Unscoped",
            "a list of recipients is no scope",
            ("none", TO_ALICE),
            &Forge::new("unscoped-with-hint").to(&[&ALICE]).x25519(&ALICE).build(),
        ),
    ]
}

fn keys() -> Vec<Case> {
    let unknown = |name, about, first_line: &str| {
        let file = Forge::new(name).scope(SCOPE).to(&[&ALICE]).stanza(first_line, &[7; 32]).build();
        Case::formed(name, "UnknownRecipientType", about, (USUAL, TO_ALICE), &file)
    };
    vec![
        Case::formed(
            "key-other",
            "NoIdentity",
            "sealed to somebody else",
            (USUAL, TO_ALICE),
            &usual("key-other"),
        )
        .with(&[&BOB, &CAROL]),
        Case::formed("key-none", "NoIdentity", "no key at hand", (USUAL, TO_ALICE), &usual("key-none"))
            .with(&[]),
        Case::formed(
            "key-hint-lies",
            "NoIdentity",
            "the list names us, no stanza fits us",
            (USUAL, TO_ALICE),
            &Forge::new("key-hint-lies").scope(SCOPE).to(&[&ALICE]).x25519(&BOB).build(),
        ),
        Case::formed(
            "key-trials-fourth",
            "NoIdentity",
            "without a list the fourth stanza is not tried any more",
            (USUAL, &[]),
            &Forge::new("key-trials-fourth").scope(SCOPE).x25519_all(&[&BOB, &CAROL, &BOB, &ALICE]).build(),
        ),
        Case::formed(
            "key-trials-false-list",
            "NoIdentity",
            "a list that sends three keys to the wrong places leaves no trial for the right ones",
            (USUAL, &[&ALICE, &BOB, &CAROL]),
            &Forge::new("key-trials-false-list")
                .scope(SCOPE)
                .to(&[&ALICE, &BOB, &CAROL])
                .x25519_all(&[&BOB, &CAROL, &ALICE])
                .build(),
        )
        .with(&[&ALICE, &BOB, &CAROL]),
        unknown(
            "type-post-quantum",
            "only a post-quantum recipient",
            &format!("mlkem768x25519 {}", "A".repeat(1494)),
        ),
        unknown(
            "type-post-quantum-tag",
            "only a post-quantum hardware recipient",
            &format!("mlkem768p256tag AAAAAA {}", "A".repeat(1538)),
        ),
        unknown("type-ssh", "only an SSH recipient", &format!("ssh-ed25519 AAAAAA {}", "A".repeat(43))),
        unknown("type-plugin", "only a plugin's recipient", "piv-p256 AAAAAA AAAA"),
        unknown(
            "type-case",
            "a type in other letters is another type",
            &format!("x25519 {}", "A".repeat(43)),
        ),
    ]
}

fn bad_mac(name: &'static str, about: &'static str, says: (&str, &[&Key]), file: &Built) -> Case {
    Case::formed(name, "BadMac", about, says, file)
}

fn macs_of_scopes() -> Vec<Case> {
    let says = (USUAL, TO_ALICE);
    let bad = |name, about, says, file: Built| bad_mac(name, about, says, &file);
    let sealed_for = |seed, args: &str| Forge::new(seed).scope(args).to(&[&ALICE]).x25519(&ALICE).build();
    vec![
        bad(
            "mac-scope-namespace",
            "the scope's namespace was changed to this place's",
            says,
            sealed_for("mac-scope-namespace", "v1 strict other checkout API_KEY")
                .replacing("strict other", "strict shop"),
        ),
        bad(
            "mac-scope-name",
            "the scope's name was changed to this place's",
            says,
            sealed_for("mac-scope-name", "v1 strict shop other API_KEY")
                .replacing("shop other", "shop checkout"),
        ),
        bad(
            "mac-scope-key",
            "the scope's key was changed to this place's",
            says,
            sealed_for("mac-scope-key", "v1 strict shop checkout OTHER").replacing("OTHER", "API_KEY"),
        ),
        bad(
            "mac-scope-widened",
            "the scope was widened",
            ("cluster API_KEY", TO_ALICE),
            usual("mac-scope-widened").replacing("strict shop checkout", "cluster - -"),
        ),
        bad(
            "mac-scope-narrowed",
            "the scope was narrowed",
            says,
            sealed_for("mac-scope-narrowed", "v1 namespace shop - API_KEY")
                .replacing("namespace shop -", "strict shop checkout"),
        ),
        Case::formed(
            "mac-scope-removed",
            "BadMac",
            "the scope was taken out, where the policy allows none",
            ("none", TO_ALICE),
            &usual("mac-scope-removed")
                .replacing("-> sealedenv.dev/scope v1 strict shop checkout API_KEY\n\n", ""),
        )
        .allowing_unscoped(),
        bad(
            "mac-scope-added",
            "a scope was added to a file of plain age",
            (USUAL, &[]),
            Forge::new("mac-scope-added").x25519(&ALICE).build().replacing(
                "-> X25519",
                "-> sealedenv.dev/scope v1 strict shop checkout API_KEY\n\n-> X25519",
            ),
        ),
    ]
}

fn macs_of_the_rest() -> Vec<Case> {
    let says = (USUAL, TO_ALICE);
    let bad = |name, about, says, file: Built| bad_mac(name, about, says, &file);
    let greased = |seed| Forge::usual(seed, &[&ALICE]).stanza("x-grease y", &[1; 3]).build();
    let two = Forge::usual("mac-stanza-removed", &[&ALICE, &BOB]).build();
    let bobs = {
        let text = two.header();
        let start = text.rfind("-> X25519").expect("a stanza");
        text[start..text.find("---").expect("a MAC")].to_owned()
    };
    vec![
        bad(
            "mac-to-changed",
            "the list of recipients was changed",
            (USUAL, &[&BOB]),
            usual("mac-to-changed").replacing(ALICE.fingerprint, BOB.fingerprint),
        ),
        bad(
            "mac-to-removed",
            "the list of recipients was taken out",
            (USUAL, &[]),
            usual("mac-to-removed").replacing("-> sealedenv.dev/to c9c95a863d23c001\n\n", ""),
        ),
        bad(
            "mac-grease-argument",
            "an argument of grease was changed",
            says,
            greased("mac-grease-argument").replacing("x-grease y", "x-grease z"),
        ),
        bad(
            "mac-grease-body",
            "the body of grease was changed",
            says,
            greased("mac-grease-body").replacing("AQEB", "AQEC"),
        ),
        bad(
            "mac-stanza-removed",
            "a recipient was taken out",
            (USUAL, &[&ALICE, &BOB]),
            two.clone().replacing(&bobs, ""),
        ),
        bad(
            "mac-stanza-added",
            "a recipient was added",
            says,
            usual("mac-stanza-added").replacing("--- ", &format!("{bobs}--- ")),
        ),
        bad("mac-first-letter", "the MAC's first letter was changed", says, {
            let file = usual("mac-first-letter");
            let mac = file.mac().to_owned();
            let other = if mac.starts_with('A') { "B" } else { "A" };
            file.replacing(&format!("--- {mac}"), &format!("--- {other}{}", &mac[1..]))
        }),
        bad("mac-of-another-file", "the MAC of another value", says, {
            let file = usual("mac-of-another-file");
            let mac = file.mac().to_owned();
            file.replacing(&mac, usual("mac-of-yet-another-file").mac())
        }),
    ]
}

fn payloads() -> Vec<Case> {
    let damaged = |name, about, change: fn(&mut Vec<u8>)| {
        let file = usual(name);
        let mut payload = file.payload().to_vec();
        change(&mut payload);
        Case::formed(name, "PayloadDamaged", about, (USUAL, TO_ALICE), &file.with_payload(&payload))
    };
    let pattern: Vec<u8> = (0..=250).cycle().take(CHUNK + 1).collect();
    let two_chunks = Forge::usual("payload-cut-at-chunk", &[&ALICE]).value(&pattern).build();
    let first_chunk = two_chunks.payload()[..16 + CHUNK + 16].to_vec();
    vec![
        damaged("payload-nonce-changed", "a bit of the nonce was changed", |payload| payload[0] ^= 1),
        damaged("payload-value-changed", "a bit of the value was changed", |payload| payload[16] ^= 0x80),
        damaged("payload-tag-changed", "the last bit of the tag was changed", |payload| {
            if let Some(last) = payload.last_mut() {
                *last ^= 1;
            }
        }),
        damaged("payload-cut", "the last byte is missing", |payload| {
            payload.pop();
        }),
        damaged("payload-extended", "a byte was added", |payload| payload.push(0)),
        damaged("payload-emptied", "the value was cut out, its tag left", |payload| {
            payload.drain(16..payload.len() - 16);
        }),
        Case::formed(
            "payload-of-another-file",
            "PayloadDamaged",
            "the payload of another value for the same key",
            (USUAL, TO_ALICE),
            &usual("payload-of-another-file").with_payload(usual("payload-of-yet-another-file").payload()),
        ),
        Case::formed(
            "payload-cut-at-chunk",
            "PayloadDamaged",
            "the last chunk is missing; the one before it is whole",
            (USUAL, TO_ALICE),
            &two_chunks.with_payload(&first_chunk),
        ),
    ]
}
