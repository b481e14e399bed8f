//! What opens.

use super::forge::{CHUNK, Forge};
use super::{ALICE, BOB, CAROL, Case, Key};

const USUAL: &str = "strict shop/checkout/API_KEY";

pub(super) fn cases() -> Vec<Case> {
    [scopes(), values(), recipients(), foreign_stanzas(), unscoped()].into_iter().flatten().collect()
}

fn scopes() -> Vec<Case> {
    let namespace = "n".repeat(63);
    let name = "m".repeat(253);
    let key = "K".repeat(253);
    let longest = format!("v1 strict {namespace} {name} {key}");
    let open = |name, about, scope, says, at: [&'static str; 3]| {
        let file = Forge::new(name).scope(scope).to(&[&ALICE]).x25519(&ALICE).build();
        Case::opens(name, about, (says, &[&ALICE]), &file).at(at[0], at[1], at[2])
    };
    vec![
        Case::opens(
            "ok-strict",
            "the ordinary case",
            (USUAL, &[&ALICE]),
            &Forge::usual("ok-strict", &[&ALICE]).build(),
        ),
        open(
            "ok-namespace",
            "namespace scope opens under any name of its namespace",
            "v1 namespace shop - API_KEY",
            "namespace shop/API_KEY",
            ["shop", "anything", "API_KEY"],
        ),
        open(
            "ok-cluster",
            "cluster scope opens in any namespace, under the same key",
            "v1 cluster - - API_KEY",
            "cluster API_KEY",
            ["anywhere", "anything", "API_KEY"],
        ),
        open(
            "ok-names-odd",
            "every character that a name may have; a key may be a hyphen",
            "v1 strict _.-a -.-Z9 -",
            "strict _.-a/-.-Z9/-",
            ["_.-a", "-.-Z9", "-"],
        ),
        open(
            "ok-key-with-dot",
            "a key may start with one dot and contain others",
            "v1 strict shop checkout .env..local",
            "strict shop/checkout/.env..local",
            ["shop", "checkout", ".env..local"],
        ),
        open(
            "ok-names-longest",
            "the longest names: 63, 253 and 253 characters",
            &longest,
            &format!("strict {namespace}/{name}/{key}"),
            [leak(&namespace), leak(&name), leak(&key)],
        ),
        Case::opens(
            "ok-scope-last",
            "stanzas may come in any order",
            (USUAL, &[&ALICE]),
            &Forge::new("ok-scope-last")
                .x25519(&ALICE)
                .to(&[&ALICE])
                .scope("v1 strict shop checkout API_KEY")
                .build(),
        ),
    ]
}

fn values() -> Vec<Case> {
    let open = |name, about, value: &[u8]| {
        let file = Forge::usual(name, &[&ALICE]).value(value).build();
        Case::opens(name, about, (USUAL, &[&ALICE]), &file)
    };
    let pattern: Vec<u8> = (0..=250).cycle().take(CHUNK + 1).collect();
    vec![
        open("ok-value-empty", "no bytes are a value", b""),
        open("ok-value-binary", "any bytes are a value: NUL, line ends, not UTF-8", b"\0\r\n\xff\xfe\x80 "),
        open("ok-value-looks-sealed", "a value may look like anything", b"sealed:v1:AAAA"),
        open("ok-value-one-chunk", "65536 bytes: one full chunk", &pattern[..CHUNK]),
        open("ok-value-two-chunks", "65537 bytes: a full chunk and one byte", &pattern),
    ]
}

fn recipients() -> Vec<Case> {
    let scope = "v1 strict shop checkout API_KEY";
    let two = |name| Forge::usual(name, &[&ALICE, &BOB]).build();
    let fifty: Vec<String> = (0..50).map(|n| format!("{n:016x}")).collect();
    let mut cases = vec![
        Case::opens(
            "ok-recipients-first",
            "sealed to two, opened by the first",
            (USUAL, &[&ALICE, &BOB]),
            &two("ok-recipients-first"),
        ),
        Case::opens(
            "ok-recipients-second",
            "sealed to two, opened by the second",
            (USUAL, &[&ALICE, &BOB]),
            &two("ok-recipients-second"),
        )
        .with(&[&BOB]),
        Case::opens(
            "ok-keys-three",
            "three keys at hand, the last one fits",
            (USUAL, &[&BOB]),
            &Forge::usual("ok-keys-three", &[&BOB]).build(),
        )
        .with(&[&CAROL, &ALICE, &BOB]),
        Case::opens(
            "ok-hint-absent",
            "without a list of recipients a key is tried on one stanza after the other",
            (USUAL, &[]),
            &Forge::new("ok-hint-absent").scope(scope).x25519_all(&[&BOB, &ALICE]).build(),
        ),
        Case::opens(
            "ok-hint-order",
            "the list is in another order than the stanzas",
            (USUAL, &[&BOB, &ALICE]),
            &Forge::new("ok-hint-order").scope(scope).to(&[&BOB, &ALICE]).x25519_all(&[&ALICE, &BOB]).build(),
        ),
        Case::opens(
            "ok-hint-false",
            "the list names a recipient that the file is not sealed to: opening decides",
            (USUAL, &[&BOB]),
            &Forge::new("ok-hint-false").scope(scope).to(&[&BOB]).x25519(&ALICE).build(),
        )
        .with(&[&ALICE, &BOB]),
        Case::opens(
            "ok-hint-shorter",
            "the list names fewer recipients than there are stanzas",
            (USUAL, &[&BOB]),
            &Forge::new("ok-hint-shorter")
                .scope(scope)
                .to(&[&BOB])
                .x25519_all(&[&CAROL, &BOB, &ALICE])
                .build(),
        ),
    ];
    cases.extend(trials());
    let file = Forge::new("ok-hint-fifty").scope(scope);
    let file = file.stanza(&format!("sealedenv.dev/to {}", fifty.join(" ")), b"").x25519(&ALICE).build();
    let mut case = Case::opens("ok-hint-fifty", "the list names fifty strangers", (USUAL, &[]), &file);
    if let Some(facts) = &mut case.facts {
        facts.to = fifty.iter().map(|fingerprint| leak(fingerprint)).collect();
    }
    cases.push(case);
    cases
}

