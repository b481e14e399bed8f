//! Certificates made in memory, and reading when a certificate is valid.
//!
//! Keys that are made here are ECDSA P-256. That of a [`Leaf`] never leaves the process; that of an [`Authority`] does only
//! where somebody asks for it by name, to keep the authority for longer than a process ([`Authority::key_pem`]). Everything is back-dated by [`BACKDATE`], so that a peer whose clock is a little behind accepts it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// How far before `now` a certificate becomes valid.
pub const BACKDATE: Duration = Duration::from_mins(5);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The key pair could not be made.
    #[error("cannot make a key pair")]
    Key(#[source] rcgen::Error),
    /// A name cannot stand in a certificate, or signing failed.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The key that was made cannot be used to serve TLS.
    #[error("cannot serve TLS with the key that was made")]
    Serve(#[source] rustls::Error),
    /// `now` and the lifetime are beyond what a certificate can express.
    #[error("cannot make a certificate for this time")]
    Time,
}

/// A certificate that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a certificate")]
pub struct ReadError;

/// When a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: Timestamp,
    /// Last second.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether the certificate's time is over at `now`. One that is not valid yet is not expired.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

/// A server certificate with its key, and what stands behind it: the authority's certificate, or the chain that came
/// with it.
#[derive(Clone)]
pub struct Leaf {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Authority {
    /// Makes an authority named `name` that is valid from a little before `now` for `lifetime` after it.
    ///
    /// It may sign server certificates only, not other authorities.
    pub fn generate(name: &str, now: Timestamp, lifetime: Duration) -> Result<Self, MakeError> {
        let validity = validity_from(now, lifetime)?;
        let mut params = params(name, &[], validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key_pair()?;
        let certificate = params.self_signed(&key).map_err(MakeError::Certificate)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate, validity })
    }

    /// One that was kept: its certificate and its key, as [`Authority::pem`] and [`Authority::key_pem`] gave them.
    ///
    /// # Errors
    /// One of them is none, or they do not belong together.
    pub fn restore(certificate: &str, key: &str) -> Result<Self, ReadError> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| ReadError)?;
        let validity = facts(&certificate)?.validity;
        let key = KeyPair::from_pem(key).map_err(|_| ReadError)?;
        let (_, read) =
            x509_parser::certificate::X509Certificate::from_der(&certificate).map_err(|_| ReadError)?;
        if read.public_key().raw != key.subject_public_key_info() {
            return Err(ReadError);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| ReadError)?;
        Ok(Self { issuer, certificate, validity })
    }

    /// The key, PEM. Wiped when dropped; who stores it decides who can be taken for the server.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Signs a server certificate for the DNS names and addresses `names`, with a key of its own.
    ///
    /// It never outlives the authority.
    pub fn issue(&self, names: &[String], now: Timestamp, lifetime: Duration) -> Result<Leaf, MakeError> {
        let mut validity = validity_from(now, lifetime)?;
        validity.not_after = validity.not_after.min(self.validity.not_after);
        let mut params = params(names.first().map_or("server", String::as_str), names, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = key_pair()?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(MakeError::Certificate)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signer = rustls::crypto::ring::sign::any_ecdsa_type(&der).map_err(MakeError::Serve)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Leaf { key: Arc::new(CertifiedKey::new(chain, signer)), validity })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> String {
        to_pem(&self.certificate)
    }

    /// The authority's certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When the authority's certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Leaf {
    /// One that was not made here.
    pub(crate) fn read(key: CertifiedKey, validity: Validity) -> Self {
        Self { key: Arc::new(key), validity }
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// What a certificate says about itself, as far as bundles need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it is valid.
    pub validity: Validity,
    /// The subject's common name, empty if there is none.
    pub common_name: String,
}

/// Reads what a DER certificate says about itself. Nothing is verified.
pub fn facts(der: &[u8]) -> Result<Facts, ReadError> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| ReadError)?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| ReadError);
    let common_name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    Ok(Facts {
        validity: Validity {
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
        },
        common_name: common_name.unwrap_or_default().to_owned(),
    })
}

/// The certificates of a PEM bundle, DER, in order. What cannot be read is left out.
pub fn read_bundle(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    // The iterator stops by itself at the end; an error in one section does not end it, but a missing end marker
    // would repeat, so it does end there.
    let mut certificates = Vec::new();
    for section in CertificateDer::pem_slice_iter(pem) {
        match section {
            Ok(certificate) => certificates.push(certificate),
            Err(rustls::pki_types::pem::Error::Base64Decode(_)) => {}
            Err(_) => break,
        }
    }
    certificates
}

