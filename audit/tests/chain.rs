//! What verification finds, and what a chain alone cannot (threat T21).

#![allow(clippy::unwrap_used, clippy::expect_used)] // in functions that tests share

mod any;

use any::{chain, chain_from, numbered, text, time};
use proptest::prelude::*;
use sealedenv_audit::{
    Action, Actor, Broken, Head, Outcome, ParseError, Record, Start, Verifier, Why, append, verify,
    verify_stream, writer,
};

fn broken(lines: &[String]) -> Broken {
    verify(text(lines).as_bytes()).expect_err("a changed chain must not verify")
}

/// Rewrites a line so that it is a good record with another content, in the same place of the chain.
fn edited(line: &str) -> String {
    let edited = line.replace("\"outcome\":\"ok\"", "\"outcome\":\"refused\"");
    assert_ne!(edited, line);
    edited
}

#[test]
fn an_untouched_chain_verifies() {
    assert_eq!(verify(&b""[..]).unwrap(), Head::genesis(""));
    for count in 1..50 {
        let (lines, head) = chain_from(&Head::genesis("op-0"), count);
        assert_eq!(verify(text(&lines).as_bytes()).unwrap(), head);
    }
}

#[test]
fn each_kind_of_manipulation_is_named() {
    let lines = chain(9);

    let mut swapped = lines.clone();
    swapped.swap(2, 5);
    assert_eq!((broken(&swapped).line, broken(&swapped).why), (3, Why::Sequence { expected: 3, found: 6 }));

    let mut deleted = lines.clone();
    deleted.remove(3);
    assert_eq!((broken(&deleted).line, broken(&deleted).why), (4, Why::Sequence { expected: 4, found: 5 }));

    let mut doubled = lines.clone();
    doubled.insert(4, lines[3].clone());
    assert_eq!((broken(&doubled).line, broken(&doubled).why), (5, Why::Sequence { expected: 5, found: 4 }));

    let mut changed = lines.clone();
    changed[6] = edited(&changed[6]);
    assert_eq!((broken(&changed).line, broken(&changed).why), (8, Why::Link));
    assert_eq!(broken(&changed).good, 7);

    let beheaded = &lines[2..];
    assert_eq!((broken(beheaded).line, broken(beheaded).why), (1, Why::NotTheBeginning { found: 3 }));

    let mut renumbered = lines.clone();
    renumbered[0] = renumbered[0].replace("\"prev\":\"0000", "\"prev\":\"1000");
    assert_eq!((broken(&renumbered).line, broken(&renumbered).why), (1, Why::Link));

    let mut garbage = lines.clone();
    garbage.insert(1, "hello".into());
    assert_eq!((broken(&garbage).line, broken(&garbage).why), (2, Why::Unparsable(ParseError::NotARecord)));

    let mut blank = lines.clone();
    blank.insert(1, String::new());
    assert_eq!((broken(&blank).line, broken(&blank).why), (2, Why::Unparsable(ParseError::NotARecord)));

    let crlf = text(&lines).replace('\n', "\r\n");
    assert_eq!(verify(crlf.as_bytes()).unwrap_err().why, Why::Unparsable(ParseError::NotCanonical));

    let mut long = lines.clone();
    long[4] = "x".repeat(1 << 20);
    assert_eq!((broken(&long).line, broken(&long).why), (5, Why::Unparsable(ParseError::TooLong)));
}

#[test]
fn a_part_of_a_chain_verifies_only_when_asked() {
    let lines = chain(6);
    let mut verifier = Verifier::new(Start::Anywhere);
    for line in &lines[3..] {
        verifier.push(line.as_bytes()).unwrap();
    }
    let report = verifier.report();
    assert_eq!((report.first, report.lines, report.head.seq), (4, 3, 6));
    assert_eq!(report.head.prev, chain_from(&Head::genesis("op-0"), 6).1.prev);
    // Even then a line 1 must begin a chain.
    let forged = lines[0].replace("\"prev\":\"0000", "\"prev\":\"1000");
    assert_eq!(Verifier::new(Start::Anywhere).push(forged.as_bytes()), Err(Why::Link));
}

/// The limits of a chain alone, stated as a test: signed checkpoints are what will turn these red.
#[test]
fn what_a_chain_alone_cannot_show() {
    let lines = chain(9);
    let (_, true_head) = chain_from(&Head::genesis("op-0"), 9);

    // Cut at the end of a line.
    let cut = verify(text(&lines[..7]).as_bytes()).unwrap();
    assert_ne!(cut, true_head);

    // The last line edited: nothing after it names its hash.
    let mut last = lines.clone();
    last[8] = edited(&last[8]);
    let last = verify(text(&last).as_bytes()).unwrap();
    assert_ne!(last, true_head);

    // Everything from one line on made anew.
    let mut head = Head::genesis("op-0");
    let regenerated: Vec<String> = (1..=9)
        .map(|n| {
            let (line, next) = append(&head, time(0), &numbered(n + 100));
            head = next;
            line
        })
        .collect();
    let regenerated = verify(text(&regenerated).as_bytes()).unwrap();
    // Whoever noted the true head outside the file sees each of the three.
    assert_ne!(regenerated, true_head);
    assert_eq!(regenerated.seq, true_head.seq);
}

