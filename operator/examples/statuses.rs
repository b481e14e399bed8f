//! Writes every status that the operator can give, as whole objects, into the folder given as the only argument:
//! `SealedEnv/*.yaml` and `SealingKey/*.yaml`. `cargo xtask gen` calls it; the tests of `gitops/` read the files.
//!
//! Nothing here is written down by hand: each status comes from the operator's own decisions, row by row of the table
//! in docs/src/reconcile.md. It fails when a reason of the operator appears in no file.

// What it builds on is fixed, so a failure is a defect and may end it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sealedenv_crds::condition::READY;
use sealedenv_crds::{
    Class, KeyMeta, OnKeyError, SealedEnv, SealedEnvSpec, SealedEnvStatus, SealingKey, SealingKeySpec,
    SealingKeyStatus, SecretShape, Source, names,
};
use sealedenv_operator::digest::{DigestKey, input};
use sealedenv_operator::keys::decide::{self, KeyFact, KeyReport};
use sealedenv_operator::opened::{KeyFault, Opened, OpenedKey};
use sealedenv_operator::plan::{self, LiveSecret, Observed, Ownership, SecretFacts, Step, Subject};
use sealedenv_operator::reason::Reason;
use sealedenv_operator::undecodable;
use sealedenv_seal::Plain;
use serde_json::{Value, json};

/// When the first status is written, and when the next one is.
const T0: Timestamp = Timestamp::constant(1_790_000_000, 0);
const T1: Timestamp = Timestamp::constant(1_790_000_600, 0);

const HEADER: &str = "# Generated from the operator's decisions by `cargo xtask gen`. Do not edit.\n";

fn main() {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).expect("usage: statuses FOLDER");
    let envs = envs();
    for reason in Reason::ALL {
        let told = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == READY && c["reason"] == reason.as_str())
        };
        // Repaired and KeptValueChanged stand in Events and records only.
        assert!(
            matches!(reason, Reason::Repaired | Reason::KeptValueChanged)
                || envs.iter().any(|(_, object)| told(object)),
            "no status has the reason {}: add a case",
            reason.as_str()
        );
    }
    write(&folder.join("SealedEnv"), envs);
    write(&folder.join("SealingKey"), keys());
}

