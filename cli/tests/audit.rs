//! `audit verify`, `tail` and `show`, from the outside, on trails that the audit library writes.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests")]

mod run;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use run::{command, run, with_input};
use sealedenv_audit::{Action, Actor, Head, ObjectRef, Outcome, Record, append};

/// Lines of a chain, a minute apart.
fn lines(writer: &str, count: usize) -> Vec<String> {
    let mut head = Head::genesis(writer);
    (0..count)
        .map(|number| {
            let time = format!("2026-01-02T03:{number:02}:00.5Z").parse().expect("time");
            let (line, next) = append(&head, time, &record(number));
            head = next;
            line
        })
        .collect()
}

fn record(number: usize) -> Record {
    let object = ObjectRef::new("SealedEnv", "checkout").namespace("shop");
    match number % 3 {
        0 => Record::new(Action::Reconcile, Actor::operator("sealedenv-operator"), Outcome::Ok)
            .object(object.uid(Some("u-1".to_owned())).generation(Some(4)))
            .keys(["A", "B", "C", "D", "E", "F"]),
        1 => Record::new(Action::Admission, Actor::authenticated("eve\u{1b}[31m"), Outcome::Refused)
            .object(object)
            .reason("ScopeMismatch")
            .detail("sealed for another place"),
        _ => Record::new(Action::KeyRotate, Actor::operator("sealedenv-operator"), Outcome::Ok)
            .object(ObjectRef::new("SealingKey", "cluster"))
            .recipients(["0011223344556677"]),
    }
}

fn write(dir: &Path, file: &str, lines: &[String]) {
    fs::write(dir.join(file), lines.join("\n") + "\n").expect("write");
}

