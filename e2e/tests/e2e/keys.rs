//! Rotation and added keys.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_with, unique, wait};
use sealedenv_e2e::seal::{self, Manifest};
use sealedenv_e2e::setting;
use serde_json::Value;

use crate::audit;

/// Tests of this file change the cluster's keys.
static ALONE: Mutex<()> = Mutex::new(());

fn sealing_key() -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&["get", "sealingkey", "cluster", "-o", "json"])?)?)
}

fn fingerprints(key: &Value) -> Vec<String> {
    let keys = key["status"]["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().filter_map(|k| Some(k["fingerprint"].as_str()?.to_owned())).collect()
}

#[test]
fn rotation_leaves_every_secret_untouched_and_old_and_new_values_open() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ns = Namespace::new("rotation")?;
    let old_recipient = seal::recipient()?;
    ns.apply(&Manifest::new(ns.name(), "before")?.value("A", "old")?.yaml())?;
    ns.wait_condition("sealedenv", "before", "Ready", "True", "Delivered")?;
    let (secret, env) = (ns.version("secret", "before")?, ns.version("sealedenv", "before")?);
    let before = sealing_key()?;

    let request = unique();
    kubectl(&[
        "annotate",
        "--overwrite",
        "sealingkey",
        "cluster",
        &format!("sealedenv.dev/rotate={request}"),
    ])?;
    let after = wait("a new current key", || {
        let key = sealing_key()?;
        let rotated = key["status"]["lastHandledRotation"] == request.as_str()
            && key["status"]["current"] != before["status"]["current"];
        Ok(rotated.then_some(key))
    })?;
    assert_eq!(fingerprints(&after).len(), fingerprints(&before).len() + 1, "once per value");
    assert!(fingerprints(&before).iter().all(|f| fingerprints(&after).contains(f)), "old keys stay accepted");
    let new_recipient = after["status"]["recipients"][0].as_str().context("a recipient")?.to_owned();
    assert_ne!(new_recipient, old_recipient);
    audit::wait_record(|r| r["action"] == "keyRotate" && r["recipients"][0] == after["status"]["current"])?;

    for (name, recipient) in [("sealed-to-old", &old_recipient), ("sealed-to-new", &new_recipient)] {
        let sealed = seal::strict(recipient, ns.name(), name, "A", "v")?;
        ns.apply(&Manifest::new(ns.name(), name)?.raw("A", &sealed).yaml())?;
        ns.wait_condition("sealedenv", name, "Ready", "True", "Delivered")?;
        assert_eq!(ns.secret_value(name, "A")?, "v");
    }
    assert_eq!(ns.version("secret", "before")?, secret, "the Secret was not touched");
    assert_eq!(ns.version("sealedenv", "before")?, env, "nor its SealedEnv");
    assert_eq!(fingerprints(&sealing_key()?), fingerprints(&after), "the same request makes no second key");
    Ok(())
}

#[test]
fn an_added_key_opens_values_without_a_restart() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ns = Namespace::new("added_key")?;
    let identity = String::from_utf8(seal::sealedenv(&["keygen"], b"")?)?;
    let secret_key =
        identity.lines().find(|l| l.starts_with("AGE-SECRET-KEY-")).context("an identity")?.to_owned();
    let recipient =
        identity.lines().find_map(|l| l.strip_prefix("# public key: ")).context("a recipient")?.to_owned();

    let sealed = seal::strict(&recipient, ns.name(), "checkout", "A", "v")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.raw("A", &sealed).yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Stalled", "True", "NothingOpened")?;
    let before = sealing_key()?;

    let name = format!("added-{}", unique());
    let system = setting::system_namespace()?;
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "sealedenv.dev/sealing-key",
        "metadata": {"name": name, "namespace": system, "labels": {"sealedenv.dev/sealing-key": "cluster"}},
        "stringData": {"identity": secret_key},
    });
    kubectl_with(&["create", "-f", "-"], &manifest.to_string())?;
    let env = ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered");
    assert_eq!(ns.secret_value("checkout", "A")?, "v");
    assert_eq!(
        sealing_key()?["status"]["current"],
        before["status"]["current"],
        "an added key is not sealed to"
    );
    kubectl(&["-n", &system, "delete", "secret", &name])?;
    wait(
        "the key to be gone",
        || Ok((fingerprints(&sealing_key()?) == fingerprints(&before)).then_some(())),
    )?;
    assert_eq!(ns.secret_value("checkout", "A")?, "v", "what was delivered stays");
    env.map(drop)
}

#[test]
fn a_deleted_digest_key_comes_back_as_it_was() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let system = setting::system_namespace()?;
    let secret = || -> Result<Value> {
        let args =
            ["-n", &system, "get", "secret", "sealedenv-digest-key", "--ignore-not-found", "-o", "json"];
        let text = kubectl(&args)?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    };
    let before = secret()?;
    kubectl(&["-n", &system, "delete", "secret", "sealedenv-digest-key"])?;
    let after = wait("the digest key to come back", || Ok(Some(secret()?).filter(|found| !found.is_null())))?;
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert!(after["data"]["key"] == before["data"]["key"] && !after["data"]["key"].is_null(), "another key");
    Ok(())
}
