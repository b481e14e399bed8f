//! Opening an age file whose payload is one chunk, as that of nearly every value is.
//!
//! The age crate reads each payload through a buffer of 64 KiB that it clears before and gives back to the allocator as a
//! large block after, and parses the header a second time. For a short value that is as much work as all of its own but
//! the key agreement. Here the scan's reading of the header is enough, and the value is decrypted in place.
//!
//! Follows <https://c2sp.org/age#header-mac> and <https://c2sp.org/age#payload>. Tests hold it against the age crate.

use age::DecryptError;
use age::Identity as _;
use age_core::format::FileKey;
use age_core::primitives::hkdf;
use age_core::secrecy::ExposeSecret as _;
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::header::{CHUNK, NONCE, TAG, split_mac, x25519_stanzas};
use crate::keyring::Hinted;
use crate::{Plain, Sealed};

const HEADER_LABEL: &[u8] = b"header";
const PAYLOAD_LABEL: &[u8] = b"payload";

/// The number of the first chunk, and the mark of the last one.
const FIRST_AND_LAST: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Why a file was not opened.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// No file key, or a header that was changed.
    Header(DecryptError),
    /// A payload that was changed.
    Payload,
}

/// Whether the file is of that kind.
pub(crate) fn is_one_chunk(sealed: &Sealed) -> bool {
    sealed.payload_len() <= NONCE + CHUNK + TAG
}

/// Opens it. The header's MAC is checked before the payload is touched.
pub(crate) fn open(sealed: &Sealed, keys: &Hinted<'_>) -> Result<Plain, Flaw> {
    let header = sealed.header_bytes();
    let unwrapped = keys.unwrap_stanzas(&x25519_stanzas(header));
    let file_key = unwrapped.unwrap_or(Err(DecryptError::NoMatchingKeys)).map_err(Flaw::Header)?;
    check_mac(header, &file_key).ok_or(Flaw::Header(DecryptError::InvalidMac))?;
    decrypt(sealed.payload_bytes(), &file_key).ok_or(Flaw::Payload)
}

fn check_mac(header: &[u8], file_key: &FileKey) -> Option<()> {
    let (authenticated, mac) = split_mac(header)?;
    let key = Zeroizing::new(hkdf(&[], HEADER_LABEL, file_key.expose_secret()));
    let mut hmac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(&*key).ok()?;
    hmac.update(authenticated);
    hmac.verify_slice(&mac).ok()
}

/// Decrypts a chunk in memory that is never moved, so that no copy stays behind.
fn decrypt(payload: &[u8], file_key: &FileKey) -> Option<Plain> {
    let (nonce, chunk) = payload.split_at_checked(NONCE)?;
    let (encrypted, tag) = chunk.split_at_checked(chunk.len().checked_sub(TAG)?)?;
    let key = Zeroizing::new(hkdf(nonce, PAYLOAD_LABEL, file_key.expose_secret()));
    let cipher = ChaCha20Poly1305::new((&*key).into());
    let mut value = Zeroizing::new(encrypted.to_vec());
    cipher.decrypt_in_place_detached(&FIRST_AND_LAST.into(), &[], &mut value, tag.into()).ok()?;
    Some(Plain::new(std::mem::take(&mut value)))
}
