//! One line of the audit trail: reading any bytes, and writing any record.
//!
//! Input that starts with `{` is a line; any other gives the texts of a record.

use jiff::Timestamp;
use sealedenv_audit::{
    Action, Actor, ActorKind, Entry, Head, KeyedDigest, MAX_LINE, ObjectRef, Outcome, Position, Record,
    append, needs_escape,
};

use crate::Seed;

/// # Panics
/// Unless every line is read or refused, what is read is written back byte for byte, and every record becomes one
/// printable line within bounds that is read back.
pub fn run(data: &[u8]) {
    if data.first() == Some(&b'{') { read(data) } else { write(data) }
}

fn read(line: &[u8]) {
    let Ok(entry) = Entry::parse(line) else { return };
    let before = Position { seq: entry.seq - 1, hash: entry.prev };
    let (again, _) = append(&Head::at(before, entry.writer), entry.time, &entry.record);
    assert!(again.as_bytes() == line, "read as another line: {again}");
}

fn write(data: &[u8]) {
    let Some((kinds, texts)) = data.split_first_chunk::<4>() else { return };
    let texts = String::from_utf8_lossy(texts);
    let mut texts = texts.split('\u{1f}').map(str::to_owned);
    let mut text = || texts.next().unwrap_or_default();
    let outcome = if kinds[0] & 1 == 0 { Outcome::Ok } else { Outcome::Refused };
    let action =
        [Action::Reconcile, Action::Admission, Action::Start, Action::KeyRotate][usize::from(kinds[1] % 4)];
    let kind = [ActorKind::Operator, ActorKind::User, ActorKind::ServiceAccount, ActorKind::Audit];
    let actor = Actor { kind: kind[usize::from(kinds[2] % 4)], name: text() };
    let writer = text();
    let mut record = Record::new(action, actor, outcome);
    if kinds[0] & 2 != 0 {
        record.object = Some(ObjectRef {
            kind: text(),
            namespace: Some(text()),
            name: text(),
            uid: Some(text()),
            generation: Some(i64::from(kinds[3])),
        });
    }
    record.reason = (kinds[0] & 4 != 0).then(&mut text);
    record.detail = (kinds[0] & 8 != 0).then(&mut text);
    record.git_revision = (kinds[0] & 16 != 0).then(&mut text);
    record.keys = texts.collect();
    record.recipients = record.keys.clone();

    let head = Head::at(Position { seq: u64::from(kinds[1]), hash: [kinds[2]; 32] }, writer);
    let time = Timestamp::from_millisecond(i64::from(kinds[3]) << 30).expect("a time in range");
    let (line, after) = append(&head, time, &record);
    assert!(line.len() <= MAX_LINE, "a line of {} bytes", line.len());
    assert!(!line.contains('\n') && !line.contains(needs_escape), "{line}");
    let entry = Entry::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((entry.seq, entry.prev, entry.time), (after.seq, head.prev, time));
    assert_eq!((entry.record.action, entry.record.outcome), (action, outcome));
    assert_eq!(
        entry.record.keys.len() as u64 + entry.record.keys_omitted,
        record.keys.len() as u64,
        "keys that are neither named nor counted"
    );
}

/// Lines with every field, and texts that need care.
pub fn seeds() -> Vec<Seed> {
    let time: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a time");
    let mut full = Record::new(Action::Reconcile, Actor::operator("sealedenv-operator"), Outcome::Refused)
        .object(ObjectRef::new("SealedEnv", "checkout").namespace("shop"))
        .keys(["API_KEY", "DB_URL"])
        .digests(Some(KeyedDigest::from_bytes(&[7; 32])), None)
        .reason("ScopeMismatch")
        .detail("sealed for \u{202e}another\u{1b}[31m place");
    full.recipients = vec!["c9c95a863d23c001".to_owned()];
    full.git_revision = Some("main@sha1:0123".to_owned());
    let records = [
        full,
        Record::new(Action::Start, Actor::operator("operator"), Outcome::Ok),
        Record::new(Action::Admission, Actor::authenticated("system:serviceaccount:shop:ci"), Outcome::Ok),
        Record::new(Action::Stop, Actor::authenticated("jane\n"), Outcome::Ok).keys(vec!["K"; 50]),
    ];
    let mut seeds: Vec<Seed> = Vec::new();
    let mut head = Head::genesis("operator-0");
    for (n, record) in records.iter().enumerate() {
        let (line, after) = append(&head, time, record);
        head = after;
        seeds.push((format!("line-{n}"), line.into_bytes()));
    }
    for (name, kinds) in [("all", [0xff, 1, 2, 15]), ("few", [0, 0, 0, 0])] {
        let texts = "jane\u{1f}op-0\u{1f}SealedEnv\u{1f}shop\u{1f}ü\u{202e}\u{1f}\u{1b}[0m\u{1f}A\u{1f}B\u{1f}C\u{1f}D";
        seeds.push((format!("record-{name}"), [&kinds[..], texts.as_bytes()].concat()));
    }
    seeds
}
