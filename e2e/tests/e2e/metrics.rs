//! What running pods tell: everything that alerts and the dashboard ask for, and nothing of what is gone.

use std::collections::BTreeSet;

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl, wait};
use sealedenv_e2e::seal::Manifest;
use sealedenv_e2e::setting;

/// The metrics of every pod of a component.
fn scrape(component: &str) -> Result<String> {
    let system = setting::system_namespace()?;
    let selector = format!("app.kubernetes.io/component={component}");
    let pods = ["-n", &system, "get", "pods", "-l", &selector, "--field-selector=status.phase=Running"];
    let pods = kubectl(&[&pods[..], &["-o", "jsonpath={.items[*].metadata.name}"]].concat())?;
    let scrape_one = |pod| {
        kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{system}/pods/{pod}:8080/proxy/metrics")])
    };
    let all: Vec<String> = pods.split_whitespace().map(scrape_one).collect::<Result<_>>()?;
    anyhow::ensure!(!all.is_empty(), "no pods of the {component}");
    Ok(all.concat())
}

/// Names of series, without labels.
fn series(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[test]
fn running_pods_tell_all_that_alerts_and_dashboard_ask_for() -> Result<()> {
    let ns = Namespace::new("metrics_asked_for")?;
    // Its admission fills the webhook's histogram.
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("A", "a")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    let chart = setting::get("SEALEDENV_E2E_CHART")?;
    let mut asked = BTreeSet::new();
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let text = std::fs::read_to_string(std::path::Path::new(&chart).join(file))?;
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked.extend(words.filter(|word| word.starts_with("sealedenv_")).map(str::to_owned));
    }
    assert!(asked.len() > 20, "{asked:?}");
    // Counted by reason, and there is no reason yet.
    asked.remove("sealedenv_operator_unopened_values_total");
    wait("every metric to be there", || {
        let told = [scrape("operator")?, scrape("webhook")?].concat();
        let told = series(&told);
        let missing: Vec<_> = asked.iter().filter(|name| !told.contains(name.as_str())).collect();
        anyhow::ensure!(missing.is_empty(), "nobody tells {missing:?}");
        Ok(Some(()))
    })
}

#[test]
fn the_series_of_a_sealed_env_come_and_go_with_it() -> Result<()> {
    let ns = Namespace::new("metrics_of_objects")?;
    ns.apply(&Manifest::new(ns.name(), "checkout")?.value("A", "canary-c41f")?.yaml())?;
    ns.wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;
    let labels = format!("{{object_namespace=\"{}\",object_name=\"checkout\"}}", ns.name());
    let told = wait("its series", || {
        let told = scrape("operator")?;
        let ready = format!("sealedenv_operator_object_ready{labels} 1");
        let since = format!("sealedenv_operator_object_last_success_timestamp_seconds{labels} ");
        Ok((told.contains(&ready) && told.contains(&since)).then_some(told))
    })?;
    assert!(!told.contains("canary-c41f"), "no value");
    ns.kubectl(&["delete", "sealedenv", "checkout", "--wait"])?;
    wait("its series to go", || Ok((!scrape("operator")?.contains(ns.name())).then_some(())))
}
