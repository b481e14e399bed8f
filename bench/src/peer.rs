//! sealed-secrets, the peer: its controller as it is released, with its rate limit off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::api::{Cluster, SECRET};
use crate::objects::{piped, plain};
use crate::program::{Program, free_address};

/// The peer's programs, and what was sealed for it.
#[derive(Debug, Clone)]
pub struct Peer {
    controller: PathBuf,
    kubeseal: PathBuf,
    sealed: String,
}

/// Where the controller looks for its credentials, and nowhere else.
const CREDENTIALS: &str = "/run/secrets/kubernetes.io/serviceaccount";
/// Namespace of its key.
const NAMESPACE: &str = "bench-peer-system";

impl Peer {
    /// Its programs.
    pub fn of(controller: &Path, kubeseal: &Path) -> Self {
        Self { controller: controller.to_owned(), kubeseal: kubeseal.to_owned(), sealed: String::new() }
    }

    /// Starts the controller in a mount namespace of its own, where it finds credentials as in a pod.
    ///
    /// # Errors
    /// When it cannot be started; it needs root.
    pub async fn start(&self, cluster: &Cluster, work: &Path) -> Result<Program> {
        cluster.namespace(NAMESPACE).await?;
        let credentials = work.join("peer-credentials");
        fs::create_dir_all(&credentials)?;
        let token = account(cluster).await.context("making an account for the peer")?;
        fs::write(credentials.join("token"), token).context("writing the peer's token")?;
        fs::write(credentials.join("ca.crt"), cluster.authority()).context("writing the peer's authority")?;
        fs::write(credentials.join("namespace"), NAMESPACE)?;
        let (http, metrics) = (free_address()?, free_address()?);
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p {CREDENTIALS} && cp \"$0\"/* {CREDENTIALS}/ && exec \"$@\""
        );
        let (host, port) = cluster.address()?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(&credentials)
            .arg(&self.controller)
            .args(["--kubeclient-qps=-1", "--key-prefix=bench"])
            .arg(format!("--listen-addr={http}"))
            .arg(format!("--listen-metrics-addr={metrics}"))
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port);
        let mut program = Program::start(command, "sealed-secrets", work)?;
        program.wait_ready(http, "/healthz").await?;
        Ok(program)
    }

    /// Seals the same values for it.
    ///
    /// # Errors
    /// When its key is not there or its command line fails.
    pub async fn seal(&mut self, cluster: &Cluster, work: &Path) -> Result<()> {
        let selector = "labelSelector=sealedsecrets.bitnami.com/sealed-secrets-key";
        let keys = cluster.get(&format!("{}?{selector}", SECRET.within(NAMESPACE))).await?;
        let text = keys["items"][0]["data"]["tls.crt"].as_str().context("the peer has no key")?;
        let certificate = work.join("peer.pem");
        let mut decode = Command::new("base64");
        decode.arg("--decode");
        fs::write(&certificate, piped(decode, text)?).context("writing the peer's certificate")?;
        let mut data = Map::new();
        for (key, value) in plain() {
            let mut seal = Command::new(&self.kubeseal);
            seal.args(["--raw", "--scope", "cluster-wide", "--from-file=/dev/stdin", "--cert"])
                .arg(&certificate);
            data.insert(key, Value::from(piped(seal, &value)?));
        }
        self.sealed = json!({ "encryptedData": data }).to_string();
        Ok(())
    }

    /// One SealedSecret.
    pub fn named(&self, name: &str) -> String {
        format!(
            r#"{{"apiVersion":"bitnami.com/v1alpha1","kind":"SealedSecret","metadata":{{"name":"{name}","annotations":{{"sealedsecrets.bitnami.com/cluster-wide":"true"}}}},"spec":{}}}"#,
            self.sealed
        )
    }
}

/// A ServiceAccount that may do everything, and a token of it.
async fn account(cluster: &Cluster) -> Result<String> {
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "peer"}});
    cluster.ensure(&accounts, account.to_string()).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "bench-peer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": NAMESPACE, "name": "peer"}],
    });
    cluster.ensure("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding.to_string()).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": 7200},
    });
    let answer = cluster.post(&format!("{accounts}/peer/token"), request.to_string()).await?;
    Ok(answer["status"]["token"].as_str().context("the answer holds no token")?.to_owned())
}
