//! What the documentation says of tests is true: every test that it names exists, and every requirement has a row.
//!
//! A test is named in backticks by its crate's folder, modules and name, such as `seal::scope::names_are_checked`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use pages::{prose, read, root, split_code};

const CRATES: [&str; 16] = [
    "seal",
    "audit",
    "crds",
    "runtime",
    "delivery",
    "volume",
    "render",
    "providers",
    "operator",
    "webhook",
    "node",
    "agent",
    "exec",
    "cli",
    "e2e",
    "xtask",
];

/// Pages whose named tests must exist.
const PAGES: [&str; 14] = [
    "docs/requirements.md",
    "docs/src/threat-model.md",
    "docs/src/reconcile.md",
    "docs/src/keys.md",
    "docs/src/architecture.md",
    "docs/src/deviations.md",
    "docs/src/delivery.md",
    "docs/src/files.md",
    "docs/src/agent.md",
    "docs/src/gitops.md",
    "docs/src/supply.md",
    "docs/src/faults.md",
    "docs/src/lessons.md",
    "docs/src/providers.md",
];

/// The families of requirements and how many each has.
const FAMILIES: [(&str, usize); 6] = [("E", 10), ("C", 9), ("T", 8), ("P", 8), ("V", 12), ("K", 10)];

/// Where a test stands: the words of its path below the workspace, its own name last.
type Place = Vec<String>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Names of the functions under a test attribute.
fn tests_in(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with('#')) {
            names.extend(rest.split(['(', '<']).next());
            is_test = false;
        }
    }
    names
}

fn all_tests() -> BTreeMap<String, Vec<Place>> {
    let root = root();
    let mut tests: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for folder in CRATES {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        for file in files {
            let inside = file.strip_prefix(&root).unwrap().with_extension("");
            let place: Place = inside.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            for name in tests_in(&read(&file)) {
                let mut place = place.clone();
                place.push(name.to_owned());
                tests.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    assert!(tests.len() > 100, "the tests were not found");
    tests
}

/// A name such as `crate::module::test`, taken apart; none when it names something else.
fn as_test(code: &str) -> Option<Vec<&str>> {
    let words: Vec<&str> = code.split("::").collect();
    let is_name = |word: &&str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    (words.len() >= 3 && CRATES.contains(&words[0]) && words.iter().all(is_name)).then_some(words)
}

fn named_tests(text: &str) -> Vec<Vec<&str>> {
    prose(text).into_iter().flat_map(|(_, line)| split_code(line).0).filter_map(as_test).collect()
}

/// Whether the words stand in the path in this order, the first one first and the last one last.
fn fits(words: &[&str], place: &Place) -> bool {
    let mut path = place.iter();
    words.first() == place.first().map(String::as_str).as_ref()
        && words.last() == place.last().map(String::as_str).as_ref()
        && words.iter().all(|word| path.any(|found| found == word))
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = all_tests();
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = read(&root().join(page));
        for words in named_tests(&text) {
            let places = tests.get(*words.last().unwrap());
            if !places.is_some_and(|places| places.iter().any(|place| fits(&words, place))) {
                wrong.push(format!("{page}: {}", words.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "no such tests:\n{}", wrong.join("\n"));
}

#[test]
fn every_requirement_has_one_row_with_a_state_and_its_proof() {
    let text = read(&root().join("docs/requirements.md"));
    let rows: Vec<Vec<&str>> = prose(&text)
        .into_iter()
        .filter(|(_, line)| line.starts_with('|'))
        .map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (family, count) in FAMILIES {
        for number in 1..=count {
            let id = format!("{family}{number}");
            let of_id: Vec<_> = rows.iter().filter(|row| row[0] == id).collect();
            assert_eq!(of_id.len(), 1, "{id} needs one row");
            let row = of_id[0];
            assert_eq!(row.len(), 5, "{id}: number, requirement, state, where, test");
            let tests = named_tests(row[4]).len();
            match row[2] {
                "done" | "partly" => assert!(tests > 0, "{id} is {} and names no test", row[2]),
                "not yet" => assert_eq!(tests, 0, "{id} is not there yet and names a test"),
                other => panic!("{id}: unknown state {other:?}"),
            }
        }
    }
}

#[test]
fn every_invariant_names_tests() {
    let text = read(&root().join("docs/src/threat-model.md"));
    for number in 1..=9 {
        let heading = format!("### I{number} ");
        let section = text.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
        let section = section.split("\n#").next().unwrap();
        assert!(!named_tests(section).is_empty(), "I{number} names no test");
    }
}

/// The decision table is whole: each test of the plan stands in it, and each reason is explained.
#[test]
fn the_decision_table_has_every_row_and_every_reason() {
    let page = read(&root().join("docs/src/reconcile.md"));
    let named: BTreeSet<&str> = named_tests(&page).iter().map(|words| *words.last().unwrap()).collect();
    let plan = ["tests.rs", "tests/files.rs"].map(|file| read(&root().join("operator/src/plan").join(file)));
    let missing: Vec<_> =
        plan.iter().flat_map(|text| tests_in(text)).filter(|test| !named.contains(test)).collect();
    assert!(missing.is_empty(), "add to docs/src/reconcile.md: {missing:?}");

    let source = read(&root().join("operator/src/reason.rs"));
    let reasons: Vec<&str> =
        source.lines().filter_map(|line| line.split(" => \"").nth(1)?.split('"').next()).collect();
    assert!(reasons.len() > 10, "the reasons were not found");
    for reason in reasons {
        assert!(page.contains(&format!("`{reason}`")), "docs/src/reconcile.md does not explain {reason}");
    }
}

#[test]
fn names_are_told_from_other_code() {
    assert_eq!(as_test("operator::plan::first_apply"), Some(vec!["operator", "plan", "first_apply"]));
    for other in ["seal::Plain", "operator::plan", "std::fmt::debug", "operator/src/plan", "a::b::c"] {
        assert_eq!(as_test(other), None, "{other}");
    }
    let place = ["operator", "src", "plan", "tests", "x"].map(str::to_owned).to_vec();
    assert!(fits(&["operator", "plan", "x"], &place));
    for wrong in [&["operator", "apply", "x"][..], &["webhook", "plan", "x"], &["operator", "plan", "y"]] {
        assert!(!fits(wrong, &place), "{wrong:?}");
    }
    let text = "#[test]\nfn a() {}\nfn helper() {}\n#[tokio::test]\n#[ignore]\nasync fn b() {}\n#[test]\nfn c(x in 0..3) {}\n";
    assert_eq!(tests_in(text), ["a", "b", "c"]);
}
