//! Two operators beside each other: one works. Whatever happens to it, the other one goes on, and never do both write.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use sealedenv_e2e::cluster::{kubectl, wait};
use sealedenv_e2e::operator::{Home, Operator};
use sealedenv_e2e::proxy::Proxy;
use serde_json::Value;

/// A lease that nobody waits for in these tests. Who takes over before it has passed was told to.
const LONG: [&str; 2] = ["--lease-seconds", "120"];

/// A lease that a test can wait for.
const SHORT: [&str; 2] = ["--lease-seconds", "5"];

/// Two operators that are ready; the one that leads first.
fn pair(home: &Home, arguments: &[&str]) -> Result<(Operator, Operator)> {
    home.leader_first(home.start("one", arguments)?, home.start("two", arguments)?)
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i}")).collect()
}

/// Prints how long something took. It is asserted nowhere: how fast a machine is, is no matter of right or wrong.
fn took(what: &str, since: Instant) {
    // Not by a macro, whose output is shown for failed tests only.
    let _ = writeln!(std::io::stderr(), "{what}: {:.2} s", since.elapsed().as_secs_f32());
}

#[test]
fn a_leader_that_is_told_to_end_hands_over_at_once() -> Result<()> {
    let home = Home::new("hand_over")?;
    let (mut leader, standby) = pair(&home, &LONG)?;
    home.apply("before", "v")?;
    home.wait_value("before", "v")?;
    assert_eq!(standby.work_on_trail()?, 0, "a standby records no work");
    assert!(!standby.leads()? && standby.get("/readyz")?.0 == 200, "it is ready all the same");

    let start = Instant::now();
    leader.signal(Signal::TERM)?;
    home.wait_leader(&standby)?;
    took("from SIGTERM to the other's word that it leads", start);
    home.apply("after", "v")?;
    home.wait_value("after", "v")?;
    took("from SIGTERM to the other's first Secret, with kubectl's time", start);
    assert!(start.elapsed() < Duration::from_mins(1), "it waited for the lease to be over");
    assert_eq!(leader.wait_exit()?.code(), Some(0), "{}", leader.log());
    let trail = leader.trail()?;
    assert_eq!(trail.last().map(|r| r["action"].clone()), Some("stop".into()), "the end is on record");
    assert_eq!((leader.work_on_trail()?, standby.work_on_trail()?), (1, 1));
    Ok(())
}

#[test]
fn a_killed_leader_is_replaced_when_its_lease_is_over() -> Result<()> {
    let home = Home::new("killed_leader")?;
    let (leader, standby) = pair(&home, &SHORT)?;
    let all = names("env", 40);
    home.apply_all(&all, "v")?;
    home.wait_value("env-0", "v")?;
    let start = Instant::now();
    leader.signal(Signal::KILL)?;
    home.apply("later", "v")?;
    home.wait_value("later", "v")?;
    took("from SIGKILL under a lease of 5 s to the other's Secret", start);
    for name in &all {
        home.wait_value(name, "v")?;
    }
    assert!(standby.leads()?);
    // Its trail may end in a line that was being written when it was killed, as after any crash; the other one's not.
    standby.trail()?;
    Ok(())
}

