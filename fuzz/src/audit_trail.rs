//! A whole trail: verification of any bytes, and of a good chain that was tampered with.
//!
//! Input that starts with `{` is a trail; any other is a list of manipulations of a good one.

use std::sync::LazyLock;

use sealedenv_audit::{
    Action, Actor, Head, ObjectRef, Outcome, Record, Start, append, verify, verify_stream,
};

use crate::Seed;

/// A good chain, its lines with their line feeds.
static CHAIN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut head = Head::genesis("operator-0");
    (0..6_i64)
        .map(|n| {
            let record = Record::new(Action::Reconcile, Actor::operator("sealedenv-operator"), Outcome::Ok)
                .object(ObjectRef::new("SealedEnv", format!("checkout-{n}")).namespace("shop"))
                .keys(["API_KEY"]);
            let time = jiff::Timestamp::from_millisecond(1_767_225_600_000 + n).expect("a time");
            let (line, after) = append(&head, time, &record);
            head = after;
            line + "\n"
        })
        .collect()
});

/// # Panics
/// Unless every trail is verified or found broken; a good one that was changed is found broken at the first bad line or at
/// the one after it; and nothing before it is blamed. What a chain cannot show, it does not claim: a cut at the end of a
/// line, and a last line rewritten.
pub fn run(data: &[u8]) {
    if data.first() == Some(&b'{') {
        let _ = verify(data);
        let _ = verify_stream(data, Start::Anywhere);
        let _ = verify_stream(data, Start::Genesis);
        return;
    }
    let trail = tampered(data);
    let good: Vec<u8> = CHAIN.concat().into_bytes();
    let verdict = verify(trail.as_slice());
    if trail == good {
        assert!(verdict.is_ok(), "a good chain is blamed: {verdict:?}");
        return;
    }
    // The first line that is not as it was, counted from 1, and how many lines there are.
    let lines: Vec<&[u8]> = trail.split_inclusive(|byte| *byte == b'\n').collect();
    let same = lines.iter().zip(CHAIN.iter()).take_while(|(line, was)| **line == was.as_bytes()).count();
    let first_bad = same as u64 + 1;
    match verdict {
        Ok(head) => assert!(
            lines.len() <= same + 1 && head.seq == lines.len() as u64,
            "{} lines, the first bad one is {first_bad}, and nothing is found",
            lines.len()
        ),
        Err(broken) => assert!(
            (first_bad..=first_bad + 1).contains(&broken.line),
            "line {} is blamed, the first bad one is {first_bad}",
            broken.line
        ),
    }
}

/// The good chain, manipulated as the input says: five bytes for each manipulation.
fn tampered(data: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = CHAIN.iter().map(|line| line.clone().into_bytes()).collect();
    for step in data.chunks_exact(5).take(4) {
        let [kind, line, other, high, low] = *step else { break };
        if lines.is_empty() {
            break;
        }
        let at = usize::from(line) % lines.len();
        let other = usize::from(other) % lines.len();
        let place = usize::from(u16::from_be_bytes([high, low]));
        let length = lines[at].len().max(1);
        match kind % 9 {
            0 => {
                if let Some(byte) = lines[at].get_mut(place % length) {
                    *byte ^= 1 << (kind / 9 % 8);
                }
            }
            1 => {
                lines.remove(at);
            }
            2 => lines.swap(at, other),
            3 => lines.insert(at, lines[other].clone()),
            4 => lines[at].truncate(place % length),
            5 => lines.truncate(at),
            6 => lines[at].insert(place % length, low),
            7 => {
                // A record that is good in itself, in the same place of the chain.
                let text = String::from_utf8_lossy(&lines[at]).into_owned();
                lines[at] = text.replace("\"outcome\":\"ok\"", "\"outcome\":\"refused\"").into_bytes();
            }
            _ => {
                // Everything from there on, made anew.
                let text =
                    |line: &[u8]| String::from_utf8_lossy(line).replace("API_KEY", "OTHER_KEY").into_bytes();
                lines[at..].iter_mut().for_each(|line| *line = text(line));
            }
        }
    }
    lines.concat()
}

/// The good chain, and each manipulation of it.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = vec![("good".to_owned(), CHAIN.concat().into_bytes()), ("untouched".to_owned(), vec![])];
    for kind in 0..9_u8 {
        for line in [0, 2, 5] {
            seeds.push((format!("tampered-{kind}-{line}"), vec![kind, line, 3, 0, 40]));
        }
    }
    seeds.push(("several".to_owned(), [[0, 1, 0, 0, 9], [2, 0, 3, 0, 0], [3, 2, 2, 0, 0]].concat()));
    seeds
}
