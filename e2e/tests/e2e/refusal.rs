//! A sealed value opens only where it was sealed for (I2). Each refusal shows in condition, Event and audit trail.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, wait};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;
use serde_json::Value;

use crate::audit;

const KIND: &str = "validatingwebhookconfiguration";

fn refused(ns: &Namespace, name: &str, key: &str) -> Result<()> {
    let env = ns.wait_condition("sealedenv", name, "Stalled", "True", "NothingOpened")?;
    let ready = env["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    assert_eq!(ready.map(|c| c["status"].clone()), Some("False".into()));
    let told = &env["status"]["keys"][0];
    assert_eq!((&told["name"], &told["reason"]), (&key.into(), &"ScopeMismatch".into()), "{told}");
    let text = ns.wait_event(name, "NothingOpened")?;
    assert!(text.contains(key) && text.contains("ScopeMismatch"), "{text}");
    assert!(ns.find("secret", name)?.is_none(), "nothing was written");
    let record = audit::wait_record(|r| {
        r["action"] == "reconcile"
            && r["outcome"] == "refused"
            && r["object"]["ns"] == ns.name()
            && r["object"]["name"] == name
    })?;
    assert_eq!(record["reason"], "ScopeMismatch");
    assert_eq!(record["keys"], serde_json::json!([key]));
    Ok(())
}

/// The validating webhook says no, in words. Past it (it was down and told to let pass, say) the operator decides:
/// so its configuration is taken away for a moment.
fn past_the_webhook(ns: &Namespace, manifest: &str) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let release = setting::get("SEALEDENV_E2E_RELEASE")?;
    let tried = || {
        kubectl_output(&["-n", ns.name(), "apply", "--server-side", "--dry-run=server", "-f", "-"], manifest)
    };
    wait("the webhook to refuse it", || {
        let output = tried()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = said.contains("validate.sealedenv.dev") && said.contains("sealed for");
        if refused { Ok(Some(())) } else { bail!("{said}") }
    })?;
    let mut saved: Value = serde_json::from_str(&kubectl(&["get", KIND, &release, "-o", "json"])?)?;
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"] {
        saved["metadata"].as_object_mut().context("metadata")?.remove(field);
    }
    kubectl(&["delete", KIND, &release])?;
    let applied =
        wait("the API server to stop asking the webhook", || Ok(tried()?.status.success().then_some(())))
            .and_then(|()| ns.apply(manifest));
    let restored = kubectl_output(&["create", "-f", "-"], &saved.to_string())?;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    applied.map(drop)
}

#[test]
fn a_value_copied_to_another_namespace_is_refused() -> Result<()> {
    let (home, other) = (Namespace::new("home")?, Namespace::new("other_namespace")?);
    let sealed = Manifest::new(home.name(), "checkout")?.value("TOKEN", "v")?;
    let copy = Manifest::new(other.name(), "checkout")?.raw("TOKEN", sealed.sealed("TOKEN")?);
    past_the_webhook(&other, &copy.yaml())?;
    refused(&other, "checkout", "TOKEN")
}

#[test]
fn a_value_copied_to_another_name_is_refused() -> Result<()> {
    let ns = Namespace::new("other_name")?;
    let sealed = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?;
    past_the_webhook(
        &ns,
        &Manifest::new(ns.name(), "billing")?.raw("TOKEN", sealed.sealed("TOKEN")?).yaml(),
    )?;
    refused(&ns, "billing", "TOKEN")
}

#[test]
fn a_value_copied_to_another_key_is_refused() -> Result<()> {
    let ns = Namespace::new("other_key")?;
    let sealed = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?;
    past_the_webhook(
        &ns,
        &Manifest::new(ns.name(), "checkout")?.raw("ADMIN", sealed.sealed("TOKEN")?).yaml(),
    )?;
    refused(&ns, "checkout", "ADMIN")
}
