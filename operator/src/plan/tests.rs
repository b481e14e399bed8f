//! Every row of the decision table in docs/src/reconcile.md.

mod altered;
mod files;

use super::decide::FOREIGN_RECHECK;
use super::*;
use crate::opened::{KeyFault, OpenedKey};
use sealedenv_audit::{Action as AuditAction, Outcome};
use sealedenv_crds::{
    Class, DeletionPolicy, Delivery, KeyMeta, KeyState, OnKeyError, SecretRef, SecretShape, Source,
    condition, names,
};
use sealedenv_seal::Plain;

const T0: Timestamp = Timestamp::constant(1_790_000_000, 0);
const T1: Timestamp = Timestamp::constant(1_790_000_600, 0);

/// One SealedEnv and what is around it.
struct World {
    generation: i64,
    requested_at: Option<&'static str>,
    deleting: bool,
    spec: SealedEnvSpec,
    status: SealedEnvStatus,
    input: &'static str,
    ring: &'static str,
    values: Vec<(&'static str, Result<&'static str, &'static str>)>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            generation: 1,
            requested_at: None,
            deleting: false,
            spec: SealedEnvSpec::default(),
            status: SealedEnvStatus::default(),
            input: "input1",
            ring: "ring1",
            values: vec![("A", Ok("a")), ("B", Ok("b"))],
        }
    }
}

impl World {
    fn subject(&self) -> Subject<'_> {
        Subject {
            namespace: "shop",
            name: "checkout",
            uid: "env-uid",
            generation: self.generation,
            requested_at: self.requested_at,
            deleting: self.deleting,
            spec: &self.spec,
            input: self.input,
            status: &self.status,
        }
    }

    fn opened(&self) -> Opened {
        let key = |value: &Result<&str, &'static str>| OpenedKey {
            source: Source::Sealed,
            class: Class::Secret,
            sealed_to: vec!["00112233aabbccdd".into()],
            value: value
                .map(|v| Plain::from(v.as_bytes().to_vec()))
                .map_err(|reason| KeyFault { reason, message: "why".into() }),
        };
        let keys = self.values.iter().map(|(name, value)| ((*name).to_owned(), key(value)));
        let mut opened = Opened(keys.collect());
        crate::files::add(&self.spec, &mut opened);
        opened
    }

    fn plan(&self, secret: Option<SecretFacts>) -> Plan {
        self.plan_seeing(Observed { secret, former: None, ring: self.ring.into() })
    }

    fn plan_seeing(&self, observed: Observed) -> Plan {
        plan(T0, &self.subject(), observed, self.opened(), &DigestKey::new([1; 32]))
    }

    fn settled(&self, secret: Option<SecretFacts>) -> bool {
        is_settled(
            &Handled::of(&self.status),
            &self.subject(),
            &Observed { secret, former: None, ring: self.ring.into() },
        )
    }

    /// Carries out the first plan: the Secret is there and the status is written.
    fn delivered() -> Self {
        let mut world = Self::default();
        world.carry_out(None, "10");
        world
    }

    fn carry_out(&mut self, secret: Option<SecretFacts>, resource_version: &str) {
        let plan = self.plan(secret);
        self.status = plan.status;
        let written = self.status.secret.get_or_insert_default();
        written.uid = Some("secret-uid".into());
        written.resource_version = Some(resource_version.into());
    }
}

/// Our Secret, seen by its metadata.
fn ours(resource_version: &str) -> SecretFacts {
    SecretFacts {
        uid: "secret-uid".into(),
        resource_version: resource_version.into(),
        ownership: Ownership::Ours,
        deleting: false,
        live: None,
    }
}

/// Our Secret with its content.
fn ours_with(resource_version: &str, content: &[(&str, &str)]) -> SecretFacts {
    SecretFacts { live: Some(live(content)), ..ours(resource_version) }
}

