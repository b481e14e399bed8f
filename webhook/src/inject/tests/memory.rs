//! The agent, and environment variables of values in memory.

use super::*;

const BOTH: [&str; 2] = ["sealedenv-agent", "sealedenv-agent-refresh"];

/// A pod that asks for `memory` by the agent; each container has a command.
fn by_agent(extra: &[(&str, &str)]) -> Value {
    let mut annotations = json!({"sealedenv.dev/inject": "memory", "sealedenv.dev/delivery": "agent"});
    for (key, value) in extra {
        annotations[format!("sealedenv.dev/{key}")] = json!(value);
    }
    with_commands(&pod(&annotations))
}

fn with_commands(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().unwrap() {
            container["command"] = json!(["/bin/app", "serve"]);
        }
    }
    pod
}

fn names(pod: &Value, kind: &str) -> Vec<String> {
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    pod["spec"][kind].as_array().unwrap().iter().map(name).collect()
}

fn volume<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["spec"]["volumes"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

fn with(pod: &Value, settings: &Settings, authorities: Option<&str>) -> Result<Outcome, Denied> {
    let pod = serde_json::from_value(pod.clone()).unwrap();
    inject(&pod, &Request { namespace: "shop", settings, authorities, environments: &Cluster })
}

#[test]
fn the_agent_comes_first_with_tokens_of_its_own_and_the_others_only_read() {
    let pod = by_agent(&[]);
    let patched = patched(&pod);
    assert_eq!(names(&patched, "initContainers"), [&BOTH[..], &["migrate", "proxy"]].concat());
    assert_eq!(
        volume(&patched, "sealedenv-memory")["emptyDir"],
        json!({"medium": "Memory", "sizeLimit": "36Mi"})
    );
    assert_eq!(
        volume(&patched, "sealedenvs-tokens")["projected"],
        json!({"sources": [{"serviceAccountToken":
            {"audience": "sealedenv.dev", "expirationSeconds": 3600, "path": "memory/token"}}]})
    );
    let mount = json!({"name": "sealedenv-memory", "mountPath": "/run/secrets/memory", "readOnly": true});
    for container in ["/spec/initContainers/2", "/spec/initContainers/3", "/spec/containers/0"] {
        let mounts = patched.pointer(container).unwrap()["volumeMounts"].as_array().unwrap();
        assert_eq!((mounts.len(), &mounts[1]), (2, &mount), "{container}");
    }
    let [init, refresh] = [0, 1].map(|index| &patched["spec"]["initContainers"][index]);
    assert_eq!(init["command"], json!(["/sealedenv-agent", "init", "--sealedenv=memory"]));
    assert_eq!(refresh["command"], json!(["/sealedenv-agent", "refresh", "--sealedenv=memory"]));
    assert_eq!(init.get("restartPolicy"), None);
    assert_eq!(
        refresh["restartPolicy"], "Always",
        "a native sidecar, so that the others start while it runs"
    );
    for ours in [init, refresh] {
        assert_eq!(
            (&ours["image"], &ours["imagePullPolicy"]),
            (&json!("sealedenv:1"), &json!("IfNotPresent"))
        );
        assert_eq!(
            ours["env"],
            json!([
                {"name": "SEALEDENV_OPERATOR", "value": "https://192.0.2.7:8443"},
                {"name": "SEALEDENV_OPERATOR_CA", "value": "PEM"}
            ])
        );
        assert_eq!(
            ours["volumeMounts"],
            json!([
                {"name": "sealedenvs-tokens", "mountPath": TOKEN_MOUNT, "readOnly": true},
                {"name": "sealedenvs-state", "mountPath": "/run/sealedenv/state"},
                {"name": "sealedenv-memory", "mountPath": "/run/sealedenv/files/memory"}
            ]),
            "in the place of the API server's token, so that it is given none"
        );
        assert!(ours["resources"]["limits"]["memory"].is_string());
    }
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, each control of "restricted" for a container.
#[test]
fn what_is_added_meets_the_restricted_pod_security_standard() {
    for pod in [
        by_agent(&[("env", "true")]),
        by_agent(&[("on-change", "exec=/bin/reload")]),
        with_commands(&super::pod(&json!({
        "sealedenv.dev/inject": "memory", "sealedenv.dev/env": "true"}))),
    ] {
        let patched = patched(&pod);
        let added = patched["spec"]["initContainers"].as_array().unwrap();
        let added: Vec<&Value> =
            added.iter().filter(|one| one["name"].as_str().unwrap().starts_with("sealedenv-")).collect();
        assert!(!added.is_empty());
        for ours in added {
            assert_eq!(
                ours["securityContext"],
                json!({
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                    "runAsNonRoot": true,
                    "runAsUser": 65532,
                    "runAsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"}
                })
            );
            assert!(ours.get("ports").is_none() && ours.get("lifecycle").is_none());
        }
        for volume in patched["spec"]["volumes"].as_array().unwrap() {
            let kinds: Vec<_> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
            assert!(["csi", "emptyDir", "projected"].contains(&kinds[0].as_str()), "{volume}");
        }
    }
}

#[test]
fn the_cluster_can_prefer_the_agent_and_a_pod_can_say_otherwise() {
    let settings = Settings { memory_delivery: Delivery::Agent, ..settings() };
    for (delivery, agent) in [(None, true), (Some("agent"), true), (Some("csi"), false)] {
        let mut pod = pod(&json!({"sealedenv.dev/inject": "memory"}));
        if let Some(delivery) = delivery {
            pod["metadata"]["annotations"]["sealedenv.dev/delivery"] = json!(delivery);
        }
        let patch = serde_json::to_string(&with(&pod, &settings, Some("PEM")).unwrap().patch).unwrap();
        assert_eq!(patch.contains("/sealedenv-agent"), agent, "{delivery:?}");
        assert_eq!(patch.contains("csi.sealedenv.dev"), !agent, "{delivery:?}");
    }
    let pod = pod(&json!({"sealedenv.dev/inject": "checkout"}));
    let patch = serde_json::to_string(&with(&pod, &settings, None).unwrap().patch).unwrap();
    assert!(patch.contains(r#""secretName":"checkout""#), "it is about values in memory only: {patch}");
}

#[test]
fn an_agent_that_is_not_enabled_or_would_trust_nobody_is_refused() {
    let off = Settings { operator: None, ..settings() };
    for settings in [off.clone(), Settings { memory_delivery: Delivery::Agent, ..off }] {
        let denied = with(&by_agent(&[]), &settings, Some("PEM")).unwrap_err();
        assert_eq!(denied.to_string(), "delivery agent is not available here");
        assert!(denied.hint().contains("agent.enabled"));
    }
    let off = Settings { memory_delivery: Delivery::Agent, operator: None, ..settings() };
    let pod = pod(&json!({"sealedenv.dev/inject": "memory"}));
    assert_eq!(with(&pod, &off, Some("PEM")).unwrap_err().reason(), "DeliveryUnavailable");
    assert_eq!(with(&by_agent(&[]), &settings(), None).unwrap_err().reason(), "NoAuthority");
    assert_eq!(denied(&asking(&[("delivery", "agent")])).0, "DeliveryMismatch", "checkout has a Secret");
}

#[test]
fn a_pod_that_asks_before_there_is_a_sealed_env_waits_in_the_agent() {
    let pod = pod(&json!({"sealedenv.dev/inject": "later", "sealedenv.dev/delivery": "agent"}));
    let outcome = run(&pod).unwrap();
    assert_eq!(outcome.absent, ["later"]);
    assert!(outcome.warnings[0].contains("in its init container sealedenv-agent"), "{:?}", outcome.warnings);
    assert_eq!(volume(&patched(&pod), "sealedenv-later")["emptyDir"]["medium"], "Memory");
}

#[test]
fn a_pod_without_init_containers_gets_a_list_of_them() {
    let mut pod = by_agent(&[]);
    pod["spec"].as_object_mut().unwrap().remove("initContainers");
    assert_eq!(names(&patched(&pod), "initContainers"), BOTH);
}

#[test]
fn a_flat_mount_has_a_place_for_the_token_that_the_agent_makes() {
    let patched = patched(&by_agent(&[("mount-path", "/run/secrets")]));
    for index in [0, 1] {
        let command = patched["spec"]["initContainers"][index]["command"].as_array().unwrap();
        assert!(command.contains(&json!("--token-place=memory")), "{command:?}");
    }
    assert_eq!(patched["spec"]["containers"][0]["volumeMounts"][1]["mountPath"], "/run/secrets");
}

#[test]
fn what_has_our_names_and_is_something_else_is_refused() {
    let mut pod = by_agent(&[]);
    pod["spec"]["containers"][0]["name"] = json!("sealedenv-agent");
    assert_eq!(denied(&pod).0, "ContainerConflict");
    let mut pod = by_agent(&[]);
    pod["spec"]["initContainers"][0]["name"] = json!("sealedenv-agent-refresh");
    assert_eq!(denied(&pod).0, "ContainerConflict");
    for (name, source) in [
        ("sealedenv-memory", json!({"emptyDir": {}})),
        ("sealedenv-memory", json!({"secret": {"secretName": "memory"}})),
        ("sealedenvs-state", json!({"hostPath": {"path": "/state"}})),
        ("sealedenvs-state", json!({"configMap": {"name": "state"}})),
        (
            "sealedenvs-tokens",
            json!({"projected": {"sources": [
            {"serviceAccountToken": {"audience": "sealedenv.dev", "path": "other/token"}}]}}),
        ),
        (
            "sealedenvs-tokens",
            json!({"projected": {"sources": [
            {"serviceAccountToken": {"audience": "other", "path": "memory/token"}}]}}),
        ),
    ] {
        let mut pod = by_agent(&[]);
        let mut volume = source;
        volume["name"] = json!(name);
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume.clone());
        assert_eq!(denied(&pod).0, "VolumeConflict", "{volume}");
    }
    // Nobody but the agent writes its files.
    let mut pod = by_agent(&[]);
    let writable = json!({"name": "sealedenv-memory", "mountPath": "/run/secrets/memory"});
    pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(writable);
    assert_eq!(denied(&pod).0, "PathConflict");
}

/// A pod outlives a restart of its node, and what is in memory does not: an agent that had forgotten the authorities of
/// the time would trust those of the day the pod was made, and wait for ever.
#[test]
fn what_the_agent_remembers_outlives_a_restart_of_the_node_and_values_do_not() {
    let pod = by_agent(&[("env", "true")]);
    let patched = patched(&pod);
    assert_eq!(volume(&patched, "sealedenvs-state")["emptyDir"], json!({"sizeLimit": "1Mi"}));
    for name in ["sealedenv-memory", "sealedenvs-program"] {
        assert_eq!(volume(&patched, name)["emptyDir"]["medium"], "Memory", "{name}");
    }
    // A pod that another replica, of the release before, has seen first.
    let mut before = pod;
    let volumes = before["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "sealedenvs-state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}));
    run(&before).unwrap();
}

