//! A lean client of the Kubernetes API: bodies are texts, and answers are asked for without what nobody reads, so that
//! the floor is as low as it can be.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use http::{Method, Request};
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::objects::base64;

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Who made the writes of the floor, in `managedFields`.
pub const MANAGER: &str = "sealedenv-bench";

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_mins(15);

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    url: http::Uri,
    authority: String,
}

/// What an answer tells of an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion after the write; empty where nothing was stored (`dryRun`).
    #[serde(default)]
    pub resource_version: String,
}

#[derive(Deserialize)]
struct Answer {
    metadata: Written,
}

/// A kind of object in one namespace.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The name in URLs.
    pub plural: &'static str,
}

/// SealedEnvs.
pub const SEALED_ENV: Kind =
    Kind { group: "sealedenv.dev", version: "v1alpha1", kind: "SealedEnv", plural: "sealedenvs" };
/// Secrets.
pub const SECRET: Kind = Kind { group: "", version: "v1", kind: "Secret", plural: "secrets" };
/// Pods.
pub const POD: Kind = Kind { group: "", version: "v1", kind: "Pod", plural: "pods" };
/// The peer's objects.
pub const SEALED_SECRET: Kind =
    Kind { group: "bitnami.com", version: "v1alpha1", kind: "SealedSecret", plural: "sealedsecrets" };
const EVENT: Kind = Kind { group: "events.k8s.io", version: "v1", kind: "Event", plural: "events" };

impl Kind {
    fn prefix(self) -> String {
        if self.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The URL of all of them in a namespace.
    pub fn within(self, namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", self.prefix(), self.plural)
    }
}

impl Cluster {
    /// Connects as the admin of a kubeconfig.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let doing = || format!("reading {}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).with_context(doing)?;
        let config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(doing)?;
        let (url, authority) =
            (config.cluster_url.clone(), pem(config.root_cert.as_deref().unwrap_or_default()));
        Ok(Self { client: Client::try_from(config).context("making a client of the API")?, url, authority })
    }

