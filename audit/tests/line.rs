//! One record, one line, one form.

#![allow(clippy::unwrap_used)] // in functions that tests share

mod any;

use any::{actor, record_strategy, time};
use proptest::prelude::*;
use sealedenv_audit::{
    Action, Actor, Entry, Gap, Head, MAX_LINE, MAX_TEXT, ObjectRef, Outcome, ParseError, Record, Rewound,
    append, needs_escape,
};

fn line(record: &Record) -> String {
    append(&Head::genesis("op-0"), time(0), record).0
}

/// The format, byte for byte. A change here is a change of the format: old trails would no longer verify.
#[test]
fn the_line_is_exactly_this() {
    let full = Record {
        gap: Some(Gap { since: time(5), elsewhere: 3, nowhere: 1 }),
        rewound: Some(Rewound { seq: 9, hash: [0xcd; 32] }),
        keys_omitted: 2,
        recipients_omitted: 1,
        ..Record::new(
            Action::KeyRotate,
            Actor::authenticated("system:serviceaccount:shop:ci"),
            Outcome::Refused,
        )
        .object(
            ObjectRef::new("SealedEnv", "checkout")
                .namespace("shop")
                .uid(Some("6c1f".into()))
                .generation(Some(4)),
        )
        .keys(["A", "B"])
        .digests(Some("0123456789abcdef".parse().unwrap()), Some("fedcba9876543210".parse().unwrap()))
        .recipients(["00aa"])
        .git_revision(Some("main@sha1:7f".into()))
        .reason("ScopeMismatch")
        .detail("say \"no\"\n\u{202e}ü")
    };
    let (first, head) = append(&Head::genesis("op-0"), time(1_234), &full);
    assert_eq!(
        first,
        concat!(
            r#"{"seq":1,"time":"2026-01-01T00:00:01.234Z","writer":"op-0","#,
            r#""actor":{"kind":"serviceAccount","name":"system:serviceaccount:shop:ci"},"action":"keyRotate","#,
            r#""object":{"kind":"SealedEnv","ns":"shop","name":"checkout","uid":"6c1f","generation":4},"#,
            r#""keys":["A","B"],"keysOmitted":2,"before":"0123456789abcdef","after":"fedcba9876543210","#,
            r#""recipients":["00aa"],"recipientsOmitted":1,"gitRevision":"main@sha1:7f","#,
            r#""gap":{"since":"2026-01-01T00:00:00.005Z","elsewhere":3,"nowhere":1},"#,
            r#""rewound":{"seq":9,"hash":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"},"#,
            r#""outcome":"refused","reason":"ScopeMismatch","detail":"say \"no\"\n\u202eü","#,
            r#""prev":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        )
    );
    let (second, _) =
        append(&head, time(2_000), &Record::new(Action::Stop, Actor::operator("o"), Outcome::Ok));
    assert_eq!(
        second,
        concat!(
            r#"{"seq":2,"time":"2026-01-01T00:00:02.000Z","writer":"op-0","#,
            r#""actor":{"kind":"operator","name":"o"},"action":"stop","outcome":"ok","#,
            // computed by sha256sum from the text above
            r#""prev":"3ab5930dade380e94d42a338fe780eccf70ba0fd8af30e2bd9cee3a82b78e996"}"#,
        )
    );
}

#[test]
fn words_of_the_closed_enums_are_what_serde_writes() {
    use Action as A;
    use sealedenv_audit::ActorKind as K;
    for action in [
        A::Reconcile,
        A::Repair,
        A::Delete,
        A::Admission,
        A::KeyCreate,
        A::KeyRotate,
        A::KeyAccept,
        A::KeyRetire,
        A::Deliver,
        A::Open,
        A::Start,
        A::Stop,
        A::Resumed,
        A::Recovered,
        A::Checkpoint,
    ] {
        assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
    }
    for outcome in [Outcome::Ok, Outcome::Refused, Outcome::Failed] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
    }
    for kind in [K::Operator, K::Webhook, K::Cli, K::User, K::ServiceAccount, K::Audit] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

#[test]
fn other_forms_of_the_same_content_are_refused() {
    let good = line(&Record::new(Action::Open, actor(), Outcome::Ok).keys(["K"]).detail("a\u{1b}é"));
    assert!(Entry::parse(good.as_bytes()).is_ok());
    let not_canonical = [
        good.replace(",\"action\"", ", \"action\""),
        good.replace("\"seq\":1,", "").replace(",\"prev\"", ",\"seq\":1,\"prev\""),
        good.replace(r"\u001b", r"\u001B"),
        good.replace('é', r"\u00e9"),
        good.replace(".000Z", "Z"),
        good.replace(".000Z", ".0001Z"),
        good.replace("00:00:00.000Z", "01:00:00.000+01:00"),
        good.replace("\"outcome\"", "\"keysOmitted\":0,\"outcome\""),
        good.replace("\"outcome\"", "\"gitRevision\":null,\"outcome\""),
        good.replace("\"detail\":\"", &format!("\"detail\":\"{}", "x".repeat(MAX_TEXT))),
        format!("{good} "),
        format!("{good}\r"),
        good.replace("\"prev\":\"0000", "\"prev\":\"00AA").replace("00AA", "00aA"),
    ];
    for bad in not_canonical {
        assert_ne!(bad, good);
        assert_eq!(Entry::parse(bad.as_bytes()), Err(ParseError::NotCanonical), "{bad}");
    }
    let not_records = [
        String::new(),
        "{}".into(),
        "null".into(),
        "[".repeat(60_000),
        good.replace("\"open\"", "\"opened\""),
        good.replace("\"ok\"", "\"OK\""),
        good.replace("\"seq\":1", "\"seq\":0"),
        good.replace("\"seq\":1", "\"seq\":-1"),
        good.replace("\"seq\":1", "\"seq\":1.0"),
        good.replace("\"seq\":1", "\"seq\":9007199254740992"),
        good.replace("\"seq\":1", "\"seq\":1,\"seq\":1"),
        good.replace("\"seq\":1", "\"seq\":1,\"value\":\"hunter2\""),
        good.replace("\"prev\":\"00", "\"prev\":\""),
        good.replace("\"prev\":\"00", "\"prev\":\"0x"),
        good[..good.len() - 1].to_owned(),
        format!("{good}{good}"),
    ];
    for bad in not_records {
        assert_eq!(Entry::parse(bad.as_bytes()), Err(ParseError::NotARecord), "{bad}");
    }
    assert_eq!(Entry::parse(&vec![b'x'; MAX_LINE + 1]), Err(ParseError::TooLong));
    assert_eq!(Entry::parse(b"\xff\xfe"), Err(ParseError::NotARecord));
}

#[test]
fn the_largest_hostile_record_still_fits_and_says_what_it_left_out() {
    let long = "\u{1b}".repeat(5_000);
    let names = || (0..100_000).map(|n| format!("{n:05}{}", "\u{ad}".repeat(100)));
    let record = Record::new(Action::Admission, Actor::authenticated(&long), Outcome::Refused)
        .object(
            ObjectRef::new(&long, &long).namespace(&long).uid(Some(long.clone())).generation(Some(i64::MIN)),
        )
        .keys(names())
        .recipients(names())
        .git_revision(Some(long.clone()))
        .reason(&long)
        .detail(&long);
    let (line, head) = append(&Head::genesis(&long), time(0), &record);
    assert!(line.len() <= MAX_LINE, "{}", line.len());
    let read = Entry::parse(line.as_bytes()).unwrap().record;
    assert_eq!(read.keys.len() as u64 + read.keys_omitted, 100_000);
    assert_eq!(read.recipients.len() as u64 + read.recipients_omitted, 100_000);
    assert!(read.keys.len() > 20 && read.keys_omitted > 0);
    let detail = read.detail.unwrap();
    assert!(detail.len() <= MAX_TEXT && detail.ends_with('…'), "{detail:?}");
    let (next, _) = append(&head, time(1), &Record::new(Action::Stop, actor(), Outcome::Ok));
    assert!(sealedenv_audit::verify(format!("{line}\n{next}\n").as_bytes()).is_ok());
}

proptest! {
    /// Any record becomes one printable line, and reading it gives the record back (cut to the limits).
    #[test]
    fn a_record_is_one_line_and_reads_back(record in record_strategy(), ms in 0_i64..4_000_000_000_000, writer in ".{0,40}") {
        let head = Head::genesis(writer);
        let at = jiff::Timestamp::from_millisecond(ms).unwrap();
        let (line, after) = append(&head, at, &record);
        prop_assert!(!line.contains(needs_escape), "{line}");
        let entry = Entry::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(entry.seq, 1);
        prop_assert_eq!(entry.time, at);
        prop_assert_eq!(entry.writer, head.writer);
        prop_assert_eq!(&entry.record.action, &record.action);
        // What was read is within the limits, so a second turn changes nothing.
        let (again, _) = append(&Head { seq: 0, prev: entry.prev, writer: after.writer.clone() }, at, &entry.record);
        prop_assert_eq!(&again, &line);
        if record.detail.as_ref().is_none_or(|text| text.len() <= MAX_TEXT)
            && record.actor.name.len() <= MAX_TEXT
            && record.keys.iter().all(|key| key.len() <= MAX_TEXT)
        {
            prop_assert_eq!(entry.record, record);
        }
    }

    /// Reading is total, and what it accepts is canonical.
    #[test]
    fn parsing_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Entry::parse(&bytes).is_err());
    }

    /// Of all changes of one byte of a line, only those that make another canonical record are accepted.
    #[test]
    fn a_changed_byte_is_refused_or_is_another_record(record in record_strategy(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = line(&record);
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(entry) = Entry::parse(&bytes) {
            let head = Head { seq: entry.seq - 1, prev: entry.prev, writer: entry.writer.clone() };
            prop_assert_eq!(append(&head, entry.time, &entry.record).0.into_bytes(), bytes);
            prop_assert_ne!(entry, Entry::parse(good.as_bytes()).unwrap());
        }
    }
}