#[test]
fn a_torn_tail_is_told_apart_at_every_byte() {
    let lines = chain(3);
    let whole = text(&lines);
    let starts: Vec<usize> = (0..=3).map(|n| text(&lines[..n]).len()).collect();
    for cut in 0..=whole.len() {
        let result = verify(&whole.as_bytes()[..cut]);
        if let Some(count) = starts.iter().position(|&start| start == cut) {
            assert_eq!(result.unwrap().seq, count as u64, "cut at {cut}");
        } else {
            let broken = result.unwrap_err();
            assert!(broken.is_torn_tail(), "cut at {cut}: {broken:?}");
            assert_eq!(broken.line, broken.good + 1, "cut at {cut}");
        }
    }
}

#[test]
fn the_report_counts_what_the_trail_says_of_itself() {
    let mut head = Head::genesis("first");
    let mut lines = Vec::new();
    let mut add = |head: &mut Head, action| {
        let (line, next) = append(head, time(0), &Record::new(action, Actor::operator("o"), Outcome::Ok));
        lines.push(line);
        *head = next;
    };
    add(&mut head, Action::Start);
    add(&mut head, Action::Stop);
    head.writer = "second".into();
    add(&mut head, Action::Start);
    head.writer = "third".into();
    add(&mut head, Action::Recovered);
    add(&mut head, Action::Resumed);
    let mut verifier = Verifier::new(Start::Genesis);
    for line in &lines {
        verifier.push(line.as_bytes()).unwrap();
    }
    let report = verifier.report();
    assert_eq!((report.lines, report.recovered, report.resumed), (5, 1, 1));
    assert_eq!(report.unclean_ends, 1, "`first` stopped, `second` did not, `third` may still run");
    assert_eq!(report.head.writer, "third");
    assert!(!report.has_gaps());
}

#[test]
fn what_a_restarted_container_printed_verifies_as_a_chain_for_each_start() {
    let longest = "p".repeat(253);
    for instance in ["op-0", &longest] {
        let starts = [[1; 8], [2; 8]].map(|random| writer(instance, random));
        let collected = starts.each_ref().map(|start| text(&chain_from(&Head::genesis(start.as_str()), 3).0));
        let report = verify_stream(collected.concat().as_bytes(), Start::Genesis).unwrap();
        assert_eq!(report.chains.keys().collect::<Vec<_>>(), starts.iter().collect::<Vec<_>>());
        assert!(report.chains.values().all(|chain| chain.lines == 3));
    }
    assert_eq!(writer("op-0", [0xab; 8]), "op-0_abababababababab");
}

#[test]
fn streams_of_several_writers_are_verified_each_by_itself() {
    let (one, head_one) = chain_from(&Head::genesis("op-1"), 5);
    let (two, head_two) = chain_from(&Head::genesis("op-2"), 4);
    let mut mixed = String::from("starting up\n{\"level\":\"info\"}\n");
    for n in 0..5 {
        mixed.push_str(&text(&one[n..=n]));
        mixed.push_str(&text(&["noise".repeat(30_000)]));
        mixed.push_str(&text(&two[n.min(4)..(n + 1).min(4)]));
    }
    mixed.push_str(&one[0][..40]);
    let report = verify_stream(mixed.as_bytes(), Start::Genesis).unwrap();
    assert_eq!(report.chains["op-1"].head, head_one);
    assert_eq!(report.chains["op-2"].head, head_two);
    assert_eq!(report.foreign, 2 + 5 + 1);

    // A line taken out of one of them is found among the noise.
    let hole = mixed.replace(&format!("{}\n", two[1]), "");
    let broken = verify_stream(hole.as_bytes(), Start::Genesis).unwrap_err();
    assert_eq!((broken.good, broken.why), (1, Why::Sequence { expected: 2, found: 3 }));
    // The collector dropped the beginning.
    let late = text(&one[2..]);
    assert!(verify_stream(late.as_bytes(), Start::Genesis).is_err());
    assert_eq!(verify_stream(late.as_bytes(), Start::Anywhere).unwrap().chains["op-1"].first, 3);
}

/// A reader that fails.
struct Failing<R>(R);

