use std::fmt::Display;
use std::num::NonZeroU32;

use proptest::prelude::*;
use sealedenv_seal::Plain;

use super::*;
use crate::Read;

const S: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_mins(15);

fn ask(path: impl Display) -> Ask {
    Ask { path: path.to_string(), version: None }
}

fn schedule(rate: u32, burst: u32, batch: usize) -> Schedule {
    let of = |number| NonZeroU32::new(number).unwrap();
    Schedule::new("vault", Budget::new(of(rate), of(burst)), batch)
}

fn found() -> Outcome {
    Outcome::Found(Read { content: Plain::from("x".to_owned()), version: None, lease: None })
}

const AWAY: Outcome = Outcome::Unavailable { retry_after: None };

fn call(next: Next) -> Vec<Ask> {
    match next {
        Next::Call(asks) => asks,
        other => panic!("{other:?}"),
    }
}

fn answer(schedule: &mut Schedule, asks: &[Ask], outcome: &Outcome, now: Time) {
    schedule.answered(asks.iter().map(|ask| (ask, outcome)), now);
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
    assert_eq!(schedule.next(S), Next::Idle);
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
    let Next::Wait(pause) = schedule.next(now) else { panic!("it is open") };
    now += pause;
    let probe = call(schedule.next(now));
    assert_eq!(probe.len(), 1);
    assert_eq!(schedule.next(now), Next::Idle, "one at a time");
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
    schedule.answered([(&asks[0], &found()), (&asks[1], &AWAY)], S);
    let Next::Wait(pause) = schedule.next(S) else { panic!("it is tried again") };
    assert!(pause <= PAUSES.0 && !schedule.is_open());
    assert_eq!(call(schedule.next(S + pause)), [ask("b")]);
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Want(u8, u64),
    Forget(u8),
    Refresh(u8),
    Next,
    Answer(usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..5000_u64).prop_map(Event::Pass),
        (any::<u8>(), 1..600_u64).prop_map(|(path, seconds)| Event::Want(path % 16, seconds)),
        any::<u8>().prop_map(|path| Event::Forget(path % 16)),
        any::<u8>().prop_map(|path| Event::Refresh(path % 16)),
        Just(Event::Next),
        Just(Event::Next),
        (any::<usize>(), any::<bool>()).prop_map(|(index, good)| Event::Answer(index, good)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_path_is_asked_twice_at_once_and_the_budget_holds(
        events in prop::collection::vec(event(), 1..300),
        batch in 1..4_usize,
    ) {
        let (rate, burst) = (5, 4);
        let mut schedule = schedule(rate, burst, batch);
        let (mut now, mut under_way, mut calls) = (S, Vec::<Vec<Ask>>::new(), Vec::new());
        for event in events {
            match event {
                Event::Pass(millis) => now += Duration::from_millis(millis),
                Event::Want(path, seconds) => schedule.want(&ask(path), S * u32::try_from(seconds).unwrap(), now),
                Event::Forget(path) => schedule.forget(&ask(path)),
                Event::Refresh(path) => schedule.refresh(&ask(path), now),
                Event::Next => match schedule.next(now) {
                    Next::Call(asks) => {
                        prop_assert!(!asks.is_empty() && asks.len() <= batch);
                        for one in &asks {
                            let twice = under_way.iter().flatten().any(|other| other == one);
                            prop_assert!(!twice, "{one:?}");
                        }
                        calls.push(now);
                        under_way.push(asks);
                        prop_assert!(under_way.len() <= CALLS);
                    }
                    Next::Wait(pause) => prop_assert!(!pause.is_zero()),
                    Next::Idle => {}
                },
                Event::Answer(index, good) if !under_way.is_empty() => {
                    let asks = under_way.remove(index % under_way.len());
                    answer(&mut schedule, &asks, if good { &Outcome::NotFound } else { &AWAY }, now);
                }
                Event::Answer(..) => {}
            }
        }
        for (first, from) in calls.iter().enumerate() {
            let within = calls[first..].iter().filter(|to| **to < *from + S).count();
            prop_assert!(within <= usize::try_from(rate + burst).unwrap());
        }
    }
}
