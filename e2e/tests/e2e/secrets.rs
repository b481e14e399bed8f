//! What becomes of the Secret.

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, wait};
use sealedenv_e2e::seal::{self, Manifest};

use crate::audit;

fn delivered(test: &str) -> Result<(Namespace, Manifest)> {
    let ns = Namespace::new(test)?;
    let manifest = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter2")?.value("USER", "alice")?;
    ns.apply(&manifest.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    Ok((ns, manifest))
}

#[test]
fn a_sealed_env_becomes_a_secret() -> Result<()> {
    let (ns, _) = delivered("becomes_a_secret")?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2");
    assert_eq!(ns.secret_keys("checkout")?, ["TOKEN", "USER"]);
    let secret = ns.get("secret", "checkout")?;
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "sealedenv");
    assert_eq!(secret["metadata"]["ownerReferences"][0]["kind"], "SealedEnv");
    let managers = secret["metadata"]["managedFields"].as_array().cloned();
    assert!(
        managers.iter().flatten().all(|m| m["operation"] == "Apply" || m["manager"] != "sealedenv-operator")
    );
    let env = ns.get("sealedenv", "checkout")?;
    assert_eq!(env["status"]["keysReady"], "2/2");
    assert_eq!(env["status"]["observedGeneration"], env["metadata"]["generation"]);
    assert!(!env["status"].to_string().contains("hunter2"));
    ns.wait_event("checkout", "Delivered")?;
    Ok(())
}

#[test]
fn one_bad_key_keeps_its_last_good_value_and_is_named() -> Result<()> {
    let (ns, _) = delivered("one_bad_key")?;
    let unopenable = seal::strict(&seal::stranger()?, ns.name(), "checkout", "TOKEN", "new")?;
    let changed = Manifest::new(ns.name(), "checkout")?.raw("TOKEN", &unopenable).value("USER", "bob")?;
    ns.apply(&changed.yaml())?;
    let env = ns.wait_condition("sealedenv", "checkout", "Stalled", "True", "KeysNotOpened")?;
    let keys = env["status"]["keys"].as_array().cloned().unwrap_or_default();
    let token = keys.iter().find(|k| k["name"] == "TOKEN").expect("TOKEN in status");
    assert_eq!((&token["state"], &token["reason"]), (&"KeptLast".into(), &"NoIdentity".into()));
    assert!(token["lastGoodAt"].is_string());
    assert_eq!(env["status"]["keysReady"], "1/2");
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2", "the last good value stays");
    assert_eq!(ns.secret_value("checkout", "USER")?, "bob", "the good key is not held up");
    let text = ns.wait_event("checkout", "KeysNotOpened")?;
    assert!(text.contains("TOKEN"), "{text}");
    Ok(())
}

#[test]
fn an_edit_of_a_last_good_value_is_told_of_and_mended_by_a_new_one() -> Result<()> {
    let (ns, _) = delivered("kept_edited")?;
    let unopenable = seal::strict(&seal::stranger()?, ns.name(), "checkout", "TOKEN", "new")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.raw("TOKEN", &unopenable).value("USER", "bob")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Stalled", "True", "KeysNotOpened")?;
    let edit = r#"{"data":{"TOKEN":"aGFja2Vk"}}"#;
    ns.kubectl(&["patch", "secret", "checkout", "--type=merge", "-p", edit])?;
    ns.wait_event("checkout", "KeptValueChanged")?;
    let told = |r: &serde_json::Value| r["reason"] == "KeptValueChanged" && r["object"]["ns"] == ns.name();
    assert_eq!(audit::wait_record(told)?["keys"], serde_json::json!(["TOKEN"]));
    let env = ns.get("sealedenv", "checkout")?;
    let token = env["status"]["keys"].as_array().into_iter().flatten().find(|k| k["name"] == "TOKEN");
    assert_eq!(token.expect("TOKEN in status")["altered"], true);
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hacked", "there is nothing to put back");

    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "newer")?.value("USER", "bob")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "newer");
    Ok(())
}

