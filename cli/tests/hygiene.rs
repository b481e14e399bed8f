//! Where values must not be, and what happens when output, rights or readers fail.

#![allow(clippy::expect_used, reason = "in tests")]

mod run;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use run::{BIN, Run, command, keygen, run, sealed, with_input};

/// Searched for in everything that comes out.
const CANARY: &str = "7f3kq-canary-hunter2";

#[test]
fn a_value_comes_out_of_open_and_of_nothing_else() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let good = sealed(dir.path(), &recipient, "K", CANARY.as_bytes());
    let cut = &good[..good.len() - 4];
    let manifest = format!(
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {{name: checkout, namespace: shop}}\nspec:\n  data:\n    K: {CANARY}\n"
    );
    fs::write(dir.path().join("m.yaml"), &manifest).expect("write");
    let seal = ["value", "seal", "--scope", "cluster", "-k", "K", "-r", &recipient];
    let inspect = ["value", "inspect"];
    let open = ["value", "open", "-n", "shop", "--name", "other", "-k", "K", "-i", "key"];
    let make = ["manifest", "-n", "shop", "--name", "checkout", "-r", &recipient];
    let merge = ["manifest", "-m", "m.yaml", "-r", &recipient];
    let check = ["validate", "-"];
    let lines = format!("K={CANARY}\nL=\"{CANARY}\nM={CANARY}\n");
    for (args, input) in [
        (&seal[..], CANARY.to_owned()),
        (&inspect, CANARY.to_owned()),
        (&inspect, format!("sealed:v1:{CANARY}")),
        (&inspect, format!("sealed:v9{CANARY}:x")),
        (&open, good.clone()),
        (&open, cut.to_owned()),
        (&open, CANARY.to_owned()),
        (&make, format!("K={CANARY}\n")),
        (&make, format!("{CANARY}\n")),
        (&make, format!("K='{CANARY}\n")),
        (&make, format!("K=\"\\{CANARY}\"\n")),
        (&make, format!("{CANARY} x=1\n")),
        (&make, lines),
        (&merge, format!("K={CANARY}\nNEW={CANARY}\n")),
        (&check, manifest.clone()),
        (&check, manifest.replace("K: ", "K: *")),
        (&check, manifest.replace("K: ", "K: {")),
        (&check, manifest.replace("  data:\n    K:", "  data:")),
    ] {
        let Run { out, err, .. } = with_input(command(dir.path(), args), input.as_bytes());
        let out = String::from_utf8_lossy(&out);
        assert!(!out.contains(CANARY) && !err.contains(CANARY), "{args:?}\n{out}\n{err}");
    }
    assert!(!fs::read_to_string(dir.path().join("m.yaml")).expect("m.yaml").contains(CANARY));
}

