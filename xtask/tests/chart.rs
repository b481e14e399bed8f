//! The Helm chart, rendered by the real helm: goldens, schema, rights, Pod Security, webhooks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::LazyLock,
};

use serde_json::{Value, json};
use xtask::{Checkout, chart};

static CHECKOUT: LazyLock<Checkout> = LazyLock::new(|| Checkout::find().unwrap());
static HELM: LazyLock<PathBuf> = LazyLock::new(|| chart::helm().unwrap());

fn render(arguments: &[&str]) -> anyhow::Result<String> {
    chart::render(&HELM, &CHECKOUT, &[], arguments)
}

fn objects(arguments: &[&str]) -> Vec<Value> {
    chart::objects(&render(arguments).unwrap()).unwrap()
}

/// Every rendering that the tests look at: each case, and each combination of the values that switch objects.
static RENDERINGS: LazyLock<Vec<(String, Vec<Value>)>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for case in chart::cases(&CHECKOUT).unwrap() {
        let text = chart::render(&HELM, &CHECKOUT, &[&case.values], &[]).unwrap();
        all.push((case.name, chart::objects(&text).unwrap()));
    }
    let switches = [
        "webhook.create=false",
        "operator.watchNamespaces={shop,billing}",
        "rbac.aggregateToView=false",
        "rbac.aggregateToEdit=false",
        "rbac.publishRecipients=false",
        "webhook.certManager.enabled=true,webhook.certManager.cert.issuerRef.name=ours",
        "delivery.enabled=true,node.enabled=true,agent.enabled=true",
    ];
    for chosen in 0..1_u32 << switches.len() {
        let mut arguments = vec!["--set", "metrics.service.enabled=true"];
        for (place, switch) in switches.iter().enumerate() {
            if chosen & (1 << place) != 0 {
                arguments.extend(["--set", switch]);
            }
        }
        all.push((arguments.join(" "), objects(&arguments)));
    }
    all
});

fn of_kind<'v>(objects: &'v [Value], kind: &str) -> Vec<&'v Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_file_of_values_lints_and_renders_to_its_golden() {
    let cases = chart::cases(&CHECKOUT).unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        chart::lint(&HELM, &CHECKOUT, &case.values).unwrap();
        let wanted = std::fs::read_to_string(&case.golden).unwrap_or_default();
        let found = chart::render_case(&HELM, &CHECKOUT, &case).unwrap();
        let differing = wanted.lines().zip(found.lines()).position(|(wanted, found)| wanted != found);
        assert!(
            wanted == found,
            "{} renders differently (first in line {}): if that is meant, run `cargo xtask gen` and commit the result",
            case.name,
            differing.map_or(wanted.lines().count().min(found.lines().count()), |line| line) + 1
        );
    }
}

