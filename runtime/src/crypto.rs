//! One TLS implementation for the whole process: rustls with ring.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider that every TLS configuration of this crate is built with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes ring the process-wide default.
///
/// Only libraries that ask rustls for a default need it (the Kubernetes client is one); this crate passes the
/// provider explicitly. Calling it again is harmless: the first choice stays.
pub fn install() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}
