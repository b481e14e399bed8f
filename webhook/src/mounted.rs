//! A certificate that somebody else keeps, such as cert-manager: read from files, served, read again when it changed.
//!
//! Nothing is published here. Whoever issues the certificate puts its authority into the `caBundle`, and renews
//! early enough. What is served stays served until something better can be read; only the clock can make it useless.

use std::time::Duration;

use jiff::Timestamp;
use sealedenv_runtime::certificate::Validity;
use sealedenv_runtime::files::Files;
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;

use crate::metrics::CertificateMetrics;

/// How often the files are looked at. The kubelet brings a changed Secret into them about once a minute.
const PERIOD: Duration = Duration::from_secs(5);

/// Serves what the files hold until `shutdown`. `gate` is open while what is served is valid.
pub(crate) async fn keep(
    files: Files,
    certificates: Certificates,
    metrics: CertificateMetrics,
    gate: Gate,
    shutdown: Shutdown,
) {
    let mut keeper = Keeper { files, certificates, metrics, gate, served: None, said: String::new() };
    loop {
        keeper.look(Timestamp::now());
        if !shutdown.sleep(PERIOD).await {
            return;
        }
    }
}

struct Keeper {
    files: Files,
    certificates: Certificates,
    metrics: CertificateMetrics,
    gate: Gate,
    served: Option<Validity>,
    /// The last failure that was told: it is told once and not with each look.
    said: String,
}

impl Keeper {
    fn look(&mut self, now: Timestamp) {
        match self.files.look(now) {
            Ok(new) => {
                self.said.clear();
                if let Some(leaf) = new {
                    self.certificates.swap(&leaf);
                    self.served = Some(leaf.validity());
                    self.metrics.serves_until(leaf.validity().not_after);
                    tracing::info!(not_after = %leaf.validity().not_after, "serving a new certificate");
                }
            }
            Err(error) => {
                self.metrics.failed();
                let error = chain(&error);
                if error != self.said {
                    let served = self.served.map(|validity| tracing::field::display(validity.not_after));
                    tracing::error!(
                        error,
                        serving_until = served,
                        "the certificate's files cannot be served"
                    );
                    self.said = error;
                }
            }
        }
        let ready = self.served.is_some_and(|validity| !validity.is_expired(now));
        if ready != self.gate.is_open() {
            tracing::info!(ready, "certificate");
            self.gate.set(ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use sealedenv_runtime::crypto;
    use sealedenv_runtime::files::{CHAIN, KEY};
    use sealedenv_runtime::readiness::Readiness;

    const DAY: Duration = Duration::from_hours(24);
    const HOST: &str = "sealedenv-webhook.sealedenv-system.svc";

    struct Issuer(CertifiedIssuer<'static, KeyPair>);

    struct Bench {
        folder: tempfile::TempDir,
        keeper: Keeper,
        issuer: Issuer,
    }

    fn bench() -> Bench {
        crypto::install();
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper {
            files: Files::new(folder.path()),
            certificates: Certificates::new(),
            metrics: CertificateMetrics::default(),
            gate: Readiness::new().gate("certificate"),
            served: None,
            said: String::new(),
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
        Bench { folder, keeper, issuer }
    }

    impl Issuer {
        /// Certificate and key, PEM, valid now and for that long.
        fn issue(&self, lifetime: Duration) -> (String, String, CertificateDer<'static>) {
            let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
            params.not_before = std::time::SystemTime::from(Timestamp::now() - DAY).into();
            params.not_after = std::time::SystemTime::from(Timestamp::now() + lifetime).into();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            (certificate.pem(), key.serialize_pem(), certificate.der().clone())
        }
    }

    fn put(folder: &Path, chain: &str, key: &str) {
        std::fs::write(folder.join(CHAIN), chain).unwrap();
        std::fs::write(folder.join(KEY), key).unwrap();
    }

    /// Who the API server would see, having the issuer in its `caBundle`; none where it cannot connect.
    async fn seen(bench: &Bench) -> Option<CertificateDer<'static>> {
        let mut roots = RootCertStore::empty();
        roots.add(bench.issuer.0.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = tokio_rustls::TlsAcceptor::from(bench.keeper.certificates.server_config().unwrap());
        let serving = tokio::spawn(async move { server.accept(far).await.map(drop) });
        let client = tokio_rustls::TlsConnector::from(Arc::new(client));
        let connected = client.connect(ServerName::try_from(HOST).unwrap(), near).await;
        let seen = connected.ok().map(|stream| stream.get_ref().1.peer_certificates().unwrap()[0].clone());
        drop(serving.await.unwrap());
        seen
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_served_and_a_bad_one_is_not() {
        let mut bench = bench();
        bench.keeper.look(Timestamp::now());
        assert!(!bench.keeper.gate.is_open() && seen(&bench).await.is_none(), "nothing there yet");

        let (first, first_key, first_der) = bench.issuer.issue(10 * DAY);
        put(bench.folder.path(), &first, &first_key);
        bench.keeper.look(Timestamp::now());
        assert!(bench.keeper.gate.is_open());
        assert_eq!(seen(&bench).await.as_ref(), Some(&first_der));

        let (second, second_key, second_der) = bench.issuer.issue(20 * DAY);
        let (expired, expired_key, _) = bench.issuer.issue(Duration::ZERO);
        let bad = [
            (&second[..second.len() / 2], second_key.as_str()),
            (&second, &second_key[..second_key.len() / 2]),
            (&second, &first_key),
            ("", ""),
            (&expired, &expired_key),
        ];
        let before = bench.keeper.metrics.told().1;
        for (chain, key) in bad {
            put(bench.folder.path(), chain, key);
            bench.keeper.look(Timestamp::now() + Duration::from_secs(1));
            assert!(bench.keeper.gate.is_open());
            assert_eq!(seen(&bench).await.as_ref(), Some(&first_der), "the last good one is kept");
        }
        let not_after = (Timestamp::now() + 10 * DAY).as_second();
        let (told, errors) = bench.keeper.metrics.told();
        assert!((told.unwrap() - not_after).abs() < 120 && errors == before + bad.len() as u64);

        put(bench.folder.path(), &second, &second_key);
        bench.keeper.look(Timestamp::now());
        assert_eq!(seen(&bench).await, Some(second_der));
    }

    #[tokio::test]
    async fn a_served_certificate_that_expires_closes_the_gate_until_a_new_one_comes() {
        let mut bench = bench();
        let (chain, key, _) = bench.issuer.issue(DAY);
        put(bench.folder.path(), &chain, &key);
        bench.keeper.look(Timestamp::now());
        assert!(bench.keeper.gate.is_open());
        let later = Timestamp::now() + 2 * DAY;
        bench.keeper.look(later);
        assert!(!bench.keeper.gate.is_open(), "the API server would refuse it");
        let (chain, key, _) = bench.issuer.issue(10 * DAY);
        put(bench.folder.path(), &chain, &key);
        bench.keeper.look(later);
        assert!(bench.keeper.gate.is_open());
    }
}
