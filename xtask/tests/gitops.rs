//! What GitOps tools make of every status that the operator can write: judged by Flux's own kstatus library and by the
//! Lua machine that Argo CD uses, in the program `e2e/gitops/judge`.
//!
//! The objects are the generated test data below `gitops/argocd/`; `cargo xtask gen --check` holds them to the operator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::{Value, json};
use xtask::{
    Checkout,
    gitops::{self, KINDS, Scripts},
};

static CHECKOUT: LazyLock<Checkout> = LazyLock::new(|| Checkout::find().unwrap());
static JUDGE: LazyLock<PathBuf> = LazyLock::new(|| gitops::judge(&CHECKOUT).unwrap());

/// What kstatus must say of each SealedEnv. A file that is in no list fails the test.
const ENVS: [(&str, &[&str]); 4] = [
    (
        "Current",
        &[
            "adopted",
            "asked",
            "asked-and-answered",
            "changed-and-delivered",
            "delivered",
            "repaired",
            "resumed",
            "secret-is-renamed",
            "suspended",
        ],
    ),
    // It passes by itself, or the operator has not looked yet: a pipeline waits.
    (
        "InProgress",
        &[
            "api-error",
            "api-error-after-delivery",
            "api-error-after-fault",
            "changed",
            "changed-after-fault",
            "new",
            "no-audit",
            "no-audit-after-delivery",
            "repair-is-put-off",
            "secret-is-being-deleted",
            "suspended-after-api-error",
            "suspended-at-first",
            "suspension-not-seen",
        ],
    ),
    // Only a person can mend it: a pipeline fails at once.
    (
        "Failed",
        &[
            "no-key-opens",
            "one-key-is-missing",
            "one-key-is-omitted",
            "one-key-keeps-its-last-value",
            "one-key-stops-all",
            "secret-has-another-type",
            "secret-has-more-keys",
            "secret-is-anothers",
            "secret-is-immutable",
            "secret-is-not-ours",
            "secret-is-refused",
            "spec-is-not-allowed",
            "suspended-after-fault",
            "too-large",
            "undecodable",
            "undecodable-after-delivery",
        ],
    ),
    ("Terminating", &["deleting", "deleting-after-fault"]),
];

/// The same of the SealingKey.
const KEYS: [(&str, &[&str]); 4] = [
    ("Current", &["loaded", "rotated", "rotation-asked"]),
    ("InProgress", &["new"]),
    ("Failed", &["none", "one-is-unusable", "secret-is-lost"]),
    ("Terminating", &["deleting"]),
];

fn folder(kind: &str) -> PathBuf {
    gitops::argocd(&CHECKOUT).join(kind)
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The test data of a kind by name.
fn objects(kind: &str) -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(folder(kind).join("testdata")).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeMap<_, _> =
        files.map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), yaml(&path))).collect();
    assert!(!found.is_empty());
    found
}

/// Asks the judge. It answers every question or the test fails.
fn ask(questions: &[Value]) -> Vec<Value> {
    let mut judge = Command::new(&*JUDGE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting the judge");
    let mut pipe = judge.stdin.take().unwrap();
    let text = serde_json::to_vec(questions).unwrap();
    let feeder = std::thread::spawn(move || pipe.write_all(&text));
    let output = judge.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), questions.len());
    for (answer, question) in answers.iter().zip(questions) {
        assert!(answer["error"].is_null(), "{}: {}", question["object"]["metadata"], answer["error"]);
    }
    answers
}

#[test]
fn kstatus_reads_every_status_as_it_is_meant() {
    for (kind, lists) in [("SealedEnv", ENVS), ("SealingKey", KEYS)] {
        let mut wanted = BTreeMap::new();
        for (status, names) in lists {
            for name in names {
                assert_eq!(wanted.insert((*name).to_owned(), status), None, "{name} is listed twice");
            }
        }
        let objects = objects(kind);
        let found: BTreeSet<&String> = objects.keys().collect();
        assert_eq!(found, wanted.keys().collect(), "left: test data, right: what is expected of it");
        let questions: Vec<Value> =
            objects.values().map(|object| json!({ "ask": "kstatus", "object": object })).collect();
        for (name, answer) in objects.keys().zip(ask(&questions)) {
            assert_eq!(answer["status"], wanted[name], "{kind} {name}: {answer}");
        }
    }
}

