//! The file sink on a real file system.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // in functions that tests share; a child says what it did

mod any;

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use any::{numbered, text, time};
use sealedenv_audit::{
    Broken, FileSink, Head, Notice, ParseError, Rotation, Sink, SinkError, Start, Why, append, read_all,
    tail, verify_files,
};

const NEVER: Rotation = Rotation { max_bytes: 0 };

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.at("audit.jsonl")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Appends records as the log does, and gives what the sink had to say.
fn write(sink: &mut FileSink, count: u64) -> Result<Vec<Notice>, SinkError> {
    let resumed = sink.resume()?;
    let mut head = Head::at(resumed.position, "op-0");
    for _ in 0..count {
        let (line, next) = append(&head, time(0), &numbered(head.seq + 1));
        sink.append(&[line])?;
        head = next;
    }
    Ok(resumed.notices)
}

fn lines(path: &Path) -> u64 {
    verify_files(path, Start::Genesis).unwrap().lines
}

fn open(path: impl Into<PathBuf>) -> Result<FileSink, SinkError> {
    FileSink::open(path, NEVER)
}

#[test]
fn a_new_process_continues_the_chain_of_the_file() {
    let folder = Folder::new();
    for round in 1..=4 {
        let mut sink = open(folder.path()).unwrap();
        assert_eq!(write(&mut sink, 3).unwrap(), []);
        assert_eq!(lines(&folder.path()), round * 3);
    }
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.names(), ["audit.jsonl"]);
}

/// Lines that were made for another position must not get in.
#[test]
fn a_sink_that_was_not_asked_where_it_stands_takes_nothing() {
    let folder = Folder::new();
    let (line, _) = append(&Head::genesis("op"), time(0), &numbered(1));
    let mut sink = FileSink::new(folder.path(), NEVER);
    assert!(matches!(sink.append(std::slice::from_ref(&line)).unwrap_err(), SinkError::Open { .. }));
    write(&mut sink, 1).unwrap();
    fs::remove_file(folder.path()).unwrap();
    for _ in 0..2 {
        sink.append(std::slice::from_ref(&line)).unwrap_err();
    }
    assert!(!folder.path().exists());
}

#[test]
fn a_second_writer_is_told_so_and_the_first_goes_on() {
    let folder = Folder::new();
    let mut first = FileSink::open(folder.path(), Rotation { max_bytes: 600 }).unwrap();
    for _ in 0..5 {
        // Also on the files that rotation makes.
        write(&mut first, 2).unwrap();
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, SinkError::Locked { .. }), "{error:?}");
    }
    drop(first);
    write(&mut open(folder.path()).unwrap(), 1).unwrap();
    assert_eq!(lines(&folder.path()), 11);
}

#[test]
fn a_second_process_is_told_so() {
    let folder = Folder::new();
    let _sink = open(folder.path()).unwrap();
    let output = child("child_opens", &folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("another process writes to the audit file"), "{said}");
}

/// A process that is being started holds copies of all descriptors for a moment. The lock must not live on in it.
#[test]
fn starting_other_processes_does_not_keep_the_file_locked() {
    let folder = Folder::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let failed = (0..300).find_map(|_| open(folder.path()).err());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}

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

#[test]
fn the_deleted_file_is_noticed_at_once_and_a_new_one_says_so() {
    let folder = Folder::new();
    let mut sink = open(folder.path()).unwrap();
    write(&mut sink, 5).unwrap();
    let lost = fs::read_to_string(folder.path()).unwrap();
    fs::remove_file(folder.path()).unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Replaced { .. }));
    assert!(!folder.path().exists(), "the line that failed made no file");
    let notices = write(&mut sink, 1).unwrap();
    let [Notice::Rewound { was }] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!(was.seq, 5);
    assert_eq!(was.hash, sealedenv_audit::verify(lost.as_bytes()).unwrap().prev);
    assert_eq!(lines(&folder.path()), 1);
}

#[test]
fn a_replaced_file_is_noticed_and_continued_if_it_holds_the_chain() {
    let folder = Folder::new();
    let mut sink = open(folder.path()).unwrap();
    write(&mut sink, 2).unwrap();
    fs::copy(folder.path(), folder.at("old")).unwrap();
    write(&mut sink, 2).unwrap();
    fs::copy(folder.path(), folder.at("same")).unwrap();

    fs::rename(folder.at("same"), folder.path()).unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Replaced { .. }));
    assert_eq!(write(&mut sink, 1).unwrap(), [Notice::Replaced]);
    assert_eq!(lines(&folder.path()), 5);

    // An older copy is put back.
    fs::rename(folder.at("old"), folder.path()).unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Replaced { .. }));
    let notices = write(&mut sink, 1).unwrap();
    assert!(matches!(&notices[..], [Notice::Rewound { was }] if was.seq == 5), "{notices:?}");
    assert_eq!(lines(&folder.path()), 3);
}

