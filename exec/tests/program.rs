//! The program as a container runs it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealedenv-exec");

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("..v1")).unwrap();
    symlink("..v1", folder.path().join("..data")).unwrap();
    for (name, content) in files {
        fs::write(folder.path().join("..v1").join(name), content).unwrap();
    }
    folder
}

fn run(folder: &Path, keep: &[&str], command: &[&str]) -> Output {
    let mut program = Command::new(PROGRAM);
    program.arg("--from").arg(folder);
    for name in keep {
        program.args(["--keep", name]);
    }
    program.env("KEPT", "the pod's").env("SET", "the image's");
    program.arg("--").args(command).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn files_win_over_what_is_there_and_the_pods_own_variables_win_over_files() {
    let folder = folder(&[("KEPT", "the file's"), ("SET", "the file's"), ("NEW", "a b\n$c\n")]);
    let output = run(
        folder.path(),
        &["KEPT"],
        &["sh", "-c", "printf '%s|%s|%s|%s' \"$KEPT\" \"$SET\" \"$NEW\" \"$1\"", "x", "own"],
    );
    assert_eq!(text(&output.stdout), "the pod's|the file's|a b\n$c\n|own");
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn the_program_has_the_process_its_signals_and_its_exit_code() {
    let folder = folder(&[("KEY", "1")]);
    assert_eq!(run(folder.path(), &[], &["sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(run(folder.path(), &[], &["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    let child = Command::new(PROGRAM)
        .arg("--from")
        .arg(folder.path())
        .args(["--", "sh", "-c", "echo $$"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout).trim(), id.to_string());
    // A broken pipe ends a program that does not handle it, as everywhere.
    let output = run(folder.path(), &[], &["sh", "-c", "kill -PIPE $$; echo survived"]);
    assert_eq!(output.status.signal(), Some(13));
}

#[test]
fn a_program_is_searched_in_the_path_that_it_gets() {
    let bin = tempfile::tempdir().unwrap();
    let program = bin.path().join("greet");
    fs::write(&program, "#!/bin/sh\necho hello\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = folder(&[("PATH", bin.path().to_str().unwrap())]);
    assert_eq!(text(&run(folder.path(), &[], &["greet"]).stdout), "hello\n");
}

#[test]
fn what_cannot_be_started_ends_as_in_a_shell_and_says_why() {
    let folder = folder(&[("KEY", "canary")]);
    let unrunnable = folder.path().join("unrunnable");
    fs::write(&unrunnable, "").unwrap();
    for (command, code) in
        [("no-such-program", 127), ("/no/such/program", 127), (unrunnable.to_str().unwrap(), 126), ("/", 126)]
    {
        let output = run(folder.path(), &[], &[command]);
        assert_eq!(output.status.code(), Some(code), "{command}");
        let message = text(&output.stderr);
        assert!(message.contains(command) && !message.contains("canary"), "{message}");
    }
    for arguments in [&["--from"][..], &["--what"], &[], &["--from", "/no/such/folder", "--", "true"]] {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("sealedenv-exec: error: "));
    }
}

#[test]
fn it_copies_itself_so_that_every_user_can_run_it() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let done = Command::new(PROGRAM).arg("--install").arg(folder.path()).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let copy = folder.path().join("sealedenv-exec");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o555);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(PROGRAM).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let gone = Command::new(PROGRAM).args(["--install", "/no/such/folder"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(125));
}
