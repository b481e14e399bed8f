//! Policies, failing, hanging and panicking sinks, many callers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use super::*;
use crate::{
    chain::Position,
    file::{FileSink, Rotation},
    line::Entry,
    memory::{Memory, MemorySink},
    record::{Action, Actor, ActorKind, Gap, Outcome},
    sink::Resumed,
    stdout::StdoutSink,
    verify::{Start, verify, verify_files, verify_stream},
};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn record(n: usize) -> Record {
    Record::new(Action::Reconcile, Actor::operator("o"), Outcome::Ok).keys([format!("KEY_{n}")])
}

fn memories<const N: usize>(policy: FailurePolicy) -> (Log, [Memory; N]) {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let memories = std::array::from_fn(|n| {
        let (sink, memory) = MemorySink::new(format!("memory-{n}"));
        sinks.push(Box::new(sink));
        memory
    });
    (Log::open_with(sinks, "op-0", policy, PATIENT).unwrap(), memories)
}

/// Names of the keys in the records that are not the log's own.
fn keys(entries: &[Entry]) -> Vec<String> {
    entries.iter().flat_map(|entry| entry.record.keys.clone()).collect()
}

fn gaps(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().filter_map(|entry| entry.record.gap).map(|gap| (gap.elsewhere, gap.nowhere)).collect()
}

/// As long as a busy machine may need: what is asserted here is never how long something takes.
const PATIENT: Timeouts =
    Timeouts { between: Duration::ZERO, any: Duration::from_mins(1), rest: Duration::from_mins(1) };

/// For sinks that hang on purpose beside one that answers.
const SHORT_REST: Timeouts = Timeouts { rest: Duration::from_millis(30), ..PATIENT };

fn log_over(sinks: Vec<Box<dyn Sink>>) -> Log {
    Log::open_with(sinks, "op-0", FailurePolicy::Closed, PATIENT).unwrap()
}

/// Waits for something that another thread is about to bring about.
fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("it never came about");
}

/// A sink whose every append waits for a word: take it, fail, or panic.
struct Gate {
    words: mpsc::Receiver<Word>,
    inner: MemorySink,
    appends: Arc<Mutex<usize>>,
}

enum Word {
    Take,
    Fail,
    Panic,
}

fn gate(name: &str) -> (Box<dyn Sink>, mpsc::Sender<Word>, Memory, Arc<Mutex<usize>>) {
    let (sender, words) = mpsc::channel();
    let (inner, memory) = MemorySink::new(name);
    let appends = Arc::new(Mutex::new(0));
    (Box::new(Gate { words, inner, appends: Arc::clone(&appends) }), sender, memory, appends)
}

impl Sink for Gate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn resume(&mut self) -> Result<Resumed, SinkError> {
        self.inner.resume()
    }

    fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
        *self.appends.lock().unwrap() += 1;
        match self.words.recv() {
            Ok(Word::Take) => self.inner.append(lines),
            Ok(Word::Panic) => panic!("a bug in a sink"),
            Ok(Word::Fail) | Err(_) => {
                Err(SinkError::Write { sink: "gate".into(), source: std::io::ErrorKind::BrokenPipe.into() })
            }
        }
    }
}