#[test]
fn a_file_moved_to_the_next_rotated_name_is_continued() {
    let folder = Folder::new();
    let mut sink = open(folder.path()).unwrap();
    write(&mut sink, 3).unwrap();
    fs::rename(folder.path(), folder.at("audit.jsonl.1")).unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Replaced { .. }));
    assert_eq!(write(&mut sink, 2).unwrap(), [Notice::Replaced]);
    assert_eq!(lines(&folder.path()), 5);
}

#[test]
fn a_file_that_somebody_else_changes_is_noticed() {
    let folder = Folder::new();
    let mut sink = open(folder.path()).unwrap();
    write(&mut sink, 3).unwrap();
    let len = fs::metadata(folder.path()).unwrap().len();

    // `truncate -s -1`: the last line has no newline any more.
    OpenOptions::new().write(true).open(folder.path()).unwrap().set_len(len - 1).unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Changed { .. }));
    let notices = write(&mut sink, 1).unwrap();
    assert!(
        matches!(&notices[..], [Notice::TornTail { .. }, Notice::Rewound { was }] if was.seq == 3),
        "{notices:?}"
    );
    assert_eq!(lines(&folder.path()), 3);

    // Emptied.
    fs::write(folder.path(), "").unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Changed { .. }));
    let notices = write(&mut sink, 1).unwrap();
    assert!(matches!(&notices[..], [Notice::Rewound { was }] if was.seq == 3), "{notices:?}");

    // A line that fits is added by somebody else.
    let head = sealedenv_audit::verify(fs::read(folder.path()).unwrap().as_slice()).unwrap();
    let (forged, _) = append(&head, time(0), &numbered(99));
    let mut file = OpenOptions::new().append(true).open(folder.path()).unwrap();
    writeln!(file, "{forged}").unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Changed { .. }));
    let notices = write(&mut sink, 1).unwrap();
    assert!(matches!(&notices[..], [Notice::Advanced { was }] if was.seq == 1), "{notices:?}");

    // One that does not fit.
    writeln!(file, "oops").unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Changed { .. }));
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Broken(_)));
}

