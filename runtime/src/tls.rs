//! A TLS server configuration whose certificate can be swapped while it serves.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::Leaf;
use crate::crypto;

/// The certificate that new handshakes get. Clones share it.
///
/// Without one, handshakes are refused. Connections that are open keep what they were given.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Certificates {
    /// No certificate yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `leaf` from the next handshake on.
    pub fn swap(&self, leaf: &Leaf) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(leaf.certified_key());
    }

    /// A configuration that serves whatever is set here: TLS 1.2 and 1.3, ring, no client certificates, HTTP/1.1.
    ///
    /// # Errors
    /// Never with the built-in provider; the error is rustls's.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        self.server_config_for(b"http/1.1")
    }

    /// The same for another protocol, by its ALPN name.
    ///
    /// # Errors
    /// As [`Certificates::server_config`].
    pub fn server_config_for(&self, protocol: &[u8]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