#[test]
fn an_image_from_a_mirror_is_still_ours() {
    let mut pod = patched(&by_agent(&[]));
    pod["spec"]["initContainers"][0]["image"] = json!("mirror.example/sealedenv:1");
    pod["spec"]["initContainers"][1]["env"] = json!([]);
    assert_eq!(run(&pod).unwrap().patch, Patch::default());
}

#[test]
fn a_command_is_started_with_variables_and_stays_what_it_is() {
    let exec = "/run/sealedenv/bin/sealedenv-exec";
    for agent in [true, false] {
        let mut pod = by_agent(&[("env", "true"), ("containers", "app")]);
        if !agent {
            pod["metadata"]["annotations"].as_object_mut().unwrap().remove("sealedenv.dev/delivery");
        }
        pod["spec"]["containers"][0]["args"] = json!(["--port", "$(PORT)"]);
        pod["spec"]["containers"][0]["env"] = json!([{"name": "PORT", "value": "1"}, {"name": "ODD$(X)"}]);
        let patched = patched(&pod);
        let app = &patched["spec"]["containers"][0];
        assert_eq!(
            app["command"],
            json!([
                exec,
                "--from",
                "/run/secrets/memory",
                "--keep",
                "ODD$$(X)",
                "--keep",
                "PORT",
                "--",
                "/bin/app",
                "serve"
            ])
        );
        assert_eq!(app["args"], pod["spec"]["containers"][0]["args"]);
        assert!(app.get("envFrom").is_none());
        let program =
            json!({"name": "sealedenvs-program", "mountPath": "/run/sealedenv/bin", "readOnly": true});
        assert_eq!(app["volumeMounts"][2], program);
        let first = &patched["spec"]["initContainers"][0];
        let puts = json!({"name": "sealedenvs-program", "mountPath": "/run/sealedenv/bin"});
        assert!(first["volumeMounts"].as_array().unwrap().contains(&puts));
        if agent {
            assert_eq!(first["command"][2], "--install-exec=/run/sealedenv/bin");
            assert_eq!(names(&patched, "initContainers")[2..], ["migrate", "proxy"]);
        } else {
            assert_eq!(first["command"], json!(["/sealedenv-exec", "--install", "/run/sealedenv/bin"]));
            assert_eq!(names(&patched, "initContainers"), ["sealedenv-exec", "migrate", "proxy"]);
        }
        assert_eq!(
            patched["spec"]["initContainers"][2]["command"],
            json!(["/bin/app", "serve"]),
            "not selected"
        );
    }
}

