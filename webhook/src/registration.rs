//! Puts our authorities into the `caBundle` of the two webhook configurations, and keeps them there.
//!
//! Configurations are written with the `resourceVersion` they were read at, so that replicas that write at the same
//! time do not undo each other. Only entries that call our own Service are touched, and of those only `caBundle`.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bundle::merge;
use crate::metrics::CertificateMetrics;
use crate::rotation::Rotation;

/// Who wrote, for `managedFields`.
const FIELD_MANAGER: &str = "sealedenv-webhook";

/// How often the configurations are looked at. Somebody may have replaced them, and until our authority is back no
/// API server can call us.
const PERIOD: Duration = Duration::from_secs(5);

/// How often while API servers do not know us yet.
const IMPATIENT: Duration = Duration::from_millis(500);

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often a write that met another is tried again at once.
const ATTEMPTS: usize = 5;

/// Which configurations to keep, and which of their entries are ours.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of both configurations.
    pub configuration: String,
    /// Name of our Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
}

/// Why a configuration does not hold our authorities.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It could not be read or written.
    #[error("cannot {what} the {kind} {name}")]
    Api {
        /// `read` or `write`.
        what: &'static str,
        /// Kind of the configuration.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server or the network said.
        #[source]
        source: Box<kube::Error>,
    },
    /// None of its entries calls our Service.
    #[error("the {kind} {name} has no entry that calls the Service {service}")]
    NotOurs {
        /// Kind of the configuration.
        kind: String,
        /// Its name.
        name: String,
        /// Namespace and name of our Service.
        service: String,
    },
    /// The API server did not answer in time.
    #[error("the API server does not answer")]
    TooSlow,
    /// Others wrote it each time between our reading and our writing.
    #[error("the {kind} {name} was changed by others again and again")]
    Contended {
        /// Kind of the configuration.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// A kind of webhook configuration.
pub trait Configuration: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize {
    /// Its entries: name, and how each is called.
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

impl Registration {
    /// Makes, publishes and serves certificates until `shutdown`. `gate` opens when API servers can call us.
    pub async fn keep(
        self,
        client: Client,
        rotation: Rotation,
        certificates: Certificates,
        metrics: CertificateMetrics,
        gate: Gate,
        shutdown: Shutdown,
    ) {
        tokio::select! {
            () = shutdown.triggered() => {}
            () = self.keep_on(&client, rotation, &certificates, &metrics, &gate) => {}
        }
    }

    async fn keep_on(
        &self,
        client: &Client,
        mut rotation: Rotation,
        certificates: &Certificates,
        metrics: &CertificateMetrics,
        gate: &Gate,
    ) {
        let start = Instant::now();
        let mut failing = false;
        loop {
            match rotation.make(Timestamp::now()) {
                Ok(Some(leaf)) => certificates.swap(&leaf),
                Ok(None) => {}
                Err(error) => {
                    metrics.failed();
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot make a certificate");
                }
            }
            match self.publish(client, &rotation.authorities()).await {
                Ok(()) => {
                    failing = false;
                    if let Some(leaf) = rotation.published(start.elapsed()) {
                        certificates.swap(&leaf);
                        tracing::info!(not_after = %leaf.validity().not_after, "serving a new certificate");
                    }
                }
                Err(error) => {
                    metrics.failed();
                    // Before the chart's configurations exist this is expected, and it repeats.
                    if !failing {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "not registered; trying again"
                        );
                    }
                    failing = true;
                }
            }
            if let Some(not_after) = rotation.not_after() {
                metrics.serves_until(not_after);
            }
            let ready = rotation.is_ready(start.elapsed());
            if ready != gate.is_open() {
                let not_after = rotation.not_after().map(tracing::field::display);
                tracing::info!(ready, not_after, "certificate");
                gate.set(ready);
            }
            tokio::time::sleep(if ready { PERIOD } else { IMPATIENT }).await;
        }
    }

    /// Puts `authorities` into both configurations, where they are missing.
    async fn publish(
        &self,
        client: &Client,
        authorities: &[CertificateDer<'static>],
    ) -> Result<(), RegisterError> {
        let both = async {
            self.publish_in::<MutatingWebhookConfiguration>(client, authorities).await?;
            self.publish_in::<ValidatingWebhookConfiguration>(client, authorities).await
        };
        tokio::time::timeout(PATIENCE, both).await.unwrap_or(Err(RegisterError::TooSlow))
    }

    async fn publish_in<C: Configuration>(
        &self,
        client: &Client,
        authorities: &[CertificateDer<'static>],
    ) -> Result<(), RegisterError> {
        let api: Api<C> = Api::all(client.clone());
        let (kind, name) = (C::kind(&()).into_owned(), self.configuration.clone());
        let failed = |what| {
            let (kind, name) = (kind.clone(), name.clone());
            move |source| RegisterError::Api { what, kind, name, source: Box::new(source) }
        };
        for _ in 0..ATTEMPTS {
            let found = api.get(&self.configuration).await.map_err(failed("read"))?;
            let patch = match self.patch(&found, Timestamp::now(), authorities) {
                Found::Complete => return Ok(()),
                Found::NotOurs => {
                    let service = format!("{}/{}", self.namespace, self.service);
                    return Err(RegisterError::NotOurs { kind, name, service });
                }
                Found::Missing(patch) => patch,
            };
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match api.patch(&self.configuration, &params, &Patch::Strategic(patch)).await {
                Ok(_) => tracing::info!(kind, name, "published our authority"),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed("write")(error)),
            }
            // Read again, after a write too: what stands there counts, not what was sent.
        }
        Err(RegisterError::Contended { kind, name })
    }

    fn patch<C: Configuration>(
        &self,
        found: &C,
        now: Timestamp,
        authorities: &[CertificateDer<'static>],
    ) -> Found {
        let entries = found.entries();
        let ours: Vec<_> = entries.iter().filter(|(_, client)| self.is_ours(client)).collect();
        if ours.is_empty() {
            return Found::NotOurs;
        }
        let changed: Vec<Value> = ours
            .iter()
            .filter_map(|(name, client)| {
                let current = client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
                let bundle = merge(now, current, authorities)?;
                Some(json!({"name": name, "clientConfig": {"caBundle": ByteString(bundle.into_bytes())}}))
            })
            .collect();
        if changed.is_empty() {
            return Found::Complete;
        }
        // Entries merge by name. The resourceVersion makes the API server refuse to patch anything newer.
        Found::Missing(json!({
            "metadata": {"resourceVersion": found.resource_version()},
            "webhooks": changed
        }))
    }

    fn is_ours(&self, client: &WebhookClientConfig) -> bool {
        client
            .service
            .as_ref()
            .is_some_and(|service| service.name == self.service && service.namespace == self.namespace)
    }
}

/// What a configuration lacks.
#[derive(Debug, PartialEq)]
enum Found {
    Complete,
    NotOurs,
    Missing(Value),
}

#[cfg(test)]
mod tests;
