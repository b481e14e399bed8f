//! The CLI as a developer would use it, and manifests.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cluster::{kubectl, run, wait};
use crate::setting;

/// Runs the CLI with a standard input. It gets no way to reach a cluster.
///
/// # Errors
/// When it fails; the error has what it said.
pub fn sealedenv(args: &[&str], stdin: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new(setting::binary("sealedenv")?);
    command.args(args).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let output = run(command, stdin)?;
    if !output.status.success() {
        bail!("sealedenv {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// The cluster's current recipient.
///
/// # Errors
/// When the operator has not told one in time.
pub fn recipient() -> Result<String> {
    wait("the SealingKey to name a recipient", || {
        let text = kubectl(&["get", "sealingkey", "cluster", "-o", "jsonpath={.status.recipients[0]}"])?;
        Ok((!text.is_empty()).then_some(text))
    })
}

/// A recipient whose identity nobody keeps: what is sealed to it opens nowhere.
///
/// # Errors
/// When the CLI refuses.
pub fn stranger() -> Result<String> {
    let made = String::from_utf8(sealedenv(&["keygen"], b"")?)?;
    let recipient =
        made.lines().find_map(|l| l.strip_prefix("# public key: ")).context("keygen prints a recipient")?;
    Ok(recipient.to_owned())
}

/// Seals a value for one key of one SealedEnv.
///
/// # Errors
/// When the CLI refuses.
pub fn strict(recipient: &str, namespace: &str, name: &str, key: &str, value: &str) -> Result<String> {
    let args = [
        "value",
        "seal",
        "--scope",
        "strict",
        "--namespace",
        namespace,
        "--name",
        name,
        "--key",
        key,
        "-r",
        recipient,
    ];
    let text = String::from_utf8(sealedenv(&args, value.as_bytes())?)?;
    Ok(text.trim().to_owned())
}

/// A SealedEnv in the making.
pub struct Manifest {
    namespace: String,
    name: String,
    recipient: String,
    data: Vec<(String, String)>,
    spec: String,
}

impl Manifest {
    /// One without keys, sealed to the cluster's current recipient.
    ///
    /// # Errors
    /// When the cluster names none.
    pub fn new(namespace: &str, name: &str) -> Result<Self> {
        let recipient = recipient()?;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            recipient,
            data: Vec::new(),
            spec: String::new(),
        })
    }

    /// Seals a value into it.
    ///
    /// # Errors
    /// When the CLI refuses.
    pub fn value(mut self, key: &str, value: &str) -> Result<Self> {
        let sealed = strict(&self.recipient, &self.namespace, &self.name, key, value)?;
        self.data.push((key.into(), sealed));
        Ok(self)
    }

    /// Puts a text into `data` as it is.
    #[must_use]
    pub fn raw(mut self, key: &str, text: &str) -> Self {
        self.data.push((key.into(), text.into()));
        self
    }

    /// Adds a line to the spec.
    #[must_use]
    pub fn spec(mut self, line: &str) -> Self {
        self.spec.push_str("  ");
        self.spec.push_str(line);
        self.spec.push('\n');
        self
    }

    /// The sealed text of a key.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn sealed(&self, key: &str) -> Result<&str> {
        self.data.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).context("no such key")
    }

    /// As YAML.
    pub fn yaml(&self) -> String {
        let mut yaml = format!(
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n{}",
            self.name, self.namespace, self.spec
        );
        if !self.data.is_empty() {
            yaml.push_str("  data:\n");
        }
        for (key, value) in &self.data {
            let _infallible = writeln!(yaml, "    {key:?}: {value:?}");
        }
        yaml
    }
}
