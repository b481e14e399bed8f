//! What holds for every pod, and for every other webhook that changes it in between.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// SealedEnvs of all kinds: some do not exist, some have a Secret of another name, some are in memory.
struct Cluster;

impl Environments for Cluster {
    fn find(&self, _: &str, name: &str) -> Sighting {
        match name.len() % 3 {
            0 => Sighting::Absent,
            _ if name.starts_with('m') => {
                Sighting::Present { secret_name: None, delivery: "Memory".to_owned() }
            }
            1 => Sighting::Present {
                secret_name: Some(format!("{name}-secret")),
                delivery: "Secret".to_owned(),
            },
            _ => Sighting::Present { secret_name: None, delivery: String::new() },
        }
    }
}

fn run(pod: &Value) -> Result<Outcome, Denied> {
    let pod = serde_json::from_value(pod.clone()).unwrap();
    let (settings, environments) = (super::tests::settings(), &Cluster);
    inject(&pod, &Request { namespace: "shop", settings: &settings, authorities: Some("PEM"), environments })
}

fn apply(pod: &Value, outcome: &Outcome) -> Value {
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &outcome.patch).expect("the patch applies");
    patched
}

const NAMES: [&str; 8] = ["a", "bb", "ccc", "d.d", "e-e", "kubernetes.io", "m1", "m.mm"];
const PATHS: [&str; 9] = [
    "/run/secrets",
    "/run/secrets/a",
    "/var/run/secrets/bb/x",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run",
    "/app",
    "/app/secrets/ccc",
    "/data",
    "/etc/app",
];

fn volumes() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!([
            {"name": "v0", "emptyDir": {}},
            {"name": "v1", "secret": {"secretName": "x"}},
            {"name": "v2", "projected": {"sources": []}}
        ])),
        Just(json!([{"name": "sealedenv-a", "secret": {"secretName": "a-secret", "optional": false}}])),
    ]
}

fn container() -> impl Strategy<Value = Value> {
    let mount = (0..3usize, 0..PATHS.len(), any::<bool>())
        .prop_map(|(volume, path, read_only)| json!({"name": format!("v{volume}"), "mountPath": PATHS[path], "readOnly": read_only}));
    let mounts = prop::option::of(prop::collection::vec(mount, 0..3));
    (mounts, any::<bool>(), prop::bool::weighted(0.9)).prop_map(|(mounts, variables, command)| {
        let mut container = json!({"image": "x", "securityContext": {"runAsUser": 1}, "args": ["y"]});
        if command {
            container["command"] = json!(["x"]);
        }
        if let Some(mounts) = mounts {
            container["volumeMounts"] = json!(mounts);
        }
        if variables {
            container["envFrom"] = json!([{"secretRef": {"name": "a-secret"}}]);
        }
        container
    })
}

prop_compose! {
    fn pod()(
        environments in prop::sample::subsequence(NAMES.to_vec(), 1..4),
        env in prop::option::of(prop::sample::select(vec!["true", "false"])),
        mount_path in prop::option::of(prop::sample::select(vec!["/app/secrets", "/run/secrets", "/data", "/opt/x/"])),
        delivery in prop::option::of(prop::sample::select(vec!["csi", "agent", "agent", "agent"])),
        narrowed in prop::option::of(prop::sample::subsequence(vec!["c0", "i0", "c1"], 1..3)),
        volumes in volumes(),
        automount in prop::option::of(any::<bool>()),
        mut init in prop::collection::vec(container(), 0..3),
        mut main in prop::collection::vec(container(), 1..4),
    ) -> Value {
        let mut annotations = json!({"sealedenv.dev/inject": environments.join(",")});
        for (key, value) in [("env", env.map(str::to_owned)), ("mount-path", mount_path.map(str::to_owned)), ("delivery", delivery.map(str::to_owned)), ("containers", narrowed.map(|n| n.join(",")))] {
            if let Some(value) = value {
                annotations[format!("sealedenv.dev/{key}")] = json!(value);
            }
        }
        for (prefix, containers) in [("i", &mut init), ("c", &mut main)] {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = json!(format!("{prefix}{index}"));
            }
        }
        let mut pod = json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": main, "initContainers": init, "ephemeralContainers": [{"name": "debug"}]}
        });
        if !volumes.is_null() {
            pod["spec"]["volumes"] = volumes;
        }
        if let Some(automount) = automount {
            pod["spec"]["automountServiceAccountToken"] = json!(automount);
        }
        pod
    }
}

