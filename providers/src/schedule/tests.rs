use std::fmt::Display;
use std::num::NonZeroU32;

use sealedenv_seal::Plain;

use super::*;
use crate::Read;

mod any;

const S: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_mins(15);

fn ask(path: impl Display) -> Ask {
    Ask { path: path.to_string(), version: None }
}

fn schedule(rate: u32, burst: u32, batch: usize) -> Schedule {
    let of = |number| NonZeroU32::new(number).unwrap();
    Schedule::new("vault", "replica-0", Budget::new(of(rate), of(burst)), batch)
}

fn found() -> Outcome {
    Outcome::Found(Read { content: Plain::from("x".to_owned()), version: None, lease: None })
}

/// Of what these tests answer. An outcome holds a value, so it cannot be cloned.
fn copy(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Found(_) => found(),
        Outcome::NotFound => Outcome::NotFound,
        Outcome::Denied => Outcome::Denied,
        Outcome::Unavailable { retry_after } => Outcome::Unavailable { retry_after: *retry_after },
        Outcome::Malformed => Outcome::Malformed,
    }
}

const AWAY: Outcome = Outcome::Unavailable { retry_after: None };

fn call(next: Next) -> Vec<Ask> {
    match next {
        Next::Call(asks) => asks,
        other => panic!("{other:?}"),
    }
}

fn answer(schedule: &mut Schedule, asks: &[Ask], outcome: &Outcome, now: Time) {
    let answers: Vec<_> = asks.iter().map(|_| Answer::from(copy(outcome))).collect();
    schedule.answered(asks, &answers, now);
}

/// Goes on until `end`, with a store that answers at once. When each call was made.
fn run(schedule: &mut Schedule, from: Time, end: Time, outcome: &Outcome) -> Vec<Time> {
    let (mut now, mut calls) = (from, Vec::new());
    while now < end {
        match schedule.next(now) {
            Next::Call(asks) => {
                calls.push(now);
                answer(schedule, &asks, outcome, now);
            }
            Next::Wait(pause) => now += pause.max(Duration::from_nanos(1)),
            Next::Idle => break,
        }
    }
    calls
}

#[test]
fn many_that_want_few_paths_cost_one_call_for_each_path_and_interval() {
    let mut schedule = schedule(10, 20, 1);
    for object in 0..5000 {
        schedule.want(&ask(object % 200), INTERVAL, S);
    }
    let first = run(&mut schedule, S, S + INTERVAL / 2, &found());
    assert_eq!(first.len(), 200);
    assert!(*first.last().unwrap() <= S * 20, "within the budget, which is 18 s for 180 after a burst of 20");
    let hour = run(&mut schedule, S + INTERVAL / 2, S + INTERVAL * 41 / 2, &found());
    assert!((20 * 200..=20 * 210).contains(&hour.len()), "{} calls in 20 intervals", hour.len());
    let most = (0..INTERVAL.as_secs() * 20)
        .map(|second| hour.iter().filter(|call| call.as_secs() == second).count())
        .max();
    assert!(most <= Some(30), "{most:?} calls in one second");
}

#[test]
fn a_path_is_asked_for_by_one_call_at_a_time() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    let asks = call(schedule.next(S));
    schedule.refresh(&ask("a"), S);
    schedule.want(&ask("a"), INTERVAL, S);
    assert_eq!(schedule.next(S), Next::Wait(LOST), "until the call is lost");
    answer(&mut schedule, &asks, &found(), S);
    assert_eq!(
        schedule.next(S),
        Next::Call(vec![ask("a")]),
        "what was asked for meanwhile was not answered by it"
    );
    answer(&mut schedule, &[ask("a")], &found(), S);
    assert!(matches!(schedule.next(S), Next::Wait(pause) if pause > INTERVAL * 9 / 10 && pause <= INTERVAL));
    schedule.refresh(&ask("a"), S * 2);
    assert_eq!(schedule.next(S * 2), Next::Call(vec![ask("a")]));
    schedule.forget(&ask("a"));
    answer(&mut schedule, &[ask("a")], &found(), S * 2);
    assert_eq!(schedule.next(S * 2), Next::Idle, "nobody wants it");
}

#[test]
fn a_shorter_interval_counts_from_the_last_answer() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    let asks = call(schedule.next(S));
    answer(&mut schedule, &asks, &found(), S);
    schedule.want(&ask("a"), S * 60, S * 2);
    assert!(matches!(schedule.next(S * 2), Next::Wait(pause) if pause <= S * 60));
    schedule.want(&ask("a"), S, S * 40);
    assert_eq!(schedule.next(S * 40), Next::Call(vec![ask("a")]), "overdue by that");
}

