//! Opening: the only way from a sealed value to a [`Plain`].

use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use age::DecryptError;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keyring::{Hinted, MAX_TRIALS};
use crate::one_chunk::{self, Flaw};
use crate::{Fingerprint, Keyring, Place, Plain, Scope, Sealed};

/// What a cluster permits beyond the format's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Whether an age file without a scope, as plain `age` writes it, may be opened anywhere. Off by default: such a
    /// value can be copied from one place to another.
    pub allow_unscoped: bool,
}

/// Why a value was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The file names no scope, and the policy does not allow that.
    #[error("the value is not sealed for any scope")]
    Unscoped,
    /// Sealed for another place.
    #[error("the value is sealed for {sealed}, not for {asked}")]
    ScopeMismatch {
        /// The scope that the file names.
        sealed: Scope,
        /// The place asked for.
        asked: String,
    },
    /// Sealed only to recipients of types that this version cannot open.
    #[error("the value is sealed to recipients of a type that this version does not open: {}", .types.join(", "))]
    UnknownRecipientType {
        /// The types' names, at most eight.
        types: Vec<String>,
    },
    /// None of the keys at hand fits, of those that were tried.
    #[error("no key here fits the value, which is sealed to {}{}", list(.sealed_to), left(*.untried))]
    NoIdentity {
        /// The recipients that the file names.
        sealed_to: Vec<Fingerprint>,
        /// How many pairs of a key and a stanza were left untried. They are tried only where the file does not truly
        /// say which key opens it.
        untried: usize,
    },
    /// The header was changed after sealing: its scope, its recipients or anything else in it.
    #[error("the header's MAC is wrong: it was changed after sealing")]
    BadMac,
    /// The payload was changed, cut or extended after sealing.
    #[error("the payload was changed after sealing")]
    PayloadDamaged,
    /// The age library refused the header for a reason that the scan did not find, or panicked: a defect of ours.
    #[error("the sealed value is malformed: age cannot read it")]
    Malformed,
}

/// Opens a sealed value for the place it stands in.
///
/// # Guarantees
///
/// `Ok` means that: the header names exactly one scope and `place` is within it (or none, and the policy allows
/// that); the header's MAC is valid, so every fact that [`Sealed`] tells is as it was sealed; and the payload is whole.
///
/// # Order
///
/// Scope, then recipient types, then keys, then MAC, then payload. No private key is used on a value that is out of
/// scope. The error names the first check that fails.
///
/// # Cost
///
/// With a true hint, one key is tried on one stanza however many there are. Without, at most three trials are made.
pub fn open(
    place: &Place<'_>,
    ring: &Keyring,
    sealed: &Sealed,
    policy: OpenPolicy,
) -> Result<Plain, OpenError> {
    match sealed.scope() {
        Some(scope) if scope.admits(place) => {}
        Some(scope) => {
            return Err(OpenError::ScopeMismatch { sealed: scope.clone(), asked: place.to_string() });
        }
        None if policy.allow_unscoped => {}
        None => return Err(OpenError::Unscoped),
    }
    if sealed.recipient_stanzas() == 0 {
        return Err(OpenError::UnknownRecipientType { types: sealed.unknown_types().to_vec() });
    }
    contained(|| {
        let keys = Hinted { ring, to: sealed.recipients() };
        if one_chunk::is_one_chunk(sealed) {
            open_one_chunk(sealed, &keys)
        } else {
            open_chunks(sealed, &keys)
        }
    })
}

fn open_one_chunk(sealed: &Sealed, keys: &Hinted<'_>) -> Result<Plain, OpenError> {
    one_chunk::open(sealed, keys).map_err(|flaw| match flaw {
        Flaw::Header(error) => refusal(&error, keys.ring, sealed),
        Flaw::Payload => OpenError::PayloadDamaged,
    })
}

/// Opens a file of any number of chunks, with the age crate.
fn open_chunks(sealed: &Sealed, keys: &Hinted<'_>) -> Result<Plain, OpenError> {
    let payload = age::Decryptor::new_buffered(AgeFile::of(sealed))
        .and_then(|decryptor| decryptor.decrypt(std::iter::once(keys as _)))
        .map_err(|error| refusal(&error, keys.ring, sealed))?;
    read_whole(payload, sealed.value_len())
}

/// A panic of the age library costs the one value that caused it, and not those that wait behind it. The panic hook has
/// said where it happened by then; whatever was half opened is wiped on the way out.
fn contained(work: impl FnOnce() -> Result<Plain, OpenError>) -> Result<Plain, OpenError> {
    // The closure has only shared references, to types without inner mutability.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(OpenError::Malformed))
}

