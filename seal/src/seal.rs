//! Sealing: needs public keys only, no cluster and no private key.

use std::collections::HashSet;
use std::io::Write;

use age_core::format::{FileKey, Stanza};
use thiserror::Error;

use crate::header::{SCOPE_TAG, SCOPE_VERSION, TO_TAG};
use crate::scope::OPEN;
use crate::{MAX_RECIPIENTS, MAX_VALUE, Plain, Recipient, Scope, Sealed};

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
    let envelope = Envelope { scope, to: &to };
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
    to: &'a [&'a Recipient],
}

impl age::Recipient for Envelope<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        let mut stanzas = vec![scope_stanza(self.scope), to_stanza(self.to)];
        let mut shared: Option<HashSet<String>> = None;
        for recipient in self.to {
            let (wrapped, labels) = recipient.as_age().wrap_file_key(key)?;
            stanzas.extend(wrapped);
            match &shared {
                Some(shared) if *shared != labels => {
                    return Err(age::EncryptError::IncompatibleRecipients {
                        l_labels: shared.clone(),
                        r_labels: labels,
                    });
                }
                Some(_) => {}
                None => shared = Some(labels),
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

fn to_stanza(to: &[&Recipient]) -> Stanza {
    let args = to.iter().map(|recipient| recipient.fingerprint().to_string()).collect();
    Stanza { tag: TO_TAG.to_owned(), args, body: Vec::new() }
}