    /// kube's own client, for what is no measured request.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Certificates that vouch for the API server, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Host and port of the API server.
    ///
    /// # Errors
    /// When the kubeconfig names none.
    pub fn address(&self) -> Result<(String, String)> {
        let host = self.url.host().context("the kubeconfig names no host")?;
        Ok((host.to_owned(), self.url.port_u16().unwrap_or(443).to_string()))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content: &str,
        accept: &str,
        body: String,
    ) -> Result<String> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("Content-Type", content)
            .header("Accept", accept)
            .body(body.into_bytes())?;
        self.client.request_text(request).await.map_err(Into::into)
    }

    async fn write(&self, method: Method, url: &str, content: &str, body: String) -> Result<Written> {
        let text = self.send(method.clone(), url, content, METADATA, body).await;
        let text = text.with_context(|| format!("{method} {url}"))?;
        Ok(serde_json::from_str::<Answer>(&text)
            .with_context(|| format!("the answer to {method} {url}"))?
            .metadata)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn create(&self, collection: &str, body: String) -> Result<Written> {
        let url = format!("{collection}?fieldManager={MANAGER}");
        self.write(Method::POST, &url, JSON, body).await
    }

    /// Creates an object as far as admission, and stores nothing.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn try_create(&self, collection: &str, body: String) -> Result<Written> {
        let url = format!("{collection}?dryRun=All&fieldManager={MANAGER}");
        self.write(Method::POST, &url, JSON, body).await
    }

    /// Server-side apply.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn apply(&self, collection: &str, name: &str, body: String) -> Result<Written> {
        let url = format!("{collection}/{name}?force=true&fieldManager={MANAGER}");
        self.write(Method::PATCH, &url, "application/apply-patch+yaml", body).await
    }

    /// A merge patch of the status.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn patch_status(&self, collection: &str, name: &str, body: String) -> Result<Written> {
        let url = format!("{collection}/{name}/status?fieldManager={MANAGER}");
        self.write(Method::PATCH, &url, "application/merge-patch+json", body).await
    }

    /// Any GET as JSON.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn get(&self, url: &str) -> Result<Value> {
        let text = self.send(Method::GET, url, JSON, JSON, String::new()).await;
        serde_json::from_str(&text.with_context(|| format!("GET {url}"))?)
            .with_context(|| format!("GET {url}"))
    }

    /// Any POST, with the whole answer.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn post(&self, url: &str, body: String) -> Result<Value> {
        let text = self.send(Method::POST, url, JSON, JSON, body).await;
        serde_json::from_str(&text.with_context(|| format!("POST {url}"))?)
            .with_context(|| format!("POST {url}"))
    }

    /// The API server's own metrics.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn metrics(&self) -> Result<String> {
        self.send(Method::GET, "/metrics", JSON, "text/plain", String::new()).await.context("GET /metrics")
    }

    /// Creates an object unless it is there.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn ensure(&self, collection: &str, body: String) -> Result<()> {
        match self.create(collection, body).await {
            Err(error) if is_code(&error, 409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes a namespace unless it is there.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        self.ensure("/api/v1/namespaces", body).await
    }

    /// How many there are.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn count(&self, collection: &str) -> Result<u64> {
        let list = self.get(&format!("{collection}?limit=1")).await?;
        let first = list["items"].as_array().map_or(0, Vec::len) as u64;
        Ok(first + list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0))
    }

    /// Deletes everything of a kind in a namespace, and waits until it is gone.
    ///
    /// # Errors
    /// When the API server refuses or does not come to an end.
    pub async fn delete_all(&self, kind: Kind, namespace: &str) -> Result<()> {
        let collection = kind.within(namespace);
        let start = Instant::now();
        loop {
            match self.send(Method::DELETE, &collection, JSON, METADATA_LIST, String::new()).await {
                // The kind is not installed: there is none of it.
                Err(error) if is_code(&error, 404) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                // A long one may be cut off by the server; it is asked again.
                _ => {}
            }
            if self.count(&collection).await? == 0 {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{collection} are still there");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes away what a round left, so that the next one starts from the same state.
    ///
    /// # Errors
    /// As [`Self::delete_all`].
    pub async fn clear(&self, namespace: &str) -> Result<()> {
        for kind in [SEALED_ENV, SEALED_SECRET, SECRET, EVENT] {
            self.delete_all(kind, namespace).await?;
        }
        Ok(())
    }

    /// Follows the metadata of a kind in a namespace, and notes when something comes true for each object.
    pub fn observe(&self, kind: Kind, namespace: &str, is_true: fn(&ObjectMeta) -> bool) -> Observer {
        let resource = ApiResource {
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            api_version: if kind.group.is_empty() {
                kind.version.to_owned()
            } else {
                format!("{}/{}", kind.group, kind.version)
            },
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let (count, counted) = watch::channel(0);
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let task = tokio::spawn(follow(api, is_true, Arc::clone(&seen), count));
        Observer { seen, counted, task }
    }
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let one = |der: &Vec<u8>| {
        let text = base64(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(one).collect()
}

const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Whether the API server answered with this code.
pub fn is_code(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == code)
}

type Seen = Arc<Mutex<HashMap<String, Instant>>>;

/// Follows a watch until dropped.
pub struct Observer {
    seen: Seen,
    counted: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Waits until it came true for so many objects.
    ///
    /// # Errors
    /// After [`PATIENCE`].
    pub async fn wait(&mut self, count: usize) -> Result<()> {
        let reached = async { self.counted.wait_for(|seen| *seen >= count).await.map(drop) };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(reached) => reached.context("the watch ended"),
            Err(_) => bail!("{} of {count} objects after {PATIENCE:?}", unpoisoned(&self.seen).len()),
        }
    }

    /// When it came true for each object, by name.
    pub fn times(&self) -> HashMap<String, Instant> {
        unpoisoned(&self.seen).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(
    api: Api<DynamicObject>,
    is_true: fn(&ObjectMeta) -> bool,
    seen: Seen,
    count: watch::Sender<usize>,
) {
    let mut version = "0".to_owned();
    loop {
        let Ok(events) = api.watch_metadata(&WatchParams::default(), &version).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = Box::pin(events);
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
            version = object.metadata.resource_version.clone().unwrap_or_default();
            if is_true(&object.metadata) {
                let name = object.metadata.name.unwrap_or_default();
                let mut seen = unpoisoned(&seen);
                seen.entry(name).or_insert_with(Instant::now);
                count.send_replace(seen.len());
            }
        }
    }
}

/// Whether somebody wrote the status: the last write of floor, operator and peer alike.
pub fn has_status(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| entry.subresource.as_deref() == Some("status"))
}

/// The object is there.
pub fn exists(_: &ObjectMeta) -> bool {
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in tests they are the report of a failure")]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_dry_run_names_no_version() {
        let read = |text: &str| serde_json::from_str::<Answer>(text).map(|answer| answer.metadata);
        let stored = read(r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"7"}}"#).unwrap();
        assert_eq!((&*stored.uid, &*stored.resource_version), ("u", "7"));
        let tried = read(r#"{"metadata":{"name":"a","uid":"u"}}"#).unwrap();
        assert_eq!((&*tried.uid, &*tried.resource_version), ("u", ""));
        assert!(read(r#"{"kind":"Status"}"#).is_err());
    }
}