#[test]
fn the_chart_is_of_the_workspaces_version() {
    let chart = std::fs::read_to_string(CHECKOUT.chart().join("Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&chart).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

// --- CRDs ---

fn generated_crds() -> BTreeMap<String, Value> {
    let folder = CHECKOUT.root().join("crds/generated");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let crd: Value = serde_saphyr::from_str(&text).unwrap();
            (crd["metadata"]["name"].as_str().unwrap().to_owned(), crd)
        })
        .collect()
}

#[test]
fn crds_are_the_generated_ones_and_stay_on_uninstall() {
    let rendered = objects(&[]);
    let rendered = of_kind(&rendered, "CustomResourceDefinition");
    let generated = generated_crds();
    assert_eq!(rendered.len(), generated.len());
    for crd in rendered {
        let wanted = &generated[crd["metadata"]["name"].as_str().unwrap()];
        assert_eq!(crd["spec"], wanted["spec"]);
        assert_eq!(crd["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));
        assert_eq!(crd["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    }
}

#[test]
fn crds_can_be_left_out_given_up_and_annotated() {
    assert!(of_kind(&objects(&["--set", "crds.enabled=false"]), "CustomResourceDefinition").is_empty());
    for crd in of_kind(&objects(&["--set", "crds.keep=false"]), "CustomResourceDefinition") {
        assert_eq!(crd["metadata"].get("annotations"), None, "never an empty map");
    }
    for crd in of_kind(&objects(&["--set", "crds.annotations.a=b"]), "CustomResourceDefinition") {
        assert_eq!(crd["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep", "a": "b"}));
    }
}

// --- values ---

#[test]
fn a_mistyped_or_impossible_value_is_refused_by_name() {
    for (value, named) in [
        ("operatr.workers=1", "operatr"),
        ("operator.watchNamespace={shop}", "watchNamespace"),
        ("operator.watchNamespaces={Shop}", "watchNamespaces"),
        ("operator.replicaCount=-1", "replicaCount"),
        ("operator.leaderElection.leaseSeconds=2", "leaseSeconds"),
        ("operator.generateKey=true", "generateKey"),
        ("operator.workers=0", "workers"),
        ("operator.serviceAccount.nam=x", "nam"),
        ("webhook.failurePolicy=fail", "failurePolicy"),
        ("webhook.timeoutSeconds=31", "timeoutSeconds"),
        ("webhook.replicaCount=0", "replicaCount"),
        ("webhook.workers=1", "workers"),
        ("image.tags=x", "tags"),
        ("image.tag=latest", "tag"),
        ("image.digest=sha256:abc", "digest"),
        ("audit.failurePolicy=Sometimes", "failurePolicy"),
        ("audit.persistence.size=big", "size"),
        ("crds.install=true", "install"),
        ("log.level=loud", "level"),
        ("networkPolicy.enabled=maybe", "enabled"),
        ("networkPolicy.egress=all", "egress"),
        ("metrics.objectSeries=-1", "objectSeries"),
        ("prometheusRule.runbookUrl=here", "runbookUrl"),
        ("prometheusRule.renderMode=never", "renderMode"),
        ("grafanaDashboard.label=x", "label"),
        ("webhook.certManager.issuerRef.name=x", "issuerRef"),
        ("node.enable=true", "enable"),
        ("node.kubeletRoot=kubelet", "kubeletRoot"),
        ("webhook.certManager.cert.duration=long", "duration"),
    ] {
        let error = format!("{:#}", render(&["--set", value]).expect_err(value));
        assert!(error.contains("values don't meet the specifications of the schema"), "{value}: {error}");
        assert!(error.contains(named), "{value}: {error}");
    }
}

#[test]
fn a_trail_without_a_sink_is_refused() {
    let error = render(&["--set", "audit.stdout=false,audit.file.enabled=false"]).unwrap_err().to_string();
    assert!(error.contains("both audit.stdout and audit.file.enabled are off"), "{error}");
}

#[test]
fn a_missing_crd_of_the_prometheus_operator_is_skipped_refused_or_overridden() {
    for (value, kind) in [("serviceMonitor", "ServiceMonitor"), ("prometheusRule", "PrometheusRule")] {
        let found = |arguments: &[&str]| of_kind(&objects(arguments), kind).len();
        let enabled = format!("{value}.enabled=true");
        assert_eq!(found(&[]), 0, "{kind}");
        assert_eq!(found(&["--set", &enabled]), 0, "{kind}");
        let present = format!("monitoring.coreos.com/v1/{kind}");
        assert_eq!(found(&["--set", &enabled, "--api-versions", &present]), 1, "{kind}");
        let always = format!("{enabled},{value}.renderMode=alwaysRender");
        assert_eq!(found(&["--set", &always]), 1, "{kind}");
        let must = format!("{enabled},{value}.renderMode=failIfMissing");
        let error = render(&["--set", &must]).unwrap_err().to_string();
        assert!(error.contains(&format!("{value}.renderMode")), "{error}");
    }
}

// --- who may connect ---

#[test]
fn by_default_each_component_takes_connections_on_its_own_ports_only() {
    let all = objects(&["--set", "metrics.service.enabled=true"]);
    let deployments = of_kind(&all, "Deployment");
    let policies = of_kind(&all, "NetworkPolicy");
    assert_eq!(policies.len(), deployments.len());
    for policy in policies {
        let selector = &policy["spec"]["podSelector"]["matchLabels"];
        let deployment = deployments.iter().find(|d| &d["spec"]["selector"]["matchLabels"] == selector);
        let pod = &deployment.expect("a policy of our own pods")["spec"]["template"]["spec"];
        let names = |list: &Value, field: &str| -> BTreeSet<String> {
            let list = list.as_array().into_iter().flatten();
            list.map(|port| port[field].as_str().unwrap().to_owned()).collect()
        };
        let served = names(&pod["containers"][0]["ports"], "name");
        let open = policy["spec"]["ingress"].as_array().unwrap().iter();
        let open: BTreeSet<String> = open.flat_map(|rule| names(&rule["ports"], "port")).collect();
        assert_eq!(open, served, "{}", policy["metadata"]["name"]);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]), "what leaves is not known to a chart");
    }
}

#[test]
fn who_may_reach_metrics_and_what_may_leave_can_be_limited() {
    let set = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=sre,networkPolicy.egress[0].ports[0].port=6443";
    for policy in of_kind(&objects(&["--set", set]), "NetworkPolicy") {
        let metrics = &policy["spec"]["ingress"][0];
        assert_eq!(metrics["from"], json!([{"namespaceSelector": {"matchLabels": {"team": "sre"}}}]));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"], json!([{"ports": [{"port": 6443}]}]));
        let admission = policy["spec"]["ingress"].get(1);
        assert!(admission.is_none_or(|rule| rule.get("from").is_none()), "API servers are no pods");
    }
    assert!(of_kind(&objects(&["--set", "networkPolicy.enabled=false"]), "NetworkPolicy").is_empty());
}

// --- cert-manager ---

#[test]
fn under_cert_manager_the_webhook_serves_its_secret_and_may_touch_no_configuration() {
    let set = "webhook.certManager.enabled=true,webhook.certManager.cert.issuerRef.name=ours";
    let all = objects(&["--set", set]);
    let certificate = of_kind(&all, "Certificate")[0];
    let host = "sealedenv-webhook.sealedenv-system.svc";
    assert!(certificate["spec"]["dnsNames"].as_array().unwrap().contains(&json!(host)));
    let webhook = of_kind(&all, "Deployment")
        .into_iter()
        .find(|deployment| deployment["metadata"]["name"] == "sealedenv-webhook")
        .unwrap();
    let pod = &webhook["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "certificate").unwrap();
    assert_eq!(volume["secret"]["secretName"], certificate["spec"]["secretName"]);
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "certificate").unwrap();
    let flag = format!("--certificate-dir={}", mount["mountPath"].as_str().unwrap());
    assert!(container["args"].as_array().unwrap().contains(&json!(flag)));
    assert_eq!(mount["readOnly"], true);
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let annotations = &of_kind(&all, kind)[0]["metadata"]["annotations"];
        assert_eq!(annotations["cert-manager.io/inject-ca-from"], "sealedenv-system/sealedenv-webhook");
    }
    let rights = &granted(&all)["ServiceAccount webhook"];
    assert!(!rights.iter().any(|right| right.contains("admissionregistration")), "{rights:?}");

    let own = objects(&["--set", set, "--set", "webhook.certManager.cert.create=false"]);
    assert!(of_kind(&own, "Certificate").is_empty());
    let annotations = &of_kind(&own, "MutatingWebhookConfiguration")[0]["metadata"]["annotations"];
    assert_eq!(
        annotations["cert-manager.io/inject-ca-from-secret"],
        "sealedenv-system/sealedenv-webhook-tls"
    );
    let error = render(&["--set", "webhook.certManager.enabled=true"]).unwrap_err().to_string();
    assert!(error.contains("issuerRef.name: name the Issuer"), "{error}");
}

#[test]
fn without_cert_manager_nothing_of_it_is_rendered() {
    let text = render(&[]).unwrap();
    for word in
        ["kind: Certificate", "cert-manager.io/", "--certificate-dir", "secretName: sealedenv-webhook"]
    {
        assert!(!text.contains(word), "{word}");
    }
}

/// The schema and values.yaml name the same values: neither has one that the other lacks.
#[test]
fn the_schema_names_exactly_the_values_there_are() {
    let values = std::fs::read_to_string(CHECKOUT.chart().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let schema = std::fs::read_to_string(CHECKOUT.chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut compared = 0;
    compare("", &values, &schema, &mut compared);
    assert!(compared > 100, "compared only {compared} values");
}

fn compare(path: &str, values: &Value, schema: &Value, compared: &mut usize) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let values = values.as_object().unwrap_or_else(|| panic!("{path} is a map in the schema only"));
    // `global` is shared with other charts; everything else is closed.
    assert!(path == ".global" || schema["additionalProperties"] == false, "{path} takes any name");
    let (listed, known): (BTreeSet<_>, BTreeSet<_>) = (values.keys().collect(), properties.keys().collect());
    assert_eq!(listed, known, "values.yaml and the schema differ at {path}");
    for (name, value) in values {
        *compared += 1;
        compare(&format!("{path}.{name}"), value, &properties[name], compared);
    }
}

#[test]
fn the_image_can_be_pinned_and_mirrored() {
    let image = |arguments: &[&str]| {
        let objects = objects(arguments);
        let images: BTreeSet<String> = of_kind(&objects, "Deployment")
            .iter()
            .map(|deployment| {
                deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(images.len(), 1, "one image for all components: {images:?}");
        images.into_iter().next().unwrap()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[]), format!("ghcr.io/sealedenv/sealedenv:{version}"));
    assert_eq!(image(&["--set", "image.tag=1.2.3"]), "ghcr.io/sealedenv/sealedenv:1.2.3");
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(
        image(&["--set", &format!("image.tag=1.2.3,image.digest={digest}")]),
        format!("ghcr.io/sealedenv/sealedenv@{digest}")
    );
    for (repository, mirrored) in [
        ("ghcr.io/sealedenv/sealedenv", "mirror:5000/sealedenv/sealedenv"),
        ("localhost/sealedenv", "mirror:5000/sealedenv"),
        ("team/sealedenv", "mirror:5000/team/sealedenv"),
        ("sealedenv", "mirror:5000/sealedenv"),
    ] {
        let set = format!("global.imageRegistry=mirror:5000,image.tag=v1,image.repository={repository}");
        assert_eq!(image(&["--set", &set]), format!("{mirrored}:v1"));
    }
}

#[test]
fn names_fit_however_long_the_prefix_is() {
    let long = "a".repeat(49) + "-bcd";
    for object in objects(&["--set", &format!("fullnameOverride={long}")]) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63, "{name}");
        assert!(!name.contains("--"), "{name}");
        if object["kind"] != "CustomResourceDefinition" {
            assert!(name.starts_with(&"a".repeat(49)), "{name}");
        }
    }
}

// --- the node plugin ---

const NODE: [&str; 2] = ["--set", "delivery.enabled=true,node.enabled=true"];

#[test]
fn without_being_asked_for_there_is_no_node_plugin_and_no_driver() {
    let all = objects(&["--set", "delivery.enabled=true"]);
    assert!(of_kind(&all, "DaemonSet").is_empty() && of_kind(&all, "CSIDriver").is_empty());
    let error = render(&["--set", "node.enabled=true"]).unwrap_err().to_string();
    assert!(error.contains("delivery.enabled=true"), "{error}");
}

#[test]
fn the_csi_driver_asks_the_kubelet_for_what_the_plugin_needs() {
    let driver = |version: &str| {
        let all = objects(&[&NODE[..], &["--kube-version", version]].concat());
        of_kind(&all, "CSIDriver")[0].clone()
    };
    let before = driver("1.34.0");
    assert_eq!(before["metadata"]["name"], "csi.sealedenv.dev");
    assert_eq!(
        before["metadata"]["labels"]["security.openshift.io/csi-ephemeral-volume-profile"],
        "restricted"
    );
    let spec = json!({
        "attachRequired": false,
        "podInfoOnMount": true,
        "requiresRepublish": true,
        "fsGroupPolicy": "None",
        "volumeLifecycleModes": ["Ephemeral"],
        "tokenRequests": [{"audience": "sealedenv.dev", "expirationSeconds": 600}],
    });
    assert_eq!(before["spec"], spec);
    assert_eq!(driver("1.35.0")["spec"]["serviceAccountTokenInSecrets"], true);
}

#[test]
fn the_node_plugin_has_no_credential_for_the_api_server_and_sees_only_what_it_mounts() {
    let all = objects(&NODE);
    let daemon = of_kind(&all, "DaemonSet")[0];
    let pod = &daemon["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    for place in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_eq!(pod.get(place), None, "{place}");
    }
    let volumes = pod["volumes"].as_array().unwrap();
    let of_node: Vec<&str> =
        volumes.iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    let root = "/var/lib/kubelet";
    let wanted =
        ["pods", "plugins/csi.sealedenv.dev", "plugins_registry"].map(|path| format!("{root}/{path}"));
    assert_eq!(of_node, wanted);
    let container = &pod["containers"][0];
    let shared: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount.get("mountPropagation").is_some())
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert_eq!(shared, [format!("{root}/pods")], "the plugin's own mounts must not reach the node");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let tokens: Vec<_> =
        volumes.iter().filter_map(|volume| volume["projected"]["sources"].as_array()).flatten().collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0]["serviceAccountToken"]["audience"], "sealedenv.dev", "never the API server's");
    assert!(volumes.iter().all(|volume| volume.get("secret").is_none()));
    let account = pod["serviceAccountName"].as_str().unwrap();
    assert!(!granted(&all).contains_key("ServiceAccount node"), "it is granted nothing");
    for binding in
        all.iter().filter(|o| matches!(o["kind"].as_str(), Some("RoleBinding" | "ClusterRoleBinding")))
    {
        assert!(!binding["subjects"].to_string().contains(account), "{binding}");
    }
}