fn write(folder: &Path, objects: Vec<(&'static str, Value)>) {
    std::fs::create_dir_all(folder).expect("making the folder");
    let count = objects.len();
    let files: BTreeMap<_, _> = objects.into_iter().collect();
    assert_eq!(files.len(), count, "two cases have one name");
    for (name, object) in files {
        let yaml = serde_saphyr::to_string(&object).expect("YAML");
        std::fs::write(folder.join(format!("{name}.yaml")), format!("{HEADER}{yaml}")).expect("writing");
    }
}

// === SealedEnvs ===

/// One SealedEnv at one moment.
#[derive(Clone)]
struct Env {
    now: Timestamp,
    generation: i64,
    requested_at: Option<&'static str>,
    deleting: bool,
    spec: SealedEnvSpec,
    status: SealedEnvStatus,
    /// The values by key, or why one does not open.
    values: Vec<(&'static str, Result<String, &'static str>)>,
}

/// As the API server stores a new one: the CRD's default is all the status there is.
fn new() -> Env {
    let mut spec = SealedEnvSpec::default();
    for key in ["TOKEN", "USER"] {
        spec.data.insert(key.into(), "sealed:v1:YWdl".into());
    }
    let status = SealedEnvStatus { observed_generation: Some(-1), ..SealedEnvStatus::default() };
    let values = vec![("TOKEN", Ok("hunter2".into())), ("USER", Ok("alice".into()))];
    Env { now: T0, generation: 1, requested_at: None, deleting: false, spec, status, values }
}

fn delivered() -> Env {
    new().planned(None)
}

/// One whose TOKEN does not open, and is in no Secret.
fn failing() -> Env {
    new().without("TOKEN").without("USER").planned(None)
}

impl Env {
    /// After somebody changed the spec.
    fn changed(mut self, change: impl FnOnce(&mut SealedEnvSpec)) -> Self {
        change(&mut self.spec);
        self.now = T1;
        self.generation += 1;
        self
    }

    /// With a value that does not open.
    fn without(mut self, key: &str) -> Self {
        let value = self.values.iter_mut().find(|(name, _)| *name == key).expect("key");
        value.1 = Err("NoIdentity");
        self
    }

    /// After a reconcile that saw this Secret and was carried out.
    fn planned(mut self, secret: Option<SecretFacts>) -> Self {
        let fingerprint = input(&self.spec, None);
        let observed = Observed { secret, former: None, ring: "ring".into() };
        let decided = plan::plan(
            self.now,
            &self.subject(&fingerprint),
            observed,
            self.opened(),
            &DigestKey::new([1; 32]),
        );
        self.status = decided.status;
        let writes = decided.steps.iter().any(|step| matches!(step, Step::Apply(_)));
        if let Some(written) = self.status.secret.as_mut().filter(|_| writes) {
            written.uid = Some("5e2f4a0c-0000-4000-8000-000000000002".into());
            written.resource_version = Some("1002".into());
        }
        self
    }

    /// After a reconcile that could not be carried out.
    fn held_up(mut self, reason: Reason, message: &str) -> Self {
        let fingerprint = input(&self.spec, None);
        self.status = plan::held_up(self.now, &self.subject(&fingerprint), reason, message.into());
        self
    }

    fn subject<'a>(&'a self, input: &'a str) -> Subject<'a> {
        Subject {
            namespace: "shop",
            name: "checkout",
            uid: "5e2f4a0c-0000-4000-8000-000000000001",
            generation: self.generation,
            requested_at: self.requested_at,
            deleting: self.deleting,
            spec: &self.spec,
            input,
            status: &self.status,
        }
    }

    fn opened(&self) -> Opened {
        let key = |value: &Result<String, &'static str>| OpenedKey {
            source: Source::Sealed,
            class: Class::Secret,
            sealed_to: vec!["00112233aabbccdd".into()],
            value: value
                .clone()
                .map(|v| Plain::from(v.into_bytes()))
                .map_err(|reason| KeyFault { reason, message: "no key of this cluster opens it".into() }),
        };
        Opened(self.values.iter().map(|(name, value)| ((*name).to_owned(), key(value))).collect())
    }

    /// The whole object as the API server would show it.
    fn object(self) -> Value {
        let mut env = SealedEnv::new("checkout", self.spec);
        env.metadata.namespace = Some("shop".into());
        env.metadata.uid = Some("5e2f4a0c-0000-4000-8000-000000000001".into());
        env.metadata.resource_version = Some("1003".into());
        env.metadata.generation = Some(self.generation);
        env.metadata.creation_timestamp = Some(Time(T0));
        let asked = self.requested_at.map(|at| [(names::REQUESTED_AT.to_owned(), at.to_owned())].into());
        env.metadata.annotations = asked;
        if self.deleting {
            env.metadata.deletion_timestamp = Some(Time(T1));
            env.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
        }
        env.status = Some(self.status);
        serde_json::to_value(env).expect("JSON")
    }
}

/// Our Secret.
fn ours(content: &[(&str, &str)]) -> SecretFacts {
    let live = LiveSecret {
        type_: "Opaque".into(),
        immutable: false,
        owned: true,
        labels: [(names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into())].into(),
        annotations: [(names::OWNER.into(), "checkout".into())].into(),
        content: content.iter().map(|(k, v)| ((*k).to_owned(), Plain::from(v.as_bytes().to_vec()))).collect(),
    };
    SecretFacts {
        uid: "5e2f4a0c-0000-4000-8000-000000000002".into(),
        resource_version: "1002".into(),
        ownership: Ownership::Ours,
        deleting: false,
        live: Some(live),
    }
}

const WHOLE: &[(&str, &str)] = &[("TOKEN", "hunter2"), ("USER", "alice")];

fn somebodys(ownership: Ownership) -> SecretFacts {
    SecretFacts { ownership, ..ours(WHOLE) }
}

