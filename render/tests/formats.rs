//! What each format writes is read back, by somebody else's reader, as what was put in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealedenv_crds::{FileFormat, RenderedFile};
use sealedenv_render::{Fault, Values, render};
use sealedenv_seal::{Plain, dotenv};

type Pairs = BTreeMap<String, String>;

/// Values that break one quoting rule or another.
const HOSTILE: &[&str] = &[
    "",
    "plain",
    "0",
    "true",
    "null",
    "~",
    "1e3",
    "0x1f",
    "2026-11-28",
    "yes",
    " leading",
    "trailing ",
    " ",
    "\t",
    "a b",
    "a=b",
    "a#b",
    "a #b",
    "#a",
    "!a",
    "a:b",
    "a: b",
    "- a",
    "it's",
    "'",
    "''",
    "\"",
    "say \"hi\"",
    "both ' and \"",
    "`id`",
    "$HOME",
    "${HOME}",
    "it's $HOME",
    "\\",
    "\\n",
    "\\\\",
    "trailing\\",
    "'\\'",
    "\n",
    "two\nlines",
    "two\r\nlines",
    "\r",
    "ends\n",
    "\n\nstarts",
    "export A=b",
    "A=b\nC=d",
    "{{ A }}",
    "%7B",
    "grün",
    "日本",
    "🔑",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{1b}[31m",
    "\x0b\x0c",
    "-----BEGIN KEY-----\nabc+/=\n-----END KEY-----\n",
    "postgres://user:p%40ss@host:5432/db?sslmode=require&x=1",
];

fn write(format: FileFormat, pairs: &[(&str, &[u8])]) -> Result<Vec<u8>, Fault> {
    let plains: Vec<_> = pairs.iter().map(|(key, value)| (*key, Plain::from(value.to_vec()))).collect();
    let values = Values::new(plains.iter().map(|(key, value)| (*key, Some(value))));
    let file = RenderedFile { format: Some(format), ..RenderedFile::default() };
    render(&file, &values).map(|plain| plain.expose().to_vec())
}

fn text(format: FileFormat, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    String::from_utf8(write(format, &pairs).expect("a file")).expect("UTF-8")
}

fn by_ours(text: &str) -> Pairs {
    let read = dotenv::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(read.repeated.is_empty());
    let pair = |(key, value): (String, Plain)| (key, String::from_utf8(value.expose().to_vec()).unwrap());
    read.entries.into_iter().map(pair).collect()
}

fn by_dotenvy(text: &str) -> Pairs {
    dotenvy::from_read_iter(text.as_bytes())
        .map(|item| item.unwrap_or_else(|e| panic!("{e}: {text:?}")))
        .collect()
}

fn by_serde_json(text: &str) -> Pairs {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn by_saphyr(text: &str) -> Pairs {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn by_java_properties(text: &str) -> Pairs {
    let read = java_properties::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    read.into_iter().collect()
}

fn has_pairs(value: &str) -> bool {
    value.chars().any(|c| c > '\u{ffff}')
}

/// Reads `A`, the value, and a neighbour on each side, which must be untouched.
fn reads_back(format: FileFormat, value: &str, reader: fn(&str) -> Pairs) {
    let pairs = [("A", value), ("B", "between"), ("C", value), ("D_1", "after")];
    let text = text(format, &pairs);
    let wanted: Pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(reader(&text), wanted, "{text:?}");
}

#[test]
fn a_dotenv_file_reads_back_in_our_own_dialect() {
    for value in HOSTILE {
        reads_back(FileFormat::Dotenv, value, by_ours);
    }
}

/// Which has no escape for a carriage return.
#[test]
fn a_dotenv_file_reads_back_with_dotenvy() {
    for value in HOSTILE.iter().filter(|value| !value.contains('\r')) {
        reads_back(FileFormat::Dotenv, value, by_dotenvy);
    }
}

#[test]
fn json_reads_back_with_serde_json() {
    for value in HOSTILE.iter().chain(&["\0", "a\0b"]) {
        reads_back(FileFormat::Json, value, by_serde_json);
    }
}

#[test]
fn yaml_reads_back_with_a_yaml_parser_as_text() {
    for value in HOSTILE.iter().chain(&["\0", "a\0b"]) {
        reads_back(FileFormat::Yaml, value, by_saphyr);
    }
}

/// Which does not join the two escapes of a character beyond U+FFFF, as Java does.
#[test]
fn properties_read_back_with_a_reader_of_java_properties() {
    for value in HOSTILE.iter().chain(&["\0", "a\0b"]).filter(|value| !has_pairs(value)) {
        reads_back(FileFormat::Properties, value, by_java_properties);
    }
}

#[test]
fn keys_that_are_no_words_are_quoted_too() {
    let pairs = [("tls.crt", "a"), ("-x", "b"), ("null", "c"), ("1", "d"), (".y", "e")];
    let wanted: Pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(by_serde_json(&text(FileFormat::Json, &pairs)), wanted);
    assert_eq!(by_saphyr(&text(FileFormat::Yaml, &pairs)), wanted);
    assert_eq!(by_java_properties(&text(FileFormat::Properties, &pairs)), wanted);
    for (key, _) in pairs.iter().filter(|(key, _)| *key != "null") {
        let fault = write(FileFormat::Dotenv, &[(key, b"v")]).unwrap_err();
        assert_eq!(fault.reason(), "NotRepresentable");
        assert!(fault.to_string().contains(key), "{fault}");
    }
}

/// The rules as docs/src/files.md has them.
#[test]
fn each_format_looks_as_it_is_documented() {
    let pairs = [("A", "it's"), ("B", "a b"), ("C", "a/b"), ("D", "\n"), ("E", ""), ("F", "ä="), ("G", "🔑")];
    let dotenv = "A=\"it's\"\nB='a b'\nC=a/b\nD=\"\\n\"\nE=\nF='ä='\nG='🔑'\n";
    let json = "{\n  \"A\": \"it's\",\n  \"B\": \"a b\",\n  \"C\": \"a/b\",\n  \"D\": \"\\n\",\n  \"E\": \"\",\n  \"F\": \"ä=\",\n  \"G\": \"🔑\"\n}\n";
    let yaml = "\"A\": \"it's\"\n\"B\": \"a b\"\n\"C\": \"a/b\"\n\"D\": \"\\n\"\n\"E\": \"\"\n\"F\": \"ä=\"\n\"G\": \"🔑\"\n";
    let properties = "A=it's\nB=a b\nC=a/b\nD=\\n\nE=\nF=\\u00e4\\=\nG=\\ud83d\\udd11\n";
    for (format, wanted) in [
        (FileFormat::Dotenv, dotenv),
        (FileFormat::Json, json),
        (FileFormat::Yaml, yaml),
        (FileFormat::Properties, properties),
    ] {
        assert_eq!(text(format, &pairs), wanted);
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_named() {
    for format in [FileFormat::Dotenv, FileFormat::Json, FileFormat::Yaml, FileFormat::Properties] {
        let fault = write(format, &[("A", b"text"), ("B", b"canary\xff")]).unwrap_err();
        assert_eq!((fault.reason(), fault.to_string().contains("canary")), ("NotText", false));
        assert!(fault.to_string().starts_with("B "), "{fault}");
    }
    let fault = write(FileFormat::Dotenv, &[("A", b"canary\0")]).unwrap_err();
    assert_eq!(fault.to_string(), "A has a NUL, which a dotenv file cannot hold");
}

#[test]
fn a_file_has_the_keys_that_were_chosen_in_their_order() {
    let plains =
        [("A", "1"), ("B", "2"), ("C", "3")].map(|(key, value)| (key, Plain::from(value.to_owned())));
    let values = Values::new(plains.iter().map(|(key, value)| (*key, Some(value))));
    let of = |keys: &[&str]| RenderedFile {
        format: Some(FileFormat::Dotenv),
        keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        ..RenderedFile::default()
    };
    assert_eq!(render(&of(&["C", "A"]), &values).map(|p| p.expose().to_vec()).unwrap(), b"C=3\nA=1\n");
    assert_eq!(render(&of(&["C", "X"]), &values).map(drop).unwrap_err().reason(), "UnknownKey");
}

#[test]
fn a_key_under_another_name_is_its_exact_bytes() {
    let bytes: Vec<u8> = (0..=255).collect();
    let plain = Plain::from(bytes.clone());
    let values = Values::new([("A", Some(&plain)), ("B", None)]);
    let of = |key: &str| RenderedFile { key: Some(key.to_owned()), ..RenderedFile::default() };
    assert_eq!(render(&of("A"), &values).map(|plain| plain.expose().to_vec()).unwrap(), bytes);
    assert_eq!(render(&of("B"), &values).map(drop).unwrap_err().to_string(), "needs B, which does not open");
    assert_eq!(render(&of("C"), &values).map(drop).unwrap_err().reason(), "UnknownKey");
    assert_eq!(render(&RenderedFile::default(), &values).map(drop).unwrap_err().reason(), "InvalidFile");
}

#[test]
fn a_file_larger_than_a_secret_is_refused() {
    let quotes = "\"".repeat(600 << 10);
    let fault = write(FileFormat::Json, &[("A", quotes.as_bytes())]).unwrap_err();
    assert_eq!(fault.reason(), "FileTooLarge");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_text_reads_back(value in "\\PC*|[ -~\\r\\n\\t'\"\\\\$#=]*|(?s:.{0,40})") {
        reads_back(FileFormat::Json, &value, by_serde_json);
        reads_back(FileFormat::Yaml, &value, by_saphyr);
        if !has_pairs(&value) {
            reads_back(FileFormat::Properties, &value, by_java_properties);
        }
        if !value.contains('\0') {
            reads_back(FileFormat::Dotenv, &value, by_ours);
            if !value.contains('\r') {
                reads_back(FileFormat::Dotenv, &value, by_dotenvy);
            }
        }
    }
}