#[test]
fn what_waits_longest_goes_first_and_as_many_at_once_as_the_store_takes() {
    let mut schedule = schedule(1, 1, 3);
    for (path, at) in [("a", 3), ("b", 1), ("c", 2), ("d", 4), ("later", 9)] {
        schedule.want(&ask(path), INTERVAL, S * at);
    }
    assert_eq!(call(schedule.next(S * 5)), [ask("b"), ask("c"), ask("a")]);
    assert_eq!(schedule.next(S * 5), Next::Wait(S), "the budget counts calls");
    assert_eq!(call(schedule.next(S * 6)), [ask("d")], "and not what is not due");
}

#[test]
fn an_outage_costs_few_calls_and_its_end_no_more_than_any_other_time() {
    let mut schedule = schedule(10, 20, 1);
    for path in 0..500 {
        schedule.want(&ask(path), INTERVAL, S);
    }
    run(&mut schedule, S, S * 60, &found());
    let begin = INTERVAL * 2;
    let outage = run(&mut schedule, begin, begin + INTERVAL, &AWAY);
    assert!(schedule.is_open());
    assert!(outage.len() < 30, "{} calls in 15 min of a store that is away", outage.len());
    let back = begin + INTERVAL;
    let after = run(&mut schedule, back, back + INTERVAL, &found());
    assert!(!schedule.is_open());
    let whole = after.iter().filter(|call| **call <= after[0] + S * 60).count();
    assert!(whole >= 500, "all that was overdue within a minute of the first answer: {whole}");
    for (first, from) in after.iter().enumerate() {
        let within = after[first..].iter().take_while(|call| **call < *from + S).count();
        assert!(within <= 30, "{within} calls within a second");
    }
    assert!(after[0] <= back + PAUSES.1, "it was noticed within the longest pause");
}

#[test]
fn a_store_that_is_probed_gets_one_call_for_one_path() {
    let mut schedule = schedule(100, 100, 10);
    for path in 0..50 {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let mut now = S;
    for _ in 0..OPENS_AT {
        let asks = call(schedule.next(now));
        answer(&mut schedule, &asks, &AWAY, now);
    }
    assert!(matches!(schedule.next(now), Next::Wait(_)), "it is open");
    now += PAUSES.1;
    let probe = call(schedule.next(now));
    assert_eq!(probe.len(), 1);
    assert_eq!(schedule.next(now), Next::Wait(LOST), "one at a time");
    answer(&mut schedule, &probe, &Outcome::Denied, now);
    assert!(!schedule.is_open(), "a store that says no works");
}

#[test]
fn a_pause_that_a_store_asks_for_holds_up_all_of_it() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    schedule.want(&ask("b"), INTERVAL, S);
    let asks = call(schedule.next(S));
    answer(&mut schedule, &asks, &Outcome::Unavailable { retry_after: Some(S * 90) }, S);
    assert_eq!(schedule.next(S), Next::Wait(S * 90));
}

#[test]
fn part_of_a_batch_that_fails_is_tried_again_by_itself() {
    let mut schedule = schedule(100, 100, 2);
    schedule.want(&ask("a"), INTERVAL, S);
    schedule.want(&ask("b"), INTERVAL, S);
    let asks = call(schedule.next(S));
    schedule.answered(&asks, &[found().into(), AWAY.into()], S);
    let Next::Wait(pause) = schedule.next(S) else { panic!("it is tried again") };
    assert!(pause <= PAUSES.0 && !schedule.is_open());
    assert_eq!(call(schedule.next(S + pause)), [ask("b")]);
}

/// Fails until the breaker is open. The moment when it may be probed.
fn open(schedule: &mut Schedule, mut now: Time, path: &str) -> Time {
    while !schedule.is_open() {
        schedule.refresh(&ask(path), now);
        match schedule.next(now) {
            Next::Call(asks) => answer(schedule, &asks, &AWAY, now),
            Next::Wait(pause) => now += pause,
            Next::Idle => panic!("{path} is wanted"),
        }
    }
    now
}

