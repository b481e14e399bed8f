//! Flux's real kustomize-controller applies SealedEnvs and waits for them.

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl_output, wait};
use sealedenv_e2e::flux::{self, Flux};
use sealedenv_e2e::page;
use sealedenv_e2e::seal::{self, Manifest};

/// One whose value no key of the cluster opens.
fn broken(ns: &Namespace, name: &str) -> Result<String> {
    let sealed = seal::strict(&seal::stranger()?, ns.name(), name, "TOKEN", "hunter2")?;
    Ok(Manifest::new(ns.name(), name)?.raw("TOKEN", &sealed).yaml())
}

#[test]
fn flux_sees_ready_and_the_secret_is_there() -> Result<()> {
    let ns = Namespace::new("flux_ready")?;
    let flux = Flux::start(&ns)?;
    let env = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter2")?;
    let revision = flux.commit(&[&env.yaml()])?;
    flux.follow()?;
    flux.wait_ready(&revision)?;
    // No waiting from here on: what Flux calls ready is ready.
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2");
    assert_eq!(ns.get("sealedenv", "checkout")?["status"]["keysReady"], "1/1");

    let changed = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter3")?;
    let revision = flux.commit(&[&changed.yaml()])?;
    flux.wait_ready(&revision)?;
    assert_eq!(
        ns.secret_value("checkout", "TOKEN")?,
        "hunter3",
        "not ready by the status of the last revision"
    );
    Ok(())
}

/// The Kustomization may wait for half an hour; the test does not.
#[test]
fn flux_fails_at_once_on_what_cannot_become_ready() -> Result<()> {
    let ns = Namespace::new("flux_broken")?;
    let flux = Flux::start(&ns)?;
    let good = Manifest::new(ns.name(), "good")?.value("TOKEN", "hunter2")?.yaml();
    let revision = flux.commit(&[&good, &broken(&ns, "broken")?])?;
    flux.follow()?;
    let message = flux.wait_failed(&revision, "HealthCheckFailed")?;
    assert!(message.contains("SealedEnv/") && message.contains("/broken"), "{message}");
    assert!(!message.contains("/good"), "{message}");
    ns.wait_condition("sealedenv", "broken", "Stalled", "True", "NothingOpened")?;

    let revision = flux.commit(&[&good])?;
    flux.wait_ready(&revision)?;
    Ok(())
}

#[test]
fn flux_tells_what_the_webhook_refuses() -> Result<()> {
    let ns = Namespace::new("flux_refused")?;
    let flux = Flux::start(&ns)?;
    let elsewhere = seal::strict(&seal::recipient()?, "elsewhere", "checkout", "TOKEN", "hunter2")?;
    let env = Manifest::new(ns.name(), "checkout")?.raw("TOKEN", &elsewhere);
    let revision = flux.commit(&[&env.yaml()])?;
    flux.follow()?;
    let message = flux.wait_failed(&revision, "ReconciliationFailed")?;
    assert!(message.contains("dry-run failed") && message.contains("TOKEN"), "{message}");
    assert!(ns.find("sealedenv", "checkout")?.is_none());
    Ok(())
}

#[test]
fn pruning_takes_the_secret_under_delete_and_leaves_it_under_retain() -> Result<()> {
    let ns = Namespace::new("flux_prune")?;
    let flux = Flux::start(&ns)?;
    let gone = Manifest::new(ns.name(), "gone")?.value("A", "a")?.yaml();
    let kept = Manifest::new(ns.name(), "kept")?.value("A", "a")?.spec("deletionPolicy: Retain").yaml();
    let other = Manifest::new(ns.name(), "other")?.value("A", "a")?.yaml();
    let revision = flux.commit(&[&gone, &kept, &other])?;
    flux.follow()?;
    flux.wait_ready(&revision)?;

    let revision = flux.commit(&[&other])?;
    flux.wait_ready(&revision)?;
    wait("the SealedEnvs to be pruned", || {
        let both = ns.find("sealedenv", "gone")?.is_none() && ns.find("sealedenv", "kept")?.is_none();
        Ok(both.then_some(()))
    })?;
    wait("the Secret of the deleted one to go", || Ok(ns.find("secret", "gone")?.is_none().then_some(())))?;
    assert_eq!(ns.secret_value("kept", "A")?, "a");
    assert_eq!(ns.secret_value("other", "A")?, "a");
    Ok(())
}

#[test]
fn applying_the_same_again_changes_nothing() -> Result<()> {
    let ns = Namespace::new("flux_drift")?;
    let flux = Flux::start(&ns)?;
    let env = Manifest::new(ns.name(), "checkout")?
        .value("TOKEN", "hunter2")?
        .spec("secret: {labels: {team: shop}}")
        .yaml();
    let revision = flux.commit(&[&env])?;
    flux.follow()?;
    flux.wait_ready(&revision)?;
    let versions =
        || Ok::<_, anyhow::Error>((ns.version("sealedenv", "checkout")?, ns.version("secret", "checkout")?));
    let before = versions()?;
    flux.again("once-more")?;
    flux.again("and-once-more")?;
    // The same content as another revision.
    let revision = flux.commit(&[&env, ""])?;
    flux.wait_ready(&revision)?;
    assert_eq!(versions()?, before);
    let object = format!("SealedEnv/{}/checkout", ns.name());
    let did = flux.did_to(&object)?;
    assert_eq!(did[0], "created");
    assert!(did.len() >= 4 && did[1..].iter().all(|did| did == "unchanged"), "{did:?}");
    Ok(())
}

#[test]
fn suspension_in_git_is_followed_and_ended() -> Result<()> {
    let ns = Namespace::new("flux_suspend")?;
    let flux = Flux::start(&ns)?;
    let running = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter2")?;
    let revision = flux.commit(&[&running.yaml()])?;
    flux.follow()?;
    flux.wait_ready(&revision)?;

    let suspended = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter3")?.spec("suspend: true");
    let revision = flux.commit(&[&suspended.yaml()])?;
    flux.wait_ready(&revision)?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Suspended")?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter2", "it stays as it was");

    let resumed = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter3")?;
    let revision = flux.commit(&[&resumed.yaml()])?;
    flux.wait_ready(&revision)?;
    assert_eq!(ns.secret_value("checkout", "TOKEN")?, "hunter3");
    Ok(())
}

/// Without that status kstatus would take an object for ready that the operator has not seen.
#[test]
fn a_new_object_is_in_progress_until_the_operator_has_spoken() -> Result<()> {
    let ns = Namespace::new("new_object")?;
    let env = Manifest::new(ns.name(), "checkout")?.value("TOKEN", "hunter2")?;
    let output = kubectl_output(&["create", "-f", "-", "-o", "json"], &env.yaml())?;
    let created: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(created["status"], serde_json::json!({ "observedGeneration": -1 }));
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    Ok(())
}

#[test]
fn the_api_server_takes_what_the_page_shows() -> Result<()> {
    let ns = Namespace::new("page")?;
    flux::install_kinds()?;
    for (name, namespace) in
        [("flux/app.yaml", "flux-system"), ("flux/order.yaml", "flux-system"), ("argocd/env.yaml", "shop")]
    {
        let manifest = page::yaml("gitops.md", name)?;
        let manifest = page::replace(
            &manifest,
            &format!("namespace: {namespace}"),
            &format!("namespace: {}", ns.name()),
        )?;
        let output = kubectl_output(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &manifest)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("Warning"), "{name}: {said}");
    }
    Ok(())
}