#[test]
fn the_node_plugin_and_the_operator_are_told_of_each_other() {
    for prefix in ["fullnameOverride=sealedenv", "fullnameOverride=other"] {
        let all = objects(&[&NODE[..], &["--set", prefix]].concat());
        let daemon = &of_kind(&all, "DaemonSet")[0]["spec"]["template"]["spec"];
        let arguments = |pod: &Value| -> Vec<String> {
            let arguments = pod["containers"][0]["args"].as_array().unwrap();
            arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
        };
        let plugin = arguments(daemon);
        let service = of_kind(&all, "Service")
            .into_iter()
            .find(|service| service["spec"]["ports"][0]["targetPort"] == "delivery")
            .unwrap();
        let [name, namespace] =
            ["name", "namespace"].map(|field| service["metadata"][field].as_str().unwrap());
        let endpoint =
            format!("--operator=https://{name}.{namespace}.svc:{}", service["spec"]["ports"][0]["port"]);
        assert!(plugin.contains(&endpoint), "{endpoint}: {plugin:?}");
        let operator = of_kind(&all, "Deployment")
            .into_iter()
            .find(|deployment| deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")
            .unwrap();
        let operator = arguments(&operator["spec"]["template"]["spec"]);
        let account = format!("--node-service-account={}", daemon["serviceAccountName"].as_str().unwrap());
        assert!(operator.contains(&account), "{account}: {operator:?}");
        assert!(operator.contains(&format!("--delivery-service={name}")));
    }
}

// --- the agent ---

#[test]
fn the_webhook_is_told_of_the_operator_only_where_there_are_agents() {
    let arguments = |set: &[&str]| -> Vec<String> {
        let set: Vec<&str> = set.iter().flat_map(|value| ["--set", value]).collect();
        let all = objects(&set);
        let webhook = of_kind(&all, "Deployment")
            .into_iter()
            .find(|deployment| deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "webhook")
            .unwrap();
        let arguments = webhook["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
    };
    let name = "sealedenv-delivery.sealedenv-system.svc";
    let off = arguments(&["delivery.enabled=true"]);
    assert!(!off.iter().any(|argument| argument.starts_with("--agent")), "{off:?}");
    assert!(off.contains(&"--memory-delivery=csi".to_owned()));
    let image = format!("--image=ghcr.io/sealedenv/sealedenv:{}", env!("CARGO_PKG_VERSION"));
    assert!(off.contains(&image), "what makes variables of files is in the image: {off:?}");
    let own = arguments(&["agent.image=registry.example.com/own@sha256:00", "global.imageRegistry=mirror"]);
    assert!(
        own.contains(&"--image=registry.example.com/own@sha256:00".to_owned()),
        "as it is written: {own:?}"
    );

    let on = ["delivery.enabled=true", "agent.enabled=true", "delivery.memory=agent"];
    let told = arguments(&on);
    assert!(told.contains(&format!("--agent-operator=https://{name}:8443")), "{told:?}");
    assert!(told.contains(&"--memory-delivery=agent".to_owned()));
    for (address, host) in [("10.0.0.7", "10.0.0.7"), ("fd00::7", "[fd00::7]")] {
        let told = arguments(&[&on[..], &[&format!("agent.operatorAddress={address}")]].concat());
        assert!(told.contains(&format!("--agent-operator=https://{host}:8443")), "{told:?}");
        assert!(told.contains(&format!("--agent-operator-server-name={name}")), "{told:?}");
    }
    for (set, missing) in [
        ("agent.enabled=true", "delivery.enabled=true"),
        ("delivery.enabled=true,delivery.memory=agent", "agent.enabled=true"),
    ] {
        let error = render(&["--set", set]).unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
}

// --- rights ---

/// The golden of all rights: a subject, then what it may do where. `own` is the release's namespace, `watched` one of
/// operator.watchNamespaces, `*` everywhere.
fn golden_rights() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(CHECKOUT.chart().join("tests/rights.txt")).unwrap();
    let mut golden: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut subject = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(right) = line.strip_prefix("  ") {
            let words: Vec<&str> = right.split_whitespace().collect();
            for verb in &words[2..] {
                golden
                    .entry(subject.clone())
                    .or_default()
                    .insert(format!("{} {} {verb}", words[0], words[1]));
            }
        } else {
            line.clone_into(&mut subject);
        }
    }
    golden
}

/// The rights of a rendering in the words of the golden.
fn granted(objects: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (subject, rights) in chart::rights(objects).unwrap() {
        let subject = match subject.rsplit_once('/') {
            Some((_, account)) => format!("ServiceAccount {}", account.rsplit_once('-').unwrap().1),
            None => subject,
        };
        for right in rights {
            let (place, rest) = right.split_once(' ').unwrap();
            let place = match place {
                "sealedenv-system" | "secrets-system" => "own",
                "shop" | "billing" => "watched",
                other => other,
            };
            let rest = rest.replace(":secrets ", ":sealedenv ");
            granted.entry(subject.clone()).or_default().insert(format!("{place} {rest}"));
        }
    }
    for role in of_kind(objects, "ClusterRole") {
        for to in ["view", "edit", "admin"] {
            if role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true" {
                let rights = granted.entry(format!("ClusterRole {to}")).or_default();
                for rule in role["rules"].as_array().unwrap() {
                    rights.extend(chart::allowed(rule, "*").unwrap());
                }
            }
        }
    }
    granted
}

