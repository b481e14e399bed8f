//! The scan of an age file that comes before everything else: linear, bounded, and strict.
//!
//! It checks the whole header against the grammar of age v1 (<https://c2sp.org/age>), reads our two stanzas, and
//! checks the payload's length. The age crate sees only what passed, for it sets no bounds of its own.

use age_core::format::Stanza;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use crate::scope::OPEN;
use crate::small_order::is_small_order;
use crate::{
    Fingerprint, MAX_HEADER, MAX_LINE, MAX_LINE_POST_QUANTUM, MAX_STANZAS, MAX_VALUE, MAX_WORDS, ParseError,
    Scope, ScopeError, ScopeKind,
};

/// The type of the stanza that binds a value to its scope.
pub(crate) const SCOPE_TAG: &str = "sealedenv.dev/scope";
/// The type of the stanza that lists the recipients' fingerprints.
pub(crate) const TO_TAG: &str = "sealedenv.dev/to";
/// The version of the scope stanza.
pub(crate) const SCOPE_VERSION: &str = "v1";
/// The longest payload of an age file whose value is no longer than [`MAX_VALUE`].
pub(crate) const MAX_PAYLOAD: usize = NONCE + MAX_VALUE + MAX_VALUE.div_ceil(CHUNK) * TAG;

const OUR_TAGS: &str = "sealedenv.dev/";
pub(crate) const X25519_TAG: &str = "X25519";
const SCRYPT_TAG: &str = "scrypt";
const GREASE: &str = "-grease";
/// Stanza types of age's post-quantum recipients start with this.
const POST_QUANTUM: &[u8] = b"-> mlkem768";
const AGE: &[u8] = b"age-encryption.org/";
const ARMOR: &[u8] = b"-----BEGIN AGE ";

/// How many stanza types of others are kept for messages, and how much of each.
const UNKNOWN_KEPT: usize = 8;
const UNKNOWN_CHARS: usize = 64;

/// The payload: a nonce, then chunks of at most `CHUNK` bytes of the value, each followed by a tag.
pub(crate) const NONCE: usize = 16;
pub(crate) const CHUNK: usize = 64 << 10;
pub(crate) const TAG: usize = 16;

/// The columns of a stanza's body.
const COLUMNS: usize = 64;
/// 32 bytes in base64 without padding.
const ENCODED_32: usize = 43;

/// What the scan found out. All of it is what the file claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) value_len: usize,
    pub(crate) scope: Option<Scope>,
    pub(crate) to: Vec<Fingerprint>,
    pub(crate) x25519: usize,
    pub(crate) unknown: Vec<String>,
}

/// Scans an age file. Flaws are found in the order of the file's bytes.
pub(crate) fn scan(file: &[u8]) -> Result<Header, ParseError> {
    let mut lines = Lines { file, at: 0 };
    check_version(&mut lines)?;
    let mut found = Stanzas::default();
    loop {
        let line = lines.next()?;
        if let Some(mac) = line.strip_prefix(b"--- ") {
            decode_32(mac).ok_or(ParseError::Malformed("the header's MAC is not 32 bytes of base64"))?;
            break;
        }
        found.count += 1;
        if found.count > MAX_STANZAS {
            return Err(ParseError::TooLarge { what: "a number of stanzas", limit: MAX_STANZAS });
        }
        let (tag, args) = split_stanza(line)?;
        found.words += 1 + words(args).count();
        if found.words > MAX_WORDS {
            return Err(ParseError::TooLarge { what: "a number of words in stanzas", limit: MAX_WORDS });
        }
        found.admit(tag)?;
        let body = read_body(&mut lines)?;
        found.take(tag, args, &body)?;
    }
    if found.x25519 == 0 && found.unknown.is_empty() {
        return Err(ParseError::Malformed("the header has no recipient"));
    }
    let Stanzas { scope, to, x25519, unknown, .. } = found;
    let value_len = value_len(file.len() - lines.at)?;
    Ok(Header { len: lines.at, value_len, scope, to: to.unwrap_or_default(), x25519, unknown })
}

/// The `X25519` stanzas of a header that was scanned, in their order.
pub(crate) fn x25519_stanzas(header: &[u8]) -> Vec<Stanza> {
    let mut lines = header.split(|byte| *byte == b'\n');
    let mut stanzas = Vec::new();
    // No line of a body starts like a stanza: base64 has neither dashes nor blanks.
    while let Some(line) = lines.next() {
        let stanza = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("-> X25519 "));
        let Some((share, body)) = stanza.zip(lines.clone().next()) else { continue };
        let body = BASE64_STANDARD_NO_PAD.decode(body).unwrap_or_default();
        stanzas.push(Stanza { tag: X25519_TAG.to_owned(), args: vec![share.to_owned()], body });
    }
    stanzas
}

