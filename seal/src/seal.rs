//! Sealing: needs public keys only, no cluster and no private key.

use std::collections::HashSet;
use std::io::Write;

use age_core::format::{FileKey, Stanza};
use thiserror::Error;

use crate::header::{SCOPE_TAG, SCOPE_VERSION, TO_TAG};
use crate::scope::OPEN;
use crate::{Fingerprint, MAX_RECIPIENTS, MAX_VALUE, Plain, Recipient, Scope, Sealed};

/// Why a value was not sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// Nobody could open it.
    #[error("no recipient was given")]
    NoRecipients,
    /// The fingerprints would not fit in one header line.
    #[error("{count} recipients are more than the {MAX_RECIPIENTS} that a value can be sealed to")]
    TooManyRecipients {
        /// How many different recipients were given.
        count: usize,
    },
    /// The value is longer than [`MAX_VALUE`].
    #[error("the value has {len} bytes, more than the {MAX_VALUE} that can be sealed")]
    TooLarge {
        /// The value's length in bytes.
        len: usize,
    },
    /// The age library refused the recipients.
    #[error("encrypting to the recipients failed")]
    Encrypt(#[source] age::EncryptError),
    /// The age library failed to write into memory.
    #[error("writing the age file failed")]
    Write(#[source] std::io::Error),
    /// What was written is not what this version reads: a defect of ours.
    #[error("the sealed value does not read back")]
    Unreadable(#[source] crate::ParseError),
}

/// Seals a value to `to`, for opening in `scope` only.
///
/// Two calls never give the same text: every value has a fresh key. A recipient that is listed twice is taken
/// once; the order is kept.
pub fn seal(scope: &Scope, to: &[Recipient], value: &Plain) -> Result<Sealed, SealError> {
    let to = distinct(to);
    if to.is_empty() {
        return Err(SealError::NoRecipients);
    }
    if to.len() > MAX_RECIPIENTS {
        return Err(SealError::TooManyRecipients { count: to.len() });
    }
    if value.len() > MAX_VALUE {
        return Err(SealError::TooLarge { len: value.len() });
    }
    let envelope = Envelope {
        scope,
        to: to.iter().map(|recipient| recipient.fingerprint()).collect(),
        keys: to.iter().map(|recipient| recipient.as_age() as _).collect(),
    };
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(&envelope as _)).map_err(SealError::Encrypt)?;
    let mut file = Vec::with_capacity(value.len() + 1024);
    let mut writer = encryptor.wrap_output(&mut file).map_err(SealError::Write)?;
    writer.write_all(value.expose()).map_err(SealError::Write)?;
    writer.finish().map_err(SealError::Write)?;
    Sealed::from_file(file).map_err(SealError::Unreadable)
}

fn distinct(recipients: &[Recipient]) -> Vec<&Recipient> {
    let mut seen = HashSet::new();
    recipients.iter().filter(|recipient| seen.insert(*recipient)).collect()
}

/// All stanzas of a sealed value: its scope, its recipients' fingerprints, and one for each recipient.
///
/// One age recipient for all of them, because age mixes only recipients with the same labels: the two extra
/// stanzas thereby carry whatever labels the real recipients share.
struct Envelope<'a> {
    scope: &'a Scope,
    to: Vec<Fingerprint>,
    keys: Vec<&'a dyn age::Recipient>,
}

impl age::Recipient for Envelope<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        let mut stanzas = vec![scope_stanza(self.scope), to_stanza(&self.to)];
        let mut shared: Option<HashSet<String>> = None;
        for recipient in &self.keys {
            let (wrapped, labels) = recipient.wrap_file_key(key)?;
            stanzas.extend(wrapped);
            match shared.take() {
                Some(shared) if shared != labels => {
                    return Err(age::EncryptError::IncompatibleRecipients {
                        l_labels: shared,
                        r_labels: labels,
                    });
                }
                _ => shared = Some(labels),
            }
        }
        let labels = shared.ok_or(age::EncryptError::MissingRecipients)?;
        Ok((stanzas, labels))
    }
}

fn scope_stanza(scope: &Scope) -> Stanza {
    let args = [
        SCOPE_VERSION,
        scope.kind().as_str(),
        scope.bound_namespace().unwrap_or(OPEN),
        scope.bound_name().unwrap_or(OPEN),
        scope.key(),
    ];
    Stanza { tag: SCOPE_TAG.to_owned(), args: args.map(str::to_owned).to_vec(), body: Vec::new() }
}

fn to_stanza(to: &[Fingerprint]) -> Stanza {
    let args = to.iter().map(ToString::to_string).collect();
    Stanza { tag: TO_TAG.to_owned(), args, body: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    /// A recipient of a type that age may have some day.
    struct Labelled(&'static str);

    impl age::Recipient for Labelled {
        fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
            let stanza = Stanza { tag: "labelled".to_owned(), args: Vec::new(), body: vec![0; 32] };
            Ok((vec![stanza], HashSet::from([self.0.to_owned()])))
        }
    }

    fn encrypt(keys: Vec<&dyn age::Recipient>) -> Result<(), age::EncryptError> {
        let scope = Scope::cluster("KEY").unwrap();
        let envelope = Envelope { scope: &scope, to: Vec::new(), keys };
        // Beside another recipient, as age would refuse a set of labels that differs from its own.
        let beside = Labelled("postquantum");
        age::Encryptor::with_recipients([&envelope as _, &beside as _].into_iter()).map(|_| ())
    }

    #[test]
    fn the_extra_stanzas_carry_the_labels_that_the_recipients_share() {
        let post_quantum = Labelled("postquantum");
        assert!(encrypt(vec![&post_quantum, &post_quantum]).is_ok());
        let incompatible = |keys| match encrypt(keys) {
            Err(age::EncryptError::IncompatibleRecipients { l_labels, r_labels }) => (l_labels, r_labels),
            other => panic!("{other:?}"),
        };
        let other = Labelled("other");
        let labels = |label: &str| HashSet::from([label.to_owned()]);
        assert_eq!(incompatible(vec![&other]), (labels("other"), labels("postquantum")));
        assert_eq!(incompatible(vec![&post_quantum, &other]), (labels("postquantum"), labels("other")));
        let native = Identity::generate().recipient();
        let mixed = incompatible(vec![native.as_age(), &post_quantum]);
        assert_eq!(mixed, (HashSet::new(), labels("postquantum")));
        assert!(matches!(encrypt(vec![]), Err(age::EncryptError::MissingRecipients)));
    }

    #[test]
    fn the_header_says_scope_recipients_and_keys_in_this_order() {
        let to = [Identity::generate().recipient(), Identity::generate().recipient()];
        let scope = Scope::namespace("shop", "KEY").unwrap();
        let sealed = seal(&scope, &to, &Plain::from(b"v".to_vec())).unwrap();
        let header = String::from_utf8(sealed.header_bytes().to_vec()).unwrap();
        let expected = format!(
            "age-encryption.org/v1\n-> sealedenv.dev/scope v1 namespace shop - KEY\n\n\
             -> sealedenv.dev/to {} {}\n\n-> X25519 ",
            to[0].fingerprint(),
            to[1].fingerprint()
        );
        assert!(header.starts_with(&expected), "{header}");
        assert_eq!(header.matches("-> X25519 ").count(), 2);
    }
}
