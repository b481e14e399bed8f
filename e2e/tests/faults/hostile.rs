//! SealedEnvs that nobody would write: made from the CRD's own schema, and those that broke comparable systems.

use std::sync::Mutex;

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, wait};
use sealedenv_e2e::requests::{Proxy, at_once};
use sealedenv_e2e::{seal, setting};
use serde_json::{Map, Value, json};

use crate::crowd::{Crowd, THREADS};
use crate::fact;
use crate::oracle::Oracle;

const CRD: &str = "sealedenvs.sealedenv.dev";

/// A spec, and what is odd about it.
type Case = (String, Value);

/// A good spec in which each field that there may be is set.
fn full(sealed: &str) -> Value {
    json!({
        "data": {"TOKEN": sealed}, "public": {"MODE": "live"},
        "meta": {"MODE": {"class": "public", "description": "d", "owner": "o"}},
        "delivery": "Secret", "onKeyError": "KeepLast", "deletionPolicy": "Delete", "suspend": false,
        "secret": {
            "name": "shaped", "type": "Opaque", "immutable": false,
            "labels": {"a": "b"}, "annotations": {"a": "b"},
        },
    })
}

/// Every field that the schema names, however deep, as a JSON pointer.
fn fields(schema: &Value, at: &str, found: &mut Vec<String>) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, below) in properties {
        let field = format!("{at}/{name}");
        fields(below, &field, found);
        found.push(field);
    }
    if schema["additionalProperties"].is_object() {
        let member = if at.ends_with("/data") {
            "TOKEN"
        } else if at.ends_with("/public") || at.ends_with("/meta") {
            "MODE"
        } else {
            "a"
        };
        let field = format!("{at}/{member}");
        fields(&schema["additionalProperties"], &field, found);
        found.push(field);
    }
}

/// What each field is set to in turn.
fn oddities() -> Vec<(&'static str, Value)> {
    let many: Map<String, Value> = (0..3000).map(|n| (format!("K{n}"), "v".into())).collect();
    vec![
        ("null", Value::Null),
        ("empty text", "".into()),
        ("empty object", json!({})),
        ("empty list", json!([])),
        ("zero", 0.into()),
        ("huge number", 1e300.into()),
        ("negative", (-1).into()),
        ("true", true.into()),
        ("text", "Nonsense\u{202e}\u{0}\n\u{1b}[31m".into()),
        ("long text", "x".repeat(300_000).into()),
        ("sealed nonsense", "sealed:v1:AAAA".into()),
        ("list", json!([[], {}, null])),
        ("deep", (0..60).fold(json!("x"), |inside, _| json!({"a": inside}))),
        ("many keys", Value::Object(many)),
    ]
}

/// A file that has this field.
fn file_with(field: &str) -> Value {
    match field {
        "key" => json!({"key": "TOKEN"}),
        "keys" => json!({"format": "Dotenv", "keys": ["TOKEN"]}),
        "mode" => json!({"key": "TOKEN", "mode": "0400"}),
        "template" => json!({"template": "token: {{ TOKEN }}"}),
        _ => json!({"format": "Dotenv"}),
    }
}

fn from_schema(good: &Value, schema: &Value) -> Result<Vec<Case>> {
    let mut names = Vec::new();
    fields(schema, "", &mut names);
    ensure!(names.len() > 20, "the schema has its fields: {names:?}");
    let mut cases = vec![("no spec fields".to_owned(), json!({}))];
    for field in names {
        let (above, name) = field.rsplit_once('/').context("a pointer")?;
        // An allow list is for delivery Memory only.
        let mut good = good.clone();
        if field.starts_with("/allow") {
            good["delivery"] = json!("Memory");
            good["allow"] = json!({"serviceAccounts": ["app"]});
        }
        if field.starts_with("/files") {
            good["delivery"] = json!("Memory");
            good["files"] = json!({"a": file_with(name)});
        }
        let mut absent = good.clone();
        absent.pointer_mut(above).and_then(Value::as_object_mut).with_context(|| field.clone())?.remove(name);
        cases.push((format!("{field} absent"), absent));
        for (what, value) in oddities() {
            let mut odd = good.clone();
            *odd.pointer_mut(&field).with_context(|| field.clone())? = value;
            cases.push((format!("{field}: {what}"), odd));
        }
    }
    Ok(cases)
}

