//! Every file of `seal/vectors/`, run forward and backward. `docs/src/format.md` describes the files.

use std::collections::BTreeSet;
use std::path::Path;

use sealedenv_seal::{Identity, Keyring, OpenPolicy, Place, Plain, Recipient, Scope, Sealed, open, seal};
use sha2::{Digest, Sha256};

use crate::{fact, generate};

/// A file of the folder.
struct Vector {
    file: String,
    expect: String,
    place: [String; 3],
    identities: Vec<String>,
    allow_unscoped: bool,
    facts: Option<Facts>,
    value: Option<Value>,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Facts {
    scope: String,
    to: Vec<String>,
    header_len: usize,
    payload_len: usize,
}

enum Value {
    Hex(String),
    Sha256(String),
}

/// The header of a file, each key taken out once it is understood.
struct Header<'a> {
    file: &'a str,
    lines: Vec<(&'a str, &'a str)>,
}

impl Header<'_> {
    fn take_all(&mut self, key: &str) -> Vec<String> {
        let taken = self.lines.iter().filter(|line| line.0 == key).map(|line| line.1.to_owned()).collect();
        self.lines.retain(|line| line.0 != key);
        taken
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let mut values = self.take_all(key);
        assert!(values.len() < 2, "{}: {key} is there more than once", self.file);
        values.pop()
    }

    fn must(&mut self, key: &str) -> String {
        self.take(key).unwrap_or_else(|| panic!("{}: no {key}", self.file))
    }
}

impl Vector {
    fn read(file: &str, content: &str) -> Self {
        let (head, text) = content.split_once("\n\n").unwrap_or_else(|| panic!("{file}: no empty line"));
        let split = |line| -> (&str, &str) {
            str::split_once(line, ": ").unwrap_or_else(|| panic!("{file}: {line:?} is not a header line"))
        };
        let mut head = Header { file, lines: head.split('\n').map(split).collect() };
        assert!(!head.must("about").is_empty());
        let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{file}: {text:?} is no number"));
        let to = head.take_all("to");
        let facts = head.take("scope").map(|scope| Facts {
            scope,
            to,
            header_len: number(head.must("header-length")),
            payload_len: number(head.must("payload-length")),
        });
        let value = head.take("value-hex").map(Value::Hex).or(head.take("value-sha256").map(Value::Sha256));
        let vector = Self {
            file: file.to_owned(),
            expect: head.must("expect"),
            place: ["namespace", "name", "key"].map(|key| head.must(key)),
            identities: head.take_all("identity"),
            allow_unscoped: head.take("allow-unscoped").is_some_and(|value| value == "true"),
            facts,
            value,
            text: text.to_owned(),
        };
        assert!(head.lines.is_empty(), "{file}: unknown header lines {:?}", head.lines);
        assert_eq!(vector.expect == "ok", vector.value.is_some(), "{file}: a value if and only if it opens");
        vector
    }

    fn place(&self) -> Place<'_> {
        let [namespace, name, key] = &self.place;
        Place { namespace, name, key }
    }

    fn identities(&self) -> Vec<Identity> {
        self.identities.iter().map(|text| Identity::parse(text).unwrap()).collect()
    }

    fn policy(&self) -> OpenPolicy {
        OpenPolicy { allow_unscoped: self.allow_unscoped }
    }

    fn open(&self, sealed: &Sealed) -> Result<Plain, &'static str> {
        let ring = Keyring::new(self.identities());
        open(&self.place(), &ring, sealed, self.policy()).map_err(|error| error.reason())
    }
}

impl Value {
    fn matches(&self, value: &Plain) -> bool {
        match self {
            Value::Hex(expected) => hex::encode(value.expose()) == *expected,
            Value::Sha256(expected) => hex::encode(Sha256::digest(value.expose())) == *expected,
        }
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let content = std::fs::read_to_string(entry.path()).unwrap();
        vectors.push(Vector::read(&entry.file_name().into_string().unwrap(), &content));
    }
    assert!(vectors.len() >= 210, "only {} vectors", vectors.len());
    vectors
}