/// The rows of the table of reasons in docs/src/reconcile.md: reason, and what kstatus makes of it.
fn documented() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(CHECKOUT.root().join("docs/src/reconcile.md")).unwrap();
    let section = page.split("## Conditions and reasons").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let reason = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((reason.to_owned(), (*cells.get(4)?).to_owned()))
    });
    rows.collect()
}

#[test]
fn the_page_says_of_each_reason_what_kstatus_says() {
    let documented = documented();
    let mut seen = BTreeSet::new();
    let objects = objects("SealedEnv");
    let questions: Vec<Value> =
        objects.values().map(|object| json!({ "ask": "kstatus", "object": object })).collect();
    for ((name, object), answer) in objects.iter().zip(ask(&questions)) {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let Some(ready) = conditions.iter().find(|condition| condition["type"] == "Ready") else { continue };
        let reason = ready["reason"].as_str().unwrap();
        let told = documented.get(reason).unwrap_or_else(|| panic!("{reason} is not on the page"));
        seen.insert(reason.to_owned());
        let (generation, deleted) =
            (&object["metadata"]["generation"], &object["metadata"]["deletionTimestamp"]);
        if !deleted.is_null() || ready["observedGeneration"] != *generation {
            continue; // then the reason does not decide
        }
        let status = answer["status"].as_str().unwrap();
        assert!(told.contains(status), "{name}: {reason} is {status}, and the page says {told:?}");
        assert!(told == status || reason == "Suspended", "{reason}: {told:?} must be one word");
    }
    let written: BTreeSet<String> = documented
        .keys()
        .filter(|reason| !["Repaired", "KeptValueChanged"].contains(&reason.as_str()))
        .cloned()
        .collect();
    assert_eq!(seen, written, "left: reasons in the test data, right: reasons on the page");
}

#[test]
fn argo_cd_reads_every_status_as_it_is_meant() {
    for kind in KINDS {
        let scripts = Scripts::read(&CHECKOUT, kind).unwrap();
        let tests = yaml(&folder(kind).join("health_test.yaml"));
        let mut untested: BTreeSet<String> = objects(kind).into_keys().collect();
        let tests = tests["tests"].as_array().unwrap();
        let questions: Vec<Value> = (tests.iter())
            .map(|test| {
                let path = test["inputPath"].as_str().unwrap();
                let name =
                    path.strip_prefix("testdata/").and_then(|name| name.strip_suffix(".yaml")).unwrap();
                assert!(untested.remove(name), "{kind}: {name} is tested twice");
                json!({ "ask": "health", "object": yaml(&folder(kind).join(path)), "script": scripts.health })
            })
            .collect();
        assert_eq!(untested, BTreeSet::new(), "{kind}: not in health_test.yaml");
        for (test, answer) in tests.iter().zip(ask(&questions)) {
            assert_eq!(answer, test["healthStatus"], "{kind} {}", test["inputPath"]);
        }
    }
}

#[test]
fn argo_cd_offers_the_actions_that_make_sense() {
    for kind in KINDS {
        let scripts = Scripts::read(&CHECKOUT, kind).unwrap();
        let actions = folder(kind).join("actions");
        let tests = yaml(&actions.join("action_test.yaml"));
        let tests = tests["discoveryTests"].as_array().unwrap();
        let questions: Vec<Value> = (tests.iter())
            .map(|test| {
                let object = yaml(&actions.join(test["inputPath"].as_str().unwrap()));
                json!({ "ask": "discovery", "object": object, "script": scripts.discovery })
            })
            .collect();
        for (test, answer) in tests.iter().zip(ask(&questions)) {
            let wanted: serde_json::Map<String, Value> = (test["result"].as_array().unwrap().iter())
                .map(|action| {
                    (action["name"].as_str().unwrap().to_owned(), json!({ "disabled": action["disabled"] }))
                })
                .collect();
            assert_eq!(answer["actions"], Value::Object(wanted), "{kind} {}", test["inputPath"]);
            let names = answer["actions"].as_object().unwrap().keys();
            assert!(names.eq(scripts.actions.keys()), "{kind}: offered and defined actions differ");
        }
    }
}