/// A certificate as one PEM section, with a line feed at its end.
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der.as_ref()), config)
}

fn key_pair() -> Result<KeyPair, MakeError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(MakeError::Key)
}

fn params(name: &str, names: &[String], validity: Validity) -> Result<CertificateParams, MakeError> {
    let mut params = CertificateParams::new(names).map_err(MakeError::Certificate)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = SystemTime::from(validity.not_before).into();
    params.not_after = SystemTime::from(validity.not_after).into();
    Ok(params)
}

fn validity_from(now: Timestamp, lifetime: Duration) -> Result<Validity, MakeError> {
    // Certificates count whole seconds.
    let now = Timestamp::from_second(now.as_second()).map_err(|_| MakeError::Time)?;
    Ok(Validity {
        not_before: now.checked_sub(BACKDATE).map_err(|_| MakeError::Time)?,
        not_after: now.checked_add(lifetime).map_err(|_| MakeError::Time)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn now() -> Timestamp {
        "2026-03-01T12:00:00.7Z".parse().unwrap()
    }

    #[test]
    fn what_is_read_back_is_what_was_made() {
        let authority = Authority::generate("some CA", now(), DAY).unwrap();
        let read = facts(authority.der()).unwrap();
        assert_eq!(read, Facts { validity: authority.validity(), common_name: "some CA".to_owned() });
        assert_eq!(read.validity.not_before.to_string(), "2026-03-01T11:55:00Z");
        assert_eq!(read.validity.not_after.to_string(), "2026-03-02T12:00:00Z");
        assert!(!read.validity.is_expired(now()));
        assert!(!read.validity.is_expired(read.validity.not_after));
        assert!(read.validity.is_expired(now() + 2 * DAY));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = Authority::generate("some CA", now(), DAY).unwrap();
        let leaf = authority.issue(&["a.example".to_owned()], now(), 10 * DAY).unwrap();
        assert_eq!(leaf.validity().not_after, authority.validity().not_after);
        let read = facts(&leaf.certified_key().cert[0]).unwrap();
        assert_eq!(read.validity, leaf.validity());
        assert_eq!(read.common_name, "a.example");
    }

    #[test]
    fn an_authority_that_was_kept_goes_on_signing() {
        let made = Authority::generate("some CA", now(), DAY).unwrap();
        let kept = Authority::restore(&made.pem(), &made.key_pem()).unwrap();
        assert_eq!((kept.der(), kept.validity()), (made.der(), made.validity()));
        let leaf = kept.issue(&["a.example".to_owned()], now(), DAY).unwrap();
        let leaf = leaf.certified_key();
        let (_, read) = x509_parser::certificate::X509Certificate::from_der(&leaf.cert[0]).unwrap();
        let (_, authority) = x509_parser::certificate::X509Certificate::from_der(made.der()).unwrap();
        assert_eq!(read.issuer(), authority.subject());
        let other = Authority::generate("some CA", now(), DAY).unwrap();
        for (certificate, key) in [
            (made.pem(), other.key_pem().to_string()),
            (made.pem(), String::new()),
            (String::new(), made.key_pem().to_string()),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                made.key_pem().to_string(),
            ),
        ] {
            assert!(Authority::restore(&certificate, &key).is_err());
        }
    }

    #[test]
    fn a_name_that_is_none_is_an_error() {
        let authority = Authority::generate("some CA", now(), DAY).unwrap();
        assert!(matches!(
            authority.issue(&["not\u{e9}ascii".to_owned()], now(), DAY),
            Err(MakeError::Certificate(_))
        ));
    }

    #[test]
    fn bundles_are_read_past_rubbish() {
        let (a, b) =
            (Authority::generate("a", now(), DAY).unwrap(), Authority::generate("b", now(), DAY).unwrap());
        let bundle = format!(
            "rubbish\n{}\n-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n{}",
            a.pem(),
            b.pem()
        );
        let read = read_bundle(bundle.as_bytes());
        assert_eq!(read, [a.der().clone(), b.der().clone()]);
        assert_eq!(to_pem(&read[0]), a.pem());
        for rubbish in ["", "\0", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN", "%%%"] {
            assert!(read_bundle(rubbish.as_bytes()).is_empty());
            assert!(facts(rubbish.as_bytes()).is_err());
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let authority = Authority::generate("some CA", now(), DAY).unwrap();
        let leaf = authority.issue(&["a".to_owned()], now(), DAY).unwrap();
        for text in [format!("{authority:?}"), format!("{leaf:?}")] {
            assert!(text.ends_with(", .. }") && !text.to_lowercase().contains("key"), "{text}");
        }
    }
}