#[test]
fn nobody_is_ever_granted_more_than_the_golden_says() {
    let golden = golden_rights();
    let mut ever: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, objects) in &*RENDERINGS {
        for (subject, rights) in granted(objects) {
            let allowed = golden.get(&subject).unwrap_or_else(|| panic!("{name}: {subject} has rights"));
            let beyond: Vec<_> = rights.difference(allowed).collect();
            assert!(
                beyond.is_empty(),
                "{name}: {subject} may also {beyond:?}; if it must, charts/sealedenv/tests/rights.txt says so"
            );
            ever.entry(subject).or_default().extend(rights);
        }
    }
    assert_eq!(ever, golden, "charts/sealedenv/tests/rights.txt allows what is never granted");
}

#[test]
fn no_rule_has_a_wildcard_and_only_the_operator_sees_secrets() {
    for (name, objects) in &*RENDERINGS {
        for role in
            objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("ClusterRole" | "Role")))
        {
            let role_name = role["metadata"]["name"].as_str().unwrap();
            for rule in role["rules"].as_array().unwrap() {
                let text = rule.to_string();
                assert!(!text.contains('*'), "{name}: {role_name}: {text}");
                assert!(rule.get("nonResourceURLs").is_none(), "{name}: {role_name}: {text}");
                if rule["resources"].as_array().unwrap().contains(&json!("secrets")) {
                    assert!(role_name.contains("-operator"), "{name}: {role_name}: {text}");
                }
                for dangerous in ["escalate", "bind", "impersonate", "serviceaccounts/token", "pods/exec"] {
                    assert!(!text.contains(dangerous), "{name}: {role_name}: {text}");
                }
            }
        }
    }
}