/// What a scanned header's MAC covers, and the MAC.
pub(crate) fn split_mac(header: &[u8]) -> Option<(&[u8], [u8; 32])> {
    let (authenticated, mac) = header.split_at_checked(header.len().checked_sub(ENCODED_32 + 2)?)?;
    Some((authenticated, decode_32(mac.strip_prefix(b" ")?.strip_suffix(b"\n")?)?))
}

fn check_version(lines: &mut Lines<'_>) -> Result<(), ParseError> {
    if lines.file.starts_with(ARMOR) {
        return Err(ParseError::Malformed("an armored age file where a binary one belongs"));
    }
    if !lines.file.starts_with(AGE) {
        return Err(ParseError::Malformed("not an age file"));
    }
    match &lines.next()?[AGE.len()..] {
        b"v1" => Ok(()),
        version if !version.is_empty() && version.iter().all(u8::is_ascii_graphic) => {
            Err(ParseError::UnsupportedVersion { what: "a version of age other than v1".to_owned() })
        }
        _ => Err(ParseError::Malformed("not an age file")),
    }
}

/// The length of the value in a payload of `len` bytes.
fn value_len(len: usize) -> Result<usize, ParseError> {
    if len > MAX_PAYLOAD {
        return Err(ParseError::TooLarge { what: "a value with a length in bytes", limit: MAX_VALUE });
    }
    let Some(chunks) = len.checked_sub(NONCE) else {
        return Err(ParseError::Malformed("the payload is cut short"));
    };
    let (full, last) = (chunks / (CHUNK + TAG), chunks % (CHUNK + TAG));
    match (full, last) {
        (1.., 0) => Ok(full * CHUNK),
        // A last chunk is empty only if it is the only one.
        (0, TAG..) | (1.., 17..) => Ok(full * CHUNK + last - TAG),
        (0, _) => Err(ParseError::Malformed("the payload is cut short")),
        (1.., _) => Err(ParseError::TrailingBytes),
    }
}

// === lines ===

struct Lines<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line of the header, without its line feed.
    fn next(&mut self) -> Result<&'a [u8], ParseError> {
        let rest = &self.file[self.at..];
        let limit = if rest.starts_with(POST_QUANTUM) { MAX_LINE_POST_QUANTUM } else { MAX_LINE };
        let budget = MAX_HEADER - self.at;
        let window = &rest[..rest.len().min(limit + 1).min(budget)];
        match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Ok(&window[..end])
            }
            None if window.len() == rest.len() => Err(ParseError::Malformed("the header is cut short")),
            None if window.len() == budget => {
                Err(ParseError::TooLarge { what: "a header with a length in bytes", limit: MAX_HEADER })
            }
            None => {
                Err(ParseError::TooLarge { what: "a header line with a length in bytes", limit: MAX_LINE })
            }
        }
    }
}

// === stanzas ===

/// The type of a stanza, and its arguments as they stand.
fn split_stanza(line: &[u8]) -> Result<(&str, &str), ParseError> {
    const FLAW: ParseError = ParseError::Malformed("a header line is neither a stanza nor the MAC");
    let text = line.strip_prefix(b"-> ").ok_or(FLAW)?;
    let text = str::from_utf8(text).map_err(|_| FLAW)?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    if text.split(' ').all(is_word) { Ok(text.split_once(' ').unwrap_or((text, ""))) } else { Err(FLAW) }
}

/// The arguments one by one. None is empty by then, unless there is none at all.
fn words(args: &str) -> impl Iterator<Item = &str> {
    args.split(' ').filter(|word| !word.is_empty())
}

/// What is needed to know of a stanza's body.
struct Body<'a> {
    full_lines: usize,
    last_line: &'a [u8],
}

/// Reads base64 wrapped at 64 columns: full lines, then one shorter line, which may be empty.
fn read_body<'a>(lines: &mut Lines<'a>) -> Result<Body<'a>, ParseError> {
    const FLAW: ParseError = ParseError::Malformed("the body of a stanza is not canonical base64");
    let mut full_lines = 0;
    loop {
        let line = lines.next()?;
        if line.len() > COLUMNS || !line.iter().all(|byte| is_base64(*byte)) {
            return Err(FLAW);
        }
        if line.len() == COLUMNS {
            full_lines += 1;
        } else if ends_canonically(line) {
            return Ok(Body { full_lines, last_line: line });
        } else {
            return Err(FLAW);
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Whether base64 text without padding has a possible length and zero in its unused bits.
fn ends_canonically(text: &[u8]) -> bool {
    let tail = &text[text.len() / 4 * 4..];
    BASE64_STANDARD_NO_PAD.decode_slice(tail, &mut [0; 3]).is_ok()
}

fn decode_32(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 33];
    match BASE64_STANDARD_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(32) => bytes[..32].try_into().ok(),
        _ => None,
    }
}

