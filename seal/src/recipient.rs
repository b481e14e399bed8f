//! Public keys: who can open a value, and the short names they go by.

use std::fmt;
use std::str::FromStr;

use age_core::primitives::bech32_decode;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::small_order::is_small_order;

/// A public key that values are sealed to: `age1…`, of age's X25519 type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient(age::x25519::Recipient);

/// The short name of a recipient: the first 16 hexadecimal digits of SHA-256 of its text.
///
/// It says which key fits without trying them all, and is safe to show. It proves nothing: opening decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

/// Why a text is not a recipient. The text is not repeated: a private key could have been pasted by mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecipientError {
    /// A kind of public key that age knows and this version cannot seal to, by the name of its stanza type.
    #[error("recipients of type {kind} are not supported")]
    Unsupported {
        /// The stanza type, such as `mlkem768x25519`.
        kind: &'static str,
    },
    /// The text is a private key.
    #[error("this is an identity (a private key), not a recipient")]
    Identity,
    /// Not an age recipient: wrong letters, wrong length or wrong checksum.
    #[error("not an age recipient (age1…)")]
    Invalid,
    /// A well-formed text whose key nobody can have the private half of, or whose values everybody could open.
    #[error("the recipient is not a usable X25519 public key")]
    WeakKey,
}

/// The text is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a fingerprint is 16 lower-case hexadecimal digits")]
pub struct FingerprintError;

// === impl Recipient ===

impl Recipient {
    /// The key's short name.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::digest(self.to_string());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Fingerprint(first)
    }

    pub(crate) fn from_age(inner: age::x25519::Recipient) -> Self {
        Self(inner)
    }

    pub(crate) fn as_age(&self) -> &age::x25519::Recipient {
        &self.0
    }
}

/// Accepts exactly what [`Display`](fmt::Display) writes: lower case, no blanks.
impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(kind) = unsupported_kind(text) {
            return Err(RecipientError::Unsupported { kind });
        }
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(RecipientError::Identity);
        }
        let parsed: age::x25519::Recipient = text.parse().map_err(|_| RecipientError::Invalid)?;
        // Bech32 is also valid in upper case, but a fingerprint is of one text only.
        if parsed.to_string() != text {
            return Err(RecipientError::Invalid);
        }
        if !is_usable(&point_of(text)?) {
            return Err(RecipientError::WeakKey);
        }
        Ok(Self(parsed))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// The stanza type of a recipient that age knows in some form and we do not seal to.
fn unsupported_kind(text: &str) -> Option<&'static str> {
    // The data part of Bech32 has no '1', so the last one ends the prefix.
    let prefix = text.rsplit_once('1').map_or("", |(prefix, _)| prefix);
    match prefix {
        "age1pq" => Some("mlkem768x25519"),
        "age1tag" => Some("p256tag"),
        "age1tagpq" => Some("mlkem768p256tag"),
        _ if prefix.starts_with("age1") => Some("plugin"),
        _ if text.starts_with("ssh-ed25519 ") => Some("ssh-ed25519"),
        _ if text.starts_with("ssh-rsa ") => Some("ssh-rsa"),
        _ => None,
    }
}

fn point_of(text: &str) -> Result<[u8; 32], RecipientError> {
    bech32_decode(
        text,
        |_| RecipientError::Invalid,
        |_| Ok(()),
        |_, bytes| bytes.collect::<Vec<u8>>().try_into().map_err(|_| RecipientError::Invalid),
    )
}

/// Whether sealing to this point is of use.
///
/// - A coordinate that is not reduced modulo 2²⁵⁵ − 19 seals to nobody: the stanza's key is derived from the bytes
///   as given, the holder's from the reduced ones.
/// - A point of small order seals to everybody (and the age crate panics on it).
fn is_usable(point: &[u8; 32]) -> bool {
    // 2²⁵⁵ − 19, most significant byte first: 7f, thirty times ff, ed.
    let mut prime = [0xff_u8; 32];
    prime[0] = 0x7f;
    prime[31] = 0xed;
    let mut big_endian = *point;
    big_endian.reverse();
    big_endian < prime && !is_small_order(point)
}

// === impl Fingerprint ===