#[test]
fn closed_refuses_what_no_sink_took_and_says_so_later() {
    let (log, [one, two]) = memories(FailurePolicy::Closed);
    log.record(now(), record(0)).unwrap();
    one.fail(true);
    two.fail(true);
    for n in 1..4 {
        let error = log.record(now(), record(n)).unwrap_err();
        assert_eq!(error.to_string(), "no audit sink took the record (tried: memory-0, memory-1)");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "cannot write to the audit sink memory-0");
    }
    assert_eq!(log.counters(), Counters { taken: 1, failed: 3, lost: 0 });
    assert!(log.sinks().iter().all(|sink| !sink.healthy && sink.missed == 3));
    two.fail(false);
    log.record(now(), record(4)).unwrap();
    one.fail(false);
    log.record_all(now(), vec![record(5), record(6)]).unwrap();
    assert_eq!(log.counters(), Counters { taken: 4, failed: 3, lost: 0 });

    // Each trail is whole, holds what it got, and says what it did not.
    assert_eq!(keys(&one.entries()), ["KEY_0", "KEY_5", "KEY_6"]);
    assert_eq!(gaps(&one.entries()), [(1, 3)]);
    assert_eq!(keys(&two.entries()), ["KEY_0", "KEY_4", "KEY_5", "KEY_6"]);
    assert_eq!(gaps(&two.entries()), [(0, 3)]);
    for memory in [&one, &two] {
        verify(memory.text().as_bytes()).unwrap();
        let entries = memory.entries();
        let own = entries.iter().find(|entry| entry.record.gap.is_some()).unwrap();
        assert_eq!(own.record.action, Action::Resumed);
        assert_eq!(own.record.actor.kind, ActorKind::Audit);
        assert_eq!(own.record.reason.as_deref(), Some("Missed"));
        assert_eq!(own.writer, "op-0");
    }
    assert!(log.sinks().iter().all(|sink| sink.healthy && sink.error.is_none()));
}

#[test]
fn open_counts_what_is_lost() {
    let (log, [memory]) = memories(FailurePolicy::Open);
    memory.fail(true);
    log.record_all(now(), vec![record(0), record(1)]).unwrap();
    assert_eq!((log.lost(), log.counters().taken), (2, 0));
    let error = log.sinks()[0].error.clone().unwrap();
    assert_eq!(error, "cannot write to the audit sink memory-0: no storage space");
    memory.fail(false);
    log.record(now(), record(2)).unwrap();
    assert_eq!((log.lost(), log.counters().taken), (2, 1));
    assert_eq!(gaps(&memory.entries()), [(0, 2)]);
}

#[test]
fn a_log_without_sinks_is_refused_when_closed_and_loses_all_when_open() {
    assert!(matches!(Log::open(Vec::new(), "op-0", FailurePolicy::Closed), Err(AuditError::NoSink)));
    let log = Log::open(Vec::new(), "op-0", FailurePolicy::Open).unwrap();
    log.record(now(), record(0)).unwrap();
    assert_eq!(log.lost(), 1);
}

#[test]
fn nothing_to_record_is_nothing_written() {
    let (log, [memory]) = memories(FailurePolicy::Closed);
    memory.fail(true);
    log.record_all(now(), Vec::new()).unwrap();
    assert_eq!(memory.lines(), Vec::<String>::new());
}

#[test]
fn a_sink_that_hangs_is_given_up_and_taken_back_when_it_answers() {
    let (sink, words, stuck, _) = gate("stuck");
    let (other, memory) = MemorySink::new("memory");
    let log = Log::open_with(vec![sink, Box::new(other)], "op-0", FailurePolicy::Closed, SHORT_REST).unwrap();
    for n in 0..3 {
        log.record(now(), record(n)).unwrap(); // the other sink has it
    }
    let states = log.sinks();
    assert_eq!(states[0].error.as_deref(), Some("the audit sink stuck does not answer"));
    assert!(!states[0].healthy && states[1].healthy);

    // With no sink left: refused, though one might still take it.
    memory.fail(true);
    let error = log.record(now(), record(3)).unwrap_err();
    assert!(
        matches!(&error, AuditError::NotRecorded { source, .. } if matches!(**source, SinkError::Blocked { .. }))
    );

    // It answers: the first record was taken late, the others were never given to it.
    words.send(Word::Take).unwrap();
    until(|| log.sinks()[0].healthy);
    memory.fail(false);
    words.send(Word::Take).unwrap();
    log.record(now(), record(4)).unwrap();
    until(|| log.sinks()[0].taken == 2);
    assert_eq!(keys(&stuck.entries()), ["KEY_0", "KEY_4"]);
    assert_eq!(gaps(&stuck.entries()), [(2, 1)]);
    assert_eq!(gaps(&memory.entries()), [(0, 1)]);
    verify(stuck.text().as_bytes()).unwrap();
    drop(words);
}