/// Three trials, and no more, in the order that the format gives.
fn trials() -> Vec<Case> {
    let scope = "v1 strict shop checkout API_KEY";
    let scoped = |name| Forge::new(name).scope(scope);
    vec![
        Case::opens(
            "ok-trials-third",
            "without a list, the third stanza is the last that one key is tried on",
            (USUAL, &[]),
            &scoped("ok-trials-third").x25519_all(&[&BOB, &CAROL, &ALICE]).build(),
        ),
        Case::opens(
            "ok-trials-third-key",
            "without a true list, the third of three keys in the order of fingerprints",
            (USUAL, &[]),
            &scoped("ok-trials-third-key").x25519(&ALICE).build(),
        )
        .with(&[&ALICE, &BOB, &CAROL]),
        Case::opens(
            "ok-trials-places-first",
            "keys are tried at the places that the list gives them before any is tried elsewhere",
            (USUAL, &[&CAROL, &BOB, &ALICE]),
            &scoped("ok-trials-places-first")
                .to(&[&CAROL, &BOB, &ALICE])
                .x25519_all(&[&BOB, &CAROL, &ALICE, &BOB])
                .build(),
        )
        .with(&[&ALICE, &BOB, &CAROL]),
        Case::opens(
            "ok-trials-hinted-among-strangers",
            "a true list needs one trial among any number of stanzas",
            (USUAL, &[&BOB, &CAROL, &BOB_AGAIN, &ALICE]),
            &scoped("ok-trials-hinted-among-strangers")
                .to(&[&BOB, &CAROL, &BOB_AGAIN, &ALICE])
                .x25519_all(&[&BOB, &CAROL, &BOB, &ALICE, &CAROL, &BOB])
                .build(),
        ),
    ]
}

/// A fingerprint that is nobody's, in a place of the list.
const BOB_AGAIN: Key = Key { identity: "", recipient: "", fingerprint: "0123456789abcdef" };

fn foreign_stanzas() -> Vec<Case> {
    let usual = |name| Forge::usual(name, &[&ALICE]);
    let open = |name, about, forge: Forge| Case::opens(name, about, (USUAL, &[&ALICE]), &forge.build());
    let full =
        (0..97).fold(usual("ok-stanzas-hundred"), |forge, n| forge.stanza(&format!("{n}-grease"), b""));
    vec![
        open(
            "ok-grease",
            "grease stanzas are ignored, with bodies of every shape",
            usual("ok-grease")
                .stanza("a-grease", b"")
                .stanza("}-grease ~ !", &[1; 1])
                .stanza("b-grease", &[2; 47])
                .stanza("b-grease", &[3; 48])
                .stanza("c-grease", &[4; 97]),
        ),
        open("ok-stanzas-hundred", "100 stanzas are allowed", full),
        open(
            "ok-words-most",
            "512 words are allowed in the first lines of all stanzas",
            // 10 in the three ordinary stanzas, 2 × 250 and 2 in others.
            usual("ok-words-most")
                .stanza(&format!("x-grease{}", " y".repeat(249)), b"")
                .stanza(&format!("x-grease{}", " y".repeat(249)), b"")
                .stanza("x-grease y", b""),
        ),
        open(
            "ok-line-longest",
            "a header line of 1024 bytes is allowed",
            usual("ok-line-longest").stanza(&format!("x-grease {}", "y".repeat(1024 - 12)), b""),
        ),
        open(
            "ok-unknown-beside",
            "stanzas of unknown types are ignored beside one that fits",
            usual("ok-unknown-beside").stanza("example.com/escrow 7", &[5; 20]),
        ),
        open(
            "ok-post-quantum-beside",
            "a post-quantum stanza, whose line is longer, is ignored beside one that fits",
            usual("ok-post-quantum-beside").stanza(&format!("mlkem768x25519 {}", "A".repeat(1494)), &[6; 32]),
        ),
        open(
            "ok-our-name-in-other-case",
            "a stanza type in other letters is not ours",
            usual("ok-our-name-in-other-case").stanza("SealedEnv.dev/scope v1 cluster - - API_KEY", b""),
        ),
    ]
}

fn unscoped() -> Vec<Case> {
    vec![
        Case::opens(
            "ok-unscoped-allowed",
            "an age file without a scope, where the policy allows that",
            ("none", &[]),
            &Forge::new("ok-unscoped-allowed").x25519(&ALICE).build(),
        )
        .at("any", "place", "AT_ALL")
        .allowing_unscoped(),
        Case::opens(
            "ok-scoped-where-unscoped-allowed",
            "the policy changes nothing for a value with a scope",
            (USUAL, &[&ALICE]),
            &Forge::usual("ok-scoped-where-unscoped-allowed", &[&ALICE]).build(),
        )
        .allowing_unscoped(),
    ]
}

/// Cases hold static text; a generator may leak a few.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
