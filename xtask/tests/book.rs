//! The book is complete and its links lead somewhere. mdBook itself is not needed to know that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests they are the report of a failure")]

mod pages;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pages::{prose, read, root, split_code};

/// Markdown files in a folder.
fn markdown(folder: &Path) -> BTreeSet<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeSet<_> = files.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(!found.is_empty(), "{} has no pages", folder.display());
    found
}

/// Targets of the links `[text](target)` on a line without code.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

/// The anchor of a heading, as mdBook and GitHub make it.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
            c if c.is_whitespace() => Some('-'),
            _ => None,
        })
        .collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = read(page);
    let headings = prose(&text).into_iter().filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| anchor(heading))
    });
    headings.collect()
}

/// What is wrong with the links and includes of a page.
fn dead_links(page: &Path) -> Vec<String> {
    let mut dead = Vec::new();
    let text = read(page);
    let folder = page.parent().unwrap();
    for (number, line) in prose(&text) {
        for target in links(&split_code(line).1) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.to_owned() } else { folder.join(file) };
            let found = path.exists() && (wanted.is_empty() || anchors(&path).contains(wanted));
            if !found {
                dead.push(format!("{}:{number}: {target}", page.display()));
            }
        }
    }
    // Includes are expanded in code blocks too.
    for (index, line) in text.lines().enumerate() {
        for included in line.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next()) {
            if !folder.join(included.trim()).is_file() {
                dead.push(format!("{}:{}: {included}", page.display(), index + 1));
            }
        }
    }
    dead
}

#[test]
fn every_page_is_in_the_summary_once() {
    let source = root().join("docs/src");
    let summary = source.join("SUMMARY.md");
    let text = read(&summary);
    let listed: Vec<PathBuf> = text.lines().flat_map(links).map(|link| source.join(link)).collect();
    let unique: BTreeSet<PathBuf> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "a page is listed twice");
    let mut written = markdown(&source);
    written.remove(&summary);
    assert_eq!(unique, written, "left: docs/src/SUMMARY.md, right: the pages in docs/src");
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut looked_at = BTreeSet::new();
    for folder in ["", "docs", "docs/src"] {
        looked_at.extend(markdown(&root.join(folder)));
    }
    let dead: Vec<String> = looked_at.iter().flat_map(|page| dead_links(page)).collect();
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// docs/requirements.md is read at its own place and, included, as a page of docs/src: a relative link would be wrong
/// at one of them.
#[test]
fn an_included_page_has_no_relative_links() {
    let text = read(&root().join("docs/requirements.md"));
    let relative: Vec<&str> = text.lines().flat_map(links).filter(|link| !link.contains("://")).collect();
    assert!(relative.is_empty(), "{relative:?}");
}

/// Whoever upgrades must not have to guess whether there is something to know.
#[test]
fn every_version_has_upgrade_notes() {
    let text = read(&root().join("CHANGELOG.md"));
    let versions: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert!(!versions.is_empty());
    for version in versions {
        let name = version.lines().next().unwrap_or_default();
        let notes = version.split("\n### Upgrade notes\n").nth(1).unwrap_or_default();
        assert!(!notes.trim().is_empty(), "{name} has no upgrade notes; say so if there is nothing to do");
    }
}

#[test]
fn the_reader_of_links_sees_what_it_should() {
    assert_eq!(links("a [b](c.md#d) and [e](f.md) (g)"), ["c.md#d", "f.md"]);
    assert_eq!(anchor(" What `verify` finds, and what it cannot"), "what-verify-finds-and-what-it-cannot");
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.md");
    let text = "# A head\n[x](#a-head) [y](#none) [z](gone.md) `[c](code.md)`\n```\n[f](fenced.md)\n{{#include no.txt}}\n```\n";
    std::fs::write(&page, text).unwrap();
    let dead = dead_links(&page);
    assert_eq!(dead.len(), 3, "{dead:?}");
    for target in ["#none", "gone.md", "no.txt"] {
        assert!(dead.iter().any(|line| line.ends_with(target)), "{target}: {dead:?}");
    }
}
