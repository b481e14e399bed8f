//! The file sink on a real file system: rotation.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // in functions that tests share; a child says what it did

mod any;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use any::folder::{Folder, lines, open, write};
use sealedenv_audit::{FileSink, Rotation, SinkError, Start, Why, read_all, tail, verify_files};

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
