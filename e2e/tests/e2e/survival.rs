//! Restarts, and objects that cannot be read.

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl, wait};
use sealedenv_e2e::seal::{self, Manifest};
use sealedenv_e2e::setting;
use serde_json::Value;

use crate::aside::past_the_webhook;

fn versions(ns: &Namespace) -> Result<Vec<String>> {
    let list = ns.kubectl(&["get", "secrets,sealedenvs", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let mut versions: Vec<String> = (list["items"].as_array().into_iter().flatten())
        .map(|o| format!("{} {} {}", o["kind"], o["metadata"]["name"], o["metadata"]["resourceVersion"]))
        .collect();
    versions.sort();
    Ok(versions)
}

#[test]
fn an_operator_restart_writes_nothing() -> Result<()> {
    let ns = Namespace::new("restart")?;
    let stranger = seal::stranger()?;
    for i in 0..20 {
        let name = format!("env-{i}");
        let mut manifest = Manifest::new(ns.name(), &name)?.value("A", "a")?;
        if i % 5 == 0 {
            // Some cannot be opened in part: they are not tried again and again either.
            manifest = manifest.raw("B", &seal::strict(&stranger, ns.name(), &name, "B", "b")?);
        }
        ns.apply(&manifest.yaml())?;
    }
    wait("all to be reconciled", || {
        let list: Value = serde_json::from_str(&ns.kubectl(&["get", "sealedenvs", "-o", "json"])?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let done =
            items.iter().filter(|i| i["status"]["observedGeneration"] == i["metadata"]["generation"]).count();
        Ok((done == 20).then_some(()))
    })?;
    let before = versions(&ns)?;
    assert_eq!(before.len(), 40, "{before:?}");

    let (system, deployment) =
        (setting::system_namespace()?, format!("deploy/{}-operator", setting::get("SEALEDENV_E2E_RELEASE")?));
    kubectl(&["-n", &system, "rollout", "restart", &deployment])?;
    kubectl(&["-n", &system, "rollout", "status", &deployment, "--timeout=120s"])?;
    // It is at work again once it has delivered something new.
    ns.apply(&Manifest::new(ns.name(), "later")?.value("A", "a")?.yaml())?;
    ns.wait_condition("sealedenv", "later", "Ready", "True", "Delivered")?;
    let after: Vec<String> = versions(&ns)?.into_iter().filter(|v| !v.contains("\"later\"")).collect();
    assert_eq!(after, before, "the restart wrote nothing");
    Ok(())
}

#[test]
fn a_sealed_env_that_does_not_decode_is_reported_and_stops_nothing() -> Result<()> {
    let ns = Namespace::new("undecodable")?;
    // As after a CRD of another version: the API server stores what the operator cannot read.
    let crd: Value =
        serde_json::from_str(&kubectl(&["get", "crd", "sealedenvs.sealedenv.dev", "-o", "json"])?)?;
    let loose = r#"[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/onKeyError","value":{"x-kubernetes-preserve-unknown-fields":true}}]"#;
    kubectl(&["patch", "crd", "sealedenvs.sealedenv.dev", "--type=json", "-p", loose])?;
    let manifest = Manifest::new(ns.name(), "odd")?.value("A", "a")?.spec("onKeyError: {canary-5be1: 7}");
    let stored = past_the_webhook(&ns, &manifest.yaml(), "cannot read the object");
    let strict = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["onKeyError"];
    let tight = serde_json::json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/onKeyError", "value": strict}]);
    kubectl(&["patch", "crd", "sealedenvs.sealedenv.dev", "--type=json", "-p", &tight.to_string()])?;
    stored?;

    let odd = ns.wait_condition("sealedenv", "odd", "Stalled", "True", "Undecodable")?;
    assert!(!odd["status"].to_string().contains("canary-5be1"), "the decoder's words are not repeated");
    ns.wait_event("odd", "Undecodable")?;
    ns.apply(&Manifest::new(ns.name(), "good")?.value("A", "a")?.yaml())?;
    ns.wait_condition("sealedenv", "good", "Ready", "True", "Delivered")?;
    Ok(())
}