#[test]
fn rotation_keeps_the_chain_over_the_files() {
    let folder = Folder::new();
    let line = any::chain(1)[0].len() as u64 + 1;
    // Exactly three lines of this length fit; longer sequence numbers make it two.
    let mut sink = FileSink::open(folder.path(), Rotation { max_bytes: 3 * line }).unwrap();
    write(&mut sink, 9).unwrap();
    assert_eq!(folder.names(), ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    for name in folder.names() {
        assert_eq!(fs::metadata(folder.at(&name)).unwrap().len(), 3 * line, "{name}");
        assert_eq!(fs::metadata(folder.at(&name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    write(&mut sink, 100).unwrap();
    drop(sink);
    let mut sink = FileSink::open(folder.path(), Rotation { max_bytes: 1 }).unwrap();
    assert_eq!(write(&mut sink, 3).unwrap(), [], "a line larger than the limit has a file of its own");
    drop(sink);
    write(&mut open(folder.path()).unwrap(), 1).unwrap();
    let report = verify_files(folder.path(), Start::Genesis).unwrap();
    assert_eq!(report.lines, 113);
    assert_eq!(report.files, folder.names().len() as u64);

    let sequence: Vec<u64> = read_all(folder.path()).unwrap().map(|item| item.unwrap().entry.seq).collect();
    assert_eq!(sequence, (1..=113).collect::<Vec<_>>());
    let last: Vec<u64> =
        tail(folder.path(), 7).unwrap().into_iter().map(|item| item.unwrap().entry.seq).collect();
    assert_eq!(last, (107..=113).collect::<Vec<_>>());
    assert_eq!(tail(folder.path(), 0).unwrap().len(), 0);
    assert_eq!(tail(folder.path(), 5_000).unwrap().len(), 113);

    // A rotated file taken away is found at the seam.
    fs::remove_file(folder.at("audit.jsonl.2")).unwrap();
    let broken = verify_files(folder.path(), Start::Genesis).unwrap_err();
    assert_eq!(
        (broken.file, broken.line, broken.why),
        (Some(folder.at("audit.jsonl.3")), 1, Why::Sequence { expected: 4, found: 7 })
    );
}

#[test]
fn a_crash_in_the_middle_of_a_rotation_is_nothing() {
    let folder = Folder::new();
    write(&mut open(folder.path()).unwrap(), 3).unwrap();
    // Renamed, the next file not made yet.
    fs::rename(folder.path(), folder.at("audit.jsonl.1")).unwrap();
    assert_eq!(lines(&folder.path()), 3);
    assert_eq!(write(&mut open(folder.path()).unwrap(), 1).unwrap(), []);
    // Made, but empty; and the one before is empty too.
    fs::rename(folder.path(), folder.at("audit.jsonl.2")).unwrap();
    fs::write(folder.at("audit.jsonl.3"), "").unwrap();
    fs::write(folder.path(), "").unwrap();
    assert_eq!(write(&mut open(folder.path()).unwrap(), 1).unwrap(), []);
    assert_eq!(lines(&folder.path()), 5);
    // A rotated file that is torn is not what we left.
    let mut file = OpenOptions::new().append(true).open(folder.at("audit.jsonl.2")).unwrap();
    file.write_all(b"{").unwrap();
    assert_eq!(verify_files(folder.path(), Start::Genesis).unwrap_err().why, Why::Unterminated);
    fs::remove_file(folder.path()).unwrap();
    fs::remove_file(folder.at("audit.jsonl.3")).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(&error, SinkError::Broken(broken) if broken.why == Why::Unterminated), "{error:?}");
}

#[test]
fn a_rotation_that_fails_is_an_error_and_loses_nothing() {
    let folder = Folder::new();
    let mut sink = FileSink::open(folder.path(), Rotation { max_bytes: 1 }).unwrap();
    write(&mut sink, 1).unwrap();
    // The highest number there is: no next name.
    fs::write(folder.at(&format!("audit.jsonl.{}", u64::MAX)), "").unwrap();
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Rotate { .. }));
    fs::remove_file(folder.at(&format!("audit.jsonl.{}", u64::MAX))).unwrap();
    write(&mut sink, 1).unwrap();
    assert_eq!(lines(&folder.path()), 2);
}

#[test]
fn only_a_regular_file_is_written_to() {
    let folder = Folder::new();
    fs::create_dir(folder.at("dir")).unwrap();
    symlink(folder.at("elsewhere"), folder.at("link")).unwrap();
    fs::write(folder.at("target"), "").unwrap();
    symlink(folder.at("target"), folder.at("link2")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.at("fifo")).status().unwrap().success());
    for path in
        [folder.at("dir"), folder.at("link"), folder.at("link2"), folder.at("fifo"), "/dev/full".into()]
    {
        // A pipe without a reader must not block, either.
        let error = open(&path).err().unwrap();
        assert!(matches!(error, SinkError::NotRegular { .. }), "{}: {error:?}", path.display());
    }
    assert!(!folder.at("elsewhere").exists());
    assert_eq!(fs::read(folder.at("target")).unwrap(), b"");
}

#[test]
fn a_folder_that_is_missing_or_refuses_is_a_clear_error_and_may_come_back() {
    let folder = Folder::new();
    let path = folder.at("volume/audit.jsonl");
    let mut sink = FileSink::new(&path, NEVER);
    for bad in [path.clone(), "/proc/audit.jsonl".into(), folder.at("volume").join("x".repeat(300))] {
        let error = open(&bad).err().unwrap();
        assert!(matches!(error, SinkError::Open { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot open the audit file {}", bad.display()));
        assert!(std::error::Error::source(&error).is_some());
    }
    assert!(matches!(write(&mut sink, 1).unwrap_err(), SinkError::Open { .. }));
    fs::create_dir(folder.at("volume")).unwrap();
    write(&mut sink, 1).unwrap();
    assert_eq!(lines(&path), 1);
}

/// Root writes where it likes, so there the kernel's own read-only files stand in.
#[test]
fn a_read_only_folder_is_a_clear_error() {
    let folder = Folder::new();
    let dir = folder.at("ro");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
    let root = fs::write(dir.join("probe"), "").is_ok();
    let path = if root { PathBuf::from("/sys/kernel/audit.jsonl") } else { dir.join("audit.jsonl") };
    let error = open(path).err().unwrap();
    let SinkError::Open { source, .. } = &error else { panic!("{error:?}") };
    assert!(
        matches!(
            source.kind(),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
        ),
        "{source:?}"
    );
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

/// This test binary again, running one of the ignored tests below as another process.
fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("AUDIT_PATH", path);
    command
}

#[test]
#[ignore = "run as a child process by the tests above"]
fn child_opens() {
    let path = std::env::var_os("AUDIT_PATH").unwrap();
    match open(path) {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

#[test]
#[ignore = "run as a child process by the tests above"]
fn child_appends() {
    let path = std::env::var_os("AUDIT_PATH").unwrap();
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

/// A reader never takes a rotation for a hole, nor a line that is being written for damage.
#[test]
fn reading_while_it_is_written_and_rotated_is_no_false_alarm() {
    let folder = Folder::new();
    let mut sink = FileSink::open(folder.path(), Rotation { max_bytes: 600 }).unwrap();
    write(&mut sink, 1).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let path = folder.path();
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0_u64;
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                match verify_files(&path, Start::Genesis) {
                    Ok(report) => {
                        assert!(report.head.seq >= last);
                        last = report.head.seq;
                        rounds += 1;
                    }
                    Err(broken) => assert!(broken.is_torn_tail(), "{broken}"),
                }
            }
            rounds
        });
        write(&mut sink, 400).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen > 0);
    assert!(folder.names().len() > 50);
}

#[test]
fn entries_are_read_past_damage() {
    let folder = Folder::new();
    let good = any::chain(3);
    let content = format!("{}\nboo\n{}\n{}\n{}\n{{\"torn", good[0], "x".repeat(200_000), good[1], good[2]);
    fs::write(folder.path(), content).unwrap();
    let items: Vec<_> = read_all(folder.path()).unwrap().collect();
    let seen: Vec<_> = items
        .iter()
        .map(|item| match item {
            Ok(located) => (located.line, Ok(located.entry.seq)),
            Err(broken) => (broken.line, Err(broken.why.clone())),
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, Ok(1)),
            (2, Err(Why::Unparsable(ParseError::NotARecord))),
            (3, Err(Why::Unparsable(ParseError::TooLong))),
            (4, Ok(2)),
            (5, Ok(3)),
            (6, Err(Why::TornTail)),
        ]
    );
    assert_eq!(items[0].as_ref().unwrap().text, good[0]);
    assert_eq!(read_all(folder.at("nothing")).err().unwrap().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(
        verify_files(folder.at("nothing"), Start::Genesis).unwrap_err().why,
        Why::Unreadable(std::io::ErrorKind::NotFound)
    );
}

#[test]
fn following_sees_new_lines_over_rotation_and_waits_for_whole_ones() {
    let folder = Folder::new();
    let mut follow = sealedenv_audit::Follow::new(folder.path()).unwrap();
    let seen = |follow: &mut sealedenv_audit::Follow| -> Vec<u64> {
        follow.poll().unwrap().into_iter().map(|item| item.unwrap().entry.seq).collect()
    };
    assert_eq!(seen(&mut follow), [0_u64; 0]);
    let mut sink = FileSink::open(folder.path(), Rotation { max_bytes: 900 }).unwrap();
    write(&mut sink, 2).unwrap();
    assert_eq!(seen(&mut follow), [1, 2]);
    assert_eq!(seen(&mut follow), [0_u64; 0]);
    write(&mut sink, 2).unwrap();
    assert!(folder.names().len() > 1, "rotated meanwhile");
    assert_eq!(seen(&mut follow), [3, 4]);
    drop(sink);

    let (line, _) = append(
        &Head::at(open(folder.path()).unwrap().resume().unwrap().position, "op"),
        time(0),
        &numbered(5),
    );
    let mut file = OpenOptions::new().append(true).open(folder.path()).unwrap();
    file.write_all(&line.as_bytes()[..50]).unwrap();
    assert_eq!(seen(&mut follow), [0_u64; 0]);
    file.write_all(&line.as_bytes()[50..]).unwrap();
    assert_eq!(seen(&mut follow), [0_u64; 0]);
    file.write_all(b"\n").unwrap();
    assert_eq!(seen(&mut follow), [5]);
    // Lines that are there when it starts are not shown.
    assert_eq!(seen(&mut sealedenv_audit::Follow::new(folder.path()).unwrap()), [0_u64; 0]);
}