#[test]
fn variables_of_a_secret_and_of_memory_go_together() {
    let annotations = json!({"sealedenv.dev/inject": "checkout,memory", "sealedenv.dev/env": "true"});
    let patched = patched(&with_commands(&pod(&annotations)));
    let app = &patched["spec"]["containers"][0];
    assert_eq!(app["envFrom"][0]["secretRef"]["name"], "checkout");
    assert_eq!(app["command"].as_array().unwrap()[1..3], [json!("--from"), json!("/run/secrets/memory")]);
}

#[test]
fn a_container_without_a_command_gets_no_variables_of_memory() {
    for command in [json!(null), json!([])] {
        let mut pod = by_agent(&[("env", "true")]);
        pod["spec"]["initContainers"][1]["command"] = command;
        let (reason, message) = denied(&pod);
        assert_eq!(reason, "CommandMissing");
        assert!(message.contains("\"proxy\""), "{message}");
        pod["metadata"]["annotations"]["sealedenv.dev/containers"] = json!("app");
        patched(&pod);
    }
    let none = Settings { image: None, ..settings() };
    let pod = with_commands(&pod(&json!({"sealedenv.dev/inject": "memory", "sealedenv.dev/env": "true"})));
    assert_eq!(with(&pod, &none, None).unwrap_err().reason(), "NoVariables");
}