#[test]
fn what_a_hanging_sink_fails_late_is_missed_too() {
    let (sink, words, stuck, _) = gate("stuck");
    let short = Timeouts { any: Duration::from_millis(60), ..SHORT_REST };
    let log = Log::open_with(vec![sink], "op-0", FailurePolicy::Closed, short).unwrap();
    log.record(now(), record(0)).unwrap_err();
    log.record(now(), record(1)).unwrap_err();
    words.send(Word::Fail).unwrap();
    until(|| log.sinks()[0].missed == 2);
    words.send(Word::Take).unwrap();
    let _ = log.record(now(), record(2)); // in time or late
    until(|| log.sinks()[0].taken == 1);
    assert_eq!(keys(&stuck.entries()), ["KEY_2"]);
    assert_eq!(gaps(&stuck.entries()), [(0, 2)]);
    drop(words);
}

#[test]
fn a_panicking_sink_is_a_failed_sink() {
    let (sink, words, memory, _) = gate("buggy");
    let log = log_over(vec![sink]);
    for (n, word) in [Word::Take, Word::Panic, Word::Panic, Word::Take].into_iter().enumerate() {
        let panics = matches!(word, Word::Panic);
        words.send(word).unwrap();
        let result = log.record(now(), record(n));
        assert_eq!(result.is_err(), panics);
    }
    assert_eq!(keys(&memory.entries()), ["KEY_0", "KEY_3"]);
    assert_eq!(gaps(&memory.entries()), [(0, 2)]);
}

#[test]
fn a_poisoned_lock_and_a_caller_that_panics_stop_nobody() {
    let (log, [memory]) = memories(FailurePolicy::Closed);
    let poisoned = catch_unwind(AssertUnwindSafe(|| {
        let _desk = log.books.desk.lock().unwrap();
        panic!("somewhere else");
    }));
    assert!(poisoned.is_err() && log.books.desk.is_poisoned());
    log.record(now(), record(0)).unwrap();
    // One whose condition panics has none that holds; one that panics when it is told is its own matter.
    let refused = log.record_all_if(now(), vec![record(1)], || panic!("a bug in a condition"));
    assert!(matches!(refused, Err(AuditError::Withheld)), "{refused:?}");
    log.submit(now(), vec![record(2)], || true, |_| panic!("a bug in who is told"));
    log.record(now(), record(3)).unwrap();
    assert_eq!(keys(&memory.entries()), ["KEY_0", "KEY_2", "KEY_3"]);
}

#[test]
fn who_does_not_wait_is_told_and_a_log_that_is_dropped_writes_what_it_has() {
    let (sink, words, memory, appends) = gate("gate");
    let log = log_over(vec![sink]);
    let (told, answers) = mpsc::channel();
    for n in 0..3 {
        let told = told.clone();
        log.submit(now(), vec![record(n)], || true, move |ended| told.send((n, ended.is_ok())).unwrap());
    }
    let none = told.clone();
    log.submit(now(), Vec::new(), || true, move |ended| none.send((9, ended.is_ok())).unwrap());
    assert_eq!(answers.recv().unwrap(), (9, true), "nothing to write, and nobody wrote yet");
    until(|| *appends.lock().unwrap() == 1);
    assert!(answers.try_recv().is_err(), "not before it is written");
    let closing = thread::spawn(move || drop(log));
    // One write or two: the first may have been taken before the others came.
    words.send(Word::Take).unwrap();
    words.send(Word::Take).unwrap();
    closing.join().unwrap();
    drop(told);
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [(0, true), (1, true), (2, true)]);
    assert_eq!(keys(&memory.entries()), ["KEY_0", "KEY_1", "KEY_2"]);
}

