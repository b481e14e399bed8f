//! Tenants' namespaces go, whether or not anybody of ours is there to see it.

use anyhow::{Result, bail};
use sealedenv_e2e::cluster::{Namespace, kubectl, wait};
use sealedenv_e2e::release::NoOperator;
use sealedenv_e2e::requests::Proxy;

use crate::crowd::Crowd;
use crate::oracle::Oracle;

/// In each namespace.
const MEMBERS: usize = 50;

fn tenants(proxy: &Proxy) -> Result<Vec<(Namespace, Crowd)>> {
    let mut tenants = Vec::new();
    for name in ["tenant_a", "tenant_b"] {
        let ns = Namespace::new(name)?;
        let crowd = Crowd::new(&ns, 5)?;
        crowd.create(proxy, MEMBERS)?;
        tenants.push((ns, crowd));
    }
    for (_, crowd) in &tenants {
        crowd.delivered(proxy)?;
    }
    Ok(tenants)
}

fn delete(tenants: &[(Namespace, Crowd)]) -> Result<()> {
    for (ns, _) in tenants {
        kubectl(&["delete", "namespace", ns.name(), "--wait=false"])?;
    }
    wait("the namespaces to be gone", || {
        let all = kubectl(&["get", "namespaces", "-o", "name"])?;
        let left: Vec<_> =
            tenants.iter().filter(|(ns, _)| all.contains(ns.name())).map(|(ns, _)| ns.name()).collect();
        if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
    })
}

#[test]
fn namespaces_full_of_sealed_envs_go_while_the_operator_works_and_while_it_is_away() -> Result<()> {
    let oracle = Oracle::start()?;
    let proxy = Proxy::start()?;
    let neighbour = Namespace::new("neighbour")?;
    let others = Crowd::new(&neighbour, 2)?;
    others.create(&proxy, 5)?;
    let first = tenants(&proxy)?;
    delete(&first)?;
    oracle.holds(&proxy, &[&others], &[])?;

    let second = tenants(&proxy)?;
    let away = NoOperator::now()?;
    delete(&second)?;
    drop(away);
    // The operator's pod is another one now.
    let oracle = Oracle::start()?;
    others.create_one(&proxy, "afterwards")?;
    others.delivered(&proxy)?;
    oracle.holds_without_crowd()
}
