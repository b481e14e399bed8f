//! A sealed value as text, taken apart without any key.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use thiserror::Error;

use crate::header::{self, Header};
use crate::{Fingerprint, MAX_TEXT, PREFIX, Scope};

/// A sealed value whose structure has been checked, and whose secrets have not been touched.
///
/// Everything it tells is what the text claims. It is proven only by [`open`](crate::open).
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    file: Vec<u8>,
    header: Header,
}

/// Why a text is not a sealed value that this version reads. No variant repeats the text: it could be a secret
/// that was never sealed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The text does not start with `sealed:v1:`, nor with that of another version.
    #[error("not a sealed value: it does not start with {PREFIX}")]
    NotSealed,
    /// A version of the format, or a part of a later one, that this reader does not know.
    #[error("a newer format than this version reads: {what}")]
    UnsupportedVersion {
        /// What is not known.
        what: String,
    },
    /// What follows the prefix is not base64 in its one canonical form: standard alphabet, padded, no line breaks
    /// or blanks, unused bits zero.
    #[error("the sealed value is not canonical base64")]
    NotCanonicalBase64,
    /// A bound is exceeded.
    #[error("the sealed value is too large: {what} of more than {limit}")]
    TooLarge {
        /// What exceeds it.
        what: &'static str,
        /// The bound, in the unit that `what` names.
        limit: usize,
    },
    /// Not an age file, or a header that breaks its grammar or ours.
    #[error("the sealed value is malformed: {0}")]
    Malformed(&'static str),
    /// After the last chunk of the payload there are bytes that cannot be another chunk.
    #[error("the sealed value has trailing bytes")]
    TrailingBytes,
    /// More than one scope stanza.
    #[error("the sealed value names its scope more than once")]
    ScopeRepeated,
    /// Sealed with a passphrase. Refused before any work is done on it, for the file decides how much that is.
    #[error("the sealed value is encrypted with a passphrase")]
    PassphraseRefused,
}

// === impl Sealed ===

impl Sealed {
    /// Reads `sealed:v1:…`. Nothing is trimmed; see [`ParseError`] for what is refused.
    ///
    /// Takes time linear in the text, and allocates no more than twice its length.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let encoded = strip_prefix(text)?;
        if text.len() > MAX_TEXT {
            return Err(ParseError::TooLarge { what: "a text with a length in bytes", limit: MAX_TEXT });
        }
        let file = BASE64_STANDARD.decode(encoded).map_err(|_| ParseError::NotCanonicalBase64)?;
        Self::from_file(file)
    }

    pub(crate) fn from_file(file: Vec<u8>) -> Result<Self, ParseError> {
        let header = header::scan(&file)?;
        Ok(Self { file, header })
    }

    /// The scope the header names; `None` for an age file that was not sealed for any. **Unauthenticated.**
    pub fn scope(&self) -> Option<&Scope> {
        self.header.scope.as_ref()
    }

    /// The recipients the header names, a hint. Empty if it has none. **Unauthenticated.**
    pub fn recipients(&self) -> &[Fingerprint] {
        &self.header.to
    }

    /// How many X25519 recipients the file has. **Unauthenticated.**
    pub fn recipient_stanzas(&self) -> usize {
        self.header.x25519
    }

    /// The types of the other stanzas, each named once and cut to 64 characters: recipients of kinds that this
    /// version does not open. **Unauthenticated.**
    pub fn unknown_types(&self) -> &[String] {
        &self.header.unknown
    }

    /// The length of the age header in bytes.
    pub fn header_len(&self) -> usize {
        self.header.len
    }

    /// The length of the age payload in bytes: all that follows the header.
    pub fn payload_len(&self) -> usize {
        self.file.len() - self.header.len
    }

    /// The length in bytes that the value has if it opens.
    pub fn value_len(&self) -> usize {
        self.header.value_len
    }

    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.file[..self.header.len]
    }

    pub(crate) fn payload_bytes(&self) -> &[u8] {
        &self.file[self.header.len..]
    }
}

impl FromStr for Sealed {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The one text that this value has: what [`Sealed::parse`] read.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", Base64Display::new(&self.file, &BASE64_STANDARD))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({:?}, {} bytes)", self.header.scope, self.file.len())
    }
}

/// What follows `sealed:v1:`.
fn strip_prefix(text: &str) -> Result<&str, ParseError> {
    if let Some(encoded) = text.strip_prefix(PREFIX) {
        return Ok(encoded);
    }
    let version = text
        .strip_prefix("sealed:v")
        .and_then(|rest| rest.split_once(':'))
        .map(|(digits, _)| digits)
        .filter(|digits| !digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u16>().ok());
    match version {
        Some(version) => Err(ParseError::UnsupportedVersion { what: format!("sealed:v{version}") }),
        None => Err(ParseError::NotSealed),
    }
}

// === impl ParseError ===

impl ParseError {
    /// A stable name for conditions, events and records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotSealed => "NotSealed",
            Self::UnsupportedVersion { .. } => "UnsupportedVersion",
            Self::NotCanonicalBase64 => "NotCanonicalBase64",
            Self::TooLarge { .. } => "TooLarge",
            Self::Malformed(_) => "Malformed",
            Self::TrailingBytes => "TrailingBytes",
            Self::ScopeRepeated => "ScopeRepeated",
            Self::PassphraseRefused => "PassphraseRefused",
        }
    }
}
