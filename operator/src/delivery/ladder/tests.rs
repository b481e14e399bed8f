use std::collections::BTreeSet;
use std::io::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What is granted: each case below differs from it in one thing.
fn granted() -> Value {
    json!({
        "reviewed": {
            "authenticated": true,
            "audiences": ["sealedenv.dev"],
            "user": {
                "username": "system:serviceaccount:shop:checkout",
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["checkout-0"],
                    "authentication.kubernetes.io/pod-uid": ["0f1e"],
                    "authentication.kubernetes.io/node-name": ["node-a"],
                },
            },
        },
        "plugin": {
            "authenticated": true,
            "audiences": ["sealedenv.dev"],
            "user": {
                "username": "system:serviceaccount:system:sealedenv-node",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["sealedenv-node-x"],
                    "authentication.kubernetes.io/pod-uid": ["aa"],
                    "authentication.kubernetes.io/node-name": ["node-a"],
                },
            },
        },
        "served": true,
        "pod": {
            "metadata": {"name": "checkout-0", "namespace": "shop", "uid": "0f1e"},
            "spec": {
                "serviceAccountName": "checkout", "nodeName": "node-a", "containers": [],
                "volumes": [
                    {"name": "data", "emptyDir": {}},
                    {"name": "csi", "csi": {
                        "driver": "csi.sealedenv.dev", "volumeAttributes": {"sealedenv": "checkout"},
                    }},
                    {"name": "agent", "projected": {"sources": [
                        {"serviceAccountToken": {"audience": "sealedenv.dev", "path": "by-agent/token"}},
                    ]}},
                ],
            },
            "status": {"phase": "Pending"},
        },
        "name": "checkout",
        "env": {
            "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
            "metadata": {"name": "checkout", "namespace": "shop", "uid": "e1"},
            "spec": {"delivery": "Memory", "allow": {"serviceAccounts": ["checkout", "other"]}},
        },
        "recorded": true,
    })
}

fn review(from: Value) -> Option<Reviewed> {
    serde_json::from_value::<Option<TokenReviewStatus>>(from).unwrap().map(Reviewed::from)
}

fn facts(from: &Value) -> Facts {
    let part = |name: &str| from[name].clone();
    Facts {
        reviewed: review(part("reviewed")).unwrap(),
        plugin: review(part("plugin")),
        plugin_user: "system:serviceaccount:system:sealedenv-node".to_owned(),
        served: part("served") == true,
        pod: serde_json::from_value(part("pod")).unwrap(),
        name: part("name").as_str().unwrap().to_owned(),
        env: serde_json::from_value::<Option<SealedEnv>>(part("env")).unwrap().map(Arc::new),
        recorded: part("recorded") == true,
    }
}

/// The first rung that does not hold, if any.
fn refused_by(ladder: Ladder, facts: &Facts) -> Option<&'static str> {
    [Stage::Caller, Stage::Pod, Stage::Name, Stage::Env, Stage::Release]
        .into_iter()
        .find_map(|stage| ladder.climb(stage, facts).err())
        .map(|rung| rung.name)
}