fn refusal(error: &DecryptError, ring: &Keyring, sealed: &Sealed) -> OpenError {
    match error {
        DecryptError::NoMatchingKeys => OpenError::NoIdentity {
            sealed_to: sealed.recipients().to_vec(),
            untried: (ring.len() * sealed.recipient_stanzas()).saturating_sub(MAX_TRIALS),
        },
        DecryptError::InvalidMac => OpenError::BadMac,
        _ => OpenError::Malformed,
    }
}

/// Reads a payload of known length into memory that is never moved, so that no copy stays behind.
fn read_whole(mut payload: impl Read, len: usize) -> Result<Plain, OpenError> {
    let mut value = Zeroizing::new(vec![0; len]);
    payload.read_exact(&mut value).map_err(|_| OpenError::PayloadDamaged)?;
    // Only reading on proves that this was the end, and that nothing follows it.
    match payload.read(&mut [0]) {
        Ok(0) => Ok(Plain::new(std::mem::take(&mut value))),
        Ok(_) | Err(_) => Err(OpenError::PayloadDamaged),
    }
}

fn left(pairs: usize) -> String {
    match pairs {
        0 => String::new(),
        // A file that names its recipients truly, as every writer must, has none that matter.
        pairs => format!("; {pairs} combinations of a key and a stanza were not tried"),
    }
}

fn list(fingerprints: &[Fingerprint]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> = fingerprints.iter().take(SHOWN).map(ToString::to_string).collect();
    match fingerprints.len().checked_sub(SHOWN) {
        Some(more @ 1..) => shown.push(format!("and {more} more")),
        _ if shown.is_empty() => shown.push("recipients that it does not name".to_owned()),
        _ => {}
    }
    shown.join(", ")
}

// === impl OpenError ===

impl OpenError {
    /// A stable name for conditions, events and records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unscoped => "Unscoped",
            Self::ScopeMismatch { .. } => "ScopeMismatch",
            Self::UnknownRecipientType { .. } => "UnknownRecipientType",
            Self::NoIdentity { .. } => "NoIdentity",
            Self::BadMac => "BadMac",
            Self::PayloadDamaged => "PayloadDamaged",
            Self::Malformed => "Malformed",
        }
    }
}

// === AgeFile ===

/// A scanned file for the age crate to read.
///
/// That crate asks for one more line at a time and parses from the start again each time, so the work grows with the
/// square of the header. It gets the whole header for the first line it asks for: the scan knows where it ends.
struct AgeFile<'a> {
    header: &'a [u8],
    payload: &'a [u8],
}

impl<'a> AgeFile<'a> {
    fn of(sealed: &'a Sealed) -> Self {
        Self { header: sealed.header_bytes(), payload: sealed.payload_bytes() }
    }

    fn next_part(&mut self) -> &mut &'a [u8] {
        if self.header.is_empty() { &mut self.payload } else { &mut self.header }
    }
}

impl Read for AgeFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next_part().read(buffer)
    }
}

