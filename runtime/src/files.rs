//! A server certificate that somebody else keeps in two files, as cert-manager does in a mounted Secret.
//!
//! The files change while we run, and not always well: half written, one new beside one old, expired, gone. A
//! [`Files`] takes over only what can be served: whole, of one key, and valid now. Until then the caller keeps what it
//! has.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;

use crate::certificate::{Leaf, facts, read_bundle};
use crate::crypto;

/// The certificate, then the chain behind it; the name that Secrets of type `kubernetes.io/tls` use.
pub const CHAIN: &str = "tls.crt";
/// Its private key.
pub const KEY: &str = "tls.key";

/// More than a Secret can hold: whatever stands there is no certificate.
const LARGEST: u64 = 1 << 20;

/// Why the files were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no readable certificate.
    #[error("{CHAIN} holds no certificate")]
    NoCertificate,
    /// There is no readable private key.
    #[error("{KEY} holds no private key")]
    NoKey,
    /// The key is of no kind that TLS can use, or belongs to another certificate.
    #[error("the certificate and the key cannot be served together")]
    Pair(#[source] rustls::Error),
    /// The certificate's time is over.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// The certificate's time has not come.
    #[error("the certificate is not valid before {0}")]
    NotYetValid(Timestamp),
}

/// The two files in their folder, and what was last taken from them.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    taken: Vec<u8>,
}

impl Files {
    /// [`CHAIN`] and [`KEY`] in this folder. Nothing is read yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), taken: Vec::new() }
    }

    /// Reads the files. Gives the certificate if it is another one than the last that was given.
    ///
    /// The files are small and in memory where they are a mounted Secret, so this does not wait for a disk.
    ///
    /// # Errors
    /// The files hold nothing that can be served now. Looking again later is right.
    pub fn look(&mut self, now: Timestamp) -> Result<Option<Leaf>, LoadError> {
        let chain = read(&self.folder.join(CHAIN))?;
        if !self.taken.is_empty() && chain == self.taken {
            return Ok(None);
        }
        let leaf = parse(&chain, &read(&self.folder.join(KEY))?, now)?;
        self.taken = chain;
        Ok(Some(leaf))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
        .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// What can be served of two PEM texts at this time.
fn parse(chain: &[u8], key: &[u8], now: Timestamp) -> Result<Leaf, LoadError> {
    let chain = read_bundle(chain);
    let validity = chain.first().and_then(|der| facts(der).ok()).ok_or(LoadError::NoCertificate)?.validity;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| LoadError::NoKey)?;
    let key = CertifiedKey::from_der(chain, key, &crypto::provider()).map_err(LoadError::Pair)?;
    if validity.is_expired(now) {
        return Err(LoadError::Expired(validity.not_after));
    }
    if now < validity.not_before {
        return Err(LoadError::NotYetValid(validity.not_before));
    }
    Ok(Leaf::read(key, validity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;

    const DAY: Duration = Duration::from_hours(24);

    fn start() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    /// A self-signed certificate and its key, PEM, valid for ten days from `start`.
    fn made() -> (String, String) {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = std::time::SystemTime::from(start()).into();
        params.not_after = std::time::SystemTime::from(start() + 10 * DAY).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn put(folder: &Path, chain: &str, key: &str) {
        std::fs::write(folder.join(CHAIN), chain).unwrap();
        std::fs::write(folder.join(KEY), key).unwrap();
    }

    #[test]
    fn a_pair_is_given_once_and_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(folder.path());
        assert!(matches!(files.look(start()), Err(LoadError::Read { .. })), "nothing there yet");
        let (chain, key) = made();
        put(folder.path(), &chain, &key);
        let leaf = files.look(start() + DAY).unwrap().expect("new");
        assert_eq!(leaf.validity().not_after, start() + 10 * DAY);
        assert!(files.look(start() + DAY).unwrap().is_none(), "the same");
        let (chain, key) = made();
        put(folder.path(), &chain, &key);
        assert!(files.look(start() + DAY).unwrap().is_some(), "renewed");
        std::fs::remove_file(folder.path().join(CHAIN)).unwrap();
        assert!(matches!(files.look(start() + DAY), Err(LoadError::Read { .. })), "gone");
    }

    #[test]
    fn what_cannot_be_served_is_refused_and_the_next_good_pair_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(folder.path());
        let now = start() + DAY;
        let (old, old_key) = made();
        put(folder.path(), &old, &old_key);
        files.look(now).unwrap().expect("served");

        let (chain, key) = made();
        let half = &chain[..chain.len() / 2];
        for (chain, key, why) in [
            (half, key.as_str(), "tls.crt holds no certificate"),
            ("", &key, "tls.crt holds no certificate"),
            ("\0\u{fffd}", &key, "tls.crt holds no certificate"),
            (&key, &key, "tls.crt holds no certificate"),
            (&chain, &key[..key.len() / 2], "tls.key holds no private key"),
            (&chain, "", "tls.key holds no private key"),
            (&chain, &chain, "tls.key holds no private key"),
            (&chain, &old_key, "the certificate and the key cannot be served together"),
        ] {
            put(folder.path(), chain, key);
            assert_eq!(files.look(now).unwrap_err().to_string(), why);
        }
        put(folder.path(), &chain, &key);
        for (now, why) in [
            (start() + 11 * DAY, "the certificate expired at 2026-03-11T12:00:00Z"),
            (start() - DAY, "the certificate is not valid before 2026-03-01T12:00:00Z"),
        ] {
            assert_eq!(files.look(now).unwrap_err().to_string(), why);
        }
        assert!(files.look(now).unwrap().is_some(), "in time");
    }

    #[test]
    fn an_endless_file_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join(CHAIN)).unwrap();
        std::fs::write(folder.path().join(KEY), "").unwrap();
        assert!(matches!(Files::new(folder.path()).look(start()), Err(LoadError::NoCertificate)));
    }

    #[test]
    fn an_error_quotes_no_key() {
        let (chain, key) = made();
        let broken = key.replace("MIG", "canary");
        let error = parse(chain.as_bytes(), broken.as_bytes(), start()).unwrap_err();
        assert!(!format!("{error:?}{}", crate::report::chain(&error)).contains("canary"));
    }
}