/// A rung, what is wrong, and where: a JSON pointer and what stands there instead.
type Case = (&'static str, &'static str, &'static str, Value);

const POD_NAME: &str = "/reviewed/user/extra/authentication.kubernetes.io~1pod-name";
const POD_UID: &str = "/reviewed/user/extra/authentication.kubernetes.io~1pod-uid";
const PLUGIN_NODE: &str = "/plugin/user/extra/authentication.kubernetes.io~1node-name";

fn cases() -> Vec<Case> {
    let user = "/reviewed/user/username";
    let attributes = "/pod/spec/volumes/1/csi/volumeAttributes";
    vec![
        ("Authenticated", "expired, or made up", "/reviewed/authenticated", json!(false)),
        ("Authenticated", "no answer", "/reviewed/authenticated", Value::Null),
        ("Authenticated", "an error beside it", "/reviewed/error", json!("etcd is away")),
        (
            "Audience",
            "a token for the API server",
            "/reviewed/audiences",
            json!(["https://kubernetes.default.svc"]),
        ),
        ("Audience", "a server that knows no audiences", "/reviewed/audiences", Value::Null),
        ("Audience", "none", "/reviewed/audiences", json!([])),
        ("Audience", "nearly ours", "/reviewed/audiences", json!(["sealedenv.dev.evil"])),
        ("ServiceAccount", "a person", user, json!("alice")),
        ("ServiceAccount", "a node", user, json!("system:node:node-a")),
        ("ServiceAccount", "no namespace", user, json!("system:serviceaccount:checkout")),
        ("ServiceAccount", "too many parts", user, json!("system:serviceaccount:shop:checkout:x")),
        ("ServiceAccount", "another address", user, json!("system:serviceaccount:..:checkout")),
        ("ServiceAccount", "an empty part", user, json!("system:serviceaccount:shop:")),
        ("BoundToPod", "a legacy token of a Secret", "/reviewed/user/extra", json!({})),
        ("BoundToPod", "no UID", POD_UID, json!([])),
        ("BoundToPod", "two names", POD_NAME, json!(["checkout-0", "checkout-1"])),
        ("BoundToPod", "a name that leads elsewhere", POD_NAME, json!(["../secrets"])),
        ("PluginAuthenticated", "made up", "/plugin/authenticated", json!(false)),
        ("PluginAudience", "a token for the API server", "/plugin/audiences", json!(["api"])),
        ("PluginAudience", "a server that knows no audiences", "/plugin/audiences", Value::Null),
        (
            "PluginAccount",
            "another pod",
            "/plugin/user/username",
            json!("system:serviceaccount:shop:checkout"),
        ),
        (
            "PluginAccount",
            "the same name elsewhere",
            "/plugin/user/username",
            json!("system:serviceaccount:shop:sealedenv-node"),
        ),
        ("PluginAccount", "nobody", "/plugin/user", Value::Null),
        ("NamespaceServed", "not watched by this operator", "/served", json!(false)),
        ("PodLives", "deleted; its token is still accepted", "/pod", Value::Null),
        ("PodUid", "another pod of the same name", "/pod/metadata/uid", json!("9999")),
        ("PodNamespace", "a pod elsewhere", "/pod/metadata/namespace", json!("other")),
        ("PodAccount", "a pod of another ServiceAccount", "/pod/spec/serviceAccountName", json!("default")),
        ("PodOnNode", "the plugin of another node", PLUGIN_NODE, json!(["node-b"])),
        ("PodOnNode", "a plugin of no node", PLUGIN_NODE, json!([])),
        ("PodOnNode", "a pod that is not scheduled", "/pod/spec/nodeName", Value::Null),
        (
            "PodNotTerminating",
            "on its way out",
            "/pod/metadata/deletionTimestamp",
            json!("2026-01-01T00:00:00Z"),
        ),
        ("PodNotFinished", "done", "/pod/status/phase", json!("Succeeded")),
        ("PodNotFinished", "failed", "/pod/status/phase", json!("Failed")),
        ("Named", "no volume", "/pod/spec/volumes", json!([])),
        ("Named", "another SealedEnv", "/name", json!("payments")),
        ("Named", "an annotation that was patched in", "/pod", {
            let mut pod = granted()["pod"].clone();
            pod["metadata"]["annotations"] = json!({"sealedenv.dev/inject": "checkout"});
            pod["spec"]["volumes"] = json!([]);
            pod
        }),
        ("Named", "another driver", "/pod/spec/volumes/1/csi/driver", json!("csi.evil.dev")),
        ("Named", "another attribute", attributes, json!({"name": "checkout"})),
        ("Named", "part of a name", attributes, json!({"sealedenv": "checkout,other"})),
        ("Named", "an agent, and only a CSI volume names it", "/plugin", Value::Null),
        ("Named", "a plugin, and only the agent's token names it", "/name", json!("by-agent")),
        ("Found", "there is none", "/env", Value::Null),
        ("InMemory", "it is a Secret", "/env/spec", json!({"delivery": "Secret"})),
        ("InMemory", "by default it is", "/env/spec", json!({})),
        ("Active", "suspended", "/env/spec/suspend", json!(true)),
        ("Active", "being deleted", "/env/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ("Allowed", "not on the list", "/env/spec/allow/serviceAccounts", json!(["other"])),
        ("Allowed", "an empty list allows nobody", "/env/spec/allow/serviceAccounts", json!([])),
        ("Recorded", "the trail takes nothing", "/recorded", json!(false)),
    ]
}

fn with(pointer: &str, value: Value) -> Facts {
    let mut all = granted();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    all.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    facts(&all)
}

/// The cases that do not end as they should on this ladder.
fn failures(ladder: Ladder) -> Vec<String> {
    let mut failures = Vec::new();
    for (rung, what, pointer, value) in cases() {
        let found = refused_by(ladder, &with(pointer, value));
        if found != Some(rung) {
            failures.push(format!("{rung}, {what}: {found:?}"));
        }
    }
    failures
}

#[test]
fn each_case_is_refused_by_its_rung() {
    assert_eq!(failures(Ladder::default()), Vec::<String>::new());
}

#[test]
fn what_has_every_rung_is_granted() {
    assert_eq!(refused_by(Ladder::default(), &facts(&granted())), None);
    let mut agent = granted();
    agent["plugin"] = Value::Null;
    agent["name"] = json!("by-agent");
    agent["pod"]["spec"]["nodeName"] = Value::Null; // nobody asks where an agent is
    assert_eq!(refused_by(Ladder::default(), &facts(&agent)), None);
    // Without a list any ServiceAccount of the namespace may.
    assert_eq!(refused_by(Ladder::default(), &with("/env/spec", json!({"delivery": "Memory"}))), None);
    for phase in [json!("Running"), json!("Unknown"), Value::Null] {
        assert_eq!(refused_by(Ladder::default(), &with("/pod/status/phase", phase)), None);
    }
}

/// The mutants: each ladder that lacks one rung fails the cases above, and lets through what only that rung held.
#[test]
fn every_rung_is_needed() {
    let mut killed = 0;
    for rung in &RUNGS {
        let mutant = Ladder::without(rung.name);
        assert!(!failures(mutant).is_empty(), "nothing goes red without the rung {}", rung.name);
        let through = cases().into_iter().any(|(of, _, pointer, value)| {
            of == rung.name && refused_by(mutant, &with(pointer, value)).is_none()
        });
        // Who is no ServiceAccount, or no pod, fails further up as well, for another reason.
        let held_twice = ["ServiceAccount", "PodLives"].contains(&rung.name);
        assert!(through != held_twice, "{}: gets through without it: {through}", rung.name);
        killed += 1;
    }
    let names: BTreeSet<&str> = RUNGS.iter().map(|rung| rung.name).collect();
    assert_eq!(names.len(), RUNGS.len(), "a name twice would hide a rung");
    // Not by a macro, whose output is shown for failed tests only.
    let _ = writeln!(std::io::stdout(), "rungs: {killed}/{}", RUNGS.len());
}

#[test]
fn the_names_that_pods_use_are_those_of_the_contract() {
    // The webhook writes the agent's volume and cannot see the contract's crate; the node plugin reads the attribute.
    assert_eq!(names::GROUP, AUDIENCE);
    assert_eq!((names::CSI_DRIVER, names::CSI_ENVIRONMENT), ("csi.sealedenv.dev", "sealedenv"));
}

proptest! {
    /// Whatever a review says: no claim that is not well-formed and alone gets into an address.
    #[test]
    fn claims_are_well_formed_or_absent(
        user in proptest::option::of(".{0,24}|system:serviceaccount:[a-z.:/-]{0,24}"),
        values in proptest::collection::vec("[a-z./ -]{0,12}", 0..3),
    ) {
        let review: TokenReviewStatus = serde_json::from_value(json!({
            "user": {"username": user, "extra": {"authentication.kubernetes.io/pod-name": values}},
        })).unwrap();
        let claims = Claims::of(&review);
        prop_assert_eq!(claims.namespace.is_some(), claims.account.is_some());
        for text in [claims.namespace, claims.account, claims.pod].into_iter().flatten() {
            prop_assert!(!text.is_empty() && !text.contains('/') && text != ".." && text != ".");
        }
    }
}