/// By hand: Secrets that controllers act on, names that are paths, values that are work to refuse.
fn known(sealed: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for type_ in [
        "kubernetes.io/service-account-token",
        "Kubernetes.io/Service-Account-Token",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
        "anything.kubernetes.io/at-all",
        "sealedenv.dev/sealing-key",
    ] {
        cases.push((format!("type {type_}"), json!({"data": {"TOKEN": sealed}, "secret": {"type": type_}})));
    }
    for key in [
        "kubernetes.io/service-account.name",
        "KUBERNETES.IO/service-account.name",
        "sub.k8s.io/x",
        "sealedenv.dev/adopt",
        "sealedenv.dev/sealedenv",
        "SealedEnv.dev/sealing-key",
        "app.kubernetes.io/managed-by",
    ] {
        for field in ["labels", "annotations"] {
            let spec = json!({"data": {"TOKEN": sealed}, "secret": {field: {key: "x"}}});
            cases.push((format!("{field} {key}"), spec));
        }
    }
    for name in ["../other", "UPPER", "a/b", "", &"n".repeat(254), "with blank", "line\nbreak"] {
        cases.push((format!("name {name:?}"), json!({"data": {"TOKEN": sealed}, "secret": {"name": name}})));
    }
    for key in ["..", "..data", "a/b", "", "\u{202e}", "line\nbreak", &"k".repeat(254)] {
        cases.push((format!("key {key:?}"), json!({"data": {key: sealed, "TOKEN": sealed}})));
    }
    for (what, file) in [
        (
            "10,000 stanzas",
            format!("age-encryption.org/v1\n{}--- x\n", "-> X25519 AAAA\nAAAA\n".repeat(10_000)),
        ),
        ("a long line", format!("age-encryption.org/v1\n-> {}\n\n--- x\n", "a".repeat(63 << 10))),
        ("scrypt", "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 40\nAAAA\n--- x\n".to_owned()),
        ("no file", "x".repeat(700 << 10)),
        ("nothing", String::new()),
    ] {
        let text = format!("sealed:v1:{}", BASE64_STANDARD.encode(file));
        cases.push((format!("value: {what}"), json!({"data": {"TOKEN": text}})));
    }
    let copies: Map<String, Value> = (0..1000).map(|n| (format!("K{n}"), sealed.into())).collect();
    cases.push(("one value under 1,000 keys".to_owned(), json!({"data": copies})));
    for (what, size) in [("as much as a Secret holds", 1 << 20), ("a byte more", (1 << 20) + 1)] {
        cases.push((
            what.to_owned(),
            json!({"public": {"A": "x".repeat(size / 2), "B": "x".repeat(size - size / 2)}}),
        ));
    }
    cases
}

fn env(number: usize, spec: &Value) -> Value {
    // Owners that do not exist, and more labels than anybody has.
    let labels: Map<String, Value> = (0..200).map(|n| (format!("label-{n}"), "x".into())).collect();
    let metadata = match number % 3 {
        0 => json!({"name": format!("odd-{number}")}),
        1 => json!({"name": format!("odd-{number}"), "labels": labels, "annotations": {
            "sealedenv.dev/requestedAt": "\u{202e}x".repeat(5000), "sealedenv.dev/adopt": "true"}}),
        _ => json!({"name": format!("odd-{number}"), "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none", "controller": false}]}),
    };
    json!({"apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv", "metadata": metadata, "spec": spec})
}