#[test]
fn without_a_thread_a_record_is_written_before_its_caller_goes_on() {
    let (sink, memory) = MemorySink::new("memory");
    let log = Log::unthreaded(vec![Box::new(sink)], "op-0", FailurePolicy::Closed).unwrap();
    let (told, answers) = mpsc::channel();
    for n in 0..3 {
        let told = told.clone();
        log.submit(now(), vec![record(n)], || true, move |ended| told.send(ended.is_ok()).unwrap());
        assert_eq!((answers.try_recv(), memory.lines().len()), (Ok(true), n + 1));
    }
    assert!(Log::unthreaded(Vec::new(), "op-0", FailurePolicy::Closed).is_err());
}

#[test]
fn callers_that_wait_are_written_together() {
    let (sink, words, memory, appends) = gate("gate");
    let log = log_over(vec![sink]);
    thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || log.record(now(), record(0)).unwrap());
        until(|| *appends.lock().unwrap() == 1);
        for n in 1..=20 {
            log.submit(now(), vec![record(n)], || true, |ended| ended.unwrap());
        }
        assert_eq!((log.lost(), log.sinks()[0].taken), (0, 0), "metrics do not wait for a write");
        words.send(Word::Take).unwrap();
        words.send(Word::Take).unwrap();
        until(|| log.counters().taken == 21);
    });
    assert_eq!(*appends.lock().unwrap(), 2, "20 waiting callers, one write");
    assert_eq!(memory.lines().len(), 21);
    verify(memory.text().as_bytes()).unwrap();
    drop(words);
}

#[test]
fn what_comes_right_after_a_write_waits_for_company_and_nothing_else_does() {
    let (sink, words, memory, appends) = gate("gate");
    let apart = Timeouts { between: Duration::from_secs(3), ..PATIENT };
    let log = Log::open_with(vec![sink], "op-0", FailurePolicy::Closed, apart).unwrap();
    words.send(Word::Take).unwrap();
    log.record(now(), record(0)).unwrap();
    words.send(Word::Take).unwrap();
    for n in 1..5 {
        log.submit(now(), vec![record(n)], || true, |_| ());
        // Long enough for a write that does not wait, and much less than what is waited.
        thread::sleep(Duration::from_millis(50));
    }
    until(|| log.counters().taken == 5);
    assert_eq!((*appends.lock().unwrap(), memory.lines().len()), (2, 5));

    let (start, between) = (Instant::now(), Duration::from_millis(4));
    let after = |ms| start + Duration::from_millis(ms);
    assert_eq!(still_to_wait(None, start, between), Duration::ZERO, "the first");
    for (ms, wait) in [(0, 4), (1, 3), (4, 0), (100, 0)] {
        assert_eq!(
            still_to_wait(Some(start), after(ms), between),
            Duration::from_millis(wait),
            "{ms} ms later"
        );
    }
    assert_eq!(still_to_wait(Some(after(9)), start, between), between, "no longer, whatever the clock does");
}

#[test]
fn many_threads_write_one_chain_over_many_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (other, memory) = MemorySink::new("memory");
    let file = FileSink::open(&path, Rotation { max_bytes: 4_000 }).unwrap();
    let log = log_over(vec![Box::new(file), Box::new(other)]);
    thread::scope(|scope| {
        for worker in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..50 {
                    log.record_all(now(), vec![record(worker * 1_000 + n), record(worker * 1_000 + n)])
                        .unwrap();
                }
            });
        }
    });
    drop(log);
    // The file is free again at once.
    drop(FileSink::open(&path, Rotation::default()).unwrap());
    let report = verify_files(&path, Start::Genesis).unwrap();
    assert_eq!(report.lines, 800);
    assert!(report.files > 20);
    let mut from_file = Vec::new();
    for item in crate::read_all(&path).unwrap() {
        from_file.push(item.unwrap().entry);
    }
    let entries = memory.entries();
    assert_eq!(keys(&from_file), keys(&entries));
    for pair in keys(&entries).chunks(2) {
        assert_eq!(pair[0], pair[1], "what is recorded together stands together");
    }
    let mut sorted = keys(&entries);
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 400);
    assert_eq!(memory.lines(), from_file.iter().map(crate::line::render).collect::<Vec<_>>());
}