#[test]
fn a_full_disk_is_an_error_and_not_a_success() {
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let text = sealed(dir.path(), &recipient, "K", b"v");
    fs::write(dir.path().join("good.yaml"), "a: [\n").expect("write");
    for (args, input) in [
        (vec!["keygen"], ""),
        (vec!["value", "seal", "--scope", "cluster", "-k", "K", "-r", &recipient], "v"),
        (vec!["value", "open", "-n", "shop", "--name", "checkout", "-k", "K", "-i", "key"], text.as_str()),
        (vec!["value", "inspect"], text.as_str()),
        (vec!["manifest", "-n", "shop", "--name", "checkout", "-r", &recipient], "A=1"),
        (vec!["validate", "good.yaml"], ""),
        (vec!["completion", "bash"], ""),
    ] {
        let mut command = command(dir.path(), &args);
        fs::write(dir.path().join("in"), input).expect("write");
        command
            .stdin(File::open(dir.path().join("in")).expect("in"))
            .stdout(File::create("/dev/full").expect("full"));
        let run = Run::from(command.output().expect("run"));
        assert_eq!(run.code, 1, "{args:?}: {}", run.err);
        assert!(
            run.err.starts_with("error: cannot write to standard output: no space left on device\n"),
            "{args:?}: {}",
            run.err
        );
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error_and_the_verdict_stays() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("bad.yaml"), "a: [\n").expect("write");
    for (args, code) in
        [(vec!["completion", "bash"], 0), (vec!["keygen"], 0), (vec!["validate", "bad.yaml"], 1)]
    {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let run =
            Run::from(command(dir.path(), &args).stdout(writer).stdin(Stdio::null()).output().expect("run"));
        assert_eq!(run.code, code, "{args:?}: {}", run.err);
        assert!(!run.err.contains("error:") && !run.err.contains("panicked"), "{args:?}: {}", run.err);
    }
    // Nor does a standard error that takes nothing change the verdict.
    for args in [vec!["value"], vec!["validate", "missing.yaml"], vec!["value", "seal", "hunter2"]] {
        let full = File::create("/dev/full").expect("full");
        let status = command(dir.path(), &args).stderr(full).stdin(Stdio::null()).status().expect("run");
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_process_cannot_be_dumped_and_shows_a_value_nowhere() {
    let dir = open_folder();
    let recipient = keygen(dir.path(), "key");
    // With core files allowed, as far as they can be here.
    let script = r#"ulimit -S -c "$(ulimit -H -c)"; exec ./sealedenv "$@""#;
    let mut command = Command::new("sh");
    command
        .current_dir(dir.path())
        .args(["-c", script, "sh", "value", "seal", "--scope", "cluster", "-k", "K"]);
    command.args(["-r", &recipient]);
    as_nobody(&mut command);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let proc = Path::new("/proc").join(child.id().to_string());
    // What is in /proc of a process that cannot be dumped belongs to root, whoever runs it. It waits for the value.
    until(|| {
        let started = fs::read(proc.join("cmdline")).is_ok_and(|line| line.starts_with(b"./sealedenv"));
        let owner = fs::metadata(proc.join("environ")).map(|of| of.uid());
        (started && owner.is_ok_and(|owner| owner == 0)).then_some(())
    });
    let limits = fs::read_to_string(proc.join("limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let shown = fs::read(proc.join("cmdline")).expect("cmdline");
    drop(child.stdin.take().map(|mut stdin| stdin.write_all(CANARY.as_bytes())));
    let mut out = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut out).expect("read");
    assert!(child.wait().expect("end").success());
    assert!(out.starts_with("sealed:v1:"));
    assert!(!String::from_utf8_lossy(&shown).contains(CANARY));
}

/// Tries until there is an answer.
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "the condition was never met");
        std::thread::yield_now();
    }
}

/// As a user without rights: tests that run as root can become one.
fn as_nobody(command: &mut Command) {
    const NOBODY: u32 = 65534;
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// A folder that anybody can look into, with a copy of the binary, which may stand where others cannot.
fn open_folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("dir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    // By another process: a file that this one has open for writing in one thread, while another one starts a
    // program, is busy.
    let copied = Command::new("cp").arg(BIN).arg(dir.path().join("sealedenv")).status().expect("cp");
    assert!(copied.success());
    dir
}

fn shell(dir: &Path, script: &str) -> Run {
    let mut command = Command::new("sh");
    command.current_dir(dir).args(["-c", script]).env("HOME", dir);
    as_nobody(&mut command);
    Run::from(command.stdin(Stdio::null()).output().expect("run"))
}

#[test]
fn files_that_a_shell_hands_over_by_number_can_be_read_by_anybody() {
    let dir = open_folder();
    let script = "
        set -e
        ./sealedenv -q keygen -o key > recipient
        printf v | ./sealedenv -q value seal --scope cluster -k K -R /dev/fd/3 3< recipient > value
        ./sealedenv value open -n a --name b -k K -i /dev/fd/3 3< key < value
        printf 'A=1\\n' > env
        ./sealedenv -q manifest -n a --name b -e /dev/fd/3 -R /dev/fd/4 3< env 4< recipient > m.yaml
        ./sealedenv -q validate /dev/stdin -R /dev/fd/4 4< recipient < m.yaml
    ";
    let run = shell(dir.path(), script);
    assert_eq!((run.code, run.text(), run.err.as_str()), (0, "v", ""));
}

#[test]
fn without_rights_nothing_is_read_or_half_written() {
    let dir = open_folder();
    let recipient = keygen(dir.path(), "key"); // ours, 0600
    fs::create_dir(dir.path().join("shut")).expect("dir");
    let manifest = "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {name: a, namespace: b}\nspec:\n  public: {A: x}\n";
    fs::write(dir.path().join("shut/m.yaml"), manifest).expect("write");
    fs::set_permissions(dir.path().join("shut/m.yaml"), fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o555)).expect("chmod");
    fs::write(dir.path().join("closed.yaml"), manifest).expect("write");
    fs::set_permissions(dir.path().join("closed.yaml"), fs::Permissions::from_mode(0o000)).expect("chmod");

    if rustix::process::geteuid().is_root() {
        let text = sealed(dir.path(), &recipient, "K", b"v");
        let run = shell(
            dir.path(),
            &format!("echo {text} | ./sealedenv value open -n shop --name checkout -k K -i key"),
        );
        assert_eq!((run.code, run.err.as_str()), (1, "error: cannot open key: permission denied\n"));
    }
    let run = shell(dir.path(), "./sealedenv keygen -o shut/key");
    assert_eq!((run.code, run.text()), (1, ""));
    assert_eq!(run.err, "error: cannot write shut/key: permission denied\n");

    let run = shell(dir.path(), "./sealedenv validate closed.yaml");
    assert_eq!(run.code, 2);
    assert!(run.err.starts_with("error: cannot open closed.yaml: permission denied\n"), "{}", run.err);

    let run = shell(dir.path(), &format!("echo B=1 | ./sealedenv manifest -m shut/m.yaml -r {recipient}"));
    assert_eq!(run.code, 1);
    assert!(
        run.err.starts_with("error: cannot write shut/m.yaml, which is as it was: permission denied"),
        "{}",
        run.err
    );
    assert_eq!(fs::read_to_string(dir.path().join("shut/m.yaml")).expect("file"), manifest);
    assert_eq!(fs::read_dir(dir.path().join("shut")).expect("dir").count(), 1);
    fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o755)).expect("chmod");
}

