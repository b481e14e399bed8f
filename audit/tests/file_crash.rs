//! The file sink on a real file system: what a crash, a full disk or somebody else leaves at the end of the file.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // in functions that tests share; a child says what it did

mod any;

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use any::{
    folder::{Folder, NEVER, child, lines, open, write},
    text,
};
use sealedenv_audit::{Broken, FileSink, Notice, Sink as _, SinkError, Start, verify_files};

#[test]
fn a_torn_last_line_is_set_aside_at_every_byte() {
    let folder = Folder::new();
    write(&mut open(folder.path()).unwrap(), 3).unwrap();
    let whole = fs::read(folder.path()).unwrap();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
        .collect();
    for cut in 0..whole.len() {
        let folder = Folder::new();
        fs::write(folder.path(), &whole[..cut]).unwrap();
        let good = *starts.iter().filter(|start| **start <= cut).max().unwrap();
        let notices = write(&mut open(folder.path()).unwrap(), 1).unwrap();
        if good == cut {
            assert_eq!(notices, [], "cut at {cut}");
            assert_eq!(folder.names(), ["audit.jsonl"]);
        } else {
            let [Notice::TornTail { bytes, file, hash }] = &notices[..] else {
                panic!("cut at {cut}: {notices:?}")
            };
            assert_eq!((*bytes, file.as_str()), ((cut - good) as u64, "audit.jsonl.torn-1"));
            assert_eq!(fs::read(folder.at(file)).unwrap(), whole[good..cut]);
            assert_eq!(fs::metadata(folder.at(file)).unwrap().permissions().mode() & 0o777, 0o600);
            assert_ne!(*hash, [0; 32]);
        }
        assert!(fs::read(folder.path()).unwrap().starts_with(&whole[..good]));
        let expected = starts.iter().filter(|start| **start <= cut).count() as u64;
        assert_eq!(lines(&folder.path()), expected, "cut at {cut}");
    }
}

#[test]
fn torn_lines_never_overwrite_each_other() {
    let folder = Folder::new();
    fs::write(folder.at("audit.jsonl.torn-1"), "kept").unwrap();
    for round in 2..5 {
        drop(open(folder.path()).unwrap());
        let mut file = OpenOptions::new().append(true).open(folder.path()).unwrap();
        // As a machine crash may leave it: blocks of zeros.
        file.write_all(&vec![0; 200_000 * round]).unwrap();
        let notices = write(&mut open(folder.path()).unwrap(), 1).unwrap();
        let [Notice::TornTail { bytes, file, .. }] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!((*bytes, file), (200_000 * round as u64, &format!("audit.jsonl.torn-{round}")));
    }
    assert_eq!(fs::read(folder.at("audit.jsonl.torn-1")).unwrap(), b"kept");
    assert_eq!(lines(&folder.path()), 3);
}

#[test]
fn a_broken_end_is_refused_and_left_as_it_is() {
    let good = any::chain(300);
    let cases: [(&str, u64, Vec<String>); 5] = [
        (
            "edited",
            300,
            good.iter()
                .enumerate()
                .map(|(n, line)| if n == 298 { line.replace("\"ok\"", "\"failed\"") } else { line.clone() })
                .collect(),
        ),
        (
            "deleted",
            297,
            good.iter().enumerate().filter(|(n, _)| *n != 296).map(|(_, line)| line.clone()).collect(),
        ),
        ("garbage", 301, good.iter().cloned().chain(["boo".into()]).collect()),
        ("too long", 301, good.iter().cloned().chain(["x".repeat(300_000)]).collect()),
        ("empty line", 1, vec![String::new()]),
    ];
    for (what, line, lines) in cases {
        let folder = Folder::new();
        // A torn tail on top must not be touched either.
        let content = format!("{}{{\"seq\":9", text(&lines));
        fs::write(folder.path(), &content).unwrap();
        let mut sink = FileSink::new(folder.path(), NEVER);
        for _ in 0..2 {
            let error = sink.resume().unwrap_err();
            let SinkError::Broken(Broken { line: found, file, why, .. }) = &error else {
                panic!("{what}: {error:?}")
            };
            assert_eq!((*found, file), (line, &Some(folder.path())), "{what}: {why}");
        }
        assert_eq!(fs::read_to_string(folder.path()).unwrap(), content, "{what}");
        assert_eq!(folder.names(), ["audit.jsonl"], "{what}");
        // The operator moves it away, and the sink works again by itself.
        fs::rename(folder.path(), folder.at("evidence")).unwrap();
        assert_eq!(write(&mut sink, 1).unwrap(), []);
    }
}

#[test]
fn a_long_file_is_checked_at_its_end_only_and_continued() {
    let folder = Folder::new();
    let mut lines = any::chain(3_000);
    assert!(text(&lines).len() > 2 * (256 << 10));
    lines[5] = lines[5].replace("\"ok\"", "\"failed\""); // far from the end: what `verify` is for
    fs::write(folder.path(), text(&lines)).unwrap();
    let mut sink = open(folder.path()).unwrap();
    assert_eq!(sink.resume().unwrap().position.seq, 3_000);
    assert_eq!(write(&mut sink, 1).unwrap(), []);
    assert_eq!(verify_files(folder.path(), Start::Genesis).unwrap_err().line, 7);
}

/// A real limit of the kernel (`RLIMIT_FSIZE`): the write is cut short at some byte of some line, then refused.
#[test]
fn a_write_that_the_kernel_cuts_short_leaves_whole_lines() {
    let folder = Folder::new();
    let exe = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact child_appends --ignored --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(exe)
        .env("AUDIT_PATH", folder.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("stopped: cannot write to the audit sink file: File too large"), "{said}");
    let acknowledged = acknowledged(said.as_bytes());
    assert!(acknowledged > 5);
    assert_eq!(lines(&folder.path()), acknowledged, "the part of the next line was cut off again");
    assert_eq!(write(&mut open(folder.path()).unwrap(), 1).unwrap(), []);
}

/// Killed at some instruction, again and again: what was acknowledged is there, and the next start repairs the rest.
#[test]
fn a_killed_writer_loses_nothing_it_had_acknowledged() {
    let folder = Folder::new();
    let mut before = 0;
    for round in 0..12_u64 {
        let mut child = child("child_appends", &folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        while acknowledged(&said) < before + 1 + round {
            assert_ne!(reader.read_until(b'\n', &mut said).unwrap(), 0, "the child ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::io::Read::read_to_end(&mut reader, &mut said).unwrap();
        drop(open(folder.path()).unwrap());
        let there = verify_files(folder.path(), Start::Genesis).unwrap().lines;
        assert!(there >= acknowledged(&said), "round {round}: {there} lines of {}", acknowledged(&said));
        before = there;
    }
}

/// The highest number that a child said it had written.
fn acknowledged(said: &[u8]) -> u64 {
    String::from_utf8_lossy(said)
        .lines()
        .filter_map(|line| line.strip_prefix("wrote ")?.parse().ok())
        .max()
        .unwrap_or(0)
}

#[test]
#[ignore = "run as a child process by the tests above"]
fn child_appends() {
    let Some(path) = std::env::var_os("AUDIT_PATH") else { return };
    let mut sink = open(path).unwrap();
    println!();
    for _ in 0..100_000 {
        match write(&mut sink, 1) {
            Ok(_) => println!("wrote {}", sink.resume().unwrap().position.seq),
            Err(error) => {
                println!("stopped: {error}: {}", std::error::Error::source(&error).unwrap());
                return;
            }
        }
    }
}