fn facts(sealed: &Sealed) -> Facts {
    Facts {
        scope: sealed.scope().map_or("none".to_owned(), ToString::to_string),
        to: sealed.recipients().iter().map(ToString::to_string).collect(),
        header_len: sealed.header_len(),
        payload_len: sealed.payload_len(),
    }
}

#[test]
fn every_vector_gives_what_its_header_says() {
    let vectors = all();
    for vector in &vectors {
        let file = &vector.file;
        match Sealed::parse(&vector.text) {
            Err(error) => {
                assert_eq!(error.reason(), vector.expect, "{file}: {error}");
                assert!(vector.facts.is_none(), "{file}: facts of a text that is refused");
            }
            Ok(sealed) => {
                assert_eq!(Some(facts(&sealed)), vector.facts, "{file}");
                match vector.open(&sealed) {
                    Err(reason) => assert_eq!(reason, vector.expect, "{file}"),
                    Ok(value) => {
                        assert_eq!("ok", vector.expect, "{file}");
                        assert!(vector.value.as_ref().unwrap().matches(&value), "{file}: another value");
                        assert_eq!(value.len(), sealed.value_len(), "{file}");
                    }
                }
            }
        }
    }
    let opens = vectors.iter().filter(|vector| vector.expect == "ok").count();
    fact(&format!(
        "vectors: {} of our own as their headers say: {opens} open, {} are refused",
        vectors.len(),
        vectors.len() - opens
    ));
}

#[test]
fn every_vector_that_is_read_is_written_back_byte_for_byte() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| vector.facts.is_some()) {
        let sealed = Sealed::parse(&vector.text).unwrap();
        assert_eq!(sealed.to_string(), vector.text, "{}", vector.file);
        count += 1;
    }
    assert!(count >= 70, "only {count}");
}

#[test]
fn every_value_that_opens_can_be_sealed_again_and_opens_again() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| vector.expect == "ok") {
        let file = &vector.file;
        let before = Sealed::parse(&vector.text).unwrap();
        let value = vector.open(&before).unwrap();
        let [namespace, name, key] = &vector.place;
        let scope = match before.scope() {
            Some(scope) => scope.clone(),
            None => Scope::strict(namespace, name, key).unwrap(),
        };
        let to: Vec<Recipient> = vector.identities().iter().map(Identity::recipient).collect();
        let after = seal(&scope, &to, &value).unwrap();
        let after = Sealed::parse(&after.to_string()).unwrap();
        assert_eq!(after.scope(), Some(&scope), "{file}");
        assert!(after.recipients().iter().copied().eq(to.iter().map(Recipient::fingerprint)), "{file}");
        assert_eq!(after.value_len(), before.value_len(), "{file}");
        assert_ne!(after, before, "{file}");
        assert!(vector.open(&after).unwrap().same_as(&value), "{file}");
        count += 1;
    }
    assert!(count >= 25, "only {count}");
}

#[test]
fn every_reason_has_a_vector() {
    let seen: BTreeSet<String> = all().into_iter().map(|vector| vector.expect).collect();
    let reasons = [
        "BadMac",
        "Malformed",
        "NoIdentity",
        "NotCanonicalBase64",
        "NotSealed",
        "PassphraseRefused",
        "PayloadDamaged",
        "ScopeMismatch",
        "ScopeRepeated",
        "TooLarge",
        "TrailingBytes",
        "UnknownRecipientType",
        "Unscoped",
        "UnsupportedVersion",
        "ok",
    ];
    assert_eq!(seen, reasons.map(str::to_owned).into());
}

#[test]
fn the_vectors_are_those_that_the_generator_writes() {
    const FIX: &str = "run `cargo run -p sealedenv-seal --example vectors` and look at the difference";
    let mut made = BTreeSet::new();
    for case in generate::all() {
        let found = std::fs::read_to_string(folder().join(case.name)).unwrap_or_default();
        assert!(found == case.file(), "{} differs: {FIX}", case.name);
        assert!(made.insert(case.name.to_owned()), "{} is there twice", case.name);
    }
    for vector in all() {
        let known = made.contains(&vector.file) || vector.file.starts_with("foreign-");
        assert!(known, "nothing writes {}: {FIX}", vector.file);
    }
}
