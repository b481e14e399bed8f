//! Values that stand in for keys that do not open, after somebody else wrote to the Secret.

use super::*;

/// A key that does not open and is kept, at its last good value.
fn kept() -> World {
    let mut world = World::delivered();
    world.values = vec![("A", Ok("a")), ("B", Err("BadMac"))];
    (world.generation, world.input) = (2, "input2");
    world.carry_out(Some(ours_with("10", &[("A", "a"), ("B", "b")])), "11");
    world
}

fn key<'a>(status: &'a SealedEnvStatus, name: &str) -> &'a sealedenv_crds::KeyStatus {
    status.keys.iter().find(|key| key.name == name).expect("key in status")
}

fn digest(status: &SealedEnvStatus, name: &str) -> Option<crate::digest::ValueDigest> {
    value_digests::ValueDigests::read(status).get(name)
}

fn message(status: &SealedEnvStatus) -> &str {
    &status.conditions.iter().find(|c| c.type_ == condition::READY).expect("Ready").message
}

const LOST: (AuditAction, Outcome, Option<&str>) =
    (AuditAction::Repair, Outcome::Failed, Some("KeptValueChanged"));

#[test]
fn a_kept_value_edited_by_hand_stays_and_is_told_of_once() {
    let mut world = kept();
    let edited = || Some(ours_with("12", &[("A", "a"), ("B", "hacked")]));
    let plan = world.plan(edited());
    assert!(plan.steps.is_empty(), "there is no other value, and none would be worse");
    assert_eq!(outcomes(&plan), [LOST]);
    assert_eq!(plan.records[0].keys, ["B"]);
    let [notice] = &plan.notices[..] else { panic!("{:?}", plan.notices) };
    assert!(notice.warning && notice.reason == Reason::KeptValueChanged);
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    let b = key(&plan.status, "B");
    assert_eq!((b.state, b.altered, &b.last_good_at), (KeyState::KeptLast, true, &None));
    assert!(message(&plan.status).ends_with("no longer the last good value: B"));

    world.carry_out(edited(), "12");
    let again = world.plan(edited());
    assert!(again.records.is_empty() && again.notices.is_empty());
    assert_eq!(again.status, world.status, "what was found out is not forgotten");

    // Whoever has the last good value can put it back.
    let mended = world.plan(Some(ours_with("13", &[("A", "a"), ("B", "b")])));
    assert!(!key(&mended.status, "B").altered && mended.records.is_empty());
    world.values = vec![("A", Ok("a")), ("B", Ok("b2"))];
    (world.generation, world.input) = (3, "input3");
    let opened = world.plan(edited());
    assert!(!key(&opened.status, "B").altered);
    assert_eq!(content(applied(&opened).expect("apply")), [("A", "a"), ("B", "b2")]);
}

#[test]
fn what_is_no_edit_of_a_kept_value_raises_no_alarm() {
    let world = kept();
    let good = [("A", "a"), ("B", "b")];
    let mut noted = ours_with("12", &good);
    noted.live.as_mut().unwrap().annotations.insert("example.com/note".into(), "x".into());
    for (what, seen) in [
        ("an annotation", noted),
        ("a key that opens", ours_with("12", &[("A", "hacked"), ("B", "b")])),
        ("a key that nobody asked for", ours_with("12", &[("A", "a"), ("B", "b"), ("EXTRA", "x")])),
        ("the last write, whose status was not written", ours_with("12", &good)),
    ] {
        let plan = world.plan(Some(seen));
        assert!(!outcomes(&plan).contains(&LOST), "{what}");
        assert!(!key(&plan.status, "B").altered, "{what}");
    }
    // The key of the digests was lost: nothing fits, but nobody wrote to the Secret.
    let digests = DigestKey::new([9; 32]);
    let seen =
        |version| Observed { secret: Some(ours_with(version, &good)), former: None, ring: "ring1".into() };
    let new = plan(T0, &world.subject(), seen("11"), world.opened(), &digests);
    assert!(!key(&new.status, "B").altered);
    let world = World { status: new.status, ..world };
    let touched = plan(T0, &world.subject(), seen("12"), world.opened(), &digests);
    assert!(!key(&touched.status, "B").altered, "the new key has been used from then on");
}

