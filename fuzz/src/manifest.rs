//! A manifest: the command line's YAML reading, its checks, its edits in place, and the decoding of a SealedEnv.

use std::sync::LazyLock;

use sealedenv_cli::fuzzing::{Manifests, documents, merge};
use sealedenv_crds::SealedEnv;
use serde_json::Value;

use crate::{Seed, files};

static MANIFESTS: LazyLock<Manifests> = LazyLock::new(Manifests::new);

/// A key that no seed has, and what it is set to.
const NEW: (&str, &str) = ("FUZZ_NEW", "sealed:v1:QUJD");

/// # Panics
/// Unless every text is read or refused; what has no error decodes as a SealedEnv and comes back the same; and an edit in
/// place changes the meaning of the one key, and nothing when it is made again.
pub fn run(data: &[u8]) {
    let checked = MANIFESTS.check(data);
    let Ok(text) = str::from_utf8(data) else {
        assert!(checked.errors > 0, "not text, and no error");
        return;
    };
    let before = documents(text);
    if let Some(before) = &before {
        for document in before {
            let is_ours =
                document["kind"] == "SealedEnv" && document["apiVersion"] == "sealedenv.dev/v1alpha1";
            let decoded = serde_json::from_value::<SealedEnv>(document.clone());
            match decoded {
                Ok(decoded) => {
                    let written = serde_json::to_value(&decoded).expect("a SealedEnv has a JSON form");
                    let again: SealedEnv = serde_json::from_value(written).expect("what was written is read");
                    assert!(again == decoded, "decoded as another SealedEnv");
                }
                Err(error) => assert!(
                    !is_ours || checked.errors > 0,
                    "no error is found, but the operator could not read it: {error}"
                ),
            }
        }
    } else {
        assert!(checked.errors > 0, "not YAML, and no error");
    }
    if let Some(merged) = merge(text, NEW.0, NEW.1) {
        let before = before.expect("what was merged into is YAML");
        check_merge(text, &merged, &before);
    }
}

fn check_merge(text: &str, merged: &str, before: &[Value]) {
    let after = documents(merged).expect("the merged text is YAML");
    assert_eq!(after.len(), before.len(), "a document more or less");
    let differing: Vec<usize> = (0..after.len()).filter(|n| after[*n] != before[*n]).collect();
    if text == merged {
        return;
    }
    let [at] = differing[..] else { panic!("{} documents changed in {merged:?}", differing.len()) };
    let mut undone = after[at].clone();
    assert_eq!(undone["spec"]["data"][NEW.0], NEW.1);
    let data = undone["spec"]["data"].as_object_mut().expect("a mapping");
    data.remove(NEW.0);
    let was = &before[at]["spec"]["data"];
    match was.get(NEW.0) {
        Some(old) => {
            data.insert(NEW.0.to_owned(), old.clone());
        }
        // `data` that was not there, or null, came with the key.
        None if data.is_empty() && was.as_object().is_none() => {
            let spec = undone["spec"].as_object_mut().expect("a mapping");
            spec.remove("data");
            if let Some(null) = before[at]["spec"].get("data") {
                spec.insert("data".to_owned(), null.clone());
            }
        }
        None => {}
    }
    assert!(undone == before[at], "more changed than the key:\n{text}\n---\n{merged}");
    assert_eq!(merge(merged, NEW.0, NEW.1).as_deref(), Some(merged), "made again, it changes something");
}

/// Manifests of the tests and the documentation, and corners of YAML.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = files("cli/tests/cmd/validate.in", ".yaml");
    let corners: [(&str, &str); 8] = [
        (
            "flow",
            "{apiVersion: sealedenv.dev/v1alpha1, kind: SealedEnv, metadata: {name: a}, spec: {data: {A: \"sealed:v1:QUJD\"}}}\n",
        ),
        (
            "block",
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: a\n  namespace: b\nspec:\n  data:\n    A: >-\n      sealed:v1:QUJD\n    Z: 'sealed:v1:QUJD'\n  public:\n    P: \"1\"\n",
        ),
        (
            "empty",
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {name: a}\nspec:\n  data:\n  public: {}\n",
        ),
        ("anchors", "x: &x [1, 2]\ny: *x\nz: {<<: *x}\n"),
        (
            "bomb",
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
        ),
        ("deep", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
        ("tags", "!!str 1: !<tag:yaml.org,2002:int> 0x1F\n? [a]\n: b\n"),
        ("several", "%YAML 1.2\n---\na: 1\n...\n---\nkind: SealedEnvList\nitems: []\n---\n"),
    ];
    seeds.extend(corners.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    seeds
}
