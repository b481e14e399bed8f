//! Objects as large as they get, and objects that are broken by the thousand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_with, unique, wait};
use sealedenv_e2e::requests::{Proxy, at_once};
use sealedenv_e2e::{release, seal, setting};
use serde_json::{Map, Value, json};

use crate::crowd::{Crowd, THREADS, name};
use crate::fact;
use crate::oracle::Oracle;

#[test]
fn ninety_sealed_envs_of_a_megabyte_each_fit_into_the_memory_limit() -> Result<()> {
    const MEMBERS: usize = 90;
    const KEYS: usize = 16;
    let oracle = Oracle::start()?;
    let (ns, proxy) = (Namespace::new("megabytes")?, Proxy::start()?);
    let (recipient, mut data, mut wanted) = (seal::recipient()?, Map::new(), Map::new());
    for number in 0..KEYS {
        // 48 KiB of text, 64 KiB when sealed.
        let (key, value) = (format!("KEY_{number}"), format!("{number}-{}-", unique()).repeat(4096));
        let value = &value[..48 << 10];
        let args = [
            "value",
            "seal",
            "--scope",
            "namespace",
            "--namespace",
            ns.name(),
            "--key",
            &key,
            "-r",
            &recipient,
        ];
        let sealed = String::from_utf8(seal::sealedenv(&args, value.as_bytes())?)?;
        data.insert(key.clone(), sealed.trim().into());
        wanted.insert(key, BASE64_STANDARD.encode(value).into());
    }
    let (data, wanted) = (Value::Object(data), Value::Object(wanted));
    ensure!(data.to_string().len() > 1 << 20, "about a megabyte: {}", data.to_string().len());
    let envs = format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs", ns.name());
    at_once(THREADS, MEMBERS, |number| {
        let env = json!({
            "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
            "metadata": {"name": name(number)}, "spec": {"data": data},
        });
        proxy.create(&envs, &env)?.json().map(drop)
    })?;
    at_once(2, MEMBERS, |number| {
        ns.wait_condition("sealedenv", &name(number), "Ready", "True", "Delivered")?;
        let secret = proxy.get(&format!("/api/v1/namespaces/{}/secrets/{}", ns.name(), name(number)))?;
        ensure!(secret["data"] == wanted, "Secret {number} is not what was sealed");
        Ok(())
    })?;
    for pod in release::pods("")? {
        let peak = pod.process()?.kib("VmHWM")? >> 10;
        fact(format_args!("90 SealedEnvs of 1 MiB: {} had at most {peak} MiB resident", pod.component));
    }
    oracle.holds_without_crowd()
}

/// How many SealedEnvs open nowhere.
const BROKEN: usize = 5000;
/// How many are well.
const GOOD: usize = 5;