fn live(content: &[(&str, &str)]) -> LiveSecret {
    LiveSecret {
        type_: "Opaque".into(),
        immutable: false,
        owned: true,
        labels: [(names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into())].into(),
        annotations: [(names::OWNER.into(), "checkout".into())].into(),
        content: content.iter().map(|(k, v)| ((*k).to_owned(), Plain::from(v.as_bytes().to_vec()))).collect(),
    }
}

fn foreign(adoptable: bool, content: &[(&str, &str)]) -> SecretFacts {
    let mut live = live(content);
    live.owned = false;
    live.labels.clear();
    live.annotations.clear();
    live.annotations.insert("kubectl.kubernetes.io/last-applied-configuration".into(), "{}".into());
    SecretFacts { ownership: Ownership::Foreign { adoptable }, live: Some(live), ..ours("3") }
}

fn ready(plan: &Plan) -> (&str, &str) {
    let c = plan.status.conditions.iter().find(|c| c.type_ == condition::READY).expect("Ready");
    (&c.status, &c.reason)
}

fn stalled(plan: &Plan) -> bool {
    condition::status_of(&plan.status.conditions, condition::STALLED) == Some("True")
}

fn applied(plan: &Plan) -> Option<&DesiredSecret> {
    plan.steps.iter().find_map(|s| match s {
        Step::Apply(secret) => Some(&**secret),
        Step::Delete { .. } => None,
    })
}

fn content(secret: &DesiredSecret) -> Vec<(&str, &str)> {
    secret.content.iter().map(|(k, v)| (k.as_str(), std::str::from_utf8(v.expose()).unwrap())).collect()
}

fn state(plan: &Plan, key: &str) -> KeyState {
    plan.status.keys.iter().find(|k| k.name == key).expect("key in status").state
}

fn outcomes(plan: &Plan) -> Vec<(AuditAction, Outcome, Option<&str>)> {
    plan.records.iter().map(|r| (r.action, r.outcome, r.reason.as_deref())).collect()
}

// === rows ===

#[test]
fn first_apply_writes_the_secret_and_says_so() {
    let plan = World::default().plan(None);
    let secret = applied(&plan).expect("apply");
    assert_eq!(content(secret), [("A", "a"), ("B", "b")]);
    assert_eq!(secret.over, Over::Nothing);
    assert_eq!(secret.type_, "Opaque");
    assert_eq!(secret.owner.as_ref().map(|o| o.uid.as_str()), Some("env-uid"));
    assert_eq!(ready(&plan), ("True", "Delivered"));
    assert!(!stalled(&plan));
    assert_eq!(plan.status.observed_generation, Some(1));
    assert_eq!(plan.status.keys_ready.as_deref(), Some("2/2"));
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Ok, None)]);
    assert_eq!(plan.records[0].keys, ["A", "B"]);
    assert!(plan.records[0].before.is_none() && plan.records[0].after.is_some());
    assert_eq!(plan.requeue, None);
}

#[test]
fn unchanged_is_settled_without_opening_anything() {
    let world = World::delivered();
    assert!(world.settled(Some(ours("10"))));
    for (why, settled) in [
        ("edited", world.settled(Some(ours("11")))),
        ("deleted", world.settled(None)),
        ("being deleted", world.settled(Some(SecretFacts { deleting: true, ..ours("10") }))),
        (
            "not ours",
            world.settled(Some(SecretFacts { ownership: Ownership::Another("x".into()), ..ours("10") })),
        ),
    ] {
        assert!(!settled, "{why}");
    }
    assert!(!World { input: "input2", ..World::delivered() }.settled(Some(ours("10"))));
    assert!(!World { generation: 2, ..World::delivered() }.settled(Some(ours("10"))));
    assert!(!World { requested_at: Some("now"), ..World::delivered() }.settled(Some(ours("10"))));
}

