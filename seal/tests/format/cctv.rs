//! The CCTV age test vectors: through our reading and opening, and through the age crate alone.
//!
//! `seal/vectors-cctv/expected.txt` states what this version does with each, and why where that is not what the vector
//! asks for. A vector's own expectation is held up to both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReadError, ArmoredReader};
use age::{DecryptError, Decryptor};
use sealedenv_seal::{
    Identity, IdentityError, Keyring, MAX_VALUE, OpenPolicy, ParseError, Place, Sealed, open,
};
use sha2::{Digest, Sha256};

use crate::fact;
use crate::generate::forge::text;

/// None of the vectors has a scope, so any place will do.
const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "API_KEY" };

/// How a file ends, in the words of the vectors.
const SUCCESS: &str = "success";
const NO_MATCH: &str = "no match";
const HMAC_FAILURE: &str = "HMAC failure";
const HEADER_FAILURE: &str = "header failure";
const PAYLOAD_FAILURE: &str = "payload failure";
const ARMOR_FAILURE: &str = "armor failure";

/// A file of the folder.
struct Vector {
    name: String,
    expect: String,
    /// SHA-256 of all that may be released, even if the file fails later.
    payload: Option<String>,
    identities: Vec<String>,
    passphrases: Vec<String>,
    armored: bool,
    file: Vec<u8>,
}

/// A line of `expected.txt`.
struct Expected {
    /// The reason, or `ok`, where values without a scope are allowed.
    reason: String,
    why: Why,
    /// What the age crate alone makes of it, if that is not what the vector asks for.
    age: Option<String>,
}

/// Why a vector ends as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// It is what the vector asks for.
    Asked,
    /// The text form of age is refused.
    Armor,
    /// A passphrase is refused, whatever else is wrong with it.
    Passphrase,
    /// The value is longer than one that can be sealed.
    Size,
    /// Post-quantum recipients are not opened yet.
    Hybrid,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors-cctv")
}

impl Vector {
    fn read(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = std::fs::read(path).unwrap();
        let end = content.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let head = str::from_utf8(&content[..end]).unwrap();
        let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in head.lines() {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line:?}"));
            fields.entry(key).or_default().push(value.to_owned());
        }
        let mut take = |key: &str| fields.remove(key).unwrap_or_default();
        let mut vector = Self {
            expect: take("expect").remove(0),
            payload: take("payload").pop(),
            identities: take("identity"),
            passphrases: take("passphrase"),
            armored: take("armored") == ["yes"],
            file: content[end + 2..].to_vec(),
            name,
        };
        match take("compressed").as_slice() {
            [] => {}
            [how] if how == "zlib" => {
                vector.file = miniz_oxide::inflate::decompress_to_vec_zlib(&vector.file).unwrap();
            }
            other => panic!("{}: compressed by {other:?}", vector.name),
        }
        for key in ["comment", "file key"] {
            take(key);
        }
        assert!(fields.is_empty(), "{}: {fields:?} is not understood", vector.name);
        vector
    }

    fn is_hybrid(&self) -> bool {
        self.identities.iter().any(|text| text.starts_with("AGE-SECRET-KEY-PQ-1"))
    }

    /// The identities that this version has a type for. It names the type of the others.
    fn ring(&self) -> Keyring {
        let read = |text: &String| match Identity::parse(text) {
            Ok(identity) => Some(identity),
            Err(IdentityError::Unsupported { kind: "mlkem768x25519" }) => None,
            Err(error) => panic!("{}: {error}", self.name),
        };
        Keyring::new(self.identities.iter().filter_map(read).collect())
    }

    /// What reading and opening give, and the value.
    fn ours(&self, allow_unscoped: bool) -> (&'static str, Option<Vec<u8>>) {
        let sealed = match Sealed::parse(&text(&self.file)) {
            Ok(sealed) => sealed,
            Err(error) => {
                let armored =
                    error == ParseError::Malformed("an armored age file where a binary one belongs");
                assert_eq!(armored, self.file.starts_with(b"-----BEGIN AGE "), "{}: {error}", self.name);
                return (error.reason(), None);
            }
        };
        match open(&HERE, &self.ring(), &sealed, OpenPolicy { allow_unscoped }) {
            Ok(value) => ("ok", Some(value.expose().to_vec())),
            Err(error) => (error.reason(), None),
        }
    }

    /// What the age crate makes of it, with all that it can do: armor and passphrases, too. Also what it released.
    fn of_age(&self) -> (&'static str, Vec<u8>) {
        let mut released = Vec::new();
        let file = BufReader::new(ArmoredReader::new(self.file.as_slice()));
        let mut payload = match Decryptor::new_buffered(file).and_then(|file| self.decrypt(file)) {
            Ok(payload) => payload,
            Err(error) => return (self.class_of(error), released),
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            match payload.read(&mut buffer) {
                Ok(0) => return (SUCCESS, released),
                Ok(read) => released.extend_from_slice(&buffer[..read]),
                Err(error) if is_of_armor(&error) => return (ARMOR_FAILURE, released),
                Err(_) => return (PAYLOAD_FAILURE, released),
            }
        }
    }

    fn decrypt<R: std::io::BufRead>(&self, file: Decryptor<R>) -> Result<impl Read, DecryptError> {
        let mut identities: Vec<Box<dyn age::Identity>> = Vec::new();
        for passphrase in &self.passphrases {
            let mut identity = age::scrypt::Identity::new(passphrase.clone().into());
            identity.set_max_work_factor(20);
            identities.push(Box::new(identity));
        }
        for text in self.identities.iter().filter(|text| !text.starts_with("AGE-SECRET-KEY-PQ-1")) {
            identities.push(Box::new(text.parse::<age::x25519::Identity>().unwrap()));
        }
        file.decrypt(identities.iter().map(AsRef::as_ref))
    }

    fn class_of(&self, error: DecryptError) -> &'static str {
        match error {
            DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => NO_MATCH,
            DecryptError::InvalidMac => HMAC_FAILURE,
            DecryptError::Io(error) if is_of_armor(&error) => ARMOR_FAILURE,
            DecryptError::InvalidHeader
            | DecryptError::UnknownFormat
            | DecryptError::ExcessiveWork { .. }
            | DecryptError::Io(_) => HEADER_FAILURE,
            _ => panic!("{}: {error}", self.name),
        }
    }
}

