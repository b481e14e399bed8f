//! Whom a caller may trust to be the operator.

use std::fmt;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};

use crate::MAX_AUTHORITIES;

/// Certificates of authorities, as PEM: each can be trusted, and there is nothing else in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities(String);

/// Text that is no bundle of authorities. It is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthoritiesError {
    /// No certificate.
    #[error("there is no certificate among the authorities")]
    None,
    /// Longer than [`MAX_AUTHORITIES`], or more certificates.
    #[error("the authorities are more than can be")]
    TooMany,
    /// Not PEM.
    #[error("the authorities are no PEM")]
    NotPem,
    /// PEM of something else, such as a private key.
    #[error("among the authorities is something that is no certificate")]
    NotCertificate,
    /// A certificate that nobody could trust.
    #[error("a certificate of the authorities cannot be trusted")]
    NotTrustworthy,
}

impl Authorities {
    /// Takes a bundle that is whole.
    ///
    /// # Errors
    /// See [`AuthoritiesError`].
    pub fn parse(pem: &str) -> Result<Self, AuthoritiesError> {
        if pem.len() > MAX_AUTHORITIES.0 {
            return Err(AuthoritiesError::TooMany);
        }
        let mut trusted = RootCertStore::empty();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            let (kind, der) = section.map_err(|_| AuthoritiesError::NotPem)?;
            if kind != SectionKind::Certificate {
                return Err(AuthoritiesError::NotCertificate);
            }
            if trusted.len() >= MAX_AUTHORITIES.1 {
                return Err(AuthoritiesError::TooMany);
            }
            trusted.add(CertificateDer::from(der)).map_err(|_| AuthoritiesError::NotTrustworthy)?;
        }
        if trusted.is_empty() { Err(AuthoritiesError::None) } else { Ok(Self(pem.to_owned())) }
    }

    /// The PEM.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["operator.test".to_owned()]).unwrap()
    }

    #[test]
    fn whole_bundles_are_taken_as_they_are() {
        for count in [1, 2, MAX_AUTHORITIES.1] {
            let bundle: String = (0..count).map(|_| made().cert.pem()).collect();
            assert_eq!(Authorities::parse(&bundle).unwrap().as_str(), bundle);
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let (one, other) = (made(), made());
        let pem = one.cert.pem();
        let many: String = (0..=MAX_AUTHORITIES.1).map(|_| pem.as_str()).collect();
        let long = format!("{pem}{}", "#".repeat(MAX_AUTHORITIES.0));
        let with_key = format!("{pem}{}", other.signing_key.serialize_pem());
        let torn = pem.replace("-----END CERTIFICATE-----", "");
        let no_certificate = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        for (text, error) in [
            ("", AuthoritiesError::None),
            ("hello", AuthoritiesError::None),
            (many.as_str(), AuthoritiesError::TooMany),
            (&long, AuthoritiesError::TooMany),
            (&with_key, AuthoritiesError::NotCertificate),
            (&torn, AuthoritiesError::NotPem),
            (no_certificate, AuthoritiesError::NotTrustworthy),
        ] {
            assert_eq!(Authorities::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(-----(BEGIN|END) [A-Z ]{0,12}-----|[A-Za-z0-9+/=]{0,20}|\n|.)*") {
            let _whatever = Authorities::parse(&text);
        }
    }
}