#[test]
fn a_confined_operator_has_no_secrets_outside_its_namespaces() {
    let rights = granted(&objects(&["--set", "operator.watchNamespaces={shop,billing}"]));
    for right in &rights["ServiceAccount operator"] {
        assert!(!(right.starts_with("* ") && right.contains("core/secrets")), "{right}");
        assert!(!(right.starts_with("* ") && right.contains("sealedenvs")), "{right}");
    }
    assert!(rights["ServiceAccount operator"].contains("watched core/secrets patch"));
}

#[test]
fn every_rule_says_which_code_needs_it() {
    let text = render(&["--set", "operator.watchNamespaces={shop}"]).unwrap();
    let mut rules = 0;
    for role in text
        .split("\n---\n")
        .filter(|document| document.contains("\nkind: Role\n") || document.contains("\nkind: ClusterRole\n"))
    {
        if !role.contains("app.kubernetes.io/component: ") {
            continue; // roles of users, which no code of ours needs
        }
        let lines: Vec<&str> = role.lines().map(str::trim).collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("- apiGroups: ")) {
            assert!(lines[number - 1].starts_with("# "), "a rule without a comment: {role}");
            rules += 1;
        }
    }
    assert!(rules >= 10, "found only {rules} rules");
}

// --- what is installed ---

