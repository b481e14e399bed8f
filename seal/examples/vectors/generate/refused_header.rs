//! What is refused by the scan of the header, with a valid MAC where there is one.

use super::forge::{Built, CHUNK, Forge, text};
use super::{ALICE, BOB, Case};

const SCOPE: &str = "v1 strict shop checkout API_KEY";

pub(super) fn cases() -> Vec<Case> {
    [
        files(),
        bodies(),
        scopes(),
        scopes_twice(),
        recipients(),
        small_orders(),
        bounds(),
        passphrases(),
        payloads(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn malformed(name: &'static str, about: &'static str, file: &Built) -> Case {
    Case::refused(name, "Malformed", about, file.text())
}

fn usual(seed: &'static str) -> Forge {
    Forge::usual(seed, &[&ALICE])
}

fn files() -> Vec<Case> {
    let raw = |name, about, file: &[u8]| Case::refused(name, "Malformed", about, text(file));
    let cut = |name, about, at: &str| {
        let file = usual(name).build();
        raw(name, about, &file.bytes[..file.header().find(at).expect("it is there") + at.len()])
    };
    let short_mac = |name, about, change: fn(&str) -> String| {
        let forge = usual(name);
        let mac = forge.mac();
        malformed(name, about, &forge.build_with_mac(&change(&mac)))
    };
    vec![
        raw("file-empty", "nothing after the prefix", b""),
        raw("file-not-age", "base64 of something else", b"hunter2"),
        raw(
            "file-armored",
            "an age file in its text form",
            b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n",
        ),
        raw("file-gzip", "a compressed file", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        cut("file-cut-version", "cut after the version", "/v1"),
        cut("file-cut-version-line", "cut after the first line", "/v1\n"),
        cut("file-cut-stanza", "cut within a stanza's first line", "sealedenv.dev/to"),
        cut("file-cut-body", "cut before a stanza's body", "API_KEY\n"),
        cut("file-cut-mac", "cut before the MAC", "---"),
        malformed(
            "file-crlf",
            "line ends of another system",
            &Forge::new("file-crlf").raw("-> X25519 AAAA\r\n\r\n").build(),
        ),
        malformed(
            "file-line-of-junk",
            "a line that is no stanza",
            &usual("file-line-of-junk").raw("# comment\n").build(),
        ),
        malformed("file-no-stanza", "no stanza at all", &Forge::new("file-no-stanza").build()),
        malformed(
            "file-no-recipient",
            "only stanzas of ours and grease",
            &Forge::new("file-no-recipient").scope(SCOPE).to(&[&ALICE]).stanza("x-grease", b"").build(),
        ),
        malformed(
            "stanza-no-type",
            "a stanza without a type",
            &usual("stanza-no-type").raw("-> \n\n").build(),
        ),
        malformed(
            "stanza-two-blanks",
            "two blanks between words",
            &usual("stanza-two-blanks").raw("-> a  b\n\n").build(),
        ),
        malformed(
            "stanza-blank-at-end",
            "a blank at the end of the scope",
            &Forge::new("stanza-blank-at-end")
                .raw("-> sealedenv.dev/scope v1 strict shop checkout API_KEY \n\n")
                .x25519(&ALICE)
                .build(),
        ),
        malformed("stanza-tab", "a tab between words", &usual("stanza-tab").raw("-> a\tb\n\n").build()),
        malformed(
            "stanza-not-ascii",
            "a letter that is not ASCII",
            &usual("stanza-not-ascii").raw("-> gr\u{fc}n-grease\n\n").build(),
        ),
        malformed(
            "stanza-arrow-alone",
            "an arrow without its blank",
            &usual("stanza-arrow-alone").raw("->a\n\n").build(),
        ),
        short_mac("mac-absent", "no MAC after its dashes", |_| "---\n".to_owned()),
        short_mac("mac-short", "the MAC lacks a letter", |mac| format!("--- {}\n", &mac[1..])),
        short_mac("mac-padded", "the MAC is padded", |mac| format!("--- {mac}=\n")),
        short_mac("mac-unused-bits", "an unused bit of the MAC is set", |mac| {
            format!("--- {}{}\n", &mac[..42], char::from(mac.as_bytes()[42] + 1))
        }),
        short_mac("mac-blank-after", "a blank after the MAC", |mac| format!("--- {mac} \n")),
        short_mac("mac-two-blanks", "two blanks before the MAC", |mac| format!("---  {mac}\n")),
    ]
}

fn bodies() -> Vec<Case> {
    let body = |name, about, body: String| {
        malformed(name, about, &usual(name).raw(&format!("-> x-grease\n{body}")).build())
    };
    vec![
        body("body-too-wide", "a line of 68 columns", format!("{}\n", "A".repeat(68))),
        body("body-no-last-line", "a full line that no shorter one follows", format!("{}\n", "A".repeat(64))),
        body("body-padded", "a padded body", "AA==\n".to_owned()),
        body("body-unused-bits", "an unused bit is set", "AB\n".to_owned()),
        body("body-length", "a length that no base64 has", "AAAAA\n".to_owned()),
        body("body-not-base64", "a letter that base64 does not have", "AA-A\n".to_owned()),
        body("body-blank", "a blank in a body", "AA A\n".to_owned()),
    ]
}

fn scopes() -> Vec<Case> {
    let scope = |name, about, args: &str| {
        malformed(name, about, &Forge::new(name).scope(args).to(&[&ALICE]).x25519(&ALICE).build())
    };
    vec![
        malformed(
            "scope-empty",
            "a scope stanza without arguments",
            &Forge::new("scope-empty").stanza("sealedenv.dev/scope", b"").x25519(&ALICE).build(),
        ),
        scope("scope-three-fields", "a field is missing", "v1 strict shop API_KEY"),
        scope("scope-five-fields", "a field too many", "v1 strict shop checkout API_KEY extra"),
        scope("scope-kind-unknown", "a kind that there is not", "v1 global - - API_KEY"),
        scope("scope-kind-case", "a kind in capitals", "v1 STRICT shop checkout API_KEY"),
        scope(
            "scope-strict-open-namespace",
            "strict, but the namespace is left open",
            "v1 strict - checkout API_KEY",
        ),
        scope("scope-strict-open-name", "strict, but the name is left open", "v1 strict shop - API_KEY"),
        scope(
            "scope-namespace-with-name",
            "namespace scope that names a name",
            "v1 namespace shop checkout API_KEY",
        ),
        scope("scope-namespace-open", "namespace scope without a namespace", "v1 namespace - - API_KEY"),
        scope(
            "scope-cluster-with-namespace",
            "cluster scope that names a namespace",
            "v1 cluster shop - API_KEY",
        ),
        scope("scope-cluster-with-name", "cluster scope that names a name", "v1 cluster - checkout API_KEY"),
        scope("scope-slash", "a slash in a name", "v1 strict shop check/out API_KEY"),
        scope("scope-colon", "a colon in the key", "v1 strict shop checkout API:KEY"),
        scope("scope-key-dot", "a key that no Secret can have", "v1 strict shop checkout ."),
        scope("scope-key-dot-dot", "a key that would leave its folder", "v1 strict shop checkout ..data"),
        scope(
            "scope-namespace-too-long",
            "a namespace of 64 characters",
            &format!("v1 strict {} checkout API_KEY", "n".repeat(64)),
        ),
        scope(
            "scope-name-too-long",
            "a name of 254 characters",
            &format!("v1 strict shop {} API_KEY", "n".repeat(254)),
        ),
        scope(
            "scope-key-too-long",
            "a key of 254 characters",
            &format!("v1 strict shop checkout {}", "K".repeat(254)),
        ),
        malformed(
            "scope-with-body",
            "a scope stanza with a body",
            &Forge::new("scope-with-body")
                .stanza("sealedenv.dev/scope v1 strict shop checkout API_KEY", b"x")
                .x25519(&ALICE)
                .build(),
        ),
    ]
}

fn scopes_twice() -> Vec<Case> {
    let twice = |name, about, file: Built| Case::refused(name, "ScopeRepeated", about, file.text());
    vec![
        twice(
            "scope-twice",
            "two scopes; the place is within the second",
            Forge::new("scope-twice")
                .scope("v1 strict other checkout API_KEY")
                .scope(SCOPE)
                .x25519(&ALICE)
                .build(),
        ),
        twice(
            "scope-twice-the-same",
            "the same scope twice",
            usual("scope-twice-the-same").scope(SCOPE).build(),
        ),
        twice(
            "scope-forged-by-line-break",
            "a line break in a key's name forged a second scope stanza",
            Forge::new("scope-forged-by-line-break")
                .scope("v1 strict shop checkout A\n\n-> sealedenv.dev/scope v1 cluster - - API_KEY")
                .x25519(&ALICE)
                .build(),
        ),
    ]
}

fn recipients() -> Vec<Case> {
    let to = |name, about, args: &str| {
        let first_line = format!("sealedenv.dev/to{args}");
        malformed(name, about, &Forge::new(name).scope(SCOPE).stanza(&first_line, b"").x25519(&ALICE).build())
    };
    let x25519 = |name, about, first_line: &str, body: &[u8]| {
        malformed(name, about, &usual(name).stanza(first_line, body).build())
    };
    let share = format!("C{}", "A".repeat(42));
    vec![
        to("to-empty", "a list of no recipients", ""),
        to("to-short", "a fingerprint of 15 digits", " c9c95a863d23c00"),
        to("to-long", "a fingerprint of 17 digits", " c9c95a863d23c0011"),
        to("to-case", "a fingerprint in capitals", " C9C95A863D23C001"),
        to("to-not-hex", "a fingerprint of other letters", " c9c95a863d23c00g"),
        to("to-same-twice", "a recipient listed twice", " c9c95a863d23c001 c9c95a863d23c001"),
        malformed("to-twice", "two lists of recipients", &usual("to-twice").to(&[&BOB]).build()),
        malformed(
            "to-with-body",
            "a list with a body",
            &Forge::new("to-with-body")
                .scope(SCOPE)
                .stanza("sealedenv.dev/to c9c95a863d23c001", b"x")
                .x25519(&ALICE)
                .build(),
        ),
        x25519("x25519-no-share", "no key share", "X25519", &[0; 32]),
        x25519("x25519-two-shares", "two key shares", &format!("X25519 {share} {share}"), &[0; 32]),
        x25519(
            "x25519-share-short",
            "a key share of 31 bytes",
            &format!("X25519 C{}", "A".repeat(41)),
            &[0; 32],
        ),
        x25519(
            "x25519-share-unused-bits",
            "a key share with an unused bit set",
            &format!("X25519 C{}B", "A".repeat(41)),
            &[0; 32],
        ),
        x25519("x25519-share-padded", "a key share with padding", &format!("X25519 {share}="), &[0; 32]),
        x25519("x25519-body-short", "a wrapped key of 31 bytes", &format!("X25519 {share}"), &[0; 31]),
        x25519("x25519-body-long", "a wrapped key of 33 bytes", &format!("X25519 {share}"), &[0; 33]),
        x25519("x25519-body-two-lines", "a wrapped key of 80 bytes", &format!("X25519 {share}"), &[0; 80]),
    ]
}

/// With a share of small order the wrapping key is known, so that these would open with any key.
fn small_orders() -> Vec<Case> {
    let share = |name, about, share: &str| {
        let share = hex::decode(share).expect("hex").try_into().expect("32 bytes");
        let forge = Forge::new(name).scope(SCOPE).to(&[&ALICE]);
        malformed(name, about, &forge.x25519_small_order(&ALICE, share).build())
    };
    let ends = |first: &str, middle: &str, last: &str| format!("{first}{}{last}", middle.repeat(30));
    vec![
        share("x25519-order-zero", "a key share of zeros", &ends("00", "00", "00")),
        share("x25519-order-one", "a key share of one", &ends("01", "00", "00")),
        share(
            "x25519-order-eight-a",
            "a key share of order eight",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        ),
        share(
            "x25519-order-eight-b",
            "the other key share of order eight",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ),
        share("x25519-order-p-less-one", "a key share of p - 1", &ends("ec", "ff", "7f")),
        share("x25519-order-p", "a key share of p, which is zero", &ends("ed", "ff", "7f")),
        share("x25519-order-p-and-one", "a key share of p + 1, which is one", &ends("ee", "ff", "7f")),
        share("x25519-order-top-bit", "a key share of zero with its unused bit set", &ends("00", "00", "80")),
        malformed(
            "x25519-order-beside",
            "a key share of small order beside one that fits",
            &usual("x25519-order-beside").x25519_small_order(&ALICE, [0; 32]).build(),
        ),
    ]
}

fn bounds() -> Vec<Case> {
    let large = |name, about, forge: Forge| Case::refused(name, "TooLarge", about, forge.build().text());
    let hundred = (0..98).fold(usual("bound-stanzas"), |forge, n| forge.stanza(&format!("{n}-grease"), b""));
    let sixty: Vec<String> = (0..60).map(|n| format!("{n:016x}")).collect();
    vec![
        large("bound-stanzas", "101 stanzas", hundred),
        large(
            "bound-words",
            "513 words in the first lines of all stanzas",
            usual("bound-words")
                .stanza(&format!("x-grease{}", " y".repeat(249)), b"")
                .stanza(&format!("x-grease{}", " y".repeat(252)), b""),
        ),
        large(
            "bound-line",
            "a header line of 1025 bytes",
            usual("bound-line").stanza(&format!("x-grease {}", "y".repeat(1025 - 12)), b""),
        ),
        large(
            "bound-line-to",
            "a list of more recipients than a line holds",
            usual("bound-line-to").stanza(&format!("sealedenv.dev/to {}", sixty.join(" ")), b""),
        ),
        large(
            "bound-line-post-quantum",
            "a post-quantum line of 2049 bytes",
            usual("bound-line-post-quantum")
                .stanza(&format!("mlkem768x25519 {}", "A".repeat(2049 - 18)), b""),
        ),
        large(
            "bound-line-first",
            "a version line without an end",
            Forge::new("bound-line-first").raw(&"v".repeat(2000)),
        ),
    ]
}

fn passphrases() -> Vec<Case> {
    let scrypt =
        |name, about, forge: Forge| Case::refused(name, "PassphraseRefused", about, forge.build().text());
    vec![
        scrypt(
            "passphrase-alone",
            "sealed with a passphrase",
            Forge::new("passphrase-alone").stanza("scrypt rF0/NwblUHHTpgQgRpe5CQ 10", &[0; 32]),
        ),
        scrypt(
            "passphrase-costly",
            "a passphrase with a work factor of 2^63",
            Forge::new("passphrase-costly").scope(SCOPE).stanza("scrypt rF0/NwblUHHTpgQgRpe5CQ 63", &[0; 32]),
        ),
        scrypt(
            "passphrase-beside",
            "a passphrase beside a recipient",
            usual("passphrase-beside").stanza("scrypt rF0/NwblUHHTpgQgRpe5CQ 30", &[0; 32]),
        ),
        scrypt(
            "passphrase-malformed",
            "a passphrase stanza is refused before it is read",
            usual("passphrase-malformed").stanza("scrypt", b""),
        ),
    ]
}

fn payloads() -> Vec<Case> {
    let payload = |name, about, len: usize| {
        let file = usual(name).build();
        let payload = file.payload()[..len].to_vec();
        malformed(name, about, &file.with_payload(&payload))
    };
    let full_chunk: Vec<u8> = (0..=250).cycle().take(CHUNK).collect();
    let full = usual("trailing-one-byte").value(&full_chunk).build();
    let payload_and = |tail: &[u8]| [full.payload(), tail].concat();
    vec![
        payload("payload-absent", "no payload", 0),
        payload("payload-nonce-short", "a nonce of 15 bytes", 15),
        payload("payload-nonce-only", "a nonce and no chunk", 16),
        payload("payload-chunk-short", "a chunk shorter than its tag", 31),
        Case::refused(
            "trailing-one-byte",
            "TrailingBytes",
            "one byte after a full chunk, which cannot be another chunk",
            full.clone().with_payload(&payload_and(b"x")).text(),
        ),
    ]
}