impl<R: std::io::Read> std::io::Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn a_reading_error_is_not_taken_for_the_end() {
    let whole = text(&chain(3));
    let broken = verify(std::io::BufReader::new(Failing(whole.as_bytes()))).unwrap_err();
    assert_eq!((broken.line, broken.why), (4, Why::Unreadable(std::io::ErrorKind::ConnectionReset)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_edit_is_found_at_the_next_line(count in 2_u64..20, at in any::<prop::sample::Index>()) {
        let mut lines = chain(count);
        let at = at.index(lines.len() - 1); // the last line: see what_a_chain_alone_cannot_show
        lines[at] = edited(&lines[at]);
        let broken = broken(&lines);
        prop_assert_eq!((broken.line, broken.good, broken.why), (at as u64 + 2, at as u64 + 1, Why::Link));
    }

    #[test]
    fn a_deletion_is_found_where_it_was(count in 2_u64..20, at in any::<prop::sample::Index>(), more in 1_usize..5) {
        let mut lines = chain(count);
        let at = at.index(lines.len() - 1);
        let end = (at + more).min(lines.len() - 1);
        lines.drain(at..end);
        prop_assert_eq!(broken(&lines).line, at as u64 + 1);
    }

    #[test]
    fn a_swap_is_found_at_its_first_line(count in 2_u64..20, one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let mut lines = chain(count);
        let (one, other) = (one.index(lines.len()), other.index(lines.len()));
        prop_assume!(one != other);
        lines.swap(one, other);
        prop_assert_eq!(broken(&lines).line, one.min(other) as u64 + 1);
    }

    #[test]
    fn a_replayed_line_is_found_where_it_stands(count in 1_u64..20, which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let mut lines = chain(count);
        let copy = lines[which.index(lines.len())].clone();
        let at = at.index(lines.len() + 1);
        // Its own place: the original behind it is then the wrong one.
        let found = if at == which.index(lines.len()) { at + 1 } else { at };
        lines.insert(at, copy);
        prop_assert_eq!(broken(&lines).line, found as u64 + 1);
    }

    /// A forged line that fits where it is put in breaks the line behind it.
    #[test]
    fn an_inserted_line_is_found(count in 1_u64..20, at in any::<prop::sample::Index>(), fits in any::<bool>()) {
        let mut lines = chain(count);
        let at = at.index(lines.len());
        let mut head = verify(text(&lines[..at]).as_bytes()).unwrap();
        if !fits {
            head.prev[0] ^= 1;
        }
        lines.insert(at, append(&head, time(0), &numbered(999)).0);
        prop_assert_eq!(broken(&lines).line, at as u64 + if fits { 2 } else { 1 });
    }

    #[test]
    fn a_flipped_bit_is_found_at_its_line_or_the_next(count in 1_u64..12, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let lines = chain(count);
        let mut bytes = text(&lines).into_bytes();
        let at = at.index(bytes.len());
        let line = bytes[..at].split(|&byte| byte == b'\n').count() as u64;
        bytes[at] ^= 1 << bit;
        match verify(bytes.as_slice()) {
            Err(broken) => prop_assert!((line..=line + 1).contains(&broken.line), "flip in {line}, found in {}", broken.line),
            // Only in the last line, and only if it is again a canonical record: nothing behind it names its hash.
            Ok(head) => {
                prop_assert_eq!(line, count);
                prop_assert_ne!(head, verify(text(&lines).as_bytes()).unwrap());
            }
        }
    }

    /// Cut anywhere: a torn tail, or (at a line's end) a shorter chain whose head differs from the one noted.
    #[test]
    fn a_truncation_is_torn_or_shows_in_the_head(count in 1_u64..12, at in any::<prop::sample::Index>()) {
        let whole = text(&chain(count));
        let cut = at.index(whole.len());
        match verify(&whole.as_bytes()[..cut]) {
            Err(broken) => prop_assert!(broken.is_torn_tail()),
            Ok(head) => {
                prop_assert!(cut == 0 || whole.as_bytes()[cut - 1] == b'\n');
                prop_assert!(head.seq < count);
            }
        }
    }

    /// Any other arrangement of the lines fails.
    #[test]
    fn any_reordering_or_selection_fails(count in 2_u64..9, picks in prop::collection::vec(any::<prop::sample::Index>(), 1..12)) {
        let lines = chain(count);
        let arranged: Vec<String> = picks.iter().map(|pick| lines[pick.index(lines.len())].clone()).collect();
        prop_assume!(!lines.starts_with(&arranged));
        prop_assert!(verify(text(&arranged).as_bytes()).is_err());
    }

    /// A process that takes over continues the chain.
    #[test]
    fn a_chain_goes_on_over_writers(parts in prop::collection::vec(1_u64..5, 1..6)) {
        let mut head = Head::genesis("op-0");
        let mut all = Vec::new();
        for (n, count) in parts.iter().enumerate() {
            head.writer = format!("op-{n}");
            let (lines, next) = chain_from(&head, *count);
            all.extend(lines);
            head = next;
        }
        prop_assert_eq!(verify(text(&all).as_bytes()).unwrap(), head);
    }
}