#[test]
fn keys_are_never_chart_objects() {
    for (name, objects) in &*RENDERINGS {
        assert!(of_kind(objects, "Secret").is_empty(), "{name}");
        assert!(of_kind(objects, "SealingKey").is_empty(), "{name}");
    }
}

#[test]
fn every_pod_meets_the_restricted_pod_security_standard() {
    let mut pods = 0;
    for (name, objects) in &*RENDERINGS {
        for workload in of_kind(objects, "Deployment").into_iter().chain(of_kind(objects, "StatefulSet")) {
            restricted(name, &workload["spec"]["template"]["spec"]);
            pods += 1;
        }
    }
    assert!(pods > 50, "saw only {pods} pods");
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, and a read-only root besides.
fn restricted(name: &str, pod: &Value) {
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(field).is_none_or(|set| set == false), "{name}: {field}");
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        // The one Secret is cert-manager's certificate: no key that opens a value ever comes by a volume.
        let of_cert_manager =
            volume["secret"]["secretName"].as_str().is_some_and(|n| n.ends_with("-webhook-tls"));
        assert!(
            of_cert_manager
                || kinds.iter().all(|kind| ["emptyDir", "persistentVolumeClaim"].contains(&kind.as_str())),
            "{name}: volume {volume}"
        );
    }
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(context["runAsNonRoot"], true, "{name}");
        assert!(context["runAsUser"].as_u64().unwrap() > 0, "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert!(context.get("privileged").is_none(), "{name}");
        assert!(
            container["ports"].as_array().unwrap().iter().all(|port| port.get("hostPort").is_none()),
            "{name}"
        );
        for probe in ["livenessProbe", "readinessProbe"] {
            assert!(container[probe]["httpGet"]["path"].is_string(), "{name}: no {probe}");
        }
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}: no memory limit");
    }
    assert_ne!(pod["serviceAccountName"], "default", "{name}");
}