/// What another webhook may do to the pod.
#[derive(Clone, Debug)]
enum Mutation {
    AddContainer(Value),
    AddInitContainer(Value),
    ReverseContainers,
    DropOurVolumes,
    DropMounts(usize),
    DropVariables,
    DropOurContainers,
    AddVolume,
    AddAnnotation,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        container().prop_map(Mutation::AddContainer),
        container().prop_map(Mutation::AddInitContainer),
        Just(Mutation::ReverseContainers),
        Just(Mutation::DropOurVolumes),
        (0..3usize).prop_map(Mutation::DropMounts),
        Just(Mutation::DropVariables),
        Just(Mutation::DropOurContainers),
        Just(Mutation::AddVolume),
        Just(Mutation::AddAnnotation),
    ]
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(item);
}

fn mutate(pod: &mut Value, mutation: &Mutation, nth: usize) {
    let spec = &mut pod["spec"];
    let added = |list: &mut Value, container: &Value| {
        let mut container = container.clone();
        container["name"] = json!(format!("added{nth}"));
        push(list, container);
    };
    match mutation {
        Mutation::AddContainer(container) => added(&mut spec["containers"], container),
        Mutation::AddInitContainer(container) => added(&mut spec["initContainers"], container),
        Mutation::ReverseContainers => spec["containers"].as_array_mut().unwrap().reverse(),
        Mutation::DropOurVolumes => {
            if let Some(volumes) = spec["volumes"].as_array_mut() {
                volumes.retain(|volume| !volume["name"].as_str().unwrap().starts_with("sealedenv"));
            }
        }
        Mutation::DropMounts(index) => {
            if let Some(container) = spec["containers"].get_mut(*index) {
                container.as_object_mut().unwrap().remove("volumeMounts");
            }
        }
        Mutation::DropVariables => {
            spec["containers"][0].as_object_mut().unwrap().remove("envFrom");
        }
        Mutation::DropOurContainers => {
            if let Some(containers) = spec["initContainers"].as_array_mut() {
                containers.retain(|container| !is_ours(container));
            }
        }
        Mutation::AddVolume => {
            push(&mut spec["volumes"], json!({"name": format!("added{nth}"), "emptyDir": {}}));
        }
        Mutation::AddAnnotation => pod["metadata"]["annotations"]["other.example/x"] = json!("y"),
    }
}

fn is_ours(container: &Value) -> bool {
    container["name"].as_str().unwrap().starts_with("sealedenv-")
}

/// Every selected container has each SealedEnv mounted exactly once, from a volume that is there exactly once; the
/// others have nothing of ours.
fn check_complete(pod: &Value, outcome: &Outcome) {
    let annotations = &pod["metadata"]["annotations"];
    let narrowed =
        annotations["sealedenv.dev/containers"].as_str().map(|names| names.split(',').collect::<Vec<_>>());
    for name in &outcome.environments {
        let volume = volume_name(name);
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        assert_eq!(volumes.iter().filter(|v| v["name"] == volume.as_str()).count(), 1, "{volume} in {pod}");
        for kind in ["containers", "initContainers"] {
            let containers = pod["spec"][kind].as_array().into_iter().flatten();
            for container in containers.filter(|container| !is_ours(container)) {
                let selected = narrowed
                    .as_ref()
                    .is_none_or(|names| names.contains(&container["name"].as_str().unwrap()));
                let mounts = container["volumeMounts"].as_array().into_iter().flatten();
                let ours = mounts.filter(|mount| mount["name"] == volume.as_str()).count();
                assert_eq!(ours, usize::from(selected), "{volume} in {container}");
            }
        }
    }
    check_ours(pod);
}

