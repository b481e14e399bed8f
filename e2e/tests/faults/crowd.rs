//! Many SealedEnvs, and what was sealed into them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sealedenv_e2e::cluster::{Namespace, unique, wait};
use sealedenv_e2e::requests::{Answer, Proxy, at_once};
use sealedenv_e2e::seal;
use serde_json::{Value, json};

/// Requests at once. The machine has two cores.
pub(crate) const THREADS: usize = 8;

/// SealedEnvs of one namespace, each with a sealed TOKEN and a public NUMBER that no other has.
pub(crate) struct Crowd {
    namespace: String,
    /// What was sealed, and as what. Sealing is a process each: members share values, their NUMBER tells them apart.
    values: Vec<(String, String)>,
}

impl Crowd {
    /// Seals some values; nothing is created yet.
    pub(crate) fn new(namespace: &Namespace, values: usize) -> Result<Self> {
        let recipient = seal::recipient()?;
        let mut sealed = Vec::new();
        for number in 0..values {
            let value = format!("value-{number}-{}", unique());
            let args =
                ["value", "seal", "--scope", "namespace", "--namespace", namespace.name(), "--key", "TOKEN"];
            let text = seal::sealedenv(&[&args[..], &["-r", &recipient]].concat(), value.as_bytes())?;
            sealed.push((value, String::from_utf8(text)?.trim().to_owned()));
        }
        Ok(Self { namespace: namespace.name().to_owned(), values: sealed })
    }

    pub(crate) fn path(&self) -> String {
        format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs", self.namespace)
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn sealed(&self, value: usize) -> &str {
        &self.values[value % self.values.len()].1
    }

    /// One member, with one of the values.
    pub(crate) fn member(&self, name: &str, value: usize) -> Value {
        json!({
            "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"data": {"TOKEN": self.sealed(value)}, "public": {"NUMBER": name}},
        })
    }

    /// Creates members `env-0` and so on.
    pub(crate) fn create(&self, proxy: &Proxy, count: usize) -> Result<()> {
        at_once(THREADS, count, |number| {
            proxy.create(&self.path(), &self.member(&name(number), number))?.json().map(drop)
        })
    }

    /// Creates one more.
    pub(crate) fn create_one(&self, proxy: &Proxy, name: &str) -> Result<()> {
        proxy.create(&self.path(), &self.member(name, 0))?.json().map(drop)
    }

    /// Gives a member another value.
    pub(crate) fn set(&self, proxy: &Proxy, number: usize, value: usize) -> Result<Answer> {
        let patch = json!({"spec": {"data": {"TOKEN": self.sealed(value)}}});
        proxy.merge(&format!("{}/{}", self.path(), name(number)), &patch)
    }

    /// Waits until each SealedEnv of the namespace is delivered as its spec says now, and no Secret is there besides.
    /// Returns their names.
    pub(crate) fn delivered(&self, proxy: &Proxy) -> Result<Vec<String>> {
        wait(&format!("all SealedEnvs of {} to be delivered", self.namespace), || {
            let secrets = proxy.list(&self.secrets())?;
            let secrets: BTreeMap<&str, &Value> =
                secrets.iter().map(|s| (s["metadata"]["name"].as_str().unwrap_or_default(), s)).collect();
            let envs = proxy.list(&self.path())?;
            let (mut names, mut wrong) = (Vec::new(), Vec::new());
            for env in &envs {
                let name = env["metadata"]["name"].as_str().context("a name")?;
                match self.is_delivered(env, secrets.get(name).copied()) {
                    Ok(()) => names.push(name.to_owned()),
                    Err(error) => wrong.push(format!("{name}: {error:#}")),
                }
            }
            if let Some(first) = wrong.first() {
                bail!("{} of {} are not, such as {first}", wrong.len(), envs.len());
            }
            if secrets.len() != envs.len() {
                bail!("{} Secrets for {} SealedEnvs", secrets.len(), envs.len());
            }
            Ok(Some(names))
        })
    }

    fn is_delivered(&self, env: &Value, secret: Option<&Value>) -> Result<()> {
        let sealed = env["spec"]["data"]["TOKEN"].as_str().context("a sealed value")?;
        let (value, _) =
            self.values.iter().find(|(_, s)| s == sealed).context("a value that was sealed here")?;
        let wanted = json!({
            "TOKEN": BASE64_STANDARD.encode(value),
            "NUMBER": BASE64_STANDARD.encode(env["spec"]["public"]["NUMBER"].as_str().context("a number")?),
        });
        let secret = secret.context("no Secret")?;
        if secret["data"] != wanted {
            bail!("the Secret holds {} and should hold {wanted}", secret["data"]);
        }
        let (generation, observed) = (&env["metadata"]["generation"], &env["status"]["observedGeneration"]);
        if generation != observed {
            bail!("generation {generation}, observed {observed}");
        }
        let conditions = env["status"]["conditions"].as_array().context("conditions")?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready").context("no Ready")?;
        if ready["status"] != "True" || &ready["observedGeneration"] != generation {
            bail!("{ready}");
        }
        let told = &env["status"]["secret"]["resourceVersion"];
        if told != &secret["metadata"]["resourceVersion"] {
            bail!(
                "the status tells of resourceVersion {told}, not {}",
                secret["metadata"]["resourceVersion"]
            );
        }
        Ok(())
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

pub(crate) fn name(number: usize) -> String {
    format!("env-{number}")
}
