//! No key, no start (I3): the operator says so and ends, whatever else is in the cluster.

use std::process::Command;

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_with, run};
use sealedenv_e2e::{seal, setting};

/// Starts the operator in a namespace without keys and returns its exit code and what it said.
fn start(namespace: &str, generate: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(setting::binary("sealedenv-operator")?);
    command
        .args([
            "--namespace",
            namespace,
            "--generate-key",
            generate,
            "--http-listen",
            "127.0.0.1:0",
            "--audit-stdout",
        ])
        .env("KUBECONFIG", setting::kubeconfig()?);
    let output = run(command, b"")?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn refused(namespace: &str, generate: &str, why: &str) -> Result<()> {
    let (code, said) = start(namespace, generate)?;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("error: loading the sealing keys: {why}")), "{said}");
    assert!(said.contains("\nhint: ") && said.contains("sealedenv.dev/sealing-key=cluster"), "{said}");
    let keys =
        kubectl(&["-n", namespace, "get", "secrets", "-l", "sealedenv.dev/sealing-key", "-o", "name"])?;
    assert_eq!(keys, "", "no key was made");
    Ok(())
}

#[test]
fn no_key_and_generation_off_is_refused() -> Result<()> {
    let ns = Namespace::new("no_key")?;
    refused(ns.name(), "never", "there is no sealing key, and making one is switched off")
}

#[test]
fn no_key_with_sealed_objects_present_is_refused_in_either_mode() -> Result<()> {
    let ns = Namespace::new("lost_key")?;
    let file = tempfile::tempdir()?;
    let path = file.path().join("key").display().to_string();
    let recipient = String::from_utf8(seal::sealedenv(&["keygen", "-o", &path], b"")?)?;
    let sealed = seal::strict(recipient.trim(), ns.name(), "checkout", "TOKEN", "v")?;
    let manifest = serde_json::json!({
        "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
        "metadata": {"name": "checkout", "namespace": ns.name()}, "spec": {"data": {"TOKEN": sealed}},
    });
    kubectl_with(&["apply", "--server-side", "-f", "-"], &manifest.to_string())?;
    refused(ns.name(), "never", "there is no sealing key, and making one is switched off")?;
    refused(
        ns.name(),
        "auto",
        "there is no sealing key, but sealed values or the SealingKey show that there was one",
    )
}

#[test]
fn a_key_secret_without_an_identity_is_no_key() -> Result<()> {
    let ns = Namespace::new("unusable_key")?;
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "broken", "labels": {"sealedenv.dev/sealing-key": "cluster"}},
        "stringData": {"identity": "canary-not-an-identity"},
    });
    kubectl_with(&["-n", ns.name(), "create", "-f", "-"], &manifest.to_string())?;
    let (code, said) = start(ns.name(), "auto")?;
    assert_eq!(code, Some(3), "{said}");
    assert!(!said.contains("canary"), "{said}");
    assert!(said.contains("broken"), "the Secret is named: {said}");
    Ok(())
}

#[test]
fn no_audit_sink_is_refused_before_anything_else() -> Result<()> {
    let mut command = Command::new(setting::binary("sealedenv-operator")?);
    command.args(["--http-listen", "127.0.0.1:0"]).env("KUBECONFIG", setting::kubeconfig()?);
    let output = run(command, b"")?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no audit sink") && said.contains("hint: give --audit-file"), "{said}");
    Ok(())
}
