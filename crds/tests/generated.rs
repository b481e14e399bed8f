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
