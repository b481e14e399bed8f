//! Keys and values, from the outside.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests")]

mod run;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use run::{command, keygen, opened, run, sealed, with_input};

#[test]
fn what_was_sealed_is_opened_to_the_byte() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let max = vec![b'x'; 1 << 20];
    for value in [&b""[..], b"v", b"v\n", b"\xff\x00\xfe\r\n", "ä€".as_bytes(), &vec![0; 64 << 10], &max] {
        let text = sealed(dir.path(), &recipient, "K", value);
        assert!(text.starts_with("sealed:v1:") && !text.contains('\n'));
        let open = opened(dir.path(), "key", "K", &text);
        assert_eq!(open.code, 0, "{}", open.err);
        assert!(open.out == value, "{} bytes came back for {}", open.out.len(), value.len());
        assert_eq!(open.err, "");
    }
}

#[test]
fn a_value_that_is_too_large_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let args = ["value", "seal", "--scope", "cluster", "-k", "K", "-r", &recipient];
    for size in [(1 << 20) + 1, 8 << 20] {
        let run = with_input(command(dir.path(), &args), &vec![b'x'; size]);
        assert_eq!((run.code, run.text()), (1, ""));
        assert_eq!(
            run.err,
            "error: standard input has more than 1048576 bytes\n\
             hint: a Kubernetes Secret holds at most 1 MiB in all its keys\n"
        );
    }
}

#[test]
fn a_value_opens_only_where_it_was_sealed_for_and_with_its_key() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    keygen(dir.path(), "other");
    let text = sealed(dir.path(), &recipient, "K", b"hunter2");
    let at = |namespace: &str, name: &str, key: &str, identity: &str| {
        let args = ["value", "open", "-n", namespace, "--name", name, "-k", key, "-i", identity];
        let run = with_input(command(dir.path(), &args), text.as_bytes());
        assert!(run.out.is_empty() || run.code == 0);
        (run.code, run.err.lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(at("shop", "checkout", "K", "key"), (0, String::new()));
    for (namespace, name, key) in
        [("dev", "checkout", "K"), ("shop", "billing", "K"), ("shop", "checkout", "L")]
    {
        assert_eq!(
            at(namespace, name, key, "key"),
            (
                1,
                format!(
                    "error: cannot open the value: the value is sealed for strict shop/checkout/K, \
                     not for {namespace}/{name}/{key}"
                )
            )
        );
    }
    let (code, error) = at("shop", "checkout", "K", "other");
    assert_eq!(code, 1);
    assert!(
        error.starts_with("error: cannot open the value: no key here fits the value, which is sealed to ")
    );

    // One letter of the payload changed, one of the scope.
    let mut damaged = text.clone().into_bytes();
    let at = damaged.len() - 6;
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    let run = opened(dir.path(), "key", "K", str::from_utf8(&damaged).expect("text"));
    assert_eq!((run.code, run.text()), (1, ""));
    assert!(run.err.contains("hint: restore it from git, or seal it anew"), "{}", run.err);
}

#[test]
fn several_identities_and_recipients_work_and_the_file_form_is_ages() {
    let dir = tempfile::tempdir().expect("dir");
    let a = keygen(dir.path(), "a");
    let b = keygen(dir.path(), "b");
    fs::write(dir.path().join("recipients"), format!("# both\n{a}\n\n{b}\n")).expect("write");
    let args = ["-q", "value", "seal", "--scope", "cluster", "-k", "K", "-R", "recipients", "-r", &a];
    let text = with_input(command(dir.path(), &args), b"v").ok().to_owned();
    assert_eq!(opened(dir.path(), "a", "K", &text).ok(), "v");
    assert_eq!(opened(dir.path(), "b", "K", &text).ok(), "v");

    let both = fs::read_to_string(dir.path().join("a")).expect("a")
        + &fs::read_to_string(dir.path().join("b")).expect("b");
    fs::write(dir.path().join("both"), both).expect("write");
    fs::set_permissions(dir.path().join("both"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(opened(dir.path(), "both", "K", &text).ok(), "v");
}

#[test]
fn a_loose_identity_file_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let text = sealed(dir.path(), &recipient, "K", b"hunter2");
    for mode in [0o640, 0o604, 0o666, 0o620] {
        fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(mode)).expect("chmod");
        let run = opened(dir.path(), "key", "K", &text);
        assert_eq!((run.code, run.text()), (1, ""));
        assert_eq!(
            run.err,
            format!(
                "error: key can be reached by others than its owner (mode {mode:04o})\nhint: chmod 600 key\n"
            )
        );
    }
}

#[test]
fn keygen_makes_a_private_file_once() {
    let dir = tempfile::tempdir().expect("dir");
    let made = run(dir.path(), &["keygen", "--out-file", "key"]);
    let recipient = made.ok();
    assert!(recipient.starts_with("age1"));
    let file = fs::read_to_string(dir.path().join("key")).expect("key");
    assert!(file.contains(&format!("# public key: {recipient}\n")));
    assert!(!made.err.contains("AGE-SECRET-KEY") && !made.text().contains("AGE-SECRET-KEY"));
    assert_eq!(dir.path().join("key").metadata().expect("key").permissions().mode() & 0o777, 0o600);

    let again = run(dir.path(), &["keygen", "--out-file", "key"]);
    assert_eq!((again.code, again.text()), (1, ""));
    assert!(again.err.starts_with("error: key exists already and is never overwritten\n"));
    assert_eq!(fs::read_to_string(dir.path().join("key")).expect("key"), file);

    let printed = run(dir.path(), &["keygen"]);
    assert!(printed.text().contains("\nAGE-SECRET-KEY-1"));
    assert!(printed.err.starts_with("public key: age1"));
    let nowhere = run(dir.path(), &["keygen", "-o", "no/such/folder/key"]);
    assert_eq!((nowhere.code, nowhere.text()), (1, ""));
    assert_eq!(nowhere.err, "error: cannot write no/such/folder/key: no such file or directory\n");
}
