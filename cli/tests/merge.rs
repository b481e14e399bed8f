//! `manifest --merge-into`, from the outside.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests")]

mod run;

use std::fs;
use std::path::Path;

use run::{Run, command, keygen, opened, run, with_input};

const FILE: &str = "checkout.yaml";

fn manifest(dir: &Path, env: &str, more: &[&str]) -> Run {
    let args = [&["manifest", "--namespace", "shop", "--name", "checkout"], more].concat();
    with_input(command(dir, &args), env.as_bytes())
}

fn merge(dir: &Path, env: &str, more: &[&str]) -> Run {
    with_input(command(dir, &[&["manifest", "--merge-into", FILE], more].concat()), env.as_bytes())
}

fn read(dir: &Path) -> String {
    fs::read_to_string(dir.join(FILE)).expect("file")
}

fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("no {key} in\n{text}")).split(' ').next().expect("value").to_owned()
}

#[test]
fn a_second_merge_changes_nothing_and_a_new_value_changes_one_line() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let to = ["--recipient", &recipient, "--public", "MODE"];
    let first = manifest(dir.path(), "A=one\nMODE=test\n", &to);
    let head = "# payments, see the wiki\n---\n";
    fs::write(dir.path().join(FILE), format!("{head}{}", first.text())).expect("write");
    assert_eq!(run(dir.path(), &["-q", "validate", FILE]).ok(), "");
    let before = read(dir.path());
    let modified = dir.path().join(FILE).metadata().expect("file").modified().expect("time");

    let same = merge(dir.path(), "A=two\nMODE=test\n", &to);
    assert_eq!((same.code, same.text()), (0, ""));
    assert_eq!(
        same.err,
        "checkout.yaml: no change\n  1 key kept, sealed as before\n  1 key kept, in plain text\n\
         hint: sealed values that were kept are not compared with the .env file: use --update KEY for a new one\n"
    );
    assert_eq!(read(dir.path()), before);
    assert_eq!(dir.path().join(FILE).metadata().expect("file").modified().expect("time"), modified);

    let update = merge(dir.path(), "A=two\nB=new\nMODE=live\n", &[&to[..], &["--update", "A"]].concat());
    assert_eq!(
        update.err,
        "checkout.yaml: shop/checkout changed\n  replaced A: asked for\n  added B, sealed\n  replaced MODE, in plain text\n"
    );
    let after = read(dir.path());
    assert_eq!(opened(dir.path(), "key", "A", &value(&after, "A")).ok(), "two");
    assert_eq!(opened(dir.path(), "key", "B", &value(&after, "B")).ok(), "new");
    let unchanged: Vec<&str> =
        before.lines().filter(|line| after.lines().any(|other| other == *line)).collect();
    assert_eq!(unchanged.len(), before.lines().count() - 2, "A and MODE");
    assert_eq!(after.lines().count(), before.lines().count() + 1, "B");

    let all = merge(dir.path(), "A=three\nB=three\n", &["--recipient", &recipient, "--update-all"]);
    assert_eq!(all.code, 0, "{}", all.err);
    assert!(all.err.contains("1 key not in the .env file, left alone"), "{}", all.err);
    assert_eq!(opened(dir.path(), "key", "B", &value(&read(dir.path()), "B")).ok(), "three");
}

#[test]
fn other_recipients_or_another_scope_seal_anew() {
    let dir = tempfile::tempdir().expect("dir");
    let (old, new) = (keygen(dir.path(), "old"), keygen(dir.path(), "new"));
    let text = manifest(dir.path(), "A=v\n", &["-r", &old]);
    fs::write(dir.path().join(FILE), text.text()).expect("write");
    let both = merge(dir.path(), "A=v\n", &["-r", &old, "-r", &new]);
    assert_eq!(
        both.err,
        "checkout.yaml: shop/checkout changed\n  replaced A: it was sealed to other recipients\n"
    );
    assert_eq!(opened(dir.path(), "new", "A", &value(&read(dir.path()), "A")).ok(), "v");
    let wide = merge(dir.path(), "A=v\n", &["-r", &old, "-r", &new, "--scope", "namespace"]);
    assert_eq!(
        wide.err,
        "checkout.yaml: shop/checkout changed\n  replaced A: it was sealed for strict shop/checkout/A\n"
    );
    let settled = read(dir.path());
    assert!(
        merge(dir.path(), "A=v\n", &["-r", &new, "-r", &old, "--scope", "namespace"])
            .err
            .contains("no change")
    );
    assert_eq!(read(dir.path()), settled);
}

#[test]
fn what_is_refused_leaves_the_file_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let text = manifest(dir.path(), "A=v\nMODE=live\n", &["-r", &recipient, "-p", "MODE"]);
    fs::write(dir.path().join(FILE), text.text()).expect("write");
    let before = read(dir.path());
    for (env, more, code, says) in [
        (
            "A=v\nMODE=x\n",
            vec![],
            2,
            "error: these keys stand in spec.public and are not named with --public: MODE",
        ),
        ("A=v\n", vec!["-p", "A"], 2, "error: --public names keys that stand sealed in spec.data: A"),
        ("A=v\n", vec!["-u", "B"], 2, "error: --update names keys that the .env file does not set: B"),
        ("A=v\n", vec!["--name", "other"], 1, "error: checkout.yaml has no SealedEnv named other"),
        ("A=v\nhunter2\n", vec!["-u", "A"], 1, "error: cannot read standard input as a .env file: line 2"),
        ("A=v\n", vec!["-u", "A", "-R", "missing"], 1, "error: cannot open missing: no such file"),
    ] {
        let run = merge(dir.path(), env, &[&["-r", &recipient], &more[..]].concat());
        assert_eq!(run.code, code, "{}", run.err);
        assert!(run.err.starts_with(says), "{}", run.err);
        assert_eq!(read(dir.path()), before);
    }
    let missing =
        with_input(command(dir.path(), &["manifest", "-m", "none.yaml", "-r", &recipient]), b"A=v\n");
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (1, "error: cannot open none.yaml: no such file or directory\n")
    );
    let full = with_input(command(dir.path(), &["manifest", "-m", "/dev/full", "-r", &recipient]), b"A=v\n");
    assert_eq!((full.code, full.err.as_str()), (1, "error: /dev/full is not a regular file\n"));
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 2);
}

#[test]
fn a_whole_file_of_values_comes_back() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let env = "PLAIN=a b\nexport QUOTED=\"two\\nlines\\t$HOME\"\nSINGLE='$(touch x) `y`'\nEMPTY=\nLONG=\"\n a\n  b\n\"\n";
    let text = manifest(dir.path(), env, &["-r", &recipient]);
    for (key, expected) in [
        ("PLAIN", "a b"),
        ("QUOTED", "two\nlines\t$HOME"),
        ("SINGLE", "$(touch x) `y`"),
        ("EMPTY", ""),
        ("LONG", "\n a\n  b\n"),
    ] {
        let run = opened(dir.path(), "key", key, &value(text.text(), key));
        assert_eq!((run.code, run.text()), (0, expected), "{key}: {}", run.err);
    }
}