#[test]
fn hostile_names_reach_the_terminal_as_escapes_on_one_line() {
    let dir = tempfile::tempdir().expect("dir");
    let hostile = "a\u{1b}[31m\n\u{202e}b";
    let run = run(dir.path(), &["validate", hostile]);
    assert_eq!(run.code, 2);
    assert!(run.err.starts_with(r"error: cannot open a\u001b[31m\u000a\u202eb: no such file"), "{}", run.err);

    let key = r#""K\x1b[2J\n\u202e""#;
    let text = format!(
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {{name: a, namespace: b}}\nspec: {{{key}: x}}\n"
    );
    fs::write(dir.path().join("m.yaml"), text).expect("write");
    let run = run::run(dir.path(), &["validate", "m.yaml"]);
    assert!(run.text().contains(r"unknown field spec.K\u001b[2J\u000a\u202e"), "{}", run.text());
    assert!(!run.out.contains(&0x1b));
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let dir = tempfile::tempdir().expect("dir");
    let error = |name: &str| {
        let mut command = command(dir.path(), &["keygen", "-o", "no/key"]);
        if !name.is_empty() {
            command.env(name, "1");
        }
        with_input(command, b"").err
    };
    assert!(error("").starts_with("error: "));
    assert!(error("NO_COLOR").starts_with("error: "));
    assert!(error("CLICOLOR_FORCE").starts_with("\u{1b}[1;31merror:\u{1b}[0m "));
}

#[test]
fn as_a_kubectl_plugin_help_goes_by_that_name() {
    let dir = tempfile::tempdir().expect("dir");
    let plugin = dir.path().join("kubectl-sealedenv");
    std::os::unix::fs::symlink(BIN, &plugin).expect("link");
    let help = Run::from(Command::new(&plugin).args(["value", "seal", "--help"]).output().expect("run"));
    assert!(help.ok().contains("Usage: kubectl sealedenv value seal"), "{}", help.text());
}

#[test]
fn a_terminal_is_asked_for_the_value_and_shows_nothing_of_it() {
    // `script` gives the command a terminal; without it there is none to test with.
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: no `script` on this machine");
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "key");
    let seal = format!("{BIN} value seal --scope cluster -k K -r {recipient} > value");
    let mut child = Command::new("script")
        .current_dir(dir.path())
        .args(["-qec", &seal, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    let mut screen = BufReader::new(child.stdout.take().expect("stdout"));
    let mut seen = Vec::new();
    screen.read_until(b')', &mut seen).expect("prompt");
    assert!(String::from_utf8_lossy(&seen).contains("value of K (not shown)"));
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(format!("{CANARY}\n").as_bytes()).expect("typed");
    screen.read_to_end(&mut seen).expect("screen");
    assert!(child.wait().expect("end").success(), "{}", String::from_utf8_lossy(&seen));
    assert!(!String::from_utf8_lossy(&seen).contains(CANARY));
    let value = fs::read_to_string(dir.path().join("value")).expect("value");
    let args = ["value", "open", "-n", "a", "--name", "b", "-k", "K", "-i", "key"];
    assert_eq!(with_input(command(dir.path(), &args), value.as_bytes()).ok(), CANARY);
}
