//! The committed CRD files are what the types say, and small enough for client-side apply.

use std::path::Path;

#[test]
fn generated_files_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    let files = sealedenv_crds::manifests().unwrap();
    assert_eq!(files.len(), 2);
    for (file, wanted) in files {
        let found = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        assert!(
            found == wanted,
            "crds/generated/{file} is not what the types say: run `cargo xtask gen` and commit the result"
        );
        assert!(
            wanted.len() < 100 * 1024,
            "{file} is too large for client-side kubectl apply: {} bytes",
            wanted.len()
        );
    }
}

#[test]
fn schemas_do_not_leak_rust_words_to_kubectl_explain() {
    for (file, yaml) in sealedenv_crds::manifests().unwrap() {
        for word in ["Auto-generated", "struct", "enum ", "serde"] {
            assert!(!yaml.contains(&format!("description: {word}")), "{file}: {word}");
        }
    }
}

/// kubectl looks a word up among the categories first: if it is also the name of a kind, `kubectl get sealedenv NAME`
/// ends with "you must specify only one resource".
#[test]
fn no_category_is_the_name_of_a_kind() {
    for (file, yaml) in sealedenv_crds::manifests().unwrap() {
        let crd: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let names = &crd["spec"]["names"];
        for category in names["categories"].as_array().unwrap() {
            for other in ["sealedenv", "sealedenvs", "senv", "sealingkey", "sealingkeys"] {
                assert_ne!(category, other, "{file}");
            }
        }
    }
}