/// The story that docs/src/audit.md tells: a file deleted under a running process, standard output still there.
#[test]
fn a_deleted_file_shows_in_both_trails() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, "{\"seq\":1,\"ti").unwrap();
    let (stdout, memory) = MemorySink::new("stdout");
    let file = FileSink::new(&path, Rotation::default());
    let log = log_over(vec![Box::new(file), Box::new(stdout)]);
    log.record(now(), record(0)).unwrap();
    let entries = |path| crate::read_all(path).unwrap().map(|item| item.unwrap().entry).collect::<Vec<_>>();
    let first = entries(&path);
    assert_eq!(
        (first[0].record.action, first[0].record.reason.as_deref()),
        (Action::Recovered, Some("TornTail"))
    );
    let detail = first[0].record.detail.clone().unwrap();
    assert!(detail.starts_with("12 bytes set aside in audit.jsonl.torn-1, sha256 "), "{detail}");

    std::fs::remove_file(&path).unwrap();
    log.record(now(), record(1)).unwrap();
    log.record(now(), record(2)).unwrap();
    let second = entries(&path);
    let reasons: Vec<_> = second.iter().map(|entry| entry.record.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("Rewound"), Some("Missed"), None]);
    assert_eq!(second[0].record.rewound.unwrap().seq, 2);
    assert_eq!(gaps(&second), [(1, 0)]);
    let report = verify_files(&path, Start::Genesis).unwrap();
    assert!(report.has_gaps());
    assert_eq!((report.rewound, report.resumed, report.missed_elsewhere), (1, 2, 1));
    assert_eq!(keys(&memory.entries()), ["KEY_0", "KEY_1", "KEY_2"]);
    assert_eq!(log.counters(), Counters { taken: 3, failed: 0, lost: 0 });
}