#[test]
fn a_hand_edit_is_repaired() -> Result<()> {
    let (ns, _) = delivered("hand_edit")?;
    ns.kubectl(&[
        "patch",
        "secret",
        "checkout",
        "--type=merge",
        "-p",
        r#"{"data":{"TOKEN":"aGFja2Vk","EXTRA":"eA=="}}"#,
    ])?;
    wait("the edit to be repaired", || {
        let repaired =
            ns.secret_value("checkout", "TOKEN")? == "hunter2" && ns.secret_keys("checkout")?.len() == 2;
        Ok(repaired.then_some(()))
    })?;
    ns.wait_event("checkout", "Repaired")?;
    let ours = |r: &serde_json::Value| r["action"] == "repair" && r["object"]["ns"] == ns.name();
    assert_eq!(audit::wait_record(ours)?["outcome"], "ok");
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    Ok(())
}

#[test]
fn a_deletion_by_hand_is_repaired() -> Result<()> {
    let (ns, _) = delivered("hand_deletion")?;
    let before = ns.get("secret", "checkout")?["metadata"]["uid"].clone();
    ns.kubectl(&["delete", "secret", "checkout"])?;
    wait("the Secret to be back", || {
        let secret = ns.find("secret", "checkout")?;
        Ok(secret.filter(|s| s["metadata"]["uid"] != before).map(drop))
    })?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2");
    audit::wait_record(|r| r["action"] == "repair" && r["object"]["ns"] == ns.name())?;
    Ok(())
}

#[test]
fn a_stripped_label_or_annotation_is_repaired() -> Result<()> {
    let (ns, _) = delivered("stripped_label")?;
    ns.kubectl(&["label", "secret", "checkout", "app.kubernetes.io/managed-by-"])?;
    wait("the label to be back", || {
        let secret = ns.get("secret", "checkout")?;
        Ok((secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "sealedenv").then_some(()))
    })
}

#[test]
fn a_foreign_secret_is_left_alone_until_it_is_handed_over() -> Result<()> {
    let ns = Namespace::new("foreign_secret")?;
    ns.kubectl(&["create", "secret", "generic", "checkout", "--from-literal=TOKEN=theirs"])?;
    let before = ns.version("secret", "checkout")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("TOKEN", "ours")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Stalled", "True", "SecretNotOurs")?;
    assert_eq!(ns.version("secret", "checkout")?, before, "it is not touched");
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "theirs");
    ns.wait_event("checkout", "SecretNotOurs")?;

    ns.kubectl(&["annotate", "secret", "checkout", "sealedenv.dev/adopt=true"])?;
    ns.kubectl(&["annotate", "sealedenv", "checkout", "sealedenv.dev/requestedAt=now"])?;
    let env = ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    assert_eq!(env["status"]["lastHandledReconcileAt"], "now");
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "ours");
    Ok(())
}

#[test]
fn a_removed_key_leaves_the_secret() -> Result<()> {
    let (ns, _) = delivered("removed_key")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("USER", "alice")?.yaml())?;
    wait("TOKEN to be gone", || Ok((ns.secret_keys("checkout")? == ["USER"]).then_some(())))
}

#[test]
fn deletion_takes_the_secret_along_or_leaves_it() -> Result<()> {
    let (ns, _) = delivered("deletion")?;
    ns.apply(&Manifest::new(ns.name(), "kept")?.value("A", "a")?.spec("deletionPolicy: Retain").yaml())?;
    ns.wait_condition("sealedenv", "kept", "Ready", "True", "Delivered")?;
    ns.kubectl(&["delete", "sealedenv", "checkout", "kept"])?;
    wait("the Secret of the deleted one to go", || {
        Ok(ns.find("secret", "checkout")?.is_none().then_some(()))
    })?;
    assert_eq!(ns.secret_value("kept", "A")?, "a");
    for (name, reason) in [("checkout", "Deleted"), ("kept", "Retained")] {
        let record = audit::wait_record(|r| {
            r["action"] == "delete" && r["object"]["ns"] == ns.name() && r["object"]["name"] == name
        })?;
        assert_eq!(record["reason"], reason);
    }
    Ok(())
}

#[test]
fn suspension_stops_the_work() -> Result<()> {
    let (ns, _) = delivered("suspension")?;
    ns.kubectl(&["patch", "sealedenv", "checkout", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#])?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Suspended")?;
    ns.kubectl(&["delete", "secret", "checkout"])?;
    ns.kubectl(&["patch", "sealedenv", "checkout", "--type=merge", "-p", r#"{"spec":{"suspend":false}}"#])?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2");
    Ok(())
}
