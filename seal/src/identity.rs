//! Private keys.

use age::DecryptError;
use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret;
use thiserror::Error;

use crate::agreement::Agreement;
use crate::{Plain, Recipient};

/// A private key: `AGE-SECRET-KEY-1…`, of age's X25519 type.
///
/// It has no `Debug`, `Display`, `Clone` or `Serialize`, and its memory is wiped when it is dropped. Its text comes
/// out only as a [`Plain`].
///
/// ```compile_fail
/// println!("{:?}", sealedenv_seal::Identity::generate()); // no Debug
/// ```
/// ```compile_fail
/// println!("{}", sealedenv_seal::Identity::generate()); // no Display
/// ```
/// ```compile_fail
/// let copy = sealedenv_seal::Identity::generate().clone(); // no Clone
/// ```
/// ```
/// println!("{}", sealedenv_seal::Identity::generate().recipient()); // the public half can be shown
/// ```
pub struct Identity {
    inner: age::x25519::Identity,
    /// The quick way to use the key, where the processor knows it.
    quick: Option<Agreement>,
}

/// Why a text is not an identity. The text is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A kind of private key that age knows and this version cannot open with.
    #[error("identities of type {kind} are not supported")]
    Unsupported {
        /// The stanza type, such as `mlkem768x25519`.
        kind: &'static str,
    },
    /// The text is a public key.
    #[error("this is a recipient (a public key), not an identity")]
    Recipient,
    /// Not an age identity: wrong letters, wrong length or wrong checksum.
    #[error("not an age identity (AGE-SECRET-KEY-1…)")]
    Invalid,
}

impl Identity {
    /// Makes a new private key from the operating system's random source.
    pub fn generate() -> Self {
        Self::of(age::x25519::Identity::generate())
    }

    /// Reads `AGE-SECRET-KEY-1…`: exactly that, in upper case, with nothing before or after it.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.starts_with("AGE-SECRET-KEY-PQ-1") {
            return Err(IdentityError::Unsupported { kind: "mlkem768x25519" });
        }
        if text.starts_with("AGE-PLUGIN-") {
            return Err(IdentityError::Unsupported { kind: "plugin" });
        }
        if text.starts_with("-----BEGIN ") {
            return Err(IdentityError::Unsupported { kind: "ssh" });
        }
        if text.starts_with("age1") {
            return Err(IdentityError::Recipient);
        }
        if text.bytes().any(|c| c.is_ascii_lowercase()) {
            return Err(IdentityError::Invalid);
        }
        text.parse().map(Self::of).map_err(|_| IdentityError::Invalid)
    }

    /// The key as text, to be stored where only its owner can read it.
    pub fn to_text(&self) -> Plain {
        Plain::from(self.inner.to_string().expose_secret().as_bytes().to_vec())
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        Recipient::from_age(self.inner.to_public())
    }

    fn of(inner: age::x25519::Identity) -> Self {
        let quick = Agreement::new(inner.to_string().expose_secret());
        Self { inner, quick }
    }

    /// The file key of an `X25519` stanza. `None` when the stanza is for another key.
    pub(crate) fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        match &self.quick {
            Some(quick) => quick.unwrap(stanza),
            None => age::Identity::unwrap_stanza(&self.inner, stanza),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "AGE-SECRET-KEY-1GW3M22CDFA3XHHPQ4GUT2HHCW7E6K95NZRPT6Z2YANGWC8NN79USYH75M9";

    #[test]
    fn an_identity_reads_and_writes_its_text() {
        let alice = Identity::parse(ALICE).unwrap();
        assert_eq!(alice.to_text().expose(), ALICE.as_bytes());
        let recipient = "age1xwjhnh2hrjdhc5ejd47q7lztx7cx38wx2ra437vng2fx67psfe2s949tmt";
        assert_eq!(alice.recipient().to_string(), recipient);
        let made = Identity::generate();
        let text = made.to_text();
        let read = Identity::parse(str::from_utf8(text.expose()).unwrap()).unwrap();
        assert_eq!(read.recipient(), made.recipient());
        assert_ne!(Identity::generate().recipient(), made.recipient());
    }

    #[test]
    fn without_the_quick_way_the_same_is_opened() {
        let inner: age::x25519::Identity = ALICE.parse().unwrap();
        let slow = Identity { inner: inner.clone(), quick: None };
        let quick = Identity::of(inner);
        let other = age::x25519::Identity::generate().to_public();
        for (recipient, expected) in [(&quick.inner.to_public(), Some([7; 16])), (&other, None)] {
            let (stanzas, _) =
                age::Recipient::wrap_file_key(recipient, &FileKey::new(Box::new([7; 16]))).unwrap();
            for identity in [&slow, &quick] {
                let key = identity.unwrap_stanza(&stanzas[0]).map(|key| *key.ok().unwrap().expose_secret());
                assert_eq!(key, expected);
            }
        }
    }

    #[test]
    fn other_texts_are_refused_and_never_repeated() {
        use IdentityError::{Invalid, Recipient, Unsupported};
        for (text, expected) in [
            ("", Invalid),
            ("AGE-SECRET-KEY-1CANARY", Invalid),
            (&ALICE.to_lowercase(), Invalid),
            (&format!("{ALICE}\n"), Invalid),
            (&format!("# created\n{ALICE}"), Invalid),
            (&ALICE.replace("M9", "MM"), Invalid),
            ("age1canary", Recipient),
            ("AGE-SECRET-KEY-PQ-1CANARY", Unsupported { kind: "mlkem768x25519" }),
            ("AGE-PLUGIN-CANARY-1", Unsupported { kind: "plugin" }),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\ncanary", Unsupported { kind: "ssh" }),
        ] {
            let error = Identity::parse(text).err().unwrap();
            assert_eq!(error, expected, "{text:?}");
            assert!(!format!("{error} {error:?}").to_lowercase().contains("canary"));
        }
    }
}