#[test]
fn a_value_edited_before_its_key_went_bad_is_not_taken_for_the_last_good_one() {
    let mut world = World::delivered();
    world.values = vec![("A", Ok("a2")), ("B", Err("BadMac"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours_with("11", &[("A", "a"), ("B", "hacked")])));
    assert!(outcomes(&plan).contains(&LOST));
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a2"), ("B", "hacked")]);
}

#[test]
fn a_value_that_somebody_adds_for_a_key_that_never_was_good_is_told_of() {
    let mut world = World { values: vec![("A", Ok("a")), ("B", Err("NoIdentity"))], ..World::default() };
    world.carry_out(None, "10");
    let plan = world.plan(Some(ours_with("11", &[("A", "a"), ("B", "theirs")])));
    assert!(outcomes(&plan).contains(&LOST) && key(&plan.status, "B").altered);
}

#[test]
fn a_kept_value_removed_by_hand_is_told_of_once() {
    let mut world = kept();
    for secret in [None, Some(ours_with("12", &[("A", "a")]))] {
        let plan = world.plan(secret);
        assert!(outcomes(&plan).contains(&LOST));
        assert!(plan.notices.iter().any(|n| n.message.contains("removed B")));
        assert_eq!(state(&plan, "B"), KeyState::Missing);
    }
    world.carry_out(None, "13");
    let again = world.plan(Some(ours_with("13", &[("A", "a")])));
    assert!(again.records.is_empty() && again.notices.is_empty());
    // Under Omit it is the policy that takes it out.
    let mut world = kept();
    world.spec.on_key_error = OnKeyError::Omit;
    world.input = "input3";
    assert!(!outcomes(&world.plan(Some(ours_with("11", &[("A", "a"), ("B", "b")])))).contains(&LOST));
}

#[test]
fn an_edit_is_told_of_also_where_nothing_is_written() {
    let mut world = World::delivered();
    world.spec.on_key_error = OnKeyError::Fail;
    world.values = vec![("A", Ok("a")), ("B", Err("BadMac"))];
    (world.generation, world.input) = (2, "input2");
    let edited = || Some(ours_with("11", &[("A", "a"), ("B", "hacked")]));
    let plan = world.plan(edited());
    assert!(plan.steps.is_empty() && outcomes(&plan).contains(&LOST));
    world.status = plan.status;
    assert!(world.plan(edited()).records.is_empty());
}

#[test]
fn a_status_of_an_older_operator_is_believed() {
    let mut world = kept();
    world.status.value_digests = None;
    let plan = world.plan(Some(ours_with("12", &[("A", "a"), ("B", "b")])));
    assert!(!outcomes(&plan).contains(&LOST));
    assert!(digest(&plan.status, "B").is_some());
    // No Secret was left by delivery in memory, so nobody took anything out of it.
    let mut world = kept();
    world.spec.delivery = Delivery::Memory;
    world.values = vec![("A", Err("BadMac")), ("B", Err("BadMac"))];
    assert!(!outcomes(&world.plan(None)).contains(&LOST));
}

#[test]
fn a_value_that_stays_in_the_secret_of_a_former_name_was_removed_by_nobody() {
    let large: &'static str = Box::leak("x".repeat(content::MAX_SECRET_SIZE).into_boxed_str());
    let renamed = || {
        let mut world = kept();
        world.spec.secret = Some(SecretShape { name: Some("another".into()), ..SecretShape::default() });
        (world.generation, world.input) = (3, "input3");
        world
    };
    let mut fail = renamed();
    fail.spec.on_key_error = OnKeyError::Fail;
    let mut none_opens = renamed();
    none_opens.values = vec![("A", Err("BadMac")), ("B", Err("BadMac"))];
    let mut too_large = renamed();
    too_large.values = vec![("A", Ok(large)), ("B", Err("BadMac"))];
    for (why, world, secret) in [
        ("KeysNotOpened", fail, None),
        ("NothingOpened", none_opens, None),
        ("TooLarge", too_large, None),
        ("SecretNotOurs", renamed(), Some(foreign(false, &[("A", "theirs")]))),
    ] {
        let former = Some(ours_with("11", &[("A", "a"), ("B", "b")]));
        let plan = world.plan_seeing(Observed { secret, former, ring: "ring1".into() });
        assert_eq!(ready(&plan), ("False", why));
        assert!(plan.steps.is_empty() && !outcomes(&plan).contains(&LOST), "{why}");
        // And when it has its name again, it is as it was left.
        let back = World { spec: SealedEnvSpec::default(), status: plan.status, ..kept() };
        let plan = back.plan(Some(ours_with("12", &[("A", "a"), ("B", "b")])));
        assert!(!outcomes(&plan).contains(&LOST) && !key(&plan.status, "B").altered, "{why}");
    }
}

#[test]
fn what_was_noted_under_another_digest_key_is_no_evidence() {
    let mut world = kept();
    let with_new_key = |world: &World, version, b| {
        let secret = Some(ours_with(version, &[("A", "a"), ("B", b)]));
        let observed = Observed { secret, former: None, ring: "ring1".into() };
        plan(T0, &world.subject(), observed, world.opened(), &DigestKey::new([9; 32]))
    };
    let old = world.status.value_digests.clone();
    let touched = with_new_key(&world, "12", "b");
    assert!(!outcomes(&touched).contains(&LOST) && !key(&touched.status, "B").altered);
    assert_ne!(touched.status.value_digests, old, "noted anew");
    world.status = touched.status;
    let edited = with_new_key(&world, "13", "hacked");
    assert!(outcomes(&edited).contains(&LOST), "and from then on it is evidence");

    // What was found out before stays.
    let mut world = kept();
    world.carry_out(Some(ours_with("12", &[("A", "a"), ("B", "hacked")])), "12");
    for version in ["12", "13"] {
        let seen = with_new_key(&world, version, "hacked");
        assert!(key(&seen.status, "B").altered && !outcomes(&seen).contains(&LOST));
    }
}

#[test]
fn what_an_immutable_secret_did_not_take_is_not_missed_in_it() {
    let mut world = World::default();
    world.spec.secret = Some(SecretShape { immutable: true, ..SecretShape::default() });
    world.carry_out(None, "10");
    let seen = |version| {
        let mut secret = ours_with(version, &[("A", "a"), ("B", "b")]);
        secret.live.as_mut().unwrap().immutable = true;
        Some(secret)
    };
    world.values = vec![("A", Ok("a")), ("B", Ok("b2"))];
    (world.generation, world.input) = (2, "input2");
    let refused = world.plan(seen("10"));
    assert_eq!(ready(&refused), ("False", "SecretImmutable"));
    assert_eq!(refused.status.value_digests, world.status.value_digests);
    world.status = refused.status;
    world.values = vec![("A", Ok("a")), ("B", Err("BadMac"))];
    (world.generation, world.input) = (3, "input3");
    let plan = world.plan(seen("11"));
    assert!(!outcomes(&plan).contains(&LOST) && !key(&plan.status, "B").altered);
}