fn envs() -> Vec<(&'static str, Value)> {
    let api_error = "the API server refused to write Secret checkout (403 Forbidden); it is tried again";
    let put_off = "Secret checkout is changed or deleted again and again by somebody else (9 repairs in a row); the next repair waits up to 16 s";
    let no_audit = "no audit sink takes records, so nothing is released; it is tried again";
    let suspend = |spec: &mut SealedEnvSpec| spec.suspend = true;
    let nothing = |_: &mut SealedEnvSpec| {};
    let asked = |at, env: Env| Env { requested_at: Some(at), ..env };

    let mut immutable = ours(WHOLE);
    immutable.live.as_mut().unwrap().immutable = true;
    let mut typed = ours(WHOLE);
    typed.live.as_mut().unwrap().type_ = "kubernetes.io/tls".into();
    let more = [WHOLE, &[("OTHER", "theirs")]].concat();
    let handed_over = SecretFacts { ownership: Ownership::Foreign { adoptable: true }, ..ours(&more) };
    let mut large = new();
    large.values[0].1 = Ok("x".repeat(1 << 20));

    let all = vec![
        ("new", new()),
        ("delivered", delivered()),
        ("changed", delivered().changed(nothing)),
        ("changed-after-fault", failing().changed(nothing)),
        ("changed-and-delivered", delivered().changed(nothing).planned(Some(ours(WHOLE)))),
        ("asked", asked("1", delivered())),
        ("asked-and-answered", asked("1", delivered()).planned(Some(ours(WHOLE)))),
        ("repaired", delivered().planned(Some(SecretFacts { resource_version: "9".into(), ..ours(&more) }))),
        ("adopted", new().planned(Some(somebodys(Ownership::Foreign { adoptable: true })))),
        ("one-key-keeps-its-last-value", delivered().without("TOKEN").planned(Some(ours(WHOLE)))),
        ("one-key-is-missing", new().without("TOKEN").planned(None)),
        (
            "one-key-is-omitted",
            new().changed(|spec| spec.on_key_error = OnKeyError::Omit).without("TOKEN").planned(None),
        ),
        (
            "one-key-stops-all",
            new().changed(|spec| spec.on_key_error = OnKeyError::Fail).without("TOKEN").planned(None),
        ),
        ("no-key-opens", failing()),
        (
            "spec-is-not-allowed",
            new()
                .changed(|spec| {
                    spec.public.insert("MODE".into(), "live".into());
                    let class = Some(Class::Secret);
                    spec.meta.insert("MODE".into(), KeyMeta { class, ..KeyMeta::default() });
                })
                .planned(None),
        ),
        ("secret-is-not-ours", new().planned(Some(somebodys(Ownership::Foreign { adoptable: false })))),
        ("secret-is-anothers", new().planned(Some(somebodys(Ownership::Another("billing".into()))))),
        ("secret-is-being-deleted", delivered().planned(Some(SecretFacts { deleting: true, ..ours(WHOLE) }))),
        ("secret-has-more-keys", new().planned(Some(handed_over))),
        ("secret-is-immutable", delivered().changed(nothing).planned(Some(immutable))),
        ("secret-has-another-type", delivered().changed(nothing).planned(Some(typed))),
        (
            "secret-is-renamed",
            delivered()
                .changed(|spec| {
                    spec.secret = Some(SecretShape { name: Some("other".into()), ..SecretShape::default() });
                })
                .planned(None),
        ),
        (
            "secret-is-refused",
            new().held_up(
                Reason::SecretRefused,
                "the API server does not take Secret checkout (422 Invalid): check that the keys are those its type asks for",
            ),
        ),
        ("too-large", large.planned(None)),
        ("api-error", new().held_up(Reason::ApiError, api_error)),
        ("api-error-after-delivery", delivered().changed(nothing).held_up(Reason::ApiError, api_error)),
        ("api-error-after-fault", failing().changed(nothing).held_up(Reason::ApiError, api_error)),
        ("repair-is-put-off", delivered().held_up(Reason::RepairPaused, put_off)),
        ("no-audit", new().held_up(Reason::AuditUnavailable, no_audit)),
        ("no-audit-after-delivery", delivered().held_up(Reason::AuditUnavailable, no_audit)),
        ("suspension-not-seen", delivered().changed(suspend)),
        ("suspended", delivered().changed(suspend).planned(Some(ours(WHOLE)))),
        ("suspended-at-first", new().changed(suspend).planned(None)),
        ("suspended-after-fault", failing().changed(suspend).planned(None)),
        (
            "suspended-after-api-error",
            new().held_up(Reason::ApiError, api_error).changed(suspend).planned(None),
        ),
        (
            "resumed",
            (delivered().changed(suspend).planned(Some(ours(WHOLE))))
                .changed(|spec| spec.suspend = false)
                .planned(Some(ours(WHOLE))),
        ),
        ("deleting", Env { deleting: true, ..delivered() }),
        ("deleting-after-fault", Env { deleting: true, ..failing() }),
    ];
    let mut all: Vec<(&'static str, Value)> =
        all.into_iter().map(|(name, env)| (name, env.object())).collect();

    all.extend(undecodables());
    all
}

/// Objects as a CRD of another version would let them in.
fn undecodables() -> [(&'static str, Value); 2] {
    [("undecodable", new()), ("undecodable-after-delivery", delivered().changed(|_| ()))].map(
        |(name, env)| {
            let verdict = undecodable::verdict(env.now, Some(env.generation), &env.status.conditions);
            let status = json!({ "observedGeneration": env.generation, "conditions": verdict });
            let mut object = env.object();
            object["spec"]["onKeyError"] = json!({ "of": "another version" });
            for (field, value) in status.as_object().unwrap() {
                object["status"][field] = value.clone();
            }
            (name, object)
        },
    )
}

// === SealingKeys ===

fn key(made: i64, fingerprint: &str, rotation: Option<&str>) -> KeyFact {
    KeyFact {
        fingerprint: fingerprint.into(),
        recipient: format!("age1{fingerprint}"),
        secret_name: format!("{}{fingerprint}", names::KEY_SECRET_PREFIX),
        made_at: Some(Timestamp::new(made, 0).unwrap()),
        created_at: None,
        rotation: rotation.map(ToOwned::to_owned),
    }
}

fn keys() -> Vec<(&'static str, Value)> {
    let one = [key(1_780_000_000, "00112233aabbccdd", None)];
    let two = [one[0].clone(), key(1_785_000_000, "99887766ddccbbaa", Some("2026-11"))];
    let bad = [("sealedenv-key-restored".to_owned(), "it is no identity".to_owned())];
    let report = |keys| KeyReport {
        generation: Some(1),
        keys,
        unusable: &[],
        from_memory: false,
        rotation: None,
        requested_at: None,
    };
    let fresh = SealingKeyStatus { observed_generation: Some(-1), ..SealingKeyStatus::default() };
    let told = |report: KeyReport<'_>| decide::status(T0, &report, &fresh);
    let object = |status: SealingKeyStatus, annotations: &[(&str, &str)]| {
        let mut key = SealingKey::new(names::CLUSTER_KEY, SealingKeySpec {});
        key.metadata.uid = Some("5e2f4a0c-0000-4000-8000-000000000003".into());
        key.metadata.resource_version = Some("1003".into());
        key.metadata.generation = Some(1);
        key.metadata.creation_timestamp = Some(Time(T0));
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        key.metadata.annotations = Some(annotations.collect()).filter(|a: &BTreeMap<_, _>| !a.is_empty());
        key.status = Some(status);
        key
    };
    let rotate: &[(&str, &str)] = &[(names::ROTATE, "2026-11")];
    let mut deleting = object(told(report(&one)), &[]);
    deleting.metadata.deletion_timestamp = Some(Time(T1));
    deleting.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
    [
        ("new", object(fresh.clone(), &[])),
        ("loaded", object(told(report(&one)), &[])),
        ("rotation-asked", object(told(report(&one)), rotate)),
        ("rotated", object(told(KeyReport { rotation: Some("2026-11"), ..report(&two) }), rotate)),
        ("one-is-unusable", object(told(KeyReport { unusable: &bad, ..report(&one) }), &[])),
        ("secret-is-lost", object(told(KeyReport { from_memory: true, ..report(&one) }), &[])),
        ("none", object(told(report(&[])), &[])),
        ("deleting", deleting),
    ]
    .map(|(name, key)| (name, serde_json::to_value(key).expect("JSON")))
    .into()
}