/// Who has files of the agent has the agent, once; whose command is wrapped has the program, and somebody who puts it
/// there. Nobody has either for nothing, and nothing is wrapped twice.
fn check_ours(pod: &Value) {
    let init = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let count = |name: &str| init.iter().filter(|container| container["name"] == name).count();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let of_agent = volumes.iter().any(|volume| {
        volume["name"].as_str().unwrap().starts_with("sealedenv-") && volume["emptyDir"].is_object()
    });
    let (agents, refreshes) = (count("sealedenv-agent"), count("sealedenv-agent-refresh"));
    assert_eq!((agents, refreshes), (usize::from(of_agent), usize::from(of_agent)), "{pod}");
    let mut wrapped = false;
    for container in init.iter().chain(pod["spec"]["containers"].as_array().unwrap()) {
        let words = container["command"].as_array().cloned().unwrap_or_default();
        let times = words.iter().filter(|word| *word == "/run/sealedenv/bin/sealedenv-exec").count();
        assert!(times <= 1, "{container}");
        wrapped |= times == 1;
    }
    let program = volumes.iter().any(|volume| volume["name"] == "sealedenvs-program");
    assert!(!wrapped || program, "{pod}");
    assert_eq!(count("sealedenv-exec"), usize::from(program && !of_agent), "{pod}");
}

/// The pod without anything that we could have added to it.
fn stripped(pod: &Value, of: &Value) -> Value {
    let mut pod = pod.clone();
    let keep = |list: &mut Value, original: &Value| {
        let length = original.as_array().map_or(0, Vec::len);
        if original.is_null() {
            *list = Value::Null;
        } else {
            list.as_array_mut().unwrap().truncate(length);
        }
    };
    keep(&mut pod["spec"]["volumes"], &of["spec"]["volumes"]);
    if let Some(init) = pod["spec"]["initContainers"].as_array_mut() {
        init.retain(|container| !is_ours(container));
    }
    for kind in ["containers", "initContainers"] {
        let count = of["spec"][kind].as_array().map_or(0, Vec::len);
        assert_eq!(pod["spec"][kind].as_array().map_or(0, Vec::len), count);
        for index in 0..count {
            for field in ["volumeMounts", "envFrom"] {
                keep(&mut pod["spec"][kind][index][field], &of["spec"][kind][index][field]);
            }
            let command = &mut pod["spec"][kind][index]["command"];
            let dashes = command.as_array().and_then(|words| words.iter().position(|word| word == "--"));
            if let (Some(words), Some(dashes)) = (command.as_array_mut(), dashes) {
                words.drain(..=dashes);
            }
        }
    }
    pod
}

/// Null and absent are the same.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn injecting_twice_is_injecting_once_and_only_adds(pod in pod()) {
        let Ok(outcome) = run(&pod) else { return Ok(()) };
        let once = apply(&pod, &outcome);
        check_complete(&once, &outcome);
        let again = run(&once).expect("what was injected is not refused");
        prop_assert_eq!(&again.patch, &Patch::default());
        prop_assert_eq!(without_nulls(&stripped(&once, &pod)), without_nulls(&pod));
    }

    #[test]
    fn other_webhooks_in_between_lose_and_double_nothing(
        pod in pod(),
        mutations in prop::collection::vec(mutation(), 1..5),
    ) {
        let Ok(outcome) = run(&pod) else { return Ok(()) };
        let mut changed = apply(&pod, &outcome);
        for (nth, mutation) in mutations.iter().enumerate() {
            mutate(&mut changed, mutation, nth);
        }
        // A container that was added may conflict; then the pod is refused as a whole, never half done.
        let Ok(outcome) = run(&changed) else { return Ok(()) };
        let twice = apply(&changed, &outcome);
        check_complete(&twice, &outcome);
        prop_assert_eq!(run(&twice).unwrap().patch, Patch::default());
    }
}

/// The properties above skip refused pods: most must not be.
#[test]
fn the_generator_makes_pods_that_are_injected() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let patches: Vec<String> = (0..500)
        .filter_map(|_| {
            let pod = pod().new_tree(&mut runner).unwrap().current();
            let outcome = run(&pod).ok().filter(|outcome| !outcome.patch.is_empty())?;
            Some(serde_json::to_string(&outcome.patch).unwrap())
        })
        .collect();
    let with = |word: &str| patches.iter().filter(|patch| patch.contains(word)).count();
    let (injected, agents, wrapped, installed) =
        (patches.len(), with("/sealedenv-agent"), with("--from"), with("/sealedenv-exec\",\"--install"));
    assert!(
        injected > 100 && agents > 20 && wrapped > 10 && installed > 3,
        "{injected} {agents} {wrapped} {installed}"
    );
}