/// From the creation of good objects, all at once, to the last of their Secrets.
fn latency(proxy: &Proxy, crowd: &Crowd, prefix: &str) -> Result<Duration> {
    let start = Instant::now();
    at_once(GOOD, GOOD, |number| {
        let name = format!("{prefix}-{number}");
        let secret = format!("/api/v1/namespaces/{}/secrets/{name}", crowd.namespace());
        crowd.create_one(proxy, &name)?;
        while proxy.send("GET", &secret, "", "")?.code == 404 {
            if start.elapsed() > Duration::from_mins(2) {
                bail!("{name} was not delivered in two minutes");
            }
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

#[test]
fn five_good_objects_keep_their_latency_beside_five_thousand_broken_ones() -> Result<()> {
    let oracle = Oracle::start()?;
    let (good, ns, proxy) = (Namespace::new("good")?, Namespace::new("broken")?, Proxy::start()?);
    let crowd = Crowd::new(&good, GOOD)?;
    let alone = latency(&proxy, &crowd, "alone")?;

    let path = format!("/apis/sealedenv.dev/v1alpha1/namespaces/{}/sealedenvs", ns.name());
    let identity = Identity::new()?;
    let args = ["value", "seal", "--scope", "namespace", "--namespace", ns.name(), "--key", "TOKEN"];
    let sealed = seal::sealedenv(&[&args[..], &["-r", &identity.recipient]].concat(), b"never")?;
    let sealed = String::from_utf8(sealed)?.trim().to_owned();
    let (created, flooded) = (AtomicUsize::new(0), AtomicBool::new(false));
    let beside = std::thread::scope(|scope| -> Result<Duration> {
        let flood = scope.spawn(|| {
            let result = at_once(THREADS, BROKEN, |number| {
                let env = json!({
                    "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
                    "metadata": {"name": name(number)}, "spec": {"data": {"TOKEN": sealed}},
                });
                proxy.create(&path, &env)?.json()?;
                created.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            flooded.store(true, Ordering::Relaxed);
            result
        });
        wait("the flood", || Ok((created.load(Ordering::Relaxed) > BROKEN / 10).then_some(())))?;
        let took = latency(&proxy, &crowd, "flooded");
        ensure!(!flooded.load(Ordering::Relaxed), "the good ones came after the flood");
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        took
    })?;
    wait("all broken ones to be refused", || {
        let left = not_refused(&proxy, &path)?;
        if left == 0 { Ok(Some(())) } else { bail!("{left} are left") }
    })?;

    let inputs: BTreeMap<String, Value> =
        proxy.list(&path)?.into_iter().map(|env| (env_name(&env), env["status"]["input"].clone())).collect();
    // A key that opens nothing here: every broken object is looked at once more, all at the same time.
    let key = Key::add()?;
    let behind = latency(&proxy, &crowd, "behind")?;
    // They are tried again, one after the other: some only after the good ones were there, or this would show nothing.
    // The API server's own order of writes tells, however long it takes to list them.
    let secrets = proxy.list(&format!("/api/v1/namespaces/{}/secrets", good.name()))?;
    let delivered =
        secrets.iter().filter(|secret| env_name(secret).starts_with("behind-")).map(version).max();
    let delivered = delivered.context("the good ones' Secrets")?;
    wait("all broken ones to be tried again", || {
        let envs = proxy.list(&path)?;
        let left = envs.iter().filter(|env| env["status"]["input"] == inputs[&env_name(env)]).count();
        if left == 0 { Ok(Some(())) } else { bail!("{left} are left") }
    })?;
    let after = proxy.list(&path)?.iter().filter(|env| version(env) > delivered).count();
    ensure!(after > BROKEN / 10, "the good ones came after the broken ones: {after} were tried later");
    drop(key);
    let ratio = |d: Duration| d.as_secs_f64() / alone.as_secs_f64();
    fact(format_args!(
        "{GOOD} SealedEnvs to the last Secret: {} ms alone; {:.1} times that while {BROKEN} broken ones are created; \
         {:.1} times while all of those are tried again",
        alone.as_millis(),
        ratio(beside),
        ratio(behind)
    ));
    oracle.holds(&proxy, &[&crowd], &[])
}

fn env_name(env: &Value) -> String {
    env["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Where its last write stands among all of the API server's; 0 where it does not say.
fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// How many of the SealedEnvs of a list are not refused yet.
fn not_refused(proxy: &Proxy, path: &str) -> Result<usize> {
    let refused = |env: &Value| {
        let conditions = env["status"]["conditions"].as_array();
        conditions
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Stalled" && c["reason"] == "NothingOpened"))
    };
    Ok(proxy.list(path)?.iter().filter(|env| !refused(env)).count())
}

struct Identity {
    secret: String,
    recipient: String,
}

impl Identity {
    fn new() -> Result<Self> {
        let made = String::from_utf8(seal::sealedenv(&["keygen"], b"")?)?;
        let secret = made.lines().find(|l| l.starts_with("AGE-SECRET-KEY-")).context("an identity")?;
        let recipient = made.lines().find_map(|l| l.strip_prefix("# public key: ")).context("a recipient")?;
        Ok(Self { secret: secret.to_owned(), recipient: recipient.to_owned() })
    }
}

/// A further key of the cluster, until it is dropped.
struct Key {
    name: String,
}

impl Key {
    fn add() -> Result<Self> {
        let before = fingerprints()?;
        let name = format!("added-{}", unique());
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "sealedenv.dev/sealing-key",
            "metadata": {
                "name": name, "namespace": setting::system_namespace()?,
                "labels": {"sealedenv.dev/sealing-key": "cluster"},
            },
            "stringData": {"identity": Identity::new()?.secret},
        });
        let key = Self { name };
        kubectl_with(&["create", "-f", "-"], &manifest.to_string())?;
        wait("the key to be told", || Ok((fingerprints()?.len() > before.len()).then_some(())))?;
        Ok(key)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let gone =
            setting::system_namespace().and_then(|ns| kubectl(&["-n", &ns, "delete", "secret", &self.name]));
        if let Err(error) = gone {
            eprintln!("{error:#}");
        }
    }
}

fn fingerprints() -> Result<Vec<String>> {
    let text = kubectl(&["get", "sealingkey", "cluster", "-o", "jsonpath={.status.keys[*].fingerprint}"])?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
