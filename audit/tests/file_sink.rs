//! The file sink on a real file system: lock, and the file behind the path.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // in functions that tests share; a child says what it did

mod any;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

use any::{
    folder::{Folder, NEVER, child, lines, open, write},
    numbered, time,
};
use sealedenv_audit::{FileSink, Head, Notice, Rotation, Sink as _, SinkError, append};

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

#[test]
#[ignore = "run as a child process by the tests above"]
fn child_opens() {
    let Some(path) = std::env::var_os("AUDIT_PATH") else { return };
    match open(path) {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}