#[test]
fn a_full_device_takes_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let sink = Box::new(StdoutSink::over("stdout", full));
    let log = log_over(vec![sink]);
    let error = log.record(now(), record(0)).unwrap_err();
    let AuditError::NotRecorded { source, .. } = &error else { panic!("{error:?}") };
    let SinkError::Write { source, .. } = &**source else { panic!("{source:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

/// A stream that breaks after some bytes and works again later, like a pipe that does not block.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (out, room) = &mut *self.0.lock().unwrap();
        let taken = bytes.len().min(room.unwrap_or(usize::MAX));
        if taken == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        out.extend_from_slice(&bytes[..taken]);
        *room = room.map(|room| room - taken);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_that_breaks_at_any_byte_still_verifies() {
    for room in 0..600 {
        let pipe = Pipe::default();
        let sink = Box::new(StdoutSink::over("stdout", pipe.clone()));
        let log = log_over(vec![sink]);
        log.record(now(), record(0)).unwrap();
        pipe.0.lock().unwrap().1 = Some(room);
        let broke = log.record_all(now(), vec![record(1), record(2)]).is_err();
        pipe.0.lock().unwrap().1 = None;
        log.record(now(), record(3)).unwrap();
        let text = pipe.0.lock().unwrap().0.clone();
        let report =
            verify_stream(text.as_slice(), Start::Genesis).unwrap_or_else(|error| panic!("{room}: {error}"));
        let chain = &report.chains["op-0"];
        assert_eq!(broke, chain.missed_nowhere == 2, "{room}");
        // Whole lines that went out before it broke stay in the chain.
        assert!(chain.lines >= 3 && report.foreign <= 1, "{room}: {report:?}");
    }
}

proptest::proptest! {
    /// Whatever fails when: each trail is a whole chain, and what it holds and what it says it missed add up to
    /// everything.
    #[test]
    fn every_trail_accounts_for_every_record(
        closed in proptest::bool::ANY,
        steps in proptest::collection::vec((1_usize..4, proptest::bool::ANY, proptest::bool::ANY), 1..30),
    ) {
        let (log, [one, two]) = memories(if closed { FailurePolicy::Closed } else { FailurePolicy::Open });
        let (mut offered, mut nowhere) = (0, 0);
        for (count, one_fails, two_fails) in steps {
            one.fail(one_fails);
            two.fail(two_fails);
            let result = log.record_all(now(), (0..count).map(record).collect());
            proptest::prop_assert_eq!(result.is_err(), closed && one_fails && two_fails);
            offered += count as u64;
            nowhere += if one_fails && two_fails { count as u64 } else { 0 };
        }
        one.fail(false);
        two.fail(false);
        log.record(now(), record(0)).unwrap();
        offered += 1;
        for memory in [&one, &two] {
            verify(memory.text().as_bytes()).unwrap();
            let entries = memory.entries();
            let held = entries.iter().filter(|entry| entry.record.actor.kind != ActorKind::Audit).count() as u64;
            let gaps = gaps(&entries);
            let missed: u64 = gaps.iter().map(|(elsewhere, _)| elsewhere).sum();
            let gone: u64 = gaps.iter().map(|(_, nowhere)| nowhere).sum();
            proptest::prop_assert_eq!(held + missed + gone, offered);
            proptest::prop_assert_eq!(gone, nowhere);
        }
        let counters = log.counters();
        proptest::prop_assert_eq!(counters.taken, offered - nowhere);
        proptest::prop_assert_eq!(if closed { counters.failed } else { counters.lost }, nowhere);
    }
}

#[test]
fn a_record_is_withheld_when_its_author_may_not_write_any_more() {
    for policy in [FailurePolicy::Closed, FailurePolicy::Open] {
        let (log, [one, two]) = memories(policy);
        log.record(now(), record(0)).unwrap();
        let withheld = log.record_all_if(now(), vec![record(1)], || false);
        assert!(matches!(withheld, Err(AuditError::Withheld)), "{withheld:?}");
        log.record_all_if(now(), vec![record(2)], || true).unwrap();
        for memory in [&one, &two] {
            assert_eq!(memory.lines().len(), 2, "{:?}", memory.lines());
            verify(memory.text().as_bytes()).unwrap();
        }
        assert_eq!(log.counters(), Counters { taken: 2, ..Counters::default() }, "no sink failed");
    }
}

/// A pause of the process between the call and its turn.
#[test]
fn the_condition_is_looked_at_when_the_turn_has_come() {
    let (log, [one, _]) = memories(FailurePolicy::Closed);
    let may = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (told, answered) = mpsc::channel();
    let (looked, looks) = mpsc::channel();
    let busy = log.books.desk.lock().unwrap();
    let still = {
        let may = Arc::clone(&may);
        move || {
            let may = may.load(std::sync::atomic::Ordering::SeqCst);
            looked.send(may).unwrap();
            may
        }
    };
    log.submit(now(), vec![record(1)], still, move |ended| told.send(ended).unwrap());
    assert!(looks.recv_timeout(Duration::from_millis(50)).is_err(), "its turn has not come");
    may.store(false, std::sync::atomic::Ordering::SeqCst);
    drop(busy);
    assert!(matches!(answered.recv().unwrap(), Err(AuditError::Withheld)));
    assert!(!looks.recv().unwrap());
    assert!(one.lines().is_empty());
}

#[test]
fn gaps_join_in_order() {
    let at = |ms| Timestamp::from_millisecond(ms).unwrap();
    let one = Gap { since: at(1), elsewhere: 1, nowhere: 2 };
    let two = Gap { since: at(2), elsewhere: 10, nowhere: 20 };
    assert_eq!(Gap::join(Some(one), Some(two)), Some(Gap { since: at(1), elsewhere: 11, nowhere: 22 }));
    assert_eq!(Gap::join(None, Some(two)), Some(two));
    assert_eq!(Gap::join(Some(one), None), Some(one));
    assert_eq!(Gap::join(None, None), None);
    assert_eq!(Position::GENESIS.seq, 0);
}
