//! A sealed value opens only where it was sealed for (I2). Each refusal shows in condition, Event and audit trail.

use anyhow::Result;
use sealedenv_e2e::cluster::Namespace;
use sealedenv_e2e::seal::Manifest;

use crate::aside::past_the_webhook;
use crate::audit;

const WORDS: &str = "sealed for";

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

#[test]
fn a_value_copied_to_another_namespace_is_refused() -> Result<()> {
    let (home, other) = (Namespace::new("home")?, Namespace::new("other_namespace")?);
    let sealed = Manifest::new(home.name(), "checkout")?.value("TOKEN", "v")?;
    let copy = Manifest::new(other.name(), "checkout")?.raw("TOKEN", sealed.sealed("TOKEN")?);
    past_the_webhook(&other, &copy.yaml(), WORDS)?;
    refused(&other, "checkout", "TOKEN")
}

#[test]
fn a_value_copied_to_another_name_is_refused() -> Result<()> {
    let ns = Namespace::new("other_name")?;
    let sealed = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "v")?;
    past_the_webhook(
        &ns,
        &Manifest::new(ns.name(), "billing")?.raw("TOKEN", sealed.sealed("TOKEN")?).yaml(),
        WORDS,
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
        WORDS,
    )?;
    refused(&ns, "checkout", "ADMIN")
}