#[test]
fn unchanged_but_asked_for_writes_only_the_answer() {
    let world = World { requested_at: Some("now"), ..World::delivered() };
    let plan = world.plan(Some(ours_with("10", &[("A", "a"), ("B", "b")])));
    assert!(plan.steps.is_empty() && plan.records.is_empty() && plan.notices.is_empty());
    assert_eq!(plan.status.last_handled_reconcile_at.as_deref(), Some("now"));
    assert_eq!(
        SealedEnvStatus { last_handled_reconcile_at: None, ..plan.status },
        world.status,
        "nothing else changes"
    );
}

#[test]
fn one_key_bad_keeps_its_last_value() {
    let mut world = World::delivered();
    world.values = vec![("A", Ok("a2")), ("B", Err("ScopeMismatch"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours_with("10", &[("A", "a"), ("B", "b")])));
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a2"), ("B", "b")]);
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert!(stalled(&plan));
    assert_eq!((state(&plan, "A"), state(&plan, "B")), (KeyState::Ready, KeyState::KeptLast));
    let b = plan.status.keys.iter().find(|k| k.name == "B").unwrap();
    assert_eq!(b.reason.as_deref(), Some("ScopeMismatch"));
    assert_eq!(b.last_good_at, world.status.keys[1].last_good_at);
    assert_eq!(
        outcomes(&plan),
        [
            (AuditAction::Reconcile, Outcome::Ok, None),
            (AuditAction::Reconcile, Outcome::Refused, Some("ScopeMismatch"))
        ]
    );
    assert_eq!(plan.records[1].keys, ["B"]);
    assert!(plan.notices.iter().any(|n| n.warning && n.message.contains("B: ScopeMismatch")));
    assert_eq!(plan.requeue, None, "retried when keys change, not in a loop");

    world.carry_out(Some(ours_with("10", &[("A", "a"), ("B", "b")])), "11");
    assert!(world.settled(Some(ours("11"))), "not tried again with the same keys");
    assert!(!World { ring: "ring2", ..world }.settled(Some(ours("11"))), "tried again with other keys");
}

#[test]
fn one_key_bad_is_omitted_under_omit() {
    let mut world = World::delivered();
    world.spec.on_key_error = OnKeyError::Omit;
    world.values = vec![("A", Ok("a")), ("B", Err("NoIdentity"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a")]);
    assert_eq!((state(&plan, "A"), state(&plan, "B")), (KeyState::Ready, KeyState::Missing));
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
}

#[test]
fn one_key_bad_writes_nothing_under_fail() {
    let mut world = World::delivered();
    world.spec.on_key_error = OnKeyError::Fail;
    world.values = vec![("A", Ok("a2")), ("B", Err("BadMac"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    assert_eq!((state(&plan, "A"), state(&plan, "B")), (KeyState::NotWritten, KeyState::KeptLast));
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert_eq!(plan.status.digest, world.status.digest, "what is delivered did not change");
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Refused, Some("BadMac"))]);
}

#[test]
fn a_bad_key_that_never_was_good_is_missing() {
    let world = World { values: vec![("A", Ok("a")), ("B", Err("NoIdentity"))], ..World::default() };
    let plan = world.plan(None);
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a")]);
    assert_eq!(state(&plan, "B"), KeyState::Missing);
    assert_eq!(plan.status.keys_ready.as_deref(), Some("1/2"));
}

#[test]
fn all_bad_writes_nothing_and_empties_nothing() {
    for policy in [OnKeyError::KeepLast, OnKeyError::Omit, OnKeyError::Fail] {
        let mut world =
            World { values: vec![("A", Err("NoIdentity")), ("B", Err("NoIdentity"))], ..World::delivered() };
        world.spec.on_key_error = policy;
        let plan = world.plan(Some(ours_with("10", &[("A", "a"), ("B", "b")])));
        assert!(plan.steps.is_empty(), "{policy:?}");
        assert!(stalled(&plan));
        assert_eq!(state(&plan, "A"), KeyState::KeptLast);
        let first =
            World { values: world.values.clone(), spec: world.spec.clone(), ..World::default() }.plan(None);
        assert!(first.steps.is_empty(), "no empty Secret: {policy:?}");
        assert_eq!(state(&first, "A"), KeyState::Missing);
    }
}

#[test]
fn a_removed_key_leaves_the_secret() {
    let mut world = World { values: vec![("A", Ok("a"))], ..World::delivered() };
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a")]);
    assert_eq!(plan.status.keys.len(), 1);
    assert_eq!(ready(&plan), ("True", "Delivered"));
}

#[test]
fn suspended_does_nothing_and_keeps_the_verdict() {
    let mut world = World::delivered();
    world.spec.suspend = true;
    (world.generation, world.input) = (2, "input2");
    world.values = vec![("A", Ok("new"))];
    let plan = world.plan(None);
    assert!(plan.steps.is_empty() && plan.records.is_empty());
    assert_eq!(ready(&plan), ("True", "Suspended"));
    assert_eq!(plan.status.observed_generation, Some(2));
    assert_eq!(plan.status.digest, world.status.digest);
    let settled = World { status: plan.status, ..world };
    assert!(settled.settled(None), "a Secret deleted by hand is not put back while suspended");
}

#[test]
fn suspended_at_fault_stays_stalled() {
    let mut world = World { values: vec![("A", Err("NoIdentity"))], ..World::default() };
    world.status = world.plan(None).status;
    world.spec.suspend = true;
    (world.generation, world.input) = (2, "input2");
    for _ in 0..2 {
        let plan = world.plan(None);
        assert_eq!(ready(&plan), ("False", "Suspended"));
        let fault = plan.status.conditions.iter().find(|c| c.type_ == condition::STALLED).expect("Stalled");
        assert_eq!((fault.reason.as_str(), fault.observed_generation), ("NothingOpened", Some(2)));
        world.status = plan.status;
    }
    let fresh = World { spec: world.spec.clone(), ..World::default() }.plan(None);
    assert_eq!((ready(&fresh), stalled(&fresh)), (("Unknown", "Suspended"), false));
}

#[test]
fn a_foreign_secret_is_left_alone() {
    let plan = World::default().plan(Some(foreign(false, &[("A", "theirs")])));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "SecretNotOurs"));
    assert!(stalled(&plan));
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Refused, Some("SecretNotOurs"))]);
    assert_eq!(plan.requeue, Some(FOREIGN_RECHECK));
    assert_eq!(plan.status.secret, None, "it is not claimed either");

    let again =
        World { status: plan.status, ..World::default() }.plan(Some(foreign(false, &[("A", "theirs")])));
    assert!(again.records.is_empty() && again.notices.is_empty(), "said once");
}

