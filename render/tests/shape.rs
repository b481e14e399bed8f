//! What is wrong with a file before there is any value.

#![allow(clippy::unwrap_used, reason = "in tests it is the report of a failure")]

use sealedenv_crds::{Delivery, FileFormat, RenderedFile, SealedEnvSpec};
use sealedenv_render::{Fault, MAX_FILES, check, shape};

fn copy() -> RenderedFile {
    RenderedFile { key: Some("A".to_owned()), ..RenderedFile::default() }
}

fn spec(delivery: Delivery, files: &[(&str, RenderedFile)]) -> SealedEnvSpec {
    SealedEnvSpec {
        delivery,
        data: [("A".to_owned(), String::new()), ("no-variable".to_owned(), String::new())].into(),
        public: [("B".to_owned(), String::new())].into(),
        files: files.iter().map(|(path, file)| ((*path).to_owned(), file.clone())).collect(),
        ..SealedEnvSpec::default()
    }
}

/// The first thing that is wrong with a file, by its shape.
fn of(delivery: Delivery, path: &str, file: RenderedFile) -> Option<Fault> {
    let found = shape(&spec(delivery, &[(path, file), ("other/file", copy())]));
    found.into_iter().find(|problem| problem.path == path).map(|problem| problem.fault)
}

#[test]
fn paths_that_cannot_be_used_are_refused() {
    let (long, deep, longest) = ("a".repeat(254), ["a"; 9].join("/"), "a".repeat(253));
    let eight = ["a"; 8].join("/");
    for path in [
        "", ".", "..", "..data", "/etc", "a/", "a//b", "a/../b", "a/./b", "a b", "a\\b", "a\nb", "ä", &long,
        &deep,
    ] {
        assert_eq!(of(Delivery::Memory, path, copy()), Some(Fault::Path), "{path:?}");
    }
    for path in [".env", "a..b", "a.", "C/d-e_F.1", &longest, &eight] {
        assert_eq!(of(Delivery::Memory, path, copy()), None, "{path:?}");
    }
    for (path, fault) in [
        ("A", Fault::TakenByKey),
        ("B", Fault::TakenByKey),
        ("A/x", Fault::TakenByKey),
        ("other", Fault::Folder),
    ] {
        assert_eq!(of(Delivery::Memory, path, copy()), Some(fault), "{path}");
    }
    assert_eq!(of(Delivery::Secret, "a/b", copy()), Some(Fault::FolderInSecret));
    assert_eq!(of(Delivery::Secret, "a.b", copy()), None);
}

#[test]
fn a_file_has_one_source_and_a_mode_only_in_memory() {
    let file = copy;
    let moded = |mode: &str| RenderedFile { mode: Some(mode.to_owned()), ..copy() };
    let keys = RenderedFile { keys: Some(vec!["A".to_owned()]), ..copy() };
    for (file, fault) in [
        (RenderedFile::default(), Some(Fault::NotOne)),
        (RenderedFile { template: Some(String::new()), ..file() }, Some(Fault::NotOne)),
        (RenderedFile { format: Some(FileFormat::Json), ..file() }, Some(Fault::NotOne)),
        (keys, Some(Fault::KeysWithoutFormat)),
        (moded("0400"), None),
        (moded("400"), None),
        (moded("0200"), Some(Fault::Mode)),
        (moded("rw"), Some(Fault::Mode)),
    ] {
        assert_eq!(of(Delivery::Memory, "f", file.clone()), fault, "{file:?}");
    }
    assert_eq!(of(Delivery::Secret, "f", moded("0400")), Some(Fault::ModeInSecret));
}

#[test]
fn there_are_only_so_many_files() {
    let many: Vec<_> = (0..=MAX_FILES).map(|number| format!("f{number:02}")).collect();
    let files: Vec<_> = many.iter().map(|path| (path.as_str(), copy())).collect();
    assert_eq!(shape(&spec(Delivery::Secret, &files[..MAX_FILES])), []);
    assert_eq!(shape(&spec(Delivery::Secret, &files)).pop().unwrap().fault, Fault::TooMany);
}

#[test]
fn keys_that_are_not_there_or_fit_no_format_are_known_without_a_value() {
    let format = |format, keys: Option<&[&str]>| RenderedFile {
        format: Some(format),
        keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        ..RenderedFile::default()
    };
    let key = |key: &str| RenderedFile { key: Some(key.to_owned()), ..RenderedFile::default() };
    for (file, said) in [
        (key("A"), None),
        (key("C"), Some("there is no key C in data or public")),
        (key("a b"), Some("there is no key (a name that no key can have) in data or public")),
        (format(FileFormat::Json, None), None),
        (format(FileFormat::Dotenv, Some(&["A", "B"])), None),
        (
            format(FileFormat::Dotenv, None),
            Some("no-variable cannot be a variable: choose keys of letters, digits and '_' with keys"),
        ),
        (format(FileFormat::Yaml, Some(&["A", "C"])), Some("there is no key C in data or public")),
        (format(FileFormat::Yaml, Some(&["A", "A"])), Some("A stands twice in keys")),
    ] {
        let found = check(&spec(Delivery::Secret, &[("f", file)]));
        assert_eq!(found.first().map(|problem| problem.fault.to_string()).as_deref(), said);
    }
    // What has no shape is left to `shape`.
    assert_eq!(check(&spec(Delivery::Secret, &[("..", key("C"))])), []);
}
