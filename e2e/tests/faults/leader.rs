//! Replicas of the operator that are killed or paused while they work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use sealedenv_e2e::cluster::{Namespace, kubectl, wait};
use sealedenv_e2e::release::{self, Pod};
use sealedenv_e2e::requests::{Proxy, at_once};
use sealedenv_e2e::setting;

use crate::crowd::{Crowd, THREADS, name};
use crate::oracle::{Oracle, records};

const LEASE: &str = "sealedenv-operator";

/// The replica that leads, and the others.
fn replicas() -> Result<(Pod, Vec<Pod>)> {
    let namespace = setting::system_namespace()?;
    wait("a leader", || {
        let holder =
            kubectl(&["-n", &namespace, "get", "lease", LEASE, "-o", "jsonpath={.spec.holderIdentity}"])?;
        // The pod's name, and after it what tells one start of the container from the next.
        let holder = holder.split('_').next().unwrap_or_default();
        let (mut leader, mut others) = (None, Vec::new());
        for pod in release::pods("operator")? {
            if pod.name == holder { leader = Some(pod) } else { others.push(pod) }
        }
        Ok(leader.map(|leader| (leader, others)))
    })
}

#[test]
fn a_leader_killed_amid_a_thousand_objects_loses_nothing() -> Result<()> {
    const MEMBERS: usize = 1000;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("leader_killed")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 20)?;
    let created = AtomicUsize::new(0);
    let killed = std::thread::scope(|scope| -> Result<Pod> {
        let creation = scope.spawn(|| {
            at_once(THREADS, MEMBERS, |number| {
                proxy.create(&crowd.path(), &crowd.member(&name(number), number))?.json()?;
                created.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        });
        wait("a part of them", || Ok((created.load(Ordering::Relaxed) > MEMBERS / 3).then_some(())))?;
        let (leader, _) = replicas()?;
        leader.process()?.signal("KILL")?;
        ensure!(created.load(Ordering::Relaxed) < MEMBERS, "it was killed after all was created");
        creation.join().map_err(|_| anyhow::anyhow!("the creation panicked"))??;
        Ok(leader)
    })?;
    oracle.holds(&proxy, &[&crowd], &[(&killed.name, 1)])?;
    ensure!(crowd.delivered(&proxy)?.len() == MEMBERS);
    Ok(())
}

#[test]
fn both_replicas_killed_under_changes_lose_nothing() -> Result<()> {
    const MEMBERS: usize = 100;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("both_killed")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 20)?;
    crowd.create(&proxy, MEMBERS)?;
    let pods = release::pods("operator")?;
    ensure!(pods.len() > 1, "more than one replica");
    let changed = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let changes = scope.spawn(|| {
            at_once(THREADS, MEMBERS * 4, |n| {
                crowd.set(&proxy, n % MEMBERS, n)?.json()?;
                changed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        });
        wait("changes to be under way", || Ok((changed.load(Ordering::Relaxed) > MEMBERS).then_some(())))?;
        for pod in &pods {
            pod.process()?.signal("KILL")?;
        }
        changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))?
    })?;
    let ended: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), 1)).collect();
    oracle.holds(&proxy, &[&crowd], &ended)
}

/// Wakes a paused process, whatever the test came to.
struct Paused(Pod);

impl Paused {
    fn now(pod: Pod) -> Result<Self> {
        pod.process()?.signal("STOP")?;
        Ok(Self(pod))
    }

    fn wake(&self) -> Result<()> {
        self.0.process()?.signal("CONT")
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.wake() {
            eprintln!("{error:#}");
        }
    }
}

/// How many times a replica has said on its trail that it wrote something.
fn writes(pod: &Pod) -> Result<usize> {
    let writes = ["reconcile", "repair", "delete"];
    Ok(records(pod)?.iter().filter(|r| writes.iter().any(|action| r["action"] == *action)).count())
}

#[test]
fn a_leader_paused_past_its_lease_writes_nothing_when_it_wakes() -> Result<()> {
    const MEMBERS: usize = 100;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("leader_paused")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 20)?;
    crowd.create(&proxy, MEMBERS)?;
    crowd.delivered(&proxy)?;

    let (leader, _) = replicas()?;
    let former = leader.name.clone();
    let stop = AtomicBool::new(false);
    let changed = AtomicUsize::new(0);
    // Paused in the middle of its work, so that it has some in hand when it wakes.
    let paused = std::thread::scope(|scope| -> Result<Paused> {
        let changes = scope.spawn(|| {
            at_once(THREADS, MEMBERS * 20, |n| {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                crowd.set(&proxy, n % MEMBERS, n)?.json()?;
                changed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        });
        wait("changes to be under way", || Ok((changed.load(Ordering::Relaxed) > MEMBERS).then_some(())))?;
        let paused = Paused::now(leader)?;
        let before = changed.load(Ordering::Relaxed);
        wait("more changes", || Ok((changed.load(Ordering::Relaxed) > before + MEMBERS).then_some(())))?;
        stop.store(true, Ordering::Relaxed);
        changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))??;
        Ok(paused)
    })?;
    wait("another leader", || {
        let (now, _) = replicas()?;
        if now.name == former {
            bail!("{former} still leads");
        }
        Ok(Some(()))
    })?;
    crowd.delivered(&proxy)?;
    let versions = versions(&ns)?;

    paused.wake()?;
    let woken =
        release::pods("operator")?.into_iter().find(|p| p.name == former).context("it is still there")?;
    let (leader, others) = wait("the woken one to be ready", || {
        let (leader, others) = replicas()?;
        Ok(others.iter().any(|p| p.name == former && p.ready).then_some((leader, others)))
    })?;
    ensure!(others.len() == 1, "two replicas");
    let on_record = writes(&woken)?;
    // The other one works, and so does the woken one's watch.
    let before = writes(&leader)?;
    crowd.create_one(&proxy, "afterwards")?;
    crowd.delivered(&proxy)?;
    ensure!(writes(&leader)? > before, "the new leader is the one that wrote");
    ensure!(writes(&woken)? == on_record, "the woken one wrote");
    let now = self::versions(&ns)?;
    let untouched = versions.iter().all(|version| now.contains(version));
    ensure!(untouched, "something was written after it woke: {versions:?} {now:?}");
    oracle.holds(&proxy, &[&crowd], &[])
}

/// Kind, name and resourceVersion of everything that the operator writes in a namespace.
fn versions(ns: &Namespace) -> Result<Vec<String>> {
    let template = r#"{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{"\n"}{end}"#;
    let text = ns.kubectl(&["get", "secrets,sealedenvs", "-o", &format!("jsonpath={template}")])?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn a_lease_of_a_clock_that_is_ahead_is_taken_over_all_the_same() -> Result<()> {
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("lease_ahead")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 2)?;
    replicas()?;
    let patch = serde_json::json!({"spec": {
        "holderIdentity": "ghost", "renewTime": "2100-01-01T00:00:00.000000Z",
        "acquireTime": "2100-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15,
    }});
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{LEASE}", setting::system_namespace()?);
    proxy.merge(&path, &patch)?.json()?;
    crowd.create(&proxy, 5)?;
    // Its holder never renews it: that is seen by waiting, whatever time it tells.
    let (leader, _) = replicas()?;
    ensure!(!leader.name.is_empty());
    oracle.holds(&proxy, &[&crowd], &[])
}