#[test]
fn the_secret_of_another_sealed_env_is_left_alone() {
    let other = SecretFacts { ownership: Ownership::Another("billing".into()), ..ours("3") };
    let plan = World::default().plan(Some(other));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "SecretOwnedByAnother"));
}

#[test]
fn adoption_takes_over_what_is_handed_over() {
    let plan = World::default().plan(Some(foreign(true, &[("A", "theirs")])));
    let secret = applied(&plan).expect("apply");
    assert_eq!(content(secret), [("A", "a"), ("B", "b")]);
    let Over::This { uid, resource_version, strip_keys, strip_annotations } = &secret.over else {
        panic!("a precondition")
    };
    assert_eq!((uid.as_str(), resource_version.as_str()), ("secret-uid", "3"));
    assert!(strip_keys.is_empty());
    assert_eq!(strip_annotations, &["kubectl.kubernetes.io/last-applied-configuration"]);
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Ok, None)]);
}

#[test]
fn adoption_that_would_lose_a_key_is_refused() {
    let plan = World::default().plan(Some(foreign(true, &[("A", "theirs"), ("ONLY_THERE", "x")])));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "AdoptionWouldLoseKeys"));
    assert!(plan.notices[0].message.contains("ONLY_THERE"));
}

#[test]
fn an_immutable_secret_is_not_changed() {
    let mut world = World::default();
    world.spec.secret = Some(SecretShape { immutable: true, ..SecretShape::default() });
    world.carry_out(None, "10");
    assert!(world.status.secret.as_ref().unwrap().immutable);
    world.values = vec![("A", Ok("a2")), ("B", Ok("b"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "SecretImmutable"));
    assert!(stalled(&plan));
    assert_eq!(plan.status.digest, world.status.digest);
    assert_eq!(state(&plan, "B"), KeyState::NotWritten);
    assert_eq!(plan.status.keys[1].last_good_at, world.status.keys[1].last_good_at);

    world.spec.secret.as_mut().unwrap().immutable = false;
    world.values = vec![("A", Ok("a")), ("B", Ok("b"))];
    assert_eq!(ready(&world.plan(Some(ours("10")))), ("False", "SecretImmutable"), "cannot be undone either");

    world.spec.secret.as_mut().unwrap().name = Some("checkout-2".into());
    let renamed =
        world.plan_seeing(Observed { secret: None, former: Some(ours("10")), ring: "ring1".into() });
    assert_eq!(applied(&renamed).expect("apply").name, "checkout-2");
}

#[test]
fn a_last_good_value_moves_with_the_secret_to_its_new_name() {
    let mut world = World::delivered();
    world.values = vec![("A", Ok("a2")), ("B", Err("BadMac"))];
    world.spec.secret = Some(SecretShape { name: Some("checkout-2".into()), ..SecretShape::default() });
    (world.generation, world.input) = (2, "input2");
    let former = Some(ours_with("10", &[("A", "a"), ("B", "b")]));
    let plan = world.plan_seeing(Observed { secret: None, former, ring: "ring1".into() });
    let secret = applied(&plan).expect("apply");
    assert_eq!((secret.name.as_str(), content(secret)), ("checkout-2", vec![("A", "a2"), ("B", "b")]));
    assert_eq!(plan.status.keys[1].state, KeyState::KeptLast);
    assert!(matches!(&plan.steps[1], Step::Delete { name, .. } if name == "checkout"));
    // What the new one holds counts more.
    let former = Some(ours_with("10", &[("A", "a"), ("B", "b")]));
    let secret = Some(ours_with("11", &[("A", "a"), ("B", "b-newer")]));
    let plan = world.plan_seeing(Observed { secret, former, ring: "ring1".into() });
    assert_eq!(content(applied(&plan).expect("apply")), [("A", "a2"), ("B", "b-newer")]);
}

#[test]
fn a_changed_type_is_refused() {
    let mut world = World::delivered();
    world.spec.secret =
        Some(SecretShape { type_: Some("kubernetes.io/tls".into()), ..SecretShape::default() });
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "SecretTypeChanged"));
}