impl BufRead for AgeFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.next_part())
    }

    fn consume(&mut self, amount: usize) {
        self.next_part().consume(amount);
    }

    fn read_until(&mut self, _line_feed: u8, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let part = std::mem::take(self.next_part());
        buffer.extend_from_slice(part);
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::header::CHUNK;
    use crate::{Identity, seal};

    struct Counted<'a>(AgeFile<'a>, &'a Cell<usize>);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl BufRead for Counted<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            self.0.fill_buf()
        }

        fn consume(&mut self, amount: usize) {
            self.0.consume(amount);
        }

        fn read_until(&mut self, byte: u8, buffer: &mut Vec<u8>) -> io::Result<usize> {
            self.1.set(self.1.get() + 1);
            self.0.read_until(byte, buffer)
        }
    }

    fn sealed() -> (Identity, Sealed) {
        let identity = Identity::generate();
        let scope = Scope::cluster("KEY").unwrap();
        let sealed = seal(&scope, &[identity.recipient()], &Plain::from(b"value".to_vec())).unwrap();
        (identity, sealed)
    }

    #[test]
    fn age_gets_the_header_at_once_and_not_line_by_line() {
        let (identity, sealed) = sealed();
        let count = Cell::new(0);
        let file = Counted(AgeFile::of(&sealed), &count);
        let decryptor = age::Decryptor::new_buffered(file).unwrap();
        assert_eq!(count.get(), 1);
        let mut value = Vec::new();
        let ring = Keyring::new(vec![identity]);
        let keys = Hinted { ring: &ring, to: sealed.recipients() };
        let mut payload = decryptor.decrypt(std::iter::once(&keys as _)).unwrap();
        payload.read_to_end(&mut value).unwrap();
        assert_eq!(value, b"value");
    }

    #[test]
    fn a_file_reads_as_its_bytes_however_it_is_read() {
        let (_, sealed) = sealed();
        let file = [sealed.header_bytes(), sealed.payload_bytes()].concat();
        let mut read = Vec::new();
        AgeFile::of(&sealed).read_to_end(&mut read).unwrap();
        assert_eq!(read, file);
        let mut source = AgeFile::of(&sealed);
        let mut buffered = Vec::new();
        while let Some(byte) = source.fill_buf().unwrap().first().copied() {
            buffered.push(byte);
            source.consume(1);
        }
        assert_eq!(buffered, file);
    }

    /// Values of no byte, of some, and of one whole chunk; each with each of its bytes changed in turn, up to some hundred.
    #[test]
    fn a_file_of_one_chunk_opens_as_the_age_crate_opens_it_and_fails_as_there() {
        let (ring, others) = (vec![Identity::generate()], [Identity::generate(), Identity::generate()]);
        let to: Vec<_> = others.iter().chain(&ring).map(Identity::recipient).collect();
        let ring = Keyring::new(ring);
        let scope = Scope::cluster("KEY").unwrap();
        let mut reasons = std::collections::BTreeSet::new();
        for len in [0, 1, 15, 16, 100, CHUNK] {
            let value: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            for to in [&to[..], &to[2..], &to[..2]] {
                let sealed = seal(&scope, to, &Plain::from(value.clone())).unwrap();
                assert!(one_chunk::is_one_chunk(&sealed));
                let file = [sealed.header_bytes(), sealed.payload_bytes()].concat();
                let step = file.len().div_ceil(700);
                for at in (0..file.len()).step_by(step).map(Some).chain([None]) {
                    let mut file = file.clone();
                    if let Some(at) = at {
                        file[at] ^= 1;
                    }
                    let Ok(sealed) = Sealed::from_file(file) else { continue };
                    let keys = Hinted { ring: &ring, to: sealed.recipients() };
                    let [direct, by_age] = [open_one_chunk(&sealed, &keys), open_chunks(&sealed, &keys)];
                    assert_eq!(direct.as_ref().err(), by_age.as_ref().err(), "{len} bytes, {at:?} changed");
                    reasons.insert(direct.as_ref().err().map_or("opened", OpenError::reason));
                    if let (Ok(direct), Ok(by_age)) = (&direct, &by_age) {
                        assert_eq!(direct.expose(), by_age.expose());
                        assert_eq!(direct.expose(), value);
                    }
                }
            }
        }
        assert_eq!(
            reasons.into_iter().collect::<Vec<_>>(),
            ["BadMac", "NoIdentity", "PayloadDamaged", "opened"]
        );
    }

    #[test]
    fn one_byte_more_than_a_chunk_goes_to_the_age_crate() {
        let identity = Identity::generate();
        let scope = Scope::cluster("KEY").unwrap();
        let place = Place { namespace: "shop", name: "checkout", key: "KEY" };
        let value = vec![7; CHUNK + 1];
        let sealed = seal(&scope, &[identity.recipient()], &Plain::from(value.clone())).unwrap();
        assert!(!one_chunk::is_one_chunk(&sealed));
        let ring = Keyring::new(vec![identity]);
        assert_eq!(open(&place, &ring, &sealed, OpenPolicy::default()).unwrap().expose(), value);
    }

    #[test]
    fn a_panic_costs_the_one_value_that_caused_it() {
        let (identity, sealed) = sealed();
        let panics = || -> Result<Plain, OpenError> { panic!("on purpose, in a test") };
        assert!(matches!(contained(panics), Err(OpenError::Malformed)));
        let ring = Keyring::new(vec![identity]);
        let place = Place { namespace: "shop", name: "checkout", key: "KEY" };
        assert_eq!(open(&place, &ring, &sealed, OpenPolicy::default()).unwrap().expose(), b"value");
    }

    #[test]
    fn messages_are_short_and_of_one_line() {
        let mut to: Vec<Fingerprint> = Vec::new();
        for _ in 0..50 {
            to.push(Identity::generate().recipient().fingerprint());
        }
        let long = "n".repeat(300);
        let sealed = Scope::cluster("KEY").unwrap();
        let asked = Place { namespace: "a\nb", name: &long, key: "K" }.to_string();
        for (error, part) in [
            (OpenError::NoIdentity { sealed_to: to, untried: 0 }, "and 46 more"),
            (OpenError::NoIdentity { sealed_to: Vec::new(), untried: 0 }, "does not name"),
            (OpenError::NoIdentity { sealed_to: Vec::new(), untried: 97 }, "97 combinations"),
            (OpenError::UnknownRecipientType { types: vec!["a".to_owned(), "b".to_owned()] }, "open: a, b"),
            (OpenError::ScopeMismatch { sealed, asked }, "sealed for cluster KEY, not for a?b/"),
        ] {
            let text = error.to_string();
            assert!(text.contains(part), "{text}");
            assert!(text.len() < 400 && !text.contains('\n'), "{text}");
        }
    }
}
