//! A writer of age files that are wrong in exactly one respect.

use age_core::primitives::{aead_encrypt, bech32_decode, hkdf};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key as AeadKey, Nonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::Key;

pub(crate) const CHUNK: usize = 64 << 10;

/// An age file in the making. Everything that should be random comes from the seed instead.
#[derive(Clone)]
pub(crate) struct Forge {
    seed: &'static str,
    drawn: u32,
    file_key: [u8; 16],
    header: String,
    value: Vec<u8>,
}

/// A finished file.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) header_len: usize,
    pub(crate) value: Vec<u8>,
}

impl Forge {
    /// A header with its first line only, and the value `hunter2`.
    pub(crate) fn new(seed: &'static str) -> Self {
        let mut forge = Self {
            seed,
            drawn: 0,
            file_key: [0; 16],
            header: "age-encryption.org/v1\n".to_owned(),
            value: b"hunter2".to_vec(),
        };
        let drawn = forge.draw();
        forge.file_key.copy_from_slice(&drawn[..16]);
        forge
    }

    /// The ordinary file: strict scope `shop/checkout/API_KEY`, sealed to `to`.
    pub(crate) fn usual(seed: &'static str, to: &[&Key]) -> Self {
        Self::new(seed).scope("v1 strict shop checkout API_KEY").to(to).x25519_all(to)
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        Sha256::digest(format!("{} {}", self.seed, self.drawn)).into()
    }

    pub(crate) fn value(mut self, value: &[u8]) -> Self {
        self.value = value.to_vec();
        self
    }

    /// Header text, as it is.
    pub(crate) fn raw(mut self, text: &str) -> Self {
        self.header.push_str(text);
        self
    }

    /// A stanza with that first line (after its arrow) and that body.
    pub(crate) fn stanza(self, first_line: &str, body: &[u8]) -> Self {
        let mut encoded = BASE64_STANDARD_NO_PAD.encode(body);
        // A line feed after every 64th letter and at the end: a full last line is followed by an empty one.
        for end in (1..=encoded.len() / 64).rev() {
            encoded.insert(end * 64, '\n');
        }
        self.raw(&format!("-> {first_line}\n{encoded}\n"))
    }

    pub(crate) fn scope(self, args: &str) -> Self {
        self.stanza(&format!("sealedenv.dev/scope {args}"), b"")
    }

    pub(crate) fn to(self, keys: &[&Key]) -> Self {
        let fingerprints: Vec<&str> = keys.iter().map(|key| key.fingerprint).collect();
        self.stanza(&format!("sealedenv.dev/to {}", fingerprints.join(" ")), b"")
    }

    pub(crate) fn x25519_all(self, keys: &[&Key]) -> Self {
        keys.iter().fold(self, |forge, key| forge.x25519(key))
    }

    /// A true X25519 stanza.
    pub(crate) fn x25519(mut self, key: &Key) -> Self {
        let secret = self.draw();
        let share = x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES);
        self.x25519_with_share(key, share, secret)
    }

    /// A stanza whose share is a point of small order, so that any private key derives the same, known secret.
    pub(crate) fn x25519_small_order(self, key: &Key, share: [u8; 32]) -> Self {
        let wrapping_key = hkdf(&[share, point(key)].concat(), X25519_LABEL, &[0; 32]);
        self.x25519_wrapped(&share, &wrapping_key)
    }

    fn x25519_with_share(self, key: &Key, share: [u8; 32], secret: [u8; 32]) -> Self {
        let point = point(key);
        let shared = x25519_dalek::x25519(secret, point);
        let wrapping_key = hkdf(&[share, point].concat(), X25519_LABEL, &shared);
        self.x25519_wrapped(&share, &wrapping_key)
    }

    fn x25519_wrapped(self, share: &[u8; 32], wrapping_key: &[u8; 32]) -> Self {
        let body = aead_encrypt(wrapping_key, &self.file_key);
        self.stanza(&format!("X25519 {}", BASE64_STANDARD_NO_PAD.encode(share)), &body)
    }

    /// Finishes the file with a valid MAC.
    pub(crate) fn build(self) -> Built {
        let mac = self.mac();
        self.build_with_mac(&format!("--- {mac}\n"))
    }

    pub(crate) fn mac(&self) -> String {
        let key = hkdf(b"", b"header", &self.file_key);
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("any length will do");
        mac.update(self.header.as_bytes());
        mac.update(b"---");
        BASE64_STANDARD_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Finishes the file with `end` where its MAC line belongs.
    pub(crate) fn build_with_mac(mut self, end: &str) -> Built {
        let nonce: [u8; 16] = self.draw()[..16].try_into().expect("it has 32");
        let key = hkdf(&nonce, b"payload", &self.file_key);
        let cipher = ChaCha20Poly1305::new(AeadKey::from_slice(&key));
        let mut bytes = self.header.into_bytes();
        bytes.extend_from_slice(end.as_bytes());
        let header_len = bytes.len();
        bytes.extend_from_slice(&nonce);
        let mut chunks: Vec<&[u8]> = self.value.chunks(CHUNK).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for (number, chunk) in chunks.iter().enumerate() {
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
            nonce[11] = u8::from(number + 1 == chunks.len());
            bytes.extend(cipher.encrypt(Nonce::from_slice(&nonce), *chunk).expect("it fits"));
        }
        Built { bytes, header_len, value: self.value }
    }
}

const X25519_LABEL: &[u8] = b"age-encryption.org/v1/X25519";

fn point(key: &Key) -> [u8; 32] {
    bech32_decode(
        key.recipient,
        |_| (),
        |_| Ok(()),
        |_, bytes| bytes.collect::<Vec<u8>>().try_into().map_err(|_| ()),
    )
    .expect("a recipient")
}

impl Built {
    pub(crate) fn text(&self) -> String {
        text(&self.bytes)
    }

    /// The file with one piece of its header replaced, the MAC left as it was.
    pub(crate) fn replacing(mut self, old: &str, new: &str) -> Self {
        assert_eq!(self.header().matches(old).count(), 1, "{old:?} in {:?}", self.header());
        let header = self.header().replace(old, new).into_bytes();
        let payload = self.bytes.split_off(self.header_len);
        self.header_len = header.len();
        self.bytes = [header, payload].concat();
        self
    }

    /// The file with another payload.
    pub(crate) fn with_payload(mut self, payload: &[u8]) -> Self {
        self.bytes.truncate(self.header_len);
        self.bytes.extend_from_slice(payload);
        self
    }

    pub(crate) fn header(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.header_len]).expect("headers are text")
    }

    pub(crate) fn mac(&self) -> &str {
        self.header().rsplit_once("--- ").expect("it has a MAC").1.trim_end()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.header_len..]
    }
}

/// A sealed value's text of any bytes.
pub(crate) fn text(file: &[u8]) -> String {
    format!("sealed:v1:{}", BASE64_STANDARD.encode(file))
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
