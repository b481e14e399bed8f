//! Records and chains for tests.
#![allow(dead_code)] // each test binary uses its part

pub(crate) mod folder;

use jiff::Timestamp;
use proptest::prelude::*;
use sealedenv_audit::{Action, Actor, Gap, Head, ObjectRef, Outcome, Record, Rewound, append};

/// 2026-01-01 and some milliseconds.
pub(crate) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + ms).unwrap()
}

pub(crate) fn actor() -> Actor {
    Actor::operator("sealedenv-operator")
}

/// A small record that differs by `n`.
pub(crate) fn numbered(n: u64) -> Record {
    Record::new(Action::Reconcile, actor(), Outcome::Ok)
        .object(ObjectRef::new("SealedEnv", format!("env-{n}")).namespace("shop"))
        .keys(["STRIPE_API_KEY"])
}

/// `count` lines of a chain from its beginning.
pub(crate) fn chain(count: u64) -> Vec<String> {
    chain_from(&Head::genesis("op-0"), count).0
}

pub(crate) fn chain_from(head: &Head, count: u64) -> (Vec<String>, Head) {
    let mut head = head.clone();
    let lines = (0..count)
        .map(|n| {
            let (line, next) = append(&head, time(n.cast_signed()), &numbered(head.seq + 1));
            head = next;
            line
        })
        .collect();
    (lines, head)
}

/// Lines as they stand in a file.
pub(crate) fn text<L: AsRef<str>>(lines: &[L]) -> String {
    lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect()
}

/// Any record, with hostile text in it.
pub(crate) fn record_strategy() -> impl Strategy<Value = Record> {
    let words =
        "[a-zA-Z0-9 \"\\\\\u{0}\u{7}\u{1b}\r\n\u{7f}\u{85}\u{202e}\u{2028}\u{feff}é☂😀\u{e0041}]{0,300}";
    let action = prop::sample::select(vec![
        Action::Reconcile,
        Action::Admission,
        Action::KeyRotate,
        Action::Open,
        Action::Resumed,
        Action::Stop,
    ]);
    let outcome = prop::sample::select(vec![Outcome::Ok, Outcome::Refused, Outcome::Failed]);
    let lists =
        (prop::collection::vec(words, 0..4), prop::collection::vec("[0-9a-f]{16}", 0..3), any::<u64>());
    let numbers = (any::<i64>(), any::<bool>(), any::<bool>(), any::<[u8; 32]>());
    (action, outcome, words, prop::option::of(words), lists, numbers).prop_map(
        |(action, outcome, name, detail, (keys, recipients, omitted), (number, full, nested, bytes))| {
            let mut record = Record::new(action, Actor::authenticated(name), outcome).keys(keys);
            record.detail = detail;
            if full {
                record = record
                    .recipients(recipients)
                    .digests(None, Some(sealedenv_audit::KeyedDigest::from_bytes(&bytes)))
                    .reason("Because")
                    .git_revision(Some("main".into()));
                record.keys_omitted = omitted;
            }
            if nested {
                record =
                    record.object(ObjectRef::new("Pod", "").uid(Some("u".into())).generation(Some(number)));
                record.gap = Some(Gap { since: time(3), elsewhere: omitted, nowhere: 0 });
                record.rewound = Some(Rewound { seq: omitted, hash: bytes });
            }
            record
        },
    )
}