#[test]
fn an_action_of_argo_cd_changes_what_it_should_and_shows_it() {
    let shown = BTreeMap::from([
        ("reconcile", "Progressing"),
        ("suspend", "Suspended"),
        ("resume", "Healthy"),
        ("rotate", "Progressing"),
    ]);
    for kind in KINDS {
        let scripts = Scripts::read(&CHECKOUT, kind).unwrap();
        let actions = folder(kind).join("actions");
        let tests = yaml(&actions.join("action_test.yaml"));
        let mut untested: BTreeSet<&String> = scripts.actions.keys().collect();
        for test in tests["actionTests"].as_array().unwrap() {
            let name = test["action"].as_str().unwrap();
            untested.remove(&name.to_owned());
            let before = yaml(&actions.join(test["inputPath"].as_str().unwrap()));
            let wanted = yaml(&actions.join(test["expectedOutputPath"].as_str().unwrap()));
            let script = &scripts.actions[name];
            let answers = ask(&[json!({ "ask": "action", "object": before, "script": script })]);
            let after = as_sent(answers[0]["object"].clone(), &before);
            assert_eq!(after, wanted, "{kind} {name}");
            let answers = ask(&[json!({ "ask": "health", "object": after, "script": scripts.health })]);
            assert_eq!(answers[0]["status"], shown[name], "{kind}: health after {name}");
        }
        assert_eq!(untested, BTreeSet::new(), "{kind}: not in action_test.yaml");
    }
}

/// What Argo CD makes of a script's answer before it sends it: Lua has no integers, and one kind of empty table.
fn as_sent(value: Value, before: &Value) -> Value {
    match value {
        Value::Array(items) if items.is_empty() && before.is_object() => json!({}),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(i, item)| as_sent(item, &before[i])).collect()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, field)| {
                let old = before.get(&key).unwrap_or(&Value::Null);
                let sent = as_sent(field, old);
                (key, sent)
            });
            Value::Object(fields.collect())
        }
        #[allow(clippy::cast_possible_truncation, reason = "generations are small")]
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            json!(number.as_f64().unwrap() as i64)
        }
        other => other,
    }
}

#[test]
fn the_patch_for_argo_cd_has_every_script() {
    let patch = yaml(&CHECKOUT.root().join("gitops/argocd/argocd-cm.yaml"));
    let data = patch["data"].as_object().unwrap();
    assert_eq!(data.len(), 2 * KINDS.len());
    for kind in KINDS {
        let scripts = Scripts::read(&CHECKOUT, kind).unwrap();
        let health = &data[&format!("resource.customizations.health.sealedenv.dev_{kind}")];
        assert_eq!(health, &json!(scripts.health));
        let actions =
            data[&format!("resource.customizations.actions.sealedenv.dev_{kind}")].as_str().unwrap();
        let actions: Value = serde_saphyr::from_str(actions).unwrap();
        assert_eq!(actions["discovery.lua"], scripts.discovery);
        let defined: BTreeMap<String, String> = (actions["definitions"].as_array().unwrap().iter())
            .map(|d| (d["name"].as_str().unwrap().to_owned(), d["action.lua"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(defined, scripts.actions);
    }
}

/// A judge that agrees with everything would make every test above pass.
#[test]
fn the_judge_objects() {
    let object =
        json!({ "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv", "metadata": { "name": "x" } });
    let mut judge = Command::new(&*JUDGE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let health = |script: &str| json!({ "ask": "health", "object": object, "script": script });
    let questions = json!([
        { "ask": "mood", "object": object },
        { "ask": "kstatus" },
        health("return"),
        health("return { status = 'Fine' }"),
        health("return { status = string.upper('healthy') }"),
        health("return { status = os.date() }"),
        health("while true do end"),
        health("return {"),
        health("return { status = 'Healthy' }"),
    ]);
    judge.stdin.take().unwrap().write_all(questions.to_string().as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let (last, refused) = answers.split_last().unwrap();
    for (answer, question) in refused.iter().zip(questions.as_array().unwrap()) {
        assert!(answer["error"].is_string(), "{question}: {answer}");
    }
    assert_eq!(last["status"], "Healthy");
}