#[test]
fn a_secret_edited_by_hand_is_repaired() {
    let world = World::delivered();
    let plan = world.plan(Some(ours_with("11", &[("A", "hacked"), ("B", "b"), ("EXTRA", "x")])));
    let secret = applied(&plan).expect("apply");
    assert_eq!(content(secret), [("A", "a"), ("B", "b")]);
    let Over::This { resource_version, strip_keys, .. } = &secret.over else { panic!("a precondition") };
    assert_eq!(resource_version, "11");
    assert_eq!(strip_keys, &["EXTRA"]);
    assert_eq!(outcomes(&plan), [(AuditAction::Repair, Outcome::Ok, Some("Repaired"))]);
    assert_eq!(ready(&plan), ("True", "Delivered"));
}

#[test]
fn a_harmless_edit_of_its_metadata_is_only_noted() {
    let world = World::delivered();
    let mut seen = ours_with("11", &[("A", "a"), ("B", "b")]);
    seen.live.as_mut().unwrap().annotations.insert("example.com/note".into(), "x".into());
    let plan = world.plan(Some(seen));
    assert!(plan.steps.is_empty() && plan.records.is_empty());
    assert_eq!(plan.status.secret.as_ref().unwrap().resource_version.as_deref(), Some("11"));
}

#[test]
fn a_secret_deleted_by_hand_is_put_back() {
    let plan = World::delivered().plan(None);
    assert_eq!(applied(&plan).expect("apply").over, Over::Nothing);
    assert_eq!(outcomes(&plan), [(AuditAction::Repair, Outcome::Ok, Some("Repaired"))]);
}