#[test]
fn paths_that_always_fail_do_not_keep_the_others_from_probing() {
    let mut schedule = schedule(100, 100, 1);
    for path in ["bad-1", "bad-2"] {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let mut now = open(&mut schedule, S, "bad-1") + PAUSES.1;
    // It is due after both of those that fail.
    schedule.want(&ask("good"), INTERVAL, now);
    let asks = loop {
        match schedule.next(now) {
            Next::Call(asks) => break asks,
            Next::Wait(pause) => now += pause,
            Next::Idle => panic!("three are wanted"),
        }
    };
    assert_eq!(asks, [ask("good")]);
    answer(&mut schedule, &asks, &found(), now);
    assert!(!schedule.is_open());
}

#[test]
fn probes_take_turns() {
    let mut schedule = schedule(100, 100, 1);
    for path in 0..10 {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let mut now = S;
    let mut asked = BTreeMap::new();
    for _ in 0..40 {
        let asks = loop {
            match schedule.next(now) {
                Next::Call(asks) => break asks,
                Next::Wait(pause) => now += pause,
                Next::Idle => panic!("ten are wanted"),
            }
        };
        *asked.entry(asks[0].path.clone()).or_insert(0) += 1;
        // An impatient user changes nothing of it.
        schedule.refresh(&ask(0), now);
        answer(&mut schedule, &asks, &AWAY, now);
    }
    assert!(asked.len() == 10 && asked.values().all(|times| (3..=5).contains(times)), "{asked:?}");
}

#[test]
fn two_intervals_in_turn_make_nothing_due() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    let asks = call(schedule.next(S));
    answer(&mut schedule, &asks, &found(), S);
    for _ in 0..50 {
        schedule.want(&ask("a"), INTERVAL, S * 2);
        schedule.want(&ask("a"), INTERVAL / 3, S * 2);
    }
    assert!(
        matches!(schedule.next(S * 2), Next::Wait(pause) if pause > INTERVAL / 4),
        "it is due at a third"
    );
    schedule.want(&ask("a"), INTERVAL, S * 2);
    assert!(matches!(schedule.next(S * 2), Next::Wait(pause) if pause > INTERVAL * 9 / 10));
}

#[test]
fn what_is_new_or_asked_for_anew_goes_before_what_is_merely_due() {
    let mut schedule = schedule(100, 100, 1);
    for path in ["a", "b", "c"] {
        schedule.want(&ask(path), INTERVAL, S);
        let asks = call(schedule.next(S));
        answer(&mut schedule, &asks, &found(), S);
    }
    let now = S * 2 + INTERVAL;
    schedule.want(&ask("new"), INTERVAL, now);
    schedule.refresh(&ask("c"), now);
    let order: Vec<_> = (0..4).map(|_| call(schedule.next(now)).remove(0).path).collect();
    let (first, rest) = order.split_at(2);
    assert!(first.contains(&"new".to_owned()) && first.contains(&"c".to_owned()), "{order:?}");
    assert!(rest.contains(&"a".to_owned()) && rest.contains(&"b".to_owned()), "{order:?}");
}

#[test]
fn nobody_goes_through_a_pause_after_a_failure() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    let asks = call(schedule.next(S));
    answer(&mut schedule, &asks, &AWAY, S);
    let Next::Wait(pause) = schedule.next(S) else { panic!("it failed") };
    schedule.refresh(&ask("a"), S);
    schedule.want(&ask("a"), S, S);
    assert_eq!(schedule.next(S), Next::Wait(pause));
}

#[test]
fn a_call_that_is_lost_is_made_again_and_says_nothing_of_the_store() {
    let mut schedule = schedule(100, 100, 2);
    schedule.want(&ask("a"), INTERVAL, S);
    schedule.want(&ask("b"), INTERVAL, S);
    let mut now = S;
    for _ in 0..OPENS_AT * 2 {
        let asks = loop {
            match schedule.next(now) {
                Next::Call(asks) => break asks,
                Next::Wait(pause) => now += pause,
                Next::Idle => panic!("it is asked for for ever"),
            }
        };
        schedule.answered(&asks, &[], now);
    }
    assert!(!schedule.is_open());
    // A provider that answers less than it was asked.
    now += PAUSES.1;
    let asks = call(schedule.next(now));
    schedule.answered(&asks, &[found().into()], now);
    assert!(matches!(schedule.next(now), Next::Wait(pause) if pause <= PAUSES.1), "{}", asks.len());
}

