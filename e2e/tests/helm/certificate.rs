//! A certificate that somebody else keeps in a Secret, as cert-manager does. Here the test is that somebody: what it
//! puts into the Secret and into `caBundle` is what cert-manager and its CA injector put there.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sealedenv_e2e::cluster::{Namespace, kubectl, wait};
use sealedenv_e2e::seal::Manifest;

use crate::release::{Release, chart};

const SECRET: &str = "sealedenv-webhook-tls";

struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Puts a certificate that is valid for so many days into the Secret. Gives when it ends, in seconds.
    fn issue(&self, namespace: &str, days: u64) -> Result<u64> {
        let host = format!("sealedenv-webhook.{namespace}.svc");
        let mut params = CertificateParams::new(vec![host])?;
        let now = std::time::SystemTime::now();
        let end = now + Duration::from_hours(24 * days);
        params.not_before = (now - Duration::from_mins(5)).into();
        params.not_after = end.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let folder = tempfile::tempdir()?;
        let mut files = Vec::new();
        let contents =
            [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", self.0.pem())];
        for (name, content) in contents {
            std::fs::write(folder.path().join(name), content)?;
            files.push(format!("--from-file={}", folder.path().join(name).display()));
        }
        let make = ["-n", namespace, "create", "secret", "generic", SECRET, "--type=kubernetes.io/tls"];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let yaml = kubectl(&[&make[..], &files[..], &["--dry-run=client", "-o", "yaml"]].concat())?;
        sealedenv_e2e::cluster::kubectl_with(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &yaml,
        )?;
        Ok(end.duration_since(std::time::UNIX_EPOCH)?.as_secs())
    }

    /// Does what the CA injector does.
    fn inject(namespace: &str) -> Result<()> {
        let ca = kubectl(&["-n", namespace, "get", "secret", SECRET, "-o", "jsonpath={.data.ca\\.crt}"])?;
        let patch =
            format!(r#"[{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "{ca}"}}]"#);
        for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
            kubectl(&["patch", kind, "sealedenv", "--type=json", "-p", &patch])?;
        }
        Ok(())
    }
}

/// Until when each replica's certificate is valid.
fn not_after(namespace: &str) -> Result<Vec<u64>> {
    let name = "sealedenv_webhook_certificate_not_after_timestamp_seconds";
    let pods = ["-n", namespace, "get", "pods", "-l", "app.kubernetes.io/component=webhook"];
    let pods = kubectl(&[&pods[..], &["-o", "jsonpath={.items[*].metadata.name}"]].concat())?;
    let mut all = Vec::new();
    for pod in pods.split_whitespace() {
        let metrics = format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/metrics");
        let text = kubectl(&["get", "--raw", &metrics])?;
        let line = text.lines().find(|line| line.starts_with(name)).context("it tells of its certificate")?;
        all.push(line.rsplit(' ').next().context("a value")?.parse()?);
    }
    Ok(all)
}

#[test]
fn a_certificate_in_a_secret_is_served_and_its_renewal_too_without_a_restart() -> Result<()> {
    let release = Release::current()?;
    let issuer = Issuer::new()?;
    let first = issuer.issue(release.namespace(), 10)?;
    let set = "webhook.certManager.enabled=true,webhook.certManager.cert.create=false,webhook.certManager.addInjectorAnnotations=false";
    release.install(&chart()?, &["--set", set])?;
    Issuer::inject(release.namespace())?;
    let namespace = Namespace::new("certificate")?;
    let let_in = |name: &str| -> Result<()> {
        let manifest = Manifest::new(namespace.name(), name)?.value("A", "a")?.yaml();
        // The policy is Fail: it gets in only if the API server trusts what is served.
        wait("the API server to trust the webhook", || namespace.apply(&manifest).map(Some))?;
        namespace.wait_condition("sealedenv", name, "Ready", "True", "Delivered").map(drop)
    };
    // Pods of the former revision may still be there for some seconds.
    let served = |wanted: u64| {
        wait("the certificate in the Secret to be served", || {
            let ends = not_after(release.namespace())?;
            if ends.iter().all(|end| end.abs_diff(wanted) < 2) { Ok(Some(())) } else { bail!("{ends:?}") }
        })
    };
    let_in("first")?;
    served(first)?;
    served(issuer.issue(release.namespace(), 20)?)?;
    let_in("second")?;
    let bundle = ["get", "validatingwebhookconfiguration", "sealedenv", "-o"];
    let bundle = kubectl(&[&bundle[..], &["jsonpath={.webhooks[0].clientConfig.caBundle}"]].concat())?;
    let ca =
        kubectl(&["-n", release.namespace(), "get", "secret", SECRET, "-o", "jsonpath={.data.ca\\.crt}"])?;
    assert_eq!(bundle, ca, "the webhook touches it not");

    kubectl(&["-n", release.namespace(), "delete", "secret", SECRET])?;
    release.install(&chart()?, &[])?;
    let_in("its-own-again")
}
