//! What is injected, and what is refused, case by case.

mod memory;

use serde_json::{Value, json};

use super::*;

/// Knows `checkout` (Secret of the same name), `billing` (Secret `billing-v2`) and `memory`; nothing else exists.
struct Cluster;

impl Environments for Cluster {
    fn find(&self, namespace: &str, name: &str) -> Sighting {
        let present = |secret: Option<&str>, delivery: &str| Sighting::Present {
            secret_name: secret.map(str::to_owned),
            delivery: delivery.to_owned(),
        };
        match (namespace, name) {
            ("shop", "checkout") => present(None, "Secret"),
            ("shop", "billing") => present(Some("billing-v2"), ""),
            ("shop", "memory") => present(None, "Memory"),
            ("shop", "future") => present(None, "Telepathy"),
            ("shop", "unknown") => Sighting::Unknown,
            ("shop", _) => Sighting::Absent,
            _ => panic!("asked for namespace {namespace}"),
        }
    }
}

/// With the agent, and the node plugin where a pod does not say.
pub(super) fn settings() -> Settings {
    Settings {
        default_delivery: Delivery::Secret,
        memory_delivery: Delivery::Csi,
        image: Some(Image { reference: "sealedenv:1".to_owned(), pull_policy: "IfNotPresent".to_owned() }),
        operator: Some(Operator { endpoint: "https://192.0.2.7:8443".to_owned(), server_name: None }),
    }
}

const AUTHORITIES: &str = "PEM";

const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn run(pod: &Value) -> Result<Outcome, Denied> {
    let pod = serde_json::from_value(pod.clone()).unwrap();
    let request = Request {
        namespace: "shop",
        settings: &settings(),
        authorities: Some(AUTHORITIES),
        environments: &Cluster,
    };
    inject(&pod, &request)
}

/// A pod as the API server shows it: with the token mounted into every container.
fn pod(annotations: &Value) -> Value {
    let token = json!([{"name": "token", "mountPath": TOKEN_MOUNT, "readOnly": true}]);
    json!({
        "metadata": {"annotations": annotations},
        "spec": {
            "initContainers": [
                {"name": "migrate", "image": "x", "volumeMounts": token},
                {"name": "proxy", "image": "x", "restartPolicy": "Always", "volumeMounts": token}
            ],
            "containers": [{"name": "app", "image": "x", "volumeMounts": token}],
            "ephemeralContainers": [{"name": "debug", "image": "x"}],
            "volumes": [{"name": "token", "projected": {"sources": []}}]
        }
    })
}

fn asking(extra: &[(&str, &str)]) -> Value {
    let mut annotations = json!({"sealedenv.dev/inject": "checkout"});
    for (key, value) in extra {
        annotations[format!("sealedenv.dev/{key}")] = json!(value);
    }
    pod(&annotations)
}

fn patched(pod: &Value) -> Value {
    let outcome = run(pod).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &outcome.patch).unwrap();
    let again = run(&patched).unwrap();
    assert_eq!(again.patch, Patch::default(), "a second injection must add nothing");
    assert_eq!(again.environments, outcome.environments);
    patched
}

fn denied(pod: &Value) -> (&'static str, String) {
    let denied = run(pod).unwrap_err();
    assert!(!denied.hint().is_empty());
    (denied.reason(), denied.to_string())
}

#[test]
fn a_pod_gets_one_volume_and_every_container_its_mount() {
    let pod = asking(&[]);
    let patched = patched(&pod);
    assert_eq!(
        patched["spec"]["volumes"][1],
        json!({
            "name": "sealedenv-checkout",
            "secret": {"secretName": "checkout", "defaultMode": 0o444, "optional": false}
        })
    );
    let mount = json!({"name": "sealedenv-checkout", "mountPath": "/run/secrets/checkout", "readOnly": true});
    for container in ["/spec/initContainers/0", "/spec/initContainers/1", "/spec/containers/0"] {
        let container = patched.pointer(container).unwrap();
        assert_eq!(container["volumeMounts"][1], mount);
        assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 2);
        assert!(container.get("envFrom").is_none());
    }
    assert_eq!(patched["spec"]["ephemeralContainers"], pod["spec"]["ephemeralContainers"]);
    assert_eq!(patched["metadata"], pod["metadata"]);
}