impl Fingerprint {
    /// How many hexadecimal digits its text has.
    pub const DIGITS: usize = 16;
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 8];
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(FingerprintError);
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| FingerprintError)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "age1xwjhnh2hrjdhc5ejd47q7lztx7cx38wx2ra437vng2fx67psfe2s949tmt";

    #[test]
    fn a_recipient_has_one_text_and_a_fingerprint_of_it() {
        let alice: Recipient = ALICE.parse().unwrap();
        assert_eq!(alice.to_string(), ALICE);
        assert_eq!(format!("{alice:?}"), format!("Recipient({ALICE})"));
        // printf %s "$ALICE" | sha256sum
        assert_eq!(alice.fingerprint().to_string(), "c9c95a863d23c001");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "age1",
            "hunter2",
            &ALICE.to_uppercase(),
            &format!(" {ALICE}"),
            &format!("{ALICE}\n"),
            &ALICE.replace("mt", "mm"),
            "age1pyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyyfw987", // 31 bytes
            "age1pyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjtwme33", // 33 bytes
            "agf1pyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyysjzgfpyyssmx3ck", // another prefix
        ] {
            assert_eq!(text.parse::<Recipient>(), Err(RecipientError::Invalid), "{text:?}");
        }
        for secret in ["AGE-SECRET-KEY-1CANARY", "age-secret-key-1canary", "AGE-SECRET-KEY-PQ-1CANARY"] {
            let error = secret.parse::<Recipient>().unwrap_err();
            assert_eq!(error, RecipientError::Identity);
            assert!(!format!("{error} {error:?}").to_lowercase().contains("canary"));
        }
    }

    #[test]
    fn recipients_of_other_types_are_refused_by_name() {
        for (text, expected) in [
            ("age1pq130czs9m4vpwl", "mlkem768x25519"),
            ("age1tag1qqqq", "p256tag"),
            ("age1tagpq1qqqq", "mlkem768p256tag"),
            ("age1yubikey1qqqq", "plugin"),
            ("ssh-ed25519 AAAA", "ssh-ed25519"),
            ("ssh-rsa AAAA", "ssh-rsa"),
        ] {
            let error = text.parse::<Recipient>().unwrap_err();
            assert_eq!(error, RecipientError::Unsupported { kind: expected });
        }
    }

    #[test]
    fn keys_that_seal_to_nobody_or_everybody_are_refused() {
        for (about, text) in [
            ("zero", "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"),
            ("one", "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya"),
            ("p - 1", "age1anlllllllllllllllllllllllllllllllllllllllllllllllals4n2t7m"),
            ("order 8", "age1ur4h5lpmgxu2u9jku0a0r87ydtdqnr0tnsetrlvxvgz3vh6fhqqqzyt4v9"),
            ("order 8", "age1t7wft09r2zxzfvwsk92eeql0tvzyghxytqwgapkcyf8dm5ylz9ts6wm9s8"),
            ("p", "age1ahlllllllllllllllllllllllllllllllllllllllllllllllalsn46ayy"),
            ("p + 1", "age1amlllllllllllllllllllllllllllllllllllllllllllllllalselrwrv"),
            ("2^255 - 1", "age1lllllllllllllllllllllllllllllllllllllllllllllllllalsjzdrvv"),
            ("9 + p", "age17mlllllllllllllllllllllllllllllllllllllllllllllllalsxajvgg"),
            ("9 + 2^255", "age1pyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqzqqyr3apl"),
            ("2^255", "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqzqqsuwj9m"),
        ] {
            assert_eq!(text.parse::<Recipient>(), Err(RecipientError::WeakKey), "{about}");
        }
        for (about, text) in [
            ("9", "age1pyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq8r66x"),
            ("p - 2", "age1a0lllllllllllllllllllllllllllllllllllllllllllllllals8ppj25"),
        ] {
            assert!(text.parse::<Recipient>().is_ok(), "{about}");
        }
    }

    #[test]
    fn a_fingerprint_is_sixteen_lower_case_digits() {
        assert_eq!("c9c95a863d23c001".parse::<Fingerprint>().unwrap().to_string(), "c9c95a863d23c001");
        for text in [
            "",
            "c9c95a863d23c00",
            "c9c95a863d23c0011",
            "C9C95A863D23C001",
            "c9c95a863d23c00g",
            "0x95a863d23c0011",
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text:?}");
        }
    }
}