#[test]
fn a_paused_leader_writes_nothing_when_it_wakes_up() -> Result<()> {
    let home = Home::new("paused_leader")?;
    let (leader, standby) = pair(&home, &SHORT)?;
    home.apply("first", "v")?;
    home.wait_value("first", "v")?;
    let lines = wait("its work to be on record", || Ok(Some(leader.trail()?.len()).filter(|n| *n >= 2)))?;

    leader.signal(Signal::STOP)?;
    // All of this waits for it when it wakes up, in the belief that it leads.
    let all = names("env", 60);
    home.apply_all(&all, "v")?;
    home.namespace().kubectl(&["delete", "secret", "first"])?;
    kubectl(&["annotate", "--overwrite", "sealingkey", "cluster", "sealedenv.dev/rotate=while-paused"])?;
    let start = Instant::now();
    home.wait_leader(&standby)?;
    took("from the changes to another leader, under a lease of 5 s", start);
    for name in all.iter().map(String::as_str).chain(["first"]) {
        home.wait_value(name, "v")?;
    }
    wait("the rotation to be served", || {
        let served =
            kubectl(&["get", "sealingkey", "cluster", "-o", "jsonpath={.status.lastHandledRotation}"])?;
        Ok((served == "while-paused").then_some(()))
    })?;
    home.wait_statuses(all.len() + 1)?;
    let before = home.versions()?;

    leader.signal(Signal::CONT)?;
    wait("the former leader to know", || {
        if leader.leads()? {
            bail!("{}", leader.log())
        }
        Ok(leader.log().contains("leading no longer").then_some(()))
    })?;
    // When it has seen this, it has seen everything that came before.
    home.apply("later", "v")?;
    home.wait_value("later", "v")?;
    leader.wait_ready()?;
    let after: Vec<String> =
        home.versions()?.into_iter().filter(|line| !line.contains("\"later\"")).collect();
    assert_eq!(after, before, "nothing was written again");
    assert_eq!(leader.trail()?.len(), lines, "nothing was recorded: {:?}", leader.trail()?.last());
    let keys =
        home.namespace().kubectl(&["get", "secrets", "-l", "sealedenv.dev/sealing-key", "-o", "name"])?;
    assert_eq!(keys.lines().count(), 2, "one key for one rotation: {keys}");
    let trail = standby.trail()?;
    for name in &all {
        let releases = trail.iter().filter(|r| r["object"]["name"] == name.as_str()).count();
        assert_eq!(releases, 1, "{name}");
    }
    Ok(())
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_stands_by_when_it_is_back() -> Result<()> {
    let home = Home::new("cut_off")?;
    let (way_one, way_two) = (Proxy::start()?, Proxy::start()?);
    let one = home.start_through("one", &way_one.kubeconfig(), &SHORT)?;
    let two = home.start_through("two", &way_two.kubeconfig(), &SHORT)?;
    let (leader, standby) = home.leader_first(one, two)?;
    let way = if leader.name() == "one" { &way_one } else { &way_two };
    home.apply("first", "v")?;
    home.wait_value("first", "v")?;

    way.cut();
    home.apply_all(&names("env", 20), "v")?;
    home.wait_leader(&standby)?;
    for name in names("env", 20) {
        home.wait_value(&name, "v")?;
    }
    home.wait_statuses(21)?;
    wait("the former leader to have stepped down by itself", || {
        Ok(leader.log().contains("leading no longer").then_some(()))
    })?;
    assert!(!leader.leads()? && leader.get("/livez")?.0 == 200);
    let before = home.versions()?;
    way.mend();
    // Its own watches are back when it can lead again.
    standby.signal(Signal::TERM)?;
    home.wait_leader(&leader)?;
    home.apply("later", "v")?;
    home.wait_value("later", "v")?;
    let after: Vec<String> =
        home.versions()?.into_iter().filter(|line| !line.contains("\"later\"")).collect();
    assert_eq!(after, before, "what the other one finished is not done again");
    Ok(())
}

#[test]
fn an_outage_of_the_api_server_is_survived_by_both() -> Result<()> {
    let home = Home::new("outage")?;
    let ways = [Proxy::start()?, Proxy::start()?];
    let mut operators = [
        home.start_through("one", &ways[0].kubeconfig(), &SHORT)?,
        home.start_through("two", &ways[1].kubeconfig(), &SHORT)?,
    ];
    for operator in &operators {
        operator.wait_ready()?;
    }
    home.apply_all(&names("before", 10), "old")?;
    for name in names("before", 10) {
        home.wait_value(&name, "old")?;
    }
    for way in &ways {
        way.cut();
    }
    home.apply_all(&names("before", 5), "new")?;
    home.apply_all(&names("during", 10), "v")?;
    home.namespace().kubectl(&["delete", "sealedenv", "before-9"])?;
    home.namespace().kubectl(&["delete", "secret", "before-8"])?;
    wait("nobody to lead", || {
        let leading = [operators[0].leads()?, operators[1].leads()?];
        if leading == [false, false] { Ok(Some(())) } else { bail!("{leading:?}") }
    })?;
    let start = Instant::now();
    for way in &ways {
        way.mend();
    }
    for (name, value) in (names("before", 5).into_iter().map(|n| (n, "new")))
        .chain(names("during", 10).into_iter().map(|n| (n, "v")))
        .chain([("before-8".to_owned(), "old")])
    {
        home.wait_value(&name, value)?;
    }
    took("from the end of an outage to everything right, under a lease of 5 s", start);
    for operator in &mut operators {
        assert!(operator.runs()?, "{}", operator.log());
        operator.wait_ready()?;
        operator.trail()?;
    }
    let deleted = wait("the deletion to be on record", || {
        let mut records = operators[0].trail()?;
        records.extend(operators[1].trail()?);
        let deleted =
            records.iter().filter(|r| r["action"] == "delete" && r["object"]["name"] == "before-9").count();
        Ok((deleted > 0).then_some(deleted))
    })?;
    assert_eq!(deleted, 1);
    Ok(())
}

#[test]
fn connections_that_break_all_the_time_lose_nothing() -> Result<()> {
    let home = Home::new("resets")?;
    let way = Proxy::start()?;
    let operator = home.start_through("one", &way.kubeconfig(), &LONG)?;
    operator.wait_ready()?;
    for round in 0..8 {
        home.apply_all(&names(&format!("env-{round}"), 5), "v")?;
        way.reset();
    }
    for round in 0..8 {
        for name in names(&format!("env-{round}"), 5) {
            home.wait_value(&name, "v")?;
        }
    }
    let trail = operator.trail()?;
    let repaired: Vec<_> =
        trail.iter().filter(|r| r["action"] == "repair").map(|r| &r["object"]["name"]).collect();
    let of_these = |r: &&Value| repaired.contains(&&r["object"]["name"]);
    let told: Vec<_> = trail.iter().filter(of_these).collect();
    assert!(told.is_empty(), "it took its own work for somebody else's: {told:#?}");
    assert!(operator.leads()?, "nor did it lose its lease");
    Ok(())
}

#[test]
fn two_fresh_replicas_make_one_key() -> Result<()> {
    let home = Home::without_key("fresh_replicas")?;
    let arguments = ["--generate-key", "always", "--lease-seconds", "15"];
    let (leader, standby) = pair(&home, &arguments)?;
    let keys =
        home.namespace().kubectl(&["get", "secrets", "-l", "sealedenv.dev/sealing-key", "-o", "name"])?;
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let made = |operator: &Operator| -> Result<usize> {
        Ok(operator.trail()?.iter().filter(|r| r["action"] == "keyCreate").count())
    };
    assert_eq!((made(&leader)?, made(&standby)?), (1, 0));
    Ok(())
}

#[test]
fn a_leader_whose_trail_takes_nothing_hands_over() -> Result<()> {
    let home = Home::new("dead_trail")?;
    let (leader, standby) = pair(&home, &["--lease-seconds", "6"])?;
    home.apply("before", "v")?;
    home.wait_value("before", "v")?;
    // A folder stands where the file should be.
    let file = leader.audit_folder().join("audit.jsonl");
    std::fs::rename(&file, leader.audit_folder().join("moved"))?;
    std::fs::create_dir(&file)?;
    let start = Instant::now();
    home.apply("after", "v")?;
    home.wait_value("after", "v")?;
    took("from a dead trail to the other's Secret, under a lease of 6 s", start);
    assert!(standby.leads()? && !leader.leads()?);
    let released = standby.trail()?.iter().filter(|r| r["object"]["name"] == "after").count();
    assert_eq!(released, 1, "it is on the record of the one that released it");
    Ok(())
}

#[test]
fn a_replica_that_starts_during_an_outage_waits_for_its_end() -> Result<()> {
    let home = Home::new("start_in_outage")?;
    let way = Proxy::start()?;
    way.cut();
    let mut operator = home.start_through("one", &way.kubeconfig(), &LONG)?;
    wait("it to have tried", || Ok(operator.log().contains("cannot be looked at yet").then_some(())))?;
    let (code, missing) = operator.get("/readyz")?;
    assert!(code == 503 && missing.contains("keys"), "{code} {missing}");
    assert!(operator.get("/livez")?.0 == 200 && operator.runs()?);
    way.mend();
    operator.wait_ready()?;
    home.apply("env", "v")?;
    home.wait_value("env", "v")
}