#[test]
fn a_secret_being_deleted_is_waited_for() {
    let plan = World::delivered().plan(Some(SecretFacts { deleting: true, ..ours("10") }));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("Unknown", "SecretDeleting"));
    assert_eq!(condition::status_of(&plan.status.conditions, condition::RECONCILING), Some("True"));
    assert!(plan.requeue.is_some());
}

#[test]
fn too_large_for_a_secret_writes_nothing() {
    let big: &'static str = Box::leak("x".repeat(content::MAX_SECRET_SIZE - 1).into_boxed_str());
    let fits = World { values: vec![("A", Ok(big)), ("B", Ok("b"))], ..World::default() };
    assert!(applied(&fits.plan(None)).is_some(), "exactly the limit");
    let over = World { values: vec![("A", Ok(big)), ("B", Ok("bb"))], ..World::default() };
    let plan = over.plan(None);
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "TooLarge"));
}

#[test]
fn deletion_is_left_to_the_garbage_collector_under_delete() {
    let world = World { deleting: true, ..World::delivered() };
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty() && plan.records.is_empty());
    assert_eq!(plan.status, world.status);
    assert!(world.settled(None));
}

#[test]
fn retain_sets_no_owner_reference() {
    let mut world = World::default();
    world.spec.deletion_policy = DeletionPolicy::Retain;
    assert!(applied(&world.plan(None)).expect("apply").owner.is_none());

    let mut world = World::delivered();
    world.spec.deletion_policy = DeletionPolicy::Retain;
    (world.generation, world.input) = (2, "input2");
    assert!(applied(&world.plan(Some(ours("10")))).expect("apply").owner.is_none(), "and takes one back");
}

#[test]
fn a_renamed_secret_is_moved_under_delete_and_left_under_retain() {
    for (policy, deleted) in [(DeletionPolicy::Delete, true), (DeletionPolicy::Retain, false)] {
        let mut world = World::delivered();
        world.spec.deletion_policy = policy;
        world.spec.secret = Some(SecretShape { name: Some("other".into()), ..SecretShape::default() });
        (world.generation, world.input) = (2, "input2");
        let plan =
            world.plan_seeing(Observed { secret: None, former: Some(ours("10")), ring: "ring1".into() });
        assert_eq!(applied(&plan).expect("apply").name, "other");
        let removed =
            plan.steps.iter().skip(1).any(|s| matches!(s, Step::Delete { name, .. } if name == "checkout"));
        assert_eq!(removed, deleted, "{policy:?}: the new one first, then the old one");
        assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Ok, None)]);
    }
}

#[test]
fn what_the_crd_forbids_the_plan_forbids_too() {
    let shape = |f: fn(&mut SecretShape)| {
        let mut spec = SealedEnvSpec::default();
        f(spec.secret.get_or_insert_default());
        spec
    };
    let mut secret_in_plain = SealedEnvSpec::default();
    secret_in_plain.public.insert("A".into(), "hunter2".into());
    secret_in_plain.meta.insert("A".into(), KeyMeta { class: Some(Class::Secret), ..KeyMeta::default() });
    for spec in [
        shape(|s| s.type_ = Some("kubernetes.io/service-account-token".into())),
        shape(|s| s.type_ = Some("bootstrap.kubernetes.io/token".into())),
        shape(|s| s.type_ = Some("helm.sh/release.v1".into())),
        shape(|s| s.type_ = Some("Kubernetes.io/TLS".into())),
        shape(|s| drop(s.labels.insert("app.kubernetes.io/managed-by".into(), "x".into()))),
        shape(|s| drop(s.annotations.insert("Kubernetes.io/service-account.name".into(), "x".into()))),
        shape(|s| drop(s.annotations.insert("sealedenv.dev/adopt".into(), "true".into()))),
        secret_in_plain,
    ] {
        let plan = World { spec, ..World::default() }.plan(None);
        assert!(plan.steps.is_empty());
        assert_eq!(ready(&plan), ("False", "InvalidSpec"));
        assert!(!plan.notices[0].message.contains("hunter2"));
    }
}

