//! A keyed digest as text: the only thing about a value that a record may carry.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A keyed digest (HMAC) in lower-case hex, 16 to 64 digits.
///
/// Keyed, so that it tells whether a value changed without allowing to guess the value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyedDigest(String);

/// Text that is not a digest. The text itself is not repeated: it might be anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 16 to 64 lower-case hex digits")]
pub struct DigestError;

impl KeyedDigest {
    /// The digest of 32 bytes that an HMAC-SHA-256 gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyedDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex && (16..=64).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(DigestError) }
    }
}

impl TryFrom<String> for KeyedDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<KeyedDigest> for String {
    fn from(digest: KeyedDigest) -> Self {
        digest.0
    }
}

impl fmt::Display for KeyedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_a_sane_length_is_a_digest() {
        let full = KeyedDigest::from_bytes(&[0xab; 32]);
        assert_eq!(full.as_str().parse::<KeyedDigest>(), Ok(full.clone()));
        assert!("0123456789abcdef".parse::<KeyedDigest>().is_ok());
        for bad in [
            "",
            "hunter2hunter2hunter2",
            "0123456789abcde",
            "0123456789ABCDEF",
            &"a".repeat(65),
            "0123456789abcdeé",
        ] {
            assert_eq!(bad.parse::<KeyedDigest>(), Err(DigestError), "{bad}");
        }
    }
}
