//! What is refused by its text: prefix and base64.

use super::ALICE;
use super::Case;
use super::forge::{Forge, text};

pub(super) fn cases() -> Vec<Case> {
    [prefixes(), versions(), base64()].into_iter().flatten().collect()
}

fn usual(seed: &'static str) -> String {
    Forge::usual(seed, &[&ALICE]).build().text()
}

fn prefixes() -> Vec<Case> {
    let refused = |name, about, text: String| Case::refused(name, "NotSealed", about, text);
    vec![
        refused("not-sealed-empty", "the empty text", String::new()),
        refused("not-sealed-plaintext", "a value that nobody sealed", "hunter2".to_owned()),
        refused(
            "not-sealed-no-version",
            "no version",
            usual("not-sealed-no-version").replace("sealed:v1:", "sealed:"),
        ),
        refused("not-sealed-no-colon", "the prefix without its second colon", "sealed:v1".to_owned()),
        refused(
            "not-sealed-case",
            "the prefix in capitals",
            usual("not-sealed-case").replace("sealed:", "SEALED:"),
        ),
        refused(
            "not-sealed-blank-before",
            "a blank before the prefix",
            format!(" {}", usual("not-sealed-blank-before")),
        ),
        refused(
            "not-sealed-bom-before",
            "a byte-order mark before the prefix",
            format!("\u{feff}{}", usual("not-sealed-bom-before")),
        ),
        refused(
            "not-sealed-version-zero",
            "a version number with a leading zero",
            usual("not-sealed-version-zero").replace("v1", "v01"),
        ),
        refused(
            "not-sealed-armor",
            "age's own text form",
            "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n".to_owned(),
        ),
    ]
}

fn versions() -> Vec<Case> {
    let refused = |name, about, text: String| Case::refused(name, "UnsupportedVersion", about, text);
    let forge = |name| Forge::new(name);
    vec![
        refused(
            "version-2",
            "a later version of the format",
            usual("version-2").replace("sealed:v1:", "sealed:v2:"),
        ),
        refused(
            "version-65535",
            "the last version number that is taken for one",
            "sealed:v65535:".to_owned(),
        ),
        refused("version-age-2", "a later version of age", {
            let file = Forge::usual("version-age-2", &[&ALICE]).build();
            file.replacing("age-encryption.org/v1", "age-encryption.org/v2").text()
        }),
        refused(
            "version-scope-2",
            "a later version of the scope stanza",
            forge("version-scope-2").scope("v2 strict shop checkout API_KEY").x25519(&ALICE).build().text(),
        ),
        refused(
            "version-stanza-ours",
            "an unknown stanza under our name, which may be a restriction",
            Forge::usual("version-stanza-ours", &[&ALICE])
                .stanza("sealedenv.dev/not-after 2030-01-01", b"")
                .build()
                .text(),
        ),
        refused(
            "version-stanza-ours-case",
            "our stanza in other letters after our name",
            forge("version-stanza-ours-case")
                .stanza("sealedenv.dev/Scope v1 cluster - - API_KEY", b"")
                .x25519(&ALICE)
                .build()
                .text(),
        ),
        refused(
            "version-stanza-ours-grease",
            "grease does not hide an unknown stanza of ours",
            Forge::usual("version-stanza-ours-grease", &[&ALICE])
                .stanza("sealedenv.dev/x-grease", b"")
                .build()
                .text(),
        ),
    ]
}

fn base64() -> Vec<Case> {
    let refused = |name, about, text: String| Case::refused(name, "NotCanonicalBase64", about, text);
    // Lengths of 1 and 2 modulo 3, so that there is padding.
    let padded = |seed, padding: usize| {
        let mut value = b"hunter2".to_vec();
        loop {
            let text = Forge::usual(seed, &[&ALICE]).value(&value).build().text();
            if text.len() - text.trim_end_matches('=').len() == padding {
                return text;
            }
            value.push(b'!');
        }
    };
    let unpadded = |text: &str| text.trim_end_matches('=').to_owned();
    // The last letter carries unused bits when there is padding: the next letter of the alphabet sets one of them.
    let with_unused_bit = |text: String| {
        let letters = unpadded(&text);
        let (rest, last) = letters.split_at(letters.len() - 1);
        let set = char::from(last.as_bytes()[0] + 1);
        format!("{rest}{set}{}", &text[letters.len()..])
    };
    let halves = |text: String, between: &str| {
        let (front, back) = text.split_at(text.len() / 2);
        format!("{front}{between}{back}")
    };
    vec![
        refused(
            "base64-line-feed-after",
            "a line feed after the text",
            format!("{}\n", usual("base64-line-feed-after")),
        ),
        refused("base64-blank-after", "a blank after the text", format!("{} ", usual("base64-blank-after"))),
        refused(
            "base64-blank-before",
            "a blank after the prefix",
            usual("base64-blank-before").replace("sealed:v1:", "sealed:v1: "),
        ),
        refused("base64-line-feed-within", "wrapped", halves(usual("base64-line-feed-within"), "\n")),
        refused("base64-crlf-within", "wrapped with CRLF", halves(usual("base64-crlf-within"), "\r\n")),
        refused("base64-tab-within", "a tab inside", halves(usual("base64-tab-within"), "\t")),
        refused("base64-nul-within", "a NUL inside", halves(usual("base64-nul-within"), "\0")),
        refused(
            "base64-not-ascii",
            "a letter that is not ASCII",
            halves(usual("base64-not-ascii"), "\u{e9}"),
        ),
        refused(
            "base64-padding-none-of-one",
            "its one padding character is missing",
            unpadded(&padded("base64-padding-none-of-one", 1)),
        ),
        refused(
            "base64-padding-none-of-two",
            "its two padding characters are missing",
            unpadded(&padded("base64-padding-none-of-two", 2)),
        ),
        refused("base64-padding-one-of-two", "one of two padding characters is missing", {
            let text = padded("base64-padding-one-of-two", 2);
            text[..text.len() - 1].to_owned()
        }),
        refused(
            "base64-padding-extra",
            "padding where none belongs",
            format!("{}====", padded("base64-padding-extra", 0)),
        ),
        refused(
            "base64-padding-within",
            "padding before the end",
            format!("{}AAAA", padded("base64-padding-within", 1)),
        ),
        refused(
            "base64-unused-bits-of-one",
            "an unused bit is set, one padding character",
            with_unused_bit(padded("base64-unused-bits-of-one", 1)),
        ),
        refused(
            "base64-unused-bits-of-two",
            "an unused bit is set, two padding characters",
            with_unused_bit(padded("base64-unused-bits-of-two", 2)),
        ),
        refused("base64-url-alphabet", "the alphabet for URLs", {
            let text = usual("base64-url-alphabet");
            assert!(text.contains(['+', '/']), "the seed gives no such letter");
            text.replace('+', "-").replace('/', "_")
        }),
        refused("base64-twice", "two sealed values in a row", usual("base64-twice").repeat(2)),
        refused(
            "base64-length-of-one",
            "a length that no base64 has",
            text(b"age-encryption.org/v1\n") + "A",
        ),
        refused(
            "base64-comment-after",
            "a comment after the text, as in a dotenv line",
            format!("{} # live", usual("base64-comment-after")),
        ),
    ]
}