#[test]
fn a_whole_trail_verifies_over_its_rotated_files() {
    let dir = tempfile::tempdir().expect("dir");
    let lines = lines("operator-0", 6);
    write(dir.path(), "audit.jsonl.1", &lines[..2]);
    write(dir.path(), "audit.jsonl.2", &lines[2..4]);
    write(dir.path(), "audit.jsonl", &lines[4..]);
    let verified = run(dir.path(), &["audit", "verify", "audit.jsonl"]);
    assert!(
        verified.ok().starts_with(
            "audit.jsonl: ok, 6 records in 3 files, seq 1 to 6\n  \
             from 2026-01-02T03:00:00.500Z to 2026-01-02T03:05:00.500Z\n  head "
        ),
        "{}",
        verified.text()
    );
    let globbed = run(dir.path(), &["audit", "verify", "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    assert_eq!(globbed.text(), verified.text());
    let json = run(dir.path(), &["audit", "verify", "-o", "json", "audit.jsonl"]);
    let json: serde_json::Value = serde_json::from_str(json.ok()).expect("JSON");
    assert_eq!(json["ok"], true);
    assert_eq!(json["trails"][0]["lastSeq"], 6);
    assert_eq!(json["trails"][0]["files"], 3);
}

#[test]
fn a_broken_chain_names_file_line_and_reason() {
    let dir = tempfile::tempdir().expect("dir");
    let lines = lines("operator-0", 6);
    let edited = lines[2].replace("SealingKey", "SealedKeys");
    let cases: Vec<(&str, Vec<String>, &str)> = vec![
        (
            "Link",
            [&lines[..2], &[edited], &lines[3..]].concat(),
            "audit.jsonl:4: prev is not the hash of the line before: that line or this one was changed",
        ),
        (
            "Sequence",
            [&lines[..2], &lines[3..]].concat(),
            "audit.jsonl:3: seq is 4 where 3 was expected: lines are missing, added, doubled or swapped",
        ),
        (
            "NotTheBeginning",
            lines[1..].to_vec(),
            "audit.jsonl:1: the trail begins at seq 2: everything before it is missing",
        ),
        (
            "Unparsable",
            [&lines[..2], &["hunter2".to_owned()]].concat(),
            "audit.jsonl:3: the line is not an audit record (or a newer version wrote it)",
        ),
    ];
    for (reason, lines, says) in cases {
        write(dir.path(), "audit.jsonl", &lines);
        let text = run(dir.path(), &["audit", "verify", "audit.jsonl"]);
        assert_eq!((text.code, text.text()), (1, ""), "{reason}");
        assert_eq!(text.err.lines().next(), Some(format!("error: {says}").as_str()), "{reason}");
        let json = run(dir.path(), &["audit", "verify", "--output", "json", "audit.jsonl"]);
        assert_eq!(json.code, 1);
        let json: serde_json::Value = serde_json::from_str(json.text()).expect("JSON");
        assert_eq!((json["ok"].as_bool(), json["trails"][0]["reason"].as_str()), (Some(false), Some(reason)));
    }
    write(dir.path(), "audit.jsonl", &lines[1..]);
    assert_eq!(run(dir.path(), &["audit", "verify", "--partial", "audit.jsonl"]).code, 0);
    fs::write(dir.path().join("audit.jsonl"), lines.join("\n")).expect("write");
    let torn = run(dir.path(), &["audit", "verify", "audit.jsonl"]);
    assert_eq!(torn.code, 1);
    assert!(torn.err.contains("audit.jsonl:6: the last line is incomplete"), "{}", torn.err);
    assert!(torn.err.contains("hint: records up to 5 are whole"), "{}", torn.err);
}

#[test]
fn what_cannot_be_read_is_neither_whole_nor_broken() {
    let dir = tempfile::tempdir().expect("dir");
    write(dir.path(), "good.jsonl", &lines("w", 2));
    let run_ = run(dir.path(), &["audit", "verify", "good.jsonl", "missing.jsonl"]);
    assert_eq!(run_.code, 2);
    assert!(run_.text().starts_with("good.jsonl: ok, 2 records"), "{}", run_.text());
    assert!(run_.err.starts_with("error: missing.jsonl: "), "{}", run_.err);
    for args in [vec!["audit", "tail", "missing.jsonl"], vec!["audit", "show", "1", "missing.jsonl"]] {
        let run = run(dir.path(), &args);
        assert_eq!((run.code, run.text()), (2, ""));
        assert!(run.err.starts_with("error: cannot read the audit trail missing.jsonl: "), "{}", run.err);
    }
}

#[test]
fn a_log_of_several_processes_is_taken_apart() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (lines("operator-0", 3), lines("operator-1", 2));
    let log = format!("starting\n{}\n{}\n{}\nwarn: x\n{}\n{}\n", a[0], b[0], a[1], b[1], a[2]);
    let run = with_input(command(dir.path(), &["audit", "verify", "-"]), log.as_bytes());
    assert!(run.ok().contains("operator-0: ok, 3 records") && run.ok().contains("operator-1: ok, 2 records"));
    assert!(run.err.contains("2 other lines were passed over"), "{}", run.err);
    let cut = format!("{}\n{}\n", a[0], a[2]);
    let run = with_input(command(dir.path(), &["audit", "verify", "-"]), cut.as_bytes());
    assert_eq!(run.code, 1);
    assert!(run.err.starts_with("error: standard input:2: seq is 3 where 2 was expected"), "{}", run.err);
}

#[test]
fn the_tail_is_readable_and_safe_to_print() {
    let dir = tempfile::tempdir().expect("dir");
    let lines = lines("operator-0", 12);
    write(dir.path(), "audit.jsonl.1", &lines[..11]);
    write(dir.path(), "audit.jsonl", &lines[11..]);
    let tail = run(dir.path(), &["audit", "tail", "-n", "3", "audit.jsonl"]);
    assert_eq!(
        tail.ok(),
        "    10  2026-01-02T03:09:00.500Z  reconcile  ok       SealedEnv shop/checkout  keys A,B,C,D and 2 more  by operator sealedenv-operator\n    \
         11  2026-01-02T03:10:00.500Z  admission  refused  SealedEnv shop/checkout  by user eve\\u001b[31m  ScopeMismatch: sealed for another place\n    \
         12  2026-01-02T03:11:00.500Z  keyRotate  ok       SealingKey cluster  by operator sealedenv-operator"
    );
    assert_eq!(run(dir.path(), &["audit", "tail", "audit.jsonl"]).ok().lines().count(), 10);
    let json = run(dir.path(), &["audit", "tail", "-n", "2", "-o", "json", "audit.jsonl"]);
    assert_eq!(json.ok(), lines[10..].join("\n"));
    let none = run(dir.path(), &["audit", "tail", "-n", "0", "audit.jsonl"]);
    assert_eq!(none.ok(), "");
}

#[test]
fn one_record_is_shown_in_full() {
    let dir = tempfile::tempdir().expect("dir");
    let lines = lines("operator-0", 5);
    write(dir.path(), "audit.jsonl", &lines);
    let shown = run(dir.path(), &["audit", "show", "4", "audit.jsonl"]);
    let fields: Vec<(&str, &str)> = shown
        .ok()
        .lines()
        .map(|line| (line[..13].trim(), &line[14..]))
        .filter(|(name, _)| *name != "prev")
        .collect();
    assert_eq!(
        fields,
        [
            ("seq", "4"),
            ("time", "2026-01-02T03:03:00.500Z"),
            ("writer", "operator-0"),
            ("actor", "operator sealedenv-operator"),
            ("action", "reconcile"),
            ("object", "SealedEnv shop/checkout"),
            ("uid", "u-1"),
            ("generation", "4"),
            ("keys", "A, B, C, D, E, F"),
            ("outcome", "ok"),
        ]
    );
    assert_eq!(run(dir.path(), &["audit", "show", "2", "-o", "json", "audit.jsonl"]).ok(), lines[1]);
    let missing = run(dir.path(), &["audit", "show", "6", "audit.jsonl"]);
    assert_eq!((missing.code, missing.err.as_str()), (1, "error: audit.jsonl holds no record 6\n"));
}

#[test]
fn following_shows_each_record_once_over_rotation() {
    let dir = tempfile::tempdir().expect("dir");
    let lines = lines("operator-0", 6);
    write(dir.path(), "audit.jsonl", &lines[..2]);
    let mut child = command(dir.path(), &["audit", "tail", "-f", "-n", "1", "-o", "json", "audit.jsonl"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    let mut shown = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut next = || shown.next().expect("a line").expect("text");
    assert_eq!(next(), lines[1]);
    let mut file = fs::OpenOptions::new().append(true).open(dir.path().join("audit.jsonl")).expect("open");
    writeln!(file, "{}", lines[2]).expect("write");
    assert_eq!(next(), lines[2]);
    writeln!(file, "{}", lines[3]).expect("write");
    fs::rename(dir.path().join("audit.jsonl"), dir.path().join("audit.jsonl.1")).expect("rename");
    write(dir.path(), "audit.jsonl", &lines[4..]);
    assert_eq!([next(), next(), next()], [lines[3].clone(), lines[4].clone(), lines[5].clone()]);
    child.kill().expect("kill");
    child.wait().expect("end");
}