/// No Secret has become something that a controller acts on, or claims to be what it is not.
fn harmless(proxy: &Proxy, ns: &Namespace) -> Result<()> {
    let types = [
        "Opaque",
        "kubernetes.io/basic-auth",
        "kubernetes.io/dockercfg",
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/ssh-auth",
        "kubernetes.io/tls",
    ];
    for secret in proxy.list(&format!("/api/v1/namespaces/{}/secrets", ns.name()))? {
        let metadata = &secret["metadata"];
        ensure!(types.iter().any(|t| secret["type"] == *t), "a Secret of type {}", secret["type"]);
        for field in ["labels", "annotations"] {
            for (key, value) in metadata[field].as_object().into_iter().flatten() {
                let reserved = ["kubernetes.io/", "k8s.io/", "sealedenv.dev/"];
                let lower = key.to_lowercase();
                let ours = (key == "app.kubernetes.io/managed-by" && value == "sealedenv")
                    || (key == "sealedenv.dev/sealedenv"
                        && value.as_str().is_some_and(|v| v.starts_with("odd-")));
                ensure!(
                    ours || !reserved.iter().any(|r| lower.contains(r)),
                    "{field} {key}: {value} on {metadata}"
                );
            }
        }
    }
    Ok(())
}

/// Each object was looked at, and its status is no larger than what a person reads.
fn all_told(proxy: &Proxy, path: &str, cases: &[Case]) -> Result<()> {
    wait("each object to be told about", || {
        let mut waiting = Vec::new();
        for env in proxy.list(path)? {
            let name = env["metadata"]["name"].as_str().unwrap_or_default();
            let case =
                name.strip_prefix("odd-").and_then(|n| n.parse().ok()).and_then(|n: usize| cases.get(n));
            let case = case.map_or(name, |case| &case.0);
            let size = env["status"].to_string().len();
            // 1,000 keys have a line each; a message is short.
            ensure!(size < 512 << 10, "{case}: a status of {size} bytes");
            let conditions = env["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if let Some(long) =
                conditions.iter().find(|c| c["message"].as_str().unwrap_or_default().len() > 2048)
            {
                bail!("{case}: {long}");
            }
            if !conditions.iter().any(|c| c["type"] == "Ready") {
                waiting.push(case.to_owned());
            }
        }
        if waiting.is_empty() {
            Ok(Some(()))
        } else {
            bail!("{} are not, such as {:?}", waiting.len(), waiting.first())
        }
    })
}

#[test]
fn no_spec_stops_anything_with_all_rules_in_place() -> Result<()> {
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("hostile")?, Proxy::start()?);
    let sealed = sealed(&ns)?;
    let mut cases = from_schema(&full(&sealed), &spec_schema()?)?;
    cases.extend(known(&sealed));
    let path = format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs", ns.name());
    let taken = Mutex::new(0);
    at_once(THREADS, cases.len(), |number| {
        let (what, spec) = &cases[number];
        let answer = proxy.create(&path, &env(number, spec))?;
        ensure!(
            answer.is_ok() || (400..500).contains(&answer.code),
            "{what}: {} {}",
            answer.code,
            answer.body
        );
        *taken.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))? += usize::from(answer.is_ok());
        Ok(())
    })?;
    let taken = *taken.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    fact(format_args!("{} hostile specs, {taken} were stored", cases.len()));
    ensure!(taken > 50 && taken < cases.len(), "{taken} of {}", cases.len());
    all_told(&proxy, &path, &cases)?;
    harmless(&proxy, &ns)?;
    neighbours(&oracle, &proxy)
}

#[test]
fn no_spec_stops_anything_when_neither_schema_nor_webhook_refuse() -> Result<()> {
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("hostile_stored")?, Proxy::start()?);
    let sealed = sealed(&ns)?;
    let mut cases = from_schema(&full(&sealed), &spec_schema()?)?;
    cases.extend(known(&sealed));
    let path = format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs", ns.name());
    {
        let _loose = Loose::now(&ns)?;
        at_once(THREADS, cases.len(), |number| {
            let (what, spec) = &cases[number];
            let answer = proxy.create(&path, &env(number, spec))?;
            // etcd has a limit of its own.
            ensure!(answer.is_ok() || answer.code == 413, "{what}: {} {}", answer.code, answer.body);
            Ok(())
        })?;
        all_told(&proxy, &path, &cases)?;
        harmless(&proxy, &ns)?;
        proxy.delete(&path)?.json()?;
        wait("the objects to be gone", || Ok(proxy.list(&path)?.is_empty().then_some(())))?;
    }
    neighbours(&oracle, &proxy)
}

