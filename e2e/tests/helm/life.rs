//! Upgrade, rollback, uninstall, reinstall; without helm; without CRDs; in some namespaces only.

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, kubectl_with};
use sealedenv_e2e::seal::Manifest;
use serde_json::Value;

use crate::release::{FIRST, Release, chart, first_chart, in_use};

const CRDS: [&str; 2] = ["sealedenvs.sealedenv.dev", "sealingkeys.sealedenv.dev"];

/// Identity of each CRD.
fn crds() -> Result<String> {
    kubectl(&[&["get", "crd", "-o", "jsonpath={.items[*].metadata.uid}"], &CRDS[..]].concat())
}

#[test]
fn upgrades_from_the_first_chart_and_a_rollback_touch_no_key_and_no_secret() -> Result<()> {
    let release = Release::current()?;
    release.install(&first_chart(), &FIRST)?;
    let first = release.revision()?;
    let namespace = in_use("helm_upgrade")?;
    let (before, crds_before) = (release.precious(&namespace)?, crds()?);

    release.install(&chart()?, &[])?;
    release.check("the-upgrade", &before, &namespace)?;
    for (round, set) in ["operator.workers=8", "log.level=debug"].iter().enumerate() {
        release.install(&chart()?, &["--set", set])?;
        release.check(&format!("change-{round}"), &before, &namespace)?;
    }
    release.rollback(&first)?;
    release.check("the-rollback", &before, &namespace)?;
    release.install(&chart()?, &[])?;
    release.check("going-forward", &before, &namespace)?;
    assert_eq!(crds()?, crds_before, "the CRDs were never made anew");
    Ok(())
}

#[test]
fn an_uninstall_keeps_keys_and_secrets_and_an_install_takes_them_over() -> Result<()> {
    let release = Release::current()?;
    let namespace = in_use("helm_uninstall")?;
    let (before, crds_before) = (release.precious(&namespace)?, crds()?);

    release.uninstall()?;
    assert_eq!(release.precious(&namespace)?, before, "all is as it was, with nobody there");
    assert_eq!(crds()?, crds_before);
    for kind in ["deployments", "services", "networkpolicies", "serviceaccounts", "roles"] {
        let ours = ["-l", "app.kubernetes.io/part-of=sealedenv", "-o", "name"];
        let found = kubectl(&[&["-n", release.namespace(), "get", kind][..], &ours].concat())?;
        assert_eq!(found, "", "{kind} are left over");
    }
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "clusterroles"] {
        let found = kubectl(&["get", kind, "-l", "app.kubernetes.io/part-of=sealedenv", "-o", "name"])?;
        assert_eq!(found, "", "{kind} are left over");
    }
    // Nobody is there to refuse it, and nobody to reconcile it: it waits.
    namespace.apply(&Manifest::new(namespace.name(), "meanwhile")?.value("A", "a")?.yaml())?;

    release.install(&chart()?, &[])?;
    namespace.wait_condition("sealedenv", "meanwhile", "Ready", "True", "Delivered")?;
    namespace.kubectl(&["delete", "sealedenv", "meanwhile", "--wait"])?;
    release.check("the-install", &before, &namespace)
}

#[test]
fn crds_can_be_left_to_an_administrator() -> Result<()> {
    let release = Release::current()?;
    let namespace = in_use("helm_crds")?;
    let (before, crds_before) = (release.precious(&namespace)?, crds()?);
    release.install(&chart()?, &["--set", "crds.enabled=false"])?;
    release.check("giving-up-crds", &before, &namespace)?;
    release.uninstall()?;
    release.install(&chart()?, &["--set", "crds.enabled=false", "--skip-crds"])?;
    release.check("an-install-without-crds", &before, &namespace)?;
    assert_eq!(crds()?, crds_before);
    release.install(&chart()?, &[])?;
    release.check("taking-crds-back", &before, &namespace)?;
    assert_eq!(crds()?, crds_before);
    Ok(())
}

#[test]
fn manifests_rendered_and_applied_without_helm_do_the_same() -> Result<()> {
    let release = Release::current()?;
    let namespace = in_use("helm_template")?;
    let (before, crds_before) = (release.precious(&namespace)?, crds()?);
    release.uninstall()?;
    let (chart_folder, image) = (chart()?.display().to_string(), Release::image()?);
    let name = sealedenv_e2e::setting::get("SEALEDENV_E2E_RELEASE")?;
    // Helm asks no cluster here, and takes one of long ago for granted.
    let of = "--kube-version=1.30.0";
    let rendered = release.helm(&["template", &name, &chart_folder, "--set", &image, of])?;
    for round in ["the-first-apply", "the-second-apply"] {
        kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &rendered)?;
        release.wait_ready()?;
        release.check(round, &before, &namespace)?;
    }
    release.install(&chart()?, &["--take-ownership"])?;
    release.check("back-to-helm", &before, &namespace)?;
    assert_eq!(crds()?, crds_before);
    Ok(())
}

#[test]
fn in_some_namespaces_only_the_operator_has_no_right_to_secrets_elsewhere() -> Result<()> {
    let release = Release::current()?;
    let (watched, other) = (Namespace::new("helm_watched")?, Namespace::new("helm_other")?);
    let set = format!("operator.watchNamespaces={{{}}}", watched.name());
    release.install(&chart()?, &["--set", &set])?;

    let account = format!("--as=system:serviceaccount:{}:sealedenv-operator", release.namespace());
    let may = |verb: &str, namespace: &str| -> Result<bool> {
        let output = kubectl_output(&["auth", "can-i", verb, "secrets", "-n", namespace, &account], "")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim() == "yes")
    };
    for verb in ["get", "list", "watch", "create", "patch", "delete"] {
        assert!(may(verb, watched.name())?, "{verb} where it watches");
        for elsewhere in [other.name(), "kube-system", "default"] {
            assert!(!may(verb, elsewhere)?, "{verb} in {elsewhere}");
        }
    }
    let output = kubectl_output(&["auth", "can-i", "list", "secrets", "--all-namespaces", &account], "")?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "no");
    let ours = ["get", "clusterroles", "-l", "app.kubernetes.io/part-of=sealedenv", "-o", "json"];
    let roles: Value = serde_json::from_str(&kubectl(&ours)?)?;
    let roles = roles["items"].as_array().cloned().unwrap_or_default();
    assert!(!roles.is_empty());
    for role in roles {
        assert!(!role["rules"].to_string().contains("secrets"), "{}", role["metadata"]["name"]);
    }

    other.apply(&Manifest::new(other.name(), "checkout")?.value("A", "a")?.yaml())?;
    watched.apply(&Manifest::new(watched.name(), "checkout")?.value("A", "a")?.yaml())?;
    watched.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    assert_eq!(watched.secret_value("checkout", "A")?, "a");
    assert!(other.find("secret", "checkout")?.is_none(), "it was there first and nobody looked");
    release.install(&chart()?, &[])?;
    other.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered").map(drop)
}