#[derive(Default)]
struct Stanzas {
    count: usize,
    words: usize,
    scope: Option<Scope>,
    to: Option<Vec<Fingerprint>>,
    x25519: usize,
    unknown: Vec<String>,
}

impl Stanzas {
    /// Refuses what must not even be read on.
    fn admit(&self, tag: &str) -> Result<(), ParseError> {
        match tag {
            SCRYPT_TAG => Err(ParseError::PassphraseRefused),
            SCOPE_TAG if self.scope.is_some() => Err(ParseError::ScopeRepeated),
            TO_TAG if self.to.is_some() => {
                Err(ParseError::Malformed("the header lists its recipients more than once"))
            }
            SCOPE_TAG | TO_TAG => Ok(()),
            // A later version may restrict what may be opened. An older reader must not pass over that.
            _ if tag.starts_with(OUR_TAGS) => {
                Err(ParseError::UnsupportedVersion { what: format!("stanza {}", cut(tag)) })
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, tag: &str, args: &str, body: &Body<'_>) -> Result<(), ParseError> {
        let empty = body.full_lines == 0 && body.last_line.is_empty();
        match tag {
            SCOPE_TAG if empty => self.scope = Some(read_scope(args)?),
            TO_TAG if empty => self.to = Some(read_to(args)?),
            SCOPE_TAG | TO_TAG => {
                return Err(ParseError::Malformed("a stanza of ours has a body"));
            }
            X25519_TAG => {
                check_x25519(args, body)?;
                self.x25519 += 1;
            }
            _ if tag.ends_with(GREASE) => {}
            _ if self.unknown.len() < UNKNOWN_KEPT && !self.unknown.iter().any(|known| known == cut(tag)) => {
                self.unknown.push(cut(tag).to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

/// The part of a stanza type that is shown. Types are ASCII by then.
fn cut(tag: &str) -> &str {
    tag.get(..UNKNOWN_CHARS).unwrap_or(tag)
}

fn check_x25519(share: &str, body: &Body<'_>) -> Result<(), ParseError> {
    const FLAW: ParseError = ParseError::Malformed("an X25519 stanza is not as age writes it");
    let share = decode_32(share.as_bytes()).ok_or(FLAW)?;
    if body.full_lines != 0 || body.last_line.len() != ENCODED_32 {
        return Err(FLAW);
    }
    if is_small_order(&share) {
        return Err(ParseError::Malformed("an X25519 key share is of small order: any key would open it"));
    }
    Ok(())
}

fn read_scope(args: &str) -> Result<Scope, ParseError> {
    let mut words = words(args);
    let version = words.next().ok_or(ParseError::Malformed("the scope stanza is empty"))?;
    if version != SCOPE_VERSION {
        return Err(ParseError::UnsupportedVersion { what: "a version of the scope stanza".to_owned() });
    }
    let fields = [words.next(), words.next(), words.next(), words.next()];
    let ([Some(kind), Some(namespace), Some(name), Some(key)], None) = (fields, words.next()) else {
        return Err(ParseError::Malformed("the scope stanza has not four fields"));
    };
    let kind: ScopeKind = kind.parse().map_err(|_| ParseError::Malformed("the scope is of no known kind"))?;
    let scope: Result<Scope, ScopeError> = match (kind, namespace, name) {
        (ScopeKind::Strict, namespace, name) => Scope::strict(namespace, name, key),
        (ScopeKind::Namespace, namespace, OPEN) => Scope::namespace(namespace, key),
        (ScopeKind::Cluster, OPEN, OPEN) => Scope::cluster(key),
        (ScopeKind::Namespace | ScopeKind::Cluster, _, _) => {
            return Err(ParseError::Malformed("the scope stanza names what its kind leaves open"));
        }
    };
    scope.map_err(|_| ParseError::Malformed("the scope stanza has a name that is not one"))
}

fn read_to(args: &str) -> Result<Vec<Fingerprint>, ParseError> {
    const FLAW: ParseError =
        ParseError::Malformed("the list of recipients is not one of distinct fingerprints");
    let mut to: Vec<Fingerprint> = Vec::with_capacity(args.len() / (Fingerprint::DIGITS + 1) + 1);
    for word in words(args) {
        let fingerprint = word.parse().map_err(|_| FLAW)?;
        if to.contains(&fingerprint) {
            return Err(FLAW);
        }
        to.push(fingerprint);
    }
    if to.is_empty() { Err(FLAW) } else { Ok(to) }
}