#[test]
fn an_object_on_its_way_out_takes_nothing_that_a_new_one_would_not() -> Result<()> {
    let (ns, proxy) = (Namespace::new("on_its_way_out")?, Proxy::start()?);
    let crowd = Crowd::new(&ns, 1)?;
    let mut held = crowd.member("held", 0);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    proxy.create(&crowd.path(), &held)?.json()?;
    ns.wait_condition("sealedenv", "held", "Ready", "True", "Delivered")?;
    let path = format!("{}/held", crowd.path());
    proxy.delete(&path)?.json()?;
    for spec in [
        json!({"data": {"TOKEN": "plain"}}),
        json!({"secret": {"type": "kubernetes.io/service-account-token"}}),
        json!({"secret": {"annotations": {"kubernetes.io/service-account.name": "default"}}}),
        json!({"public": {"TOKEN": "x"}, "meta": {"TOKEN": {"class": "secret"}}}),
    ] {
        let answer = proxy.merge(&path, &json!({"spec": spec}))?;
        ensure!(answer.code == 422, "{spec}: {} {}", answer.code, answer.body);
    }
    proxy.merge(&path, &json!({"metadata": {"finalizers": null}}))?.json()?;
    wait("it to go", || Ok(ns.find("sealedenv", "held")?.is_none().then_some(())))
}

/// Others are served as if nothing were.
fn neighbours(oracle: &Oracle, proxy: &Proxy) -> Result<()> {
    let ns = Namespace::new("neighbour")?;
    let crowd = Crowd::new(&ns, 2)?;
    crowd.create(proxy, 10)?;
    oracle.holds(proxy, &[&crowd], &[])
}

fn sealed(ns: &Namespace) -> Result<String> {
    let recipient = seal::recipient()?;
    let args = [
        "value",
        "seal",
        "--scope",
        "namespace",
        "--namespace",
        ns.name(),
        "--key",
        "TOKEN",
        "-r",
        &recipient,
    ];
    Ok(String::from_utf8(seal::sealedenv(&args, b"v")?)?.trim().to_owned())
}

fn spec_schema() -> Result<Value> {
    let mut crd: Value = serde_json::from_str(&kubectl(&["get", "crd", CRD, "-o", "json"])?)?;
    Ok(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].take())
}

fn set_spec_schema(schema: &Value) -> Result<()> {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let patch = json!([{"op": "replace", "path": path, "value": schema}]);
    kubectl(&["patch", "crd", CRD, "--type=json", "-p", &patch.to_string()]).map(drop)
}

/// Any spec is stored: no rule in the CRD, no webhook. As after somebody's "quick fix", or under another version.
struct Loose {
    schema: Value,
    webhook: Value,
}

impl Loose {
    fn now(ns: &Namespace) -> Result<Self> {
        let (kind, release) = ("validatingwebhookconfiguration", setting::get("SEALEDENV_E2E_RELEASE")?);
        let mut webhook: Value = serde_json::from_str(&kubectl(&["get", kind, &release, "-o", "json"])?)?;
        for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"] {
            webhook["metadata"].as_object_mut().context("metadata")?.remove(field);
        }
        let loose = Self { schema: spec_schema()?, webhook };
        kubectl(&["delete", kind, &release])?;
        set_spec_schema(&json!({"x-kubernetes-preserve-unknown-fields": true}))?;
        let probe = json!({
            "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
            "metadata": {"name": "probe"}, "spec": ["anything"],
        });
        wait("the API server to take anything", || {
            let args = ["-n", ns.name(), "create", "--validate=false", "--dry-run=server", "-f", "-"];
            let output = kubectl_output(&args, &probe.to_string())?;
            if output.status.success() {
                Ok(Some(()))
            } else {
                bail!("{}", String::from_utf8_lossy(&output.stderr))
            }
        })?;
        Ok(loose)
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        let restored = set_spec_schema(&self.schema)
            .and_then(|()| kubectl_output(&["create", "-f", "-"], &self.webhook.to_string()));
        match restored {
            Ok(output) if output.status.success() => {}
            other => eprintln!("putting CRD and webhook back: {other:?}"),
        }
    }
}
