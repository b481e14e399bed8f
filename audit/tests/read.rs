//! Reading a trail back.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // in functions that tests share; a child says what it did

mod any;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use any::{
    folder::{Folder, open, write},
    numbered, time,
};
use sealedenv_audit::{
    FileSink, Head, ParseError, Rotation, Sink as _, Start, Why, append, read_all, verify_files,
};

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