#[test]
fn webhooks_fail_closed_where_they_must_and_stay_out_of_the_way_elsewhere() {
    let mut seen = 0;
    for (name, objects) in &*RENDERINGS {
        for configuration in
            objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("WebhookConfiguration"))
        {
            for webhook in configuration["webhooks"].as_array().unwrap() {
                seen += 1;
                assert!(
                    webhook["clientConfig"].get("caBundle").is_none(),
                    "{name}: the replicas own caBundle"
                );
                assert_eq!(webhook["sideEffects"], "None", "{name}");
                assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 10, "{name}");
                assert!(!webhook["matchConditions"].as_array().unwrap().is_empty(), "{name}");
                let text = webhook["rules"].to_string();
                assert!(!text.contains("DELETE") && !text.contains('*'), "{name}: {text}");
                let outside = &webhook["namespaceSelector"]["matchExpressions"][0];
                assert_eq!(outside["operator"], "NotIn", "{name}");
                assert_eq!(outside["key"], "kubernetes.io/metadata.name", "{name}");
                let own = objects.iter().find(|object| object["kind"] == "Service").unwrap();
                for namespace in [&json!("kube-system"), &own["metadata"]["namespace"]] {
                    assert!(outside["values"].as_array().unwrap().contains(namespace), "{name}: {namespace}");
                }
                let service = &webhook["clientConfig"]["service"];
                assert!(
                    of_kind(objects, "Service").iter().any(|found| {
                        found["metadata"]["name"] == service["name"]
                            && found["metadata"]["namespace"] == service["namespace"]
                            && found["spec"]["ports"][0]["port"] == service["port"]
                    }),
                    "{name}: no such Service: {service}"
                );
            }
        }
    }
    assert!(seen > 30, "saw only {seen} webhooks");
    let all = objects(&[]);
    let [inject, validate] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]
        .map(|kind| of_kind(&all, kind)[0]["webhooks"][0].clone());
    assert_eq!(inject["name"], "inject.sealedenv.dev");
    assert_eq!(inject["clientConfig"]["service"]["path"], "/mutate-pods");
    assert_eq!(inject["rules"][0]["operations"], json!(["CREATE"]));
    assert_eq!(inject["rules"][0]["resources"], json!(["pods"]));
    assert_eq!(inject["failurePolicy"], "Fail");
    assert_eq!(inject["reinvocationPolicy"], "IfNeeded");
    assert_eq!(inject["timeoutSeconds"], 5);
    assert!(inject["matchConditions"][0]["expression"].as_str().unwrap().contains("'sealedenv.dev/inject'"));
    assert_eq!(validate["name"], "validate.sealedenv.dev");
    assert_eq!(validate["clientConfig"]["service"]["path"], "/validate-sealedenvs");
    assert_eq!(validate["rules"][0]["operations"], json!(["CREATE", "UPDATE"]));
    assert_eq!(validate["failurePolicy"], "Fail");
}