#[test]
fn a_call_that_nobody_tells_of_is_given_up() {
    let mut schedule = schedule(100, 100, 1);
    for path in 0..=CALLS {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let calls: Vec<_> = (0..CALLS).map(|_| call(schedule.next(S))).collect();
    schedule.forget(&calls[1][0]);
    assert_eq!(schedule.next(S * 2), Next::Wait(LOST.saturating_sub(S)), "no more at once");
    assert_eq!(call(schedule.next(S + LOST)), [ask(CALLS)], "and then the next");
    let mut now = S + LOST;
    let mut made = Vec::new();
    while made.len() < CALLS - 1 {
        match schedule.next(now) {
            Next::Call(asks) => made.push(asks),
            Next::Wait(pause) => now += pause,
            Next::Idle => panic!("three are wanted still"),
        }
    }
    made.sort();
    assert_eq!(made, [[ask(0)], [ask(2)], [ask(3)]], "all but the one that nobody wants any more");
    assert!(!schedule.is_open() && now <= S + LOST + PAUSES.0);
    // The first time's answers come after all. Each counts once.
    for _ in 0..2 {
        answer(&mut schedule, &calls[0], &found(), now);
        answer(&mut schedule, &calls[1], &found(), now);
    }
    assert_eq!(schedule.calls.len(), CALLS - 1);
}

#[test]
fn what_is_known_for_a_while_only_is_asked_for_when_that_is_over() {
    let mut schedule = schedule(100, 100, 1);
    schedule.want(&ask("a"), INTERVAL, S);
    let asks = call(schedule.next(S));
    schedule.answered(&asks, &[Answer::here(Outcome::Denied).again(S * 30)], S);
    assert_eq!(schedule.next(S), Next::Wait(S * 30));
    schedule.want(&ask("a"), INTERVAL, S);
    assert_eq!(schedule.next(S), Next::Wait(S * 30), "whoever wants it");
    let asks = call(schedule.next(S * 31));
    schedule.answered(&asks, &[Answer::here(Outcome::Denied).again(INTERVAL * 2)], S * 31);
    assert!(
        matches!(schedule.next(S * 31), Next::Wait(pause) if pause <= INTERVAL),
        "never later than it was"
    );
    schedule.refresh(&ask("a"), S * 32);
    let asks = call(schedule.next(S * 32));
    answer(&mut schedule, &asks, &found(), S * 32);
    let Next::Wait(pause) = schedule.next(S * 32) else { panic!("it is known") };
    assert!(pause > INTERVAL * 9 / 10, "no more than once");
}

#[test]
fn endless_refreshes_keep_nothing_that_is_due_waiting_for_ever() {
    let mut schedule = schedule(1, 1, 1);
    for path in ["hasty", "patient"] {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let (mut now, mut patient) = (S, Vec::new());
    while now < INTERVAL * 10 {
        // Whoever cannot wait asks again before each call.
        schedule.refresh(&ask("hasty"), now);
        match schedule.next(now) {
            Next::Call(asks) => {
                if asks == [ask("patient")] {
                    patient.push(now);
                }
                answer(&mut schedule, &asks, &found(), now);
            }
            Next::Wait(pause) => now += pause,
            Next::Idle => panic!("two are wanted"),
        }
    }
    let gap = patient.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
    assert!(gap.is_some_and(|gap| gap < INTERVAL * 2), "never so late that it were stale: {gap:?}");
    assert!(gap > Some(INTERVAL), "and what is urgent goes first: {gap:?}");
}

#[test]
fn what_is_decided_here_opens_and_closes_no_breaker() {
    let mut schedule = schedule(100, 100, 1);
    for path in 0..20 {
        schedule.want(&ask(path), INTERVAL, S);
    }
    for _ in 0..OPENS_AT * 2 {
        let asks = call(schedule.next(S));
        schedule.answered(&asks, &[Answer::here(AWAY)], S);
    }
    assert!(!schedule.is_open(), "a credential that is not to be had");
    schedule.want(&ask("x"), INTERVAL, S);
    let now = open(&mut schedule, S, "x") + PAUSES.1;
    let asks = call(schedule.next(now));
    schedule.answered(&asks, &[Answer::here(Outcome::Denied)], now);
    assert!(schedule.is_open(), "the guard's no");
}

#[test]
fn at_once_is_no_pause_for_a_store_that_is_away() {
    let mut schedule = schedule(100, 100, 1);
    for path in 0..50 {
        schedule.want(&ask(path), INTERVAL, S);
    }
    let hasty = Outcome::Unavailable { retry_after: Some(Duration::ZERO) };
    let calls = run(&mut schedule, S, S * 61, &hasty);
    assert!(schedule.is_open() && calls.len() < 25, "{} calls in a minute", calls.len());
}

#[test]
fn replicas_do_not_go_in_step() {
    let times = |replica: &str| {
        let budget = Budget::new(NonZeroU32::new(10).unwrap(), NonZeroU32::new(10).unwrap());
        let mut schedule = Schedule::new("vault", replica, budget, 1);
        schedule.want(&ask("a"), INTERVAL, S);
        run(&mut schedule, S, S * 600, &AWAY)
    };
    assert_ne!(times("replica-0")[1..], times("replica-1")[1..]);
    assert_eq!(times("replica-0"), times("replica-0"));
}

#[test]
fn the_longest_interval_and_the_end_of_time_are_no_panic() {
    let mut schedule = schedule(1, 1, 1);
    for (now, outcome) in [(S, found()), (Duration::MAX, found()), (Duration::MAX, AWAY)] {
        schedule.want(&ask("a"), Duration::MAX, now);
        schedule.refresh(&ask("a"), now);
        if let Next::Call(asks) = schedule.next(now) {
            answer(&mut schedule, &asks, &outcome, now);
        }
        schedule.want(&ask("a"), S, now);
    }
}