#[test]
fn the_program_has_its_folder_for_itself() {
    for path in ["/run/sealedenv", "/run/sealedenv/bin", "/var/run/sealedenv/bin/x"] {
        let (reason, message) = denied(&by_agent(&[("env", "true"), ("mount-path", path)]));
        assert_eq!(reason, "InvalidAnnotation", "{path}");
        assert!(message.contains("/run/sealedenv/bin"), "{message}");
        patched(&by_agent(&[("mount-path", path)]));
    }
}

#[test]
fn names_of_volumes_of_sealed_envs_and_of_ours_are_never_the_same() {
    for name in ["tokens", "state", "program", "s-tokens", "agent", "agent-refresh", "exec"] {
        let ours = ["sealedenvs-tokens", "sealedenvs-state", "sealedenvs-program"];
        assert!(!ours.contains(&volume_name(name).as_str()), "{name}");
    }
}

#[test]
fn a_signal_on_change_needs_an_agent_and_shared_processes_and_one_user() {
    let ask = [("on-change", "signal=SIGHUP")];
    assert_eq!(denied(&by_agent(&ask)).0, "ProcessesNotShared");
    let shared = |annotations: &[(&str, &str)]| {
        let mut pod = by_agent(annotations);
        pod["spec"]["shareProcessNamespace"] = json!(true);
        pod
    };
    for (user, expected) in [(json!(null), 65532), (json!(0), 65532), (json!(1000), 1000)] {
        let mut pod = shared(&ask);
        pod["spec"]["securityContext"] = json!({"runAsUser": user});
        let patched = patched(&pod);
        let [init, refresh] = [0, 1].map(|index| &patched["spec"]["initContainers"][index]);
        assert_eq!(refresh["command"][2], "--on-change-signal=SIGHUP");
        assert!(!init["command"].to_string().contains("signal"));
        for ours in [init, refresh] {
            assert_eq!(ours["securityContext"]["runAsUser"], expected);
        }
    }
    let mut pod = shared(&ask);
    pod["metadata"]["annotations"]["sealedenv.dev/delivery"] = json!("csi");
    let (reason, message) = denied(&pod);
    assert_eq!(reason, "InvalidAnnotation");
    assert!(message.contains("sealedenv.dev/on-change is obeyed by the agent"), "{message}");
}

#[test]
fn a_program_on_change_needs_an_agent_and_nothing_of_the_pod() {
    let ask = [("on-change", "exec=/bin/reload --url=$(HOST) -q")];
    let mut pod = by_agent(&ask);
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000});
    let patched = patched(&pod);
    let [init, refresh] = [0, 1].map(|index| &patched["spec"]["initContainers"][index]);
    assert_eq!(
        refresh["command"],
        json!([
            "/sealedenv-agent",
            "refresh",
            "--on-change-exec=/bin/reload",
            "--on-change-argument=--url=$$(HOST)",
            "--on-change-argument=-q",
            "--sealedenv=memory"
        ]),
        "the kubelet fills nothing in"
    );
    assert!(!init["command"].to_string().contains("on-change"), "the first fetch is no change");
    assert_eq!(refresh["securityContext"]["runAsUser"], 65532, "it is not about the pod's processes");
    assert_eq!(patched["spec"].get("shareProcessNamespace"), None);
    pod["metadata"]["annotations"]["sealedenv.dev/delivery"] = json!("csi");
    let (reason, message) = denied(&pod);
    assert_eq!(reason, "InvalidAnnotation");
    assert!(message.contains("sealedenv.dev/on-change is obeyed by the agent"), "{message}");
    let (reason, message) = denied(&by_agent(&[("on-change", "exec=reload")]));
    assert_eq!(reason, "InvalidAnnotation");
    assert!(message.contains("must have an absolute path of a program behind exec="), "{message}");
    let run = with(&by_agent(&[("on-change", "exec=reload")]), &settings(), Some("PEM"));
    assert!(run.unwrap_err().hint().contains("exec=/bin/reload"));
}