#[test]
fn lists_that_are_not_there_are_made() {
    let pod = json!({
        "metadata": {"annotations": {"sealedenv.dev/inject": "checkout,billing", "sealedenv.dev/env": "true"}},
        "spec": {"containers": [{"name": "app", "volumeMounts": [], "envFrom": null}], "futureField": {"kept": 1}}
    });
    let patched = patched(&pod);
    assert_eq!(patched["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(patched["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().len(), 2);
    assert_eq!(patched["spec"]["futureField"], json!({"kept": 1}));
    assert_eq!(
        patched["spec"]["containers"][0]["envFrom"],
        json!([
            {"secretRef": {"name": "checkout", "optional": false}},
            {"secretRef": {"name": "billing-v2", "optional": false}}
        ])
    );
}

#[test]
fn several_sealed_envs_each_get_a_folder_and_the_secret_that_they_name() {
    let patched = patched(&pod(&json!({"sealedenv.dev/inject": "checkout, billing"})));
    let volumes = patched["spec"]["volumes"].as_array().unwrap();
    assert_eq!(volumes[1]["secret"]["secretName"], "checkout");
    assert_eq!(volumes[2]["secret"]["secretName"], "billing-v2");
    let mounts = patched["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts[1]["mountPath"], "/run/secrets/checkout");
    assert_eq!(mounts[2]["mountPath"], "/run/secrets/billing");
}

#[test]
fn the_annotation_narrows_the_containers() {
    let pod = asking(&[("containers", "app, proxy"), ("env", "true")]);
    let patched = patched(&pod);
    assert_eq!(patched["spec"]["initContainers"][0], pod["spec"]["initContainers"][0]);
    assert_eq!(patched["spec"]["initContainers"][1]["volumeMounts"].as_array().unwrap().len(), 2);
    assert_eq!(patched["spec"]["containers"][0]["envFrom"].as_array().unwrap().len(), 1);
    for name in ["nobody", "debug", "app,nobody", "App"] {
        let (reason, message) = denied(&asking(&[("containers", name)]));
        assert_eq!(reason, "UnknownContainer");
        assert!(message.contains(&format!("{:?}", name.split(',').next_back().unwrap())), "{message}");
    }
}

#[test]
fn the_mount_path_is_the_folder_itself_for_one_and_the_root_for_several() {
    let one = patched(&asking(&[("mount-path", "//app/secrets/")]));
    assert_eq!(one["spec"]["containers"][0]["volumeMounts"][1]["mountPath"], "/app/secrets");
    let several = patched(&pod(&json!({
        "sealedenv.dev/inject": "checkout,billing",
        "sealedenv.dev/mount-path": "/app/secrets"
    })));
    let mounts = several["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts[1]["mountPath"], "/app/secrets/checkout");
    assert_eq!(mounts[2]["mountPath"], "/app/secrets/billing");
}

#[test]
fn a_flat_mount_needs_a_pod_without_token() {
    for path in [
        "/run/secrets",
        "/var/run/secrets/",
        "/run/secrets/kubernetes.io",
        TOKEN_MOUNT,
        "/run/secrets/kubernetes.io/serviceaccount/x",
    ] {
        let mut pod = asking(&[("mount-path", path)]);
        let (reason, message) = denied(&pod);
        assert_eq!(reason, "CoversToken", "{path}");
        assert!(message.contains("ServiceAccount token"), "{message}");
        pod["spec"]["automountServiceAccountToken"] = json!(true);
        assert_eq!(denied(&pod).0, "CoversToken", "{path}");
        // Said not to be there, but mounted all the same: the mount itself is in the way then.
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        assert_eq!(denied(&pod).0, "PathConflict", "{path}");
        for kind in ["containers", "initContainers"] {
            for container in pod["spec"][kind].as_array_mut().unwrap() {
                container["volumeMounts"] = json!([]);
            }
        }
        patched(&pod);
    }
    // A SealedEnv may be named so that its default folder covers the token.
    assert_eq!(denied(&pod(&json!({"sealedenv.dev/inject": "kubernetes.io"}))).0, "CoversToken");
}

/// The volume that we add is read-only like any Secret, although the pod does not have it yet. Found by fuzzing: the
/// first call let such a pod pass, and a second one (`reinvocationPolicy`) refused what the first had made of it.
#[test]
fn a_mount_of_our_volume_above_our_own_is_refused_at_once() {
    for above in ["/run/secrets", "/", ""] {
        let mut pod = asking(&[]);
        let mount = json!({"name": "sealedenv-checkout", "mountPath": above});
        pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
        let denied = run(&pod).unwrap_err();
        assert_eq!(denied.reason(), "PathConflict", "{above:?}: {denied}");
        assert!(denied.to_string().contains("mounted read-only above it"), "{denied}");
    }
}

#[test]
fn mounts_that_do_not_go_together_are_refused() {
    let with = |path: &str, read_only: bool, volume: Value| {
        let mut pod = asking(&[("mount-path", "/run/app/secrets")]);
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        let mount = json!({"name": "other", "mountPath": path, "readOnly": read_only});
        pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
        pod
    };
    let empty = || json!({"name": "other", "emptyDir": {}});
    for path in [
        "/run/app/secrets",
        "/run/app/secrets/",
        "/var/run/app/secrets",
        "run/app/secrets",
        "/run/app/secrets/deep/er",
    ] {
        let (reason, message) = denied(&with(path, false, empty()));
        assert_eq!(reason, "PathConflict", "{path}");
        assert!(message.contains("\"app\"") && message.contains("\"other\""), "{message}");
    }
    // Above ours: the runtime makes our folder in theirs, if it can write there.
    for path in ["/run/app", "/run", "/var/run", "/"] {
        patched(&with(path, false, empty()));
        assert_eq!(denied(&with(path, true, empty())).0, "PathConflict", "{path}");
        for volume in [
            json!({"name": "other", "secret": {"secretName": "x"}}),
            json!({"name": "other", "configMap": {"name": "x"}}),
            json!({"name": "other", "projected": {"sources": []}}),
            json!({"name": "other", "downwardAPI": {}}),
            json!({"name": "other", "csi": {"driver": "x", "readOnly": true}}),
        ] {
            assert_eq!(denied(&with(path, false, volume)).0, "PathConflict", "{path}");
        }
    }
    for path in ["/run/app/secret", "/run/app/secrets2", "/run/apps", "/elsewhere"] {
        patched(&with(path, true, empty()));
    }
    let mut pod = asking(&[("mount-path", "/run/app/secrets")]);
    pod["spec"]["containers"][0]["terminationMessagePath"] = json!("/run/app/secrets/log");
    assert_eq!(denied(&pod).0, "PathConflict");
    let mut pod = asking(&[("mount-path", "/run/app/secrets")]);
    pod["spec"]["containers"][0]["volumeDevices"] =
        json!([{"name": "disk", "devicePath": "/run/app/secrets/disk"}]);
    assert_eq!(denied(&pod).0, "PathConflict");
    // Only a container that gets the files can be in conflict with them.
    let mut pod = with("/run/app/secrets", false, empty());
    pod["metadata"]["annotations"]["sealedenv.dev/containers"] = json!("migrate");
    patched(&pod);
}

#[test]
fn a_volume_of_our_name_must_be_our_secret() {
    let with = |source: Value| {
        let mut pod = asking(&[]);
        let mut volume = source;
        volume["name"] = json!("sealedenv-checkout");
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        pod
    };
    for source in [
        json!({"emptyDir": {}}),
        json!({"secret": {"secretName": "other"}}),
        json!({"secret": {"secretName": "checkout", "optional": true}}),
        json!({"secret": {"secretName": "checkout", "items": [{"key": "A", "path": "a"}]}}),
        json!({"configMap": {"name": "checkout"}}),
    ] {
        assert_eq!(denied(&with(source)).0, "VolumeConflict");
    }
    let patched = patched(&with(json!({"secret": {"secretName": "checkout", "defaultMode": 256}})));
    assert_eq!(
        patched["spec"]["volumes"].as_array().unwrap().len(),
        2,
        "the pod's own volume is used as it is"
    );
}

#[test]
fn the_same_variables_are_not_added_twice_and_others_do_not_count() {
    let with = |source: Value| {
        let mut pod = asking(&[("env", "true"), ("containers", "app")]);
        pod["spec"]["containers"][0]["envFrom"] = json!([source]);
        patched(&pod)["spec"]["containers"][0]["envFrom"].as_array().unwrap().len()
    };
    assert_eq!(with(json!({"secretRef": {"name": "checkout"}})), 1);
    assert_eq!(with(json!({"secretRef": {"name": "checkout", "optional": true}})), 2);
    assert_eq!(with(json!({"secretRef": {"name": "checkout"}, "prefix": "X_"})), 2);
    assert_eq!(with(json!({"secretRef": {"name": "other"}})), 2);
    assert_eq!(with(json!({"configMapRef": {"name": "checkout"}})), 2);
}

#[test]
fn a_missing_sealed_env_is_a_warning_and_one_not_seen_yet_is_not() {
    let outcome = run(&pod(&json!({"sealedenv.dev/inject": "later,unknown,checkout"}))).unwrap();
    assert_eq!(outcome.absent, ["later"]);
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
    let warning = &outcome.warnings[0];
    assert!(warning.contains("shop/later") && warning.contains("FailedMount"), "{warning}");
    let patch = serde_json::to_string(&outcome.patch).unwrap();
    assert!(
        patch.contains(r#""secretName":"later""#) && patch.contains(r#""secretName":"unknown""#),
        "{patch}"
    );
}

#[test]
fn deliveries_that_do_not_exist_yet_are_refused() {
    let (reason, message) = denied(&pod(&json!({"sealedenv.dev/inject": "future"})));
    assert_eq!(reason, "DeliveryUnavailable");
    assert_eq!(message, "delivery \"Telepathy\" is not available here");
    patched(&asking(&[("delivery", "secret")]));
}

#[test]
fn a_sealed_env_in_memory_comes_from_the_node_plugin() {
    for delivery in [None, Some("csi")] {
        let mut annotations = json!({"sealedenv.dev/inject": "memory"});
        if let Some(delivery) = delivery {
            annotations["sealedenv.dev/delivery"] = json!(delivery);
        }
        let patched = patched(&pod(&annotations));
        assert_eq!(
            patched["spec"]["volumes"][1],
            json!({
                "name": "sealedenv-memory",
                "csi": {
                    "driver": "csi.sealedenv.dev",
                    "readOnly": true,
                    "volumeAttributes": {"sealedenv": "memory"}
                }
            })
        );
        let mount = json!({"name": "sealedenv-memory", "mountPath": "/run/secrets/memory", "readOnly": true});
        assert_eq!(patched["spec"]["containers"][0]["volumeMounts"][1], mount);
    }
    let both = patched(&pod(&json!({"sealedenv.dev/inject": "memory,checkout"})));
    assert_eq!(both["spec"]["volumes"][2]["secret"]["secretName"], "checkout");
}

#[test]
fn one_that_is_not_known_yet_comes_as_the_annotation_says() {
    for name in ["later", "unknown"] {
        let annotations = json!({"sealedenv.dev/inject": name, "sealedenv.dev/delivery": "csi"});
        let patched = patched(&pod(&annotations));
        assert_eq!(patched["spec"]["volumes"][1]["csi"]["volumeAttributes"], json!({"sealedenv": name}));
    }
}

#[test]
fn a_delivery_that_the_sealed_env_does_not_have_is_refused() {
    for (name, delivery) in [("checkout", "csi"), ("billing", "csi"), ("memory", "secret")] {
        let annotations = json!({"sealedenv.dev/inject": name, "sealedenv.dev/delivery": delivery});
        let (reason, message) = denied(&pod(&annotations));
        assert_eq!(reason, "DeliveryMismatch");
        assert!(message.contains(name) && message.contains(delivery), "{message}");
    }
}

#[test]
fn a_flat_mount_in_memory_leaves_a_place_for_the_token() {
    for path in ["/run/secrets", "/var/run/secrets/"] {
        let annotations = json!({"sealedenv.dev/inject": "memory", "sealedenv.dev/mount-path": path});
        let patched = patched(&pod(&annotations));
        assert_eq!(
            patched["spec"]["volumes"][1]["csi"]["volumeAttributes"],
            json!({"sealedenv": "memory", "serviceAccountDirectory": "true"})
        );
    }
    for path in ["/run/secrets/kubernetes.io", TOKEN_MOUNT, "/run/secrets/kubernetes.io/serviceaccount/x"] {
        let annotations = json!({"sealedenv.dev/inject": "memory", "sealedenv.dev/mount-path": path});
        assert_eq!(denied(&pod(&annotations)).0, "CoversToken", "{path}");
    }
    // The place is for the token alone.
    let annotations = json!({"sealedenv.dev/inject": "memory", "sealedenv.dev/mount-path": "/run/secrets"});
    let mut pod = pod(&annotations);
    let other = json!({"name": "token", "mountPath": "/run/secrets/other"});
    pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(other);
    assert_eq!(denied(&pod).0, "PathConflict");
}

#[test]
fn a_volume_of_our_name_must_be_our_node_plugins() {
    let with = |csi: Value, path: Option<&str>| {
        let mut annotations = json!({"sealedenv.dev/inject": "memory"});
        if let Some(path) = path {
            annotations["sealedenv.dev/mount-path"] = json!(path);
        }
        let mut pod = pod(&annotations);
        let volume = json!({"name": "sealedenv-memory", "csi": csi});
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        pod
    };
    let ours =
        json!({"driver": "csi.sealedenv.dev", "volumeAttributes": {"sealedenv": "memory", "mode": "0400"}});
    patched(&with(ours.clone(), None));
    assert_eq!(
        denied(&with(ours, Some("/run/secrets"))).0,
        "VolumeConflict",
        "it has no place for the token"
    );
    for csi in [
        json!({"driver": "csi.example.com", "volumeAttributes": {"sealedenv": "memory"}}),
        json!({"driver": "csi.sealedenv.dev", "volumeAttributes": {"sealedenv": "checkout"}}),
        json!({"driver": "csi.sealedenv.dev"}),
    ] {
        assert_eq!(denied(&with(csi, None)).0, "VolumeConflict");
    }
}

#[test]
fn who_asks_for_nothing_gets_nothing() {
    for annotations in
        [json!({}), json!(null), json!({"sealedenv.dev/containers": "", "other/inject": "checkout"})]
    {
        assert_eq!(run(&pod(&annotations)).unwrap(), Outcome::default());
    }
    assert_eq!(run(&json!({"metadata": {}})).unwrap(), Outcome::default());
    assert_eq!(denied(&json!({"metadata": {"annotations": {"sealedenv.dev/inject": "a"}}})).0, "NoSpec");
}

#[test]
fn a_static_pod_is_left_alone_and_says_so() {
    let outcome =
        run(&pod(&json!({"sealedenv.dev/inject": "checkout", "kubernetes.io/config.mirror": "x"}))).unwrap();
    assert_eq!(outcome.patch, Patch::default());
    assert_eq!(outcome.warnings.len(), 1);
}

#[test]
fn a_misspelt_annotation_is_a_warning() {
    let outcome = run(&asking(&[("container", "app"), ("mountpath", "/x")])).unwrap();
    assert_eq!(outcome.warnings.len(), 2, "{:?}", outcome.warnings);
    assert!(outcome.warnings[0].contains("sealedenv.dev/container"));
}

#[test]
fn volume_names_are_labels_and_tell_names_apart() {
    let long = "a".repeat(253);
    let names = [
        "a",
        "checkout",
        "a.b",
        "a-b",
        "b.a",
        "a.b.c",
        &long,
        &long[..252],
        &long[..53],
        &long[..54],
        "0",
        "a.-b",
    ];
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let volume = volume_name(name);
        assert!(volume.len() <= 63 && !volume.contains('.') && !volume.ends_with('-'), "{volume}");
        assert!(seen.insert(volume.clone()), "{volume} twice");
        assert_eq!(volume, volume_name(name));
    }
    assert_eq!(volume_name("checkout"), "sealedenv-checkout");
    assert_eq!(volume_name("a.b"), "sealedenv-a-b-2e7336dc8eba87ef");
}

#[test]
fn messages_are_one_short_line_whatever_was_sent() {
    let hostile = format!("x\n\u{1b}[2J{}", "y".repeat(10_000));
    for key in ["inject", "containers", "delivery", "env", "mount-path", "on-change"] {
        let (_, message) = denied(&asking(&[(key, &hostile)]));
        assert!(message.len() < 400 && !message.contains(['\n', '\u{1b}']), "{message:?}");
    }
}

#[test]
fn the_page_for_users_names_every_reason_and_annotation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/injection.md");
    let page = std::fs::read_to_string(page).unwrap();
    let text = String::new;
    let all = [
        Denied::InvalidAnnotation { annotation: names::INJECT, why: text() },
        Denied::UnknownContainer { container: text() },
        Denied::DeliveryUnavailable { asked: text() },
        Denied::CoversToken { path: text() },
        Denied::PathConflict { container: text(), path: text(), why: text() },
        Denied::VolumeConflict { volume: text(), content: text() },
        Denied::DeliveryMismatch { environment: text(), has: "", asked: "" },
        Denied::NoVariables { environment: text() },
        Denied::NoAuthority,
        Denied::ProcessesNotShared,
        Denied::CommandMissing { container: text() },
        Denied::ContainerConflict { container: text() },
    ];
    let words =
        [names::INJECT, names::CONTAINERS, names::MOUNT_PATH, names::ENV, names::DELIVERY, names::ON_CHANGE];
    for word in all.iter().map(Denied::reason).chain(words) {
        assert!(page.contains(&format!("`{word}`")), "{word} is not on the page");
    }
}
