//! The objects that are written: SealedEnvs with ten sealed values, and what the operator makes of one.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::api::{Cluster, SEALED_ENV, SECRET, Written};

/// Values of one object.
pub const KEYS: usize = 10;

/// Name and plain text of each value; 32 letters, as a token has.
pub fn plain() -> Vec<(String, String)> {
    (0..KEYS).map(|i| (format!("VALUE_{i:02}"), format!("bench-value-{i:02}-0123456789abcdef"))).collect()
}

/// A SealedEnv under many names. It is sealed for the cluster, so that its values open under any of them.
#[derive(Debug, Clone)]
pub struct SealedEnv {
    spec: String,
}

impl SealedEnv {
    /// Seals the values with the built command line.
    ///
    /// # Errors
    /// When it fails.
    pub fn seal(binaries: &Path, recipient: &str) -> Result<Self> {
        let mut data = Map::new();
        for (key, value) in plain() {
            let mut seal = Command::new(binaries.join("sealedenv"));
            seal.args(["--quiet", "value", "seal", "--scope", "cluster", "--key", &key, "-r", recipient]);
            data.insert(key, Value::from(piped(seal, &value)?));
        }
        Ok(Self { spec: json!({ "data": data }).to_string() })
    }

    /// The same, for pods only: no Secret is written.
    ///
    /// # Errors
    /// When the spec cannot be read, which would be a defect.
    pub fn in_memory(&self) -> Result<Self> {
        let mut spec: Value = serde_json::from_str(&self.spec).context("reading a spec made here")?;
        spec["delivery"] = Value::from("Memory");
        Ok(Self { spec: spec.to_string() })
    }

    /// One of it.
    pub fn named(&self, name: &str) -> String {
        format!(
            r#"{{"apiVersion":"sealedenv.dev/v1alpha1","kind":"SealedEnv","metadata":{{"name":"{name}"}},"spec":{}}}"#,
            self.spec
        )
    }
}

/// Runs a command with a text as its input, and gives what it prints.
pub(crate) fn piped(mut command: Command, input: &str) -> Result<String> {
    use std::io::Write as _;
    let doing = format!("running {}", command.get_program().display());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| doing.clone())?;
    child
        .stdin
        .take()
        .context("no pipe to the child")?
        .write_all(input.as_bytes())
        .with_context(|| doing.clone())?;
    let output = child.wait_with_output().with_context(|| doing.clone())?;
    if !output.status.success() {
        bail!("{doing}: it ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The writes of the floor: what the operator wrote for one object, to be written the same for others.
#[derive(Debug, Clone)]
pub struct Template {
    secret: Value,
    status: Value,
}

impl Template {
    /// Takes it from an object that the operator has reconciled.
    ///
    /// # Errors
    /// When Secret or status are not as the operator should have made them.
    pub async fn of(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        let env = cluster.get(&format!("{}/{name}", SEALED_ENV.within(namespace))).await?;
        let found = cluster.get(&format!("{}/{name}", SECRET.within(namespace))).await?;
        check(&env, &found)?;
        let meta = &found["metadata"];
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": name, "labels": meta["labels"], "annotations": meta["annotations"],
                "ownerReferences": meta["ownerReferences"],
            },
            "type": found["type"], "data": found["data"],
        });
        Ok(Self { secret, status: env["status"].clone() })
    }

    /// The Secret of an object.
    pub fn secret(&self, name: &str, owner: &Written) -> String {
        let mut secret = self.secret.clone();
        secret["metadata"]["name"] = Value::from(name);
        secret["metadata"]["ownerReferences"][0]["name"] = Value::from(name);
        secret["metadata"]["ownerReferences"][0]["uid"] = Value::from(owner.uid.as_str());
        secret.to_string()
    }

    /// The status of an object, as a merge patch.
    pub fn status(&self, name: &str, owner: &Written, secret: &Written) -> String {
        let mut status = self.status.clone();
        status["secret"]["name"] = Value::from(name);
        status["secret"]["uid"] = Value::from(secret.uid.as_str());
        status["secret"]["resourceVersion"] = Value::from(secret.resource_version.as_str());
        json!({ "metadata": { "uid": owner.uid }, "status": status }).to_string()
    }
}

/// Whether a SealedEnv is ready and its Secret holds the values: no speed counts that is not right.
///
/// # Errors
/// What is wrong.
pub fn check(env: &Value, secret: &Value) -> Result<()> {
    let name = env["metadata"]["name"].as_str().unwrap_or("?");
    let conditions = env["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if !conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
        bail!("SealedEnv {name} is not ready: {}", Value::Array(conditions));
    }
    let held = secret["data"].as_object().map_or(0, Map::len);
    let right = plain().iter().all(|(key, value)| secret["data"][key.as_str()] == base64(value.as_bytes()));
    if held != KEYS || !right {
        bail!("Secret {name} does not hold the {KEYS} values");
    }
    Ok(())
}

/// Standard base64.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        let mut text = [letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), letter(bits)];
        text[chunk.len() + 1..].fill('=');
        text
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in tests they are the report of a failure")]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("\u{ff}?>", "w78/Pg==")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_wrong_result_is_no_result() {
        let data: Map<_, _> =
            plain().into_iter().map(|(k, v)| (k, Value::from(base64(v.as_bytes())))).collect();
        let env = json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let secret = json!({ "data": data });
        check(&env, &secret).unwrap();
        let mut wrong = secret.clone();
        wrong["data"]["VALUE_03"] = Value::from("Zm9v");
        assert!(check(&env, &wrong).is_err());
        let mut more = secret.clone();
        more["data"]["OTHER"] = Value::from("Zm9v");
        assert!(check(&env, &more).is_err());
        assert!(check(&json!({"metadata": {"name": "a"}}), &secret).is_err());
    }
}
