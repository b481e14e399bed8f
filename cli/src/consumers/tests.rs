// Objects as literals, made where they are used.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::*;

fn env(spec: Value, status: Value) -> SealedEnv {
    let object = json!({
        "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
        "metadata": {"name": "checkout", "namespace": "shop"}, "spec": spec, "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn pod(name: &str, spec: Value, status: Value) -> Pod {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": spec, "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn key(name: &str, at: &str) -> Value {
    json!({"name": name, "class": "secret", "source": "Sealed", "state": "Ready", "lastGoodAt": at})
}

fn mounting(volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = "values".into();
    json!({
        "volumes": [volume],
        "containers": [
            {"name": "app", "volumeMounts": [{"name": "values", "mountPath": "/v"}]},
            {"name": "other"},
        ],
    })
}

fn csi(name: &str) -> Value {
    mounting(json!({"csi": {"driver": "csi.sealedenv.dev", "volumeAttributes": {"sealedenv": name}}}))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn of_files_in_memory_the_status_says_what_a_pod_has() {
    let consumer = |pod: &str, digest: Value, refused: Value| json!({"uid": format!("uid-{pod}"), "pod": pod, "digest": digest, "since": "2026-11-28T10:00:00Z", "refused": refused});
    let env = env(
        json!({"delivery": "Memory"}),
        json!({"digest": "new", "consumers": [
            consumer("a", json!("new"), Value::Null),
            consumer("b", json!("old"), json!("NotAllowed")),
            {"uid": "another", "pod": "c", "digest": "new"},
        ]}),
    );
    let running = json!({"phase": "Running"});
    let pods = [
        pod("b", csi("checkout"), running.clone()),
        pod("a", csi("checkout"), running.clone()),
        pod("c", csi("checkout"), json!({"phase": "Pending"})),
        pod("elsewhere", csi("billing"), running.clone()),
        pod("done", csi("checkout"), json!({"phase": "Succeeded"})),
    ];
    let found = holders(&env, &pods, None);
    let short: Vec<_> =
        found.iter().map(|one| (&*one.pod, one.version, one.refused.as_deref(), one.since)).collect();
    assert_eq!(
        short,
        [
            ("a", Version::Current, None, Some(at("2026-11-28T10:00:00Z"))),
            ("b", Version::Outdated, Some("NotAllowed"), Some(at("2026-11-28T10:00:00Z"))),
            ("c", Version::Unknown, None, None),
        ]
    );
    assert_eq!((found[0].how, &found[0].containers), (How::Csi, &vec!["app".to_owned()]));
    assert_eq!(holders(&env, &pods, Some("ANY")).len(), 3, "all keys are in the volume");
}

#[test]
fn the_agents_token_names_the_sealed_env_and_another_volume_has_the_files() {
    let spec = |audience: &str, path: &str| {
        json!({
            "volumes": [
                {"name": "sealedenv-token", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": audience, "path": path}},
                ]}},
                {"name": "sealedenv-checkout", "emptyDir": {"medium": "Memory"}},
            ],
            "containers": [{"name": "app", "volumeMounts": [{"name": "sealedenv-checkout", "mountPath": "/v"}]}],
        })
    };
    let env = env(json!({"delivery": "Memory"}), json!({}));
    let pods = [
        pod("right", spec("sealedenv.dev", "checkout/token"), json!({})),
        pod("audience", spec("vault", "checkout/token"), json!({})),
        pod("path", spec("sealedenv.dev", "billing/token"), json!({})),
    ];
    let found = holders(&env, &pods, None);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&*found[0].pod, found[0].how, &found[0].containers),
        ("right", How::Agent, &vec!["app".to_owned()])
    );
}

#[test]
fn files_of_a_secret_follow_and_variables_stay() {
    let env = env(
        json!({"secret": {"name": "checkout-v2"}}),
        json!({"keys": [key("A", "2026-11-28T10:00:00Z"), key("B", "2026-11-28T12:00:00Z")]}),
    );
    let started = |at: &str| {
        json!({"phase": "Running", "containerStatuses": [
            {"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": at}}},
        ]})
    };
    let before = started("2026-11-28T11:00:00Z");
    let volume = json!({"secret": {"secretName": "checkout-v2"}});
    let mut sub_path = mounting(volume.clone());
    sub_path["containers"][0]["volumeMounts"][0]["subPath"] = "A".into();
    let from = json!({"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "checkout-v2"}}]}]});
    let one = json!({"containers": [{"name": "app", "env": [
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "checkout-v2", "key": "A"}}},
        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "other", "key": "B"}}},
    ]}]});
    let pods = [
        pod("files", mounting(volume), before.clone()),
        pod("sub-path", sub_path, before.clone()),
        pod("variables", from.clone(), before.clone()),
        pod("new", from.clone(), started("2026-11-28T13:00:00Z")),
        pod("starting", from, json!({"phase": "Pending"})),
        pod("picked", one, before),
        pod("by-name-only", mounting(json!({"secret": {"secretName": "checkout"}})), json!({})),
    ];
    let found = holders(&env, &pods, None);
    let short: Vec<_> = found.iter().map(|one| (&*one.pod, one.how, one.version)).collect();
    assert_eq!(
        short,
        [
            ("files", How::Secret, Version::Current),
            ("new", How::Variables, Version::Current),
            ("picked", How::Variables, Version::Outdated),
            ("starting", How::Variables, Version::Unknown),
            ("sub-path", How::Secret, Version::Outdated),
            ("variables", How::Variables, Version::Outdated),
        ]
    );
    let pods_with = |key| holders(&env, &pods, Some(key)).into_iter().map(|one| one.pod).collect::<Vec<_>>();
    assert_eq!(pods_with("A").len(), 6);
    assert!(!pods_with("B").contains(&"picked".to_owned()));
}

#[test]
fn volumes_that_pick_keys_hold_those_and_a_second_way_adds_to_them() {
    let env = env(json!({}), json!({}));
    let items = |key: &str| json!({"items": [{"key": key, "path": "p"}]});
    let mut picked = mounting(json!({"secret": {"secretName": "checkout", "items": items("A")["items"]}}));
    let projected = mounting(json!({"projected": {"sources": [
        {"configMap": {"name": "x"}}, {"secret": {"name": "checkout", "items": items("B")["items"]}},
    ]}}));
    let found = holders(&env, &[pod("a", picked.clone(), json!({})), pod("b", projected, json!({}))], None);
    assert_eq!(found[0].keys, Some(BTreeSet::from(["A".to_owned()])));
    assert_eq!(found[1].keys, Some(BTreeSet::from(["B".to_owned()])));
    picked["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "all", "secret": {"secretName": "checkout"}}));
    picked["containers"][1]["volumeMounts"] = json!([{"name": "all", "mountPath": "/all"}]);
    let both = holders(&env, &[pod("a", picked, json!({}))], None);
    assert_eq!((both.len(), &both[0].keys), (1, &None));
    assert_eq!(both[0].containers, ["app", "other"]);
}