#[test]
fn the_components_are_told_the_names_that_the_chart_gives() {
    for (name, objects) in &*RENDERINGS {
        let deployments = of_kind(objects, "Deployment");
        let Some(webhook) = deployments
            .iter()
            .find(|deployment| deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "webhook")
        else {
            continue;
        };
        let arguments = webhook["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        let service = of_kind(objects, "Service")
            .into_iter()
            .find(|service| service["spec"]["ports"][0]["port"] == 443)
            .unwrap();
        let configuration = of_kind(objects, "MutatingWebhookConfiguration")[0];
        for wanted in [
            format!("--service-name={}", service["metadata"]["name"].as_str().unwrap()),
            format!("--webhook-configuration={}", configuration["metadata"]["name"].as_str().unwrap()),
        ] {
            assert!(arguments.contains(&json!(wanted)), "{name}: {wanted} not in {arguments:?}");
        }
    }
}

#[test]
fn memory_delivery_is_served_and_its_rights_are_given_only_when_asked_for() {
    let asks = |rule: &Value| {
        let resources = rule["resources"].as_array().into_iter().flatten();
        resources.filter_map(Value::as_str).any(|r| ["tokenreviews", "pods", "configmaps"].contains(&r))
    };
    let rules = |all: &[Value]| -> usize {
        let roles = all.iter().filter(|o| ["Role", "ClusterRole"].contains(&o["kind"].as_str().unwrap()));
        roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()).filter(|r| asks(r)).count()
    };
    let operator =
        |all: &[Value]| of_kind(all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0].clone();
    let off = objects(&[]);
    assert_eq!(rules(&off), 0);
    assert!(!operator(&off)["args"].to_string().contains("delivery"));
    assert_eq!(of_kind(&off, "Service").len(), 1, "the webhook's");

    let on = objects(&["--set", "delivery.enabled=true"]);
    assert_eq!(rules(&on), 4, "reviews, pods, and the bundle twice");
    let services = of_kind(&on, "Service");
    let service = services
        .iter()
        .find(|service| service["spec"]["ports"][0]["targetPort"] == "delivery")
        .expect("a Service");
    let operator = operator(&on);
    let name = service["metadata"]["name"].as_str().unwrap();
    let wanted = format!("--delivery-service={name}");
    assert!(operator["args"].as_array().unwrap().contains(&json!(wanted)), "{wanted}");
    let port = operator["ports"].as_array().unwrap().iter().find(|port| port["name"] == "delivery");
    let listen = format!("--delivery-listen=0.0.0.0:{}", port.expect("a port")["containerPort"]);
    assert!(operator["args"].as_array().unwrap().contains(&json!(listen)), "{listen}");
    let open = of_kind(&on, "NetworkPolicy").iter().any(|policy| {
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        rules.iter().any(|rule| rule["ports"][0]["port"] == "delivery")
    });
    assert!(open, "the port is closed");
}

#[test]
fn the_operator_stands_on_more_than_one_leg() {
    let all = objects(&[]);
    let operator = |all: &[Value], kind: &str| -> Option<Value> {
        let found = of_kind(all, kind)
            .into_iter()
            .find(|o| o["metadata"]["labels"]["app.kubernetes.io/component"] == "operator");
        found.cloned()
    };
    let deployment = operator(&all, "Deployment").unwrap();
    assert!(deployment["spec"]["replicas"].as_u64().unwrap() >= 2);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
    let selector = &deployment["spec"]["selector"];
    let pod = &deployment["spec"]["template"]["spec"];
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(
        (&spread["topologyKey"], &spread["labelSelector"]),
        (&json!("kubernetes.io/hostname"), selector)
    );
    let budget = operator(&all, "PodDisruptionBudget").unwrap();
    assert_eq!((&budget["spec"]["maxUnavailable"], &budget["spec"]["selector"]), (&json!(1), selector));
    assert!(
        pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 30,
        "it finishes what it began in 20 s"
    );
}

#[test]
fn each_replica_has_a_kept_trail_of_its_own() {
    for (claim, keep, retained) in [("", "true", "Retain"), ("", "false", "Delete"), ("shared", "true", "")] {
        let set = format!(
            "audit.persistence.enabled=true,audit.persistence.existingClaim={claim},audit.persistence.keep={keep}"
        );
        let all = objects(&["--set", &set]);
        let sets = of_kind(&all, "StatefulSet");
        assert_eq!(sets.len(), 1, "{set}");
        assert!(
            of_kind(&all, "PersistentVolumeClaim").is_empty(),
            "{set}: one claim for all is a claim for one"
        );
        let (spec, pod) = (&sets[0]["spec"], &sets[0]["spec"]["template"]["spec"]);
        let mount = &pod["containers"][0]["volumeMounts"][0];
        if claim.is_empty() {
            assert_eq!(spec["volumeClaimTemplates"][0]["metadata"]["name"], mount["name"], "{set}");
            assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], retained, "{set}");
            assert!(mount.get("subPathExpr").is_none() && pod.get("volumes").is_none(), "{set}");
        } else {
            assert_eq!(mount["subPathExpr"], "$(POD_NAME)", "{set}");
            assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], claim, "{set}");
        }
    }
    assert!(of_kind(&objects(&[]), "StatefulSet").is_empty(), "without a kept trail it is a Deployment");
}