fn is_of_armor(error: &std::io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<ArmoredReadError>()).is_some()
}

fn all() -> Vec<Vector> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder().join("testdata")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Vector::read(path)).collect()
}

fn expected() -> BTreeMap<String, Expected> {
    let text = std::fs::read_to_string(folder().join("expected.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut found = BTreeMap::new();
    for line in lines {
        let (line, age) = match line.split_once(" age: ") {
            Some((line, age)) => (line, Some(age.trim().to_owned())),
            None => (line, None),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, reason, why) = match words[..] {
            [name, reason] => (name, reason, Why::Asked),
            [name, reason, "armor"] => (name, reason, Why::Armor),
            [name, reason, "passphrase"] => (name, reason, Why::Passphrase),
            [name, reason, "size"] => (name, reason, Why::Size),
            [name, reason, "hybrid"] => (name, reason, Why::Hybrid),
            _ => panic!("{line:?}"),
        };
        let before = found.insert(name.to_owned(), Expected { reason: reason.to_owned(), why, age });
        assert!(before.is_none(), "{name} stands there twice");
    }
    found
}

/// Whether a reason of ours is what a vector asks for.
fn is_asked_for(expect: &str, reason: &str) -> bool {
    match expect {
        SUCCESS => reason == "ok",
        // A type that is not known is a stanza that does not match.
        NO_MATCH => matches!(reason, "NoIdentity" | "UnknownRecipientType"),
        HMAC_FAILURE => reason == "BadMac",
        HEADER_FAILURE => matches!(reason, "Malformed" | "UnsupportedVersion"),
        // What the payload's length gives away, reading finds.
        PAYLOAD_FAILURE => matches!(reason, "PayloadDamaged" | "TrailingBytes" | "Malformed"),
        _ => false,
    }
}

/// Whether a reason is the very refusal that the policy of that name makes.
fn is_refusal_of(why: Why, vector: &Vector, reason: &str) -> bool {
    match why {
        Why::Asked => is_asked_for(&vector.expect, reason),
        Why::Armor => vector.armored && reason == "Malformed",
        Why::Passphrase => !vector.passphrases.is_empty() && reason == "PassphraseRefused",
        Why::Size => vector.file.len() > MAX_VALUE && reason == "TooLarge",
        // Never opened. What is wrong with the stanza itself is not seen, as it is of a type that is not known.
        // Its line is bounded only under its own name: under another one it is `TooLarge`.
        Why::Hybrid => {
            let reasons = ["UnknownRecipientType", "NoIdentity", "Malformed", "TooLarge"];
            vector.is_hybrid() && reasons.contains(&reason)
        }
    }
}

#[test]
fn every_vector_ends_as_stated() {
    let expected = expected();
    let vectors = all();
    let names: BTreeSet<&str> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(
        names,
        expected.keys().map(String::as_str).collect(),
        "expected.txt has not the vectors there are"
    );

    let mut counts: BTreeMap<Why, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for vector in &vectors {
        let Vector { name, expect, .. } = vector;
        let Expected { reason, why, age } = &expected[name];
        *counts.entry(*why).or_default() += 1;

        let (found, value) = vector.ours(true);
        if found != reason || !is_refusal_of(*why, vector, found) {
            wrong.push(format!("{name}: {found} ({expect}), stated is {reason} ({why:?})"));
        }
        if let Some(value) = value {
            assert_eq!(Some(hex::encode(Sha256::digest(value))), vector.payload, "{name}: another value");
        }
        // Without the permission whatever reads is refused for having no scope, and no key is tried.
        let (found, value) = vector.ours(false);
        let refused = Sealed::parse(&text(&vector.file)).err().map_or("Unscoped", |error| error.reason());
        assert_eq!((found, value), (refused, None), "{name}: without the permission");

        let (class, released) = vector.of_age();
        if class != age.as_ref().unwrap_or(expect) || age.as_ref() == Some(expect) {
            wrong.push(format!("{name}: {class} by the age crate alone, {expect} is asked for"));
        }
        if let Some(payload) = vector.payload.as_ref().filter(|_| class == expect) {
            assert_eq!(&hex::encode(Sha256::digest(released)), payload, "{name}: another value by age");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let of = |why| counts.get(&why).copied().unwrap_or_default();
    let policy = of(Why::Armor) + of(Why::Passphrase) + of(Why::Size);
    let differs = expected.values().filter(|expected| expected.age.is_some()).count();
    fact(&format!(
        "cctv: {} age vectors: {} as asked, {policy} refused by policy ({} armor, {} passphrase, {} size), {} hybrid gap; \
         age crate alone: {} as asked",
        vectors.len(),
        of(Why::Asked),
        of(Why::Armor),
        of(Why::Passphrase),
        of(Why::Size),
        of(Why::Hybrid),
        vectors.len() - differs,
    ));
    assert_eq!(vectors.len(), 143);
    assert_eq!(vectors.len(), of(Why::Asked) + policy + of(Why::Hybrid));
}