#[test]
fn a_plan_that_was_carried_out_gives_an_empty_one() {
    let mut world = World { values: vec![("A", Ok("a")), ("B", Err("NoIdentity"))], ..World::default() };
    world.carry_out(None, "10");
    assert!(world.settled(Some(ours("10"))));
    let again = plan(
        T1,
        &world.subject(),
        Observed { secret: Some(ours_with("10", &[("A", "a")])), former: None, ring: "ring1".into() },
        world.opened(),
        &DigestKey::new([1; 32]),
    );
    assert!(again.steps.is_empty() && again.records.is_empty() && again.notices.is_empty());
    assert_eq!(again.status, world.status, "the clock alone changes nothing");
}

#[test]
fn no_status_record_or_notice_holds_a_value() {
    let canary = "canary-7f3a";
    let world = World { values: vec![("A", Ok(canary)), ("B", Err("BadMac"))], ..World::delivered() };
    for seen in
        [None, Some(ours_with("11", &[("A", canary), ("B", canary)])), Some(foreign(true, &[("A", canary)]))]
    {
        let plan = world.plan(seen);
        let text = format!("{:?} {:?} {:?}", plan.status, plan.records, plan.notices);
        assert!(!text.contains(canary));
    }
}

#[test]
fn the_written_secret_is_named_in_the_status() {
    let plan = World::default().plan(None);
    let wanted = SecretRef {
        name: "checkout".into(),
        uid: None,
        resource_version: None,
        type_: Some("Opaque".into()),
        immutable: false,
    };
    assert_eq!(plan.status.secret, Some(wanted));
}

/// With delivery Memory, and no Secret of ours left.
fn in_memory() -> World {
    World {
        spec: SealedEnvSpec { delivery: Delivery::Memory, ..SealedEnvSpec::default() },
        ..World::default()
    }
}

fn applies(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Apply(_)))
}

#[test]
fn in_memory_no_secret_is_ever_written() {
    let mut world = in_memory();
    for secret in [None, Some(ours("10")), Some(foreign(true, &[("A", "x")])), Some(ours_with("10", &[]))] {
        for policy in [OnKeyError::KeepLast, OnKeyError::Omit, OnKeyError::Fail] {
            world.spec.on_key_error = policy;
            let plan = world.plan(secret_again(secret.as_ref()));
            assert!(!applies(&plan));
            assert_eq!(plan.status.secret, None);
        }
    }
}

fn secret_again(secret: Option<&SecretFacts>) -> Option<SecretFacts> {
    let secret = secret?;
    Some(SecretFacts {
        live: None,
        uid: secret.uid.clone(),
        ownership: secret.ownership.clone(),
        ..ours("10")
    })
}

#[test]
fn in_memory_is_ready_when_the_keys_open_and_then_settled() {
    let mut world = in_memory();
    let plan = world.plan(None);
    assert_eq!(ready(&plan), ("True", "Delivered"));
    assert!(plan.steps.is_empty() && plan.records.is_empty(), "nothing was released");
    assert_eq!(plan.status.keys_ready.as_deref(), Some("2/2"));
    assert!(plan.status.digest.is_some());
    assert_eq!(plan.notices.len(), 1);
    world.status = plan.status;
    assert!(world.settled(None));
    let again = world.plan(None);
    assert_eq!(again.status, world.status);
    assert!(again.notices.is_empty());
    assert!(!world.settled(Some(ours("10"))), "a Secret of ours that stands there has to go");
    assert!(world.settled(Some(foreign(true, &[]))), "somebody else's is none of our business");
}

#[test]
fn a_secret_from_before_goes_when_delivery_becomes_memory() {
    let mut world = World::delivered();
    world.spec.delivery = Delivery::Memory;
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours("10")));
    let [Step::Delete { name, uid }] = &plan.steps[..] else { panic!("one deletion") };
    assert_eq!((name.as_str(), uid.as_str()), ("checkout", "secret-uid"));
    assert_eq!(plan.records.len(), 1);
    assert_eq!((plan.records[0].action, plan.records[0].outcome), (AuditAction::Delete, Outcome::Ok));
    assert_eq!(ready(&plan), ("True", "Delivered"));
    assert_eq!(plan.status.secret, None);

    // Under Retain it is left to its user, and the operator is done with it.
    world.spec.deletion_policy = DeletionPolicy::Retain;
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    world.status = plan.status;
    assert!(world.settled(Some(ours("10"))));
}

#[test]
fn a_secret_with_the_last_good_value_of_a_key_stays_until_every_key_opens() {
    let mut world = World::delivered();
    world.spec.delivery = Delivery::Memory;
    (world.generation, world.input) = (2, "input2");
    world.values = vec![("A", Ok("a")), ("B", Err("BadMac"))];
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert_eq!(plan.status.secret, world.status.secret, "it is not lost sight of");
    world.status = plan.status;
    let again = world.plan(Some(ours("10")));
    assert!(again.steps.is_empty() && again.records.is_empty() && again.notices.is_empty());
    assert_eq!(again.status, world.status, "nothing is written for it");

    world.values = vec![("A", Ok("a")), ("B", Ok("b2"))];
    (world.generation, world.input) = (3, "input3");
    let plan = world.plan(Some(ours("10")));
    assert!(matches!(&plan.steps[..], [Step::Delete { name, .. }] if name == "checkout"));
    assert_eq!(plan.status.secret, None);

    // Whoever does not want it kept says so.
    world.values = vec![("A", Ok("a")), ("B", Err("BadMac"))];
    world.spec.on_key_error = OnKeyError::Omit;
    assert_eq!(world.plan(Some(ours("10"))).steps.len(), 1);
}

#[test]
fn a_former_secret_of_another_name_goes_as_well() {
    let mut world = World::delivered();
    world.spec.delivery = Delivery::Memory;
    world.spec.secret = Some(SecretShape { name: Some("new".into()), ..SecretShape::default() });
    let observed = Observed { secret: None, former: Some(ours("10")), ring: world.ring.into() };
    let plan = world.plan_seeing(observed);
    assert!(matches!(&plan.steps[..], [Step::Delete { name, .. }] if name == "checkout"));
}

#[test]
fn in_memory_a_bad_key_is_told_and_the_others_are_ready() {
    let mut world = in_memory();
    world.values = vec![("A", Ok("a")), ("B", Err("ScopeMismatch"))];
    let plan = world.plan(None);
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert_eq!(plan.status.keys_ready.as_deref(), Some("1/2"));
    assert_eq!(plan.status.keys[1].state, KeyState::Missing);
    assert_eq!(plan.records.len(), 1, "the refusal");
    assert!(plan.notices[0].warning);
    world.spec.on_key_error = OnKeyError::Fail;
    let plan = world.plan(None);
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert_eq!(plan.status.keys[0].state, KeyState::NotWritten);
}

#[test]
fn allow_is_refused_where_it_would_not_hold() {
    let mut world = World::default();
    world.spec.allow = Some(sealedenv_crds::Allow { service_accounts: vec!["checkout".into()] });
    assert_eq!(ready(&world.plan(None)), ("False", "InvalidSpec"));
    world.spec.delivery = Delivery::Memory;
    assert_eq!(ready(&world.plan(None)), ("True", "Delivered"));
}
