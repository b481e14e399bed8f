//! Whatever happens, in any order.

use proptest::prelude::*;

use super::*;

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
        let (mut now, mut under_way, mut calls) = (S, Vec::<(Time, Vec<Ask>)>::new(), Vec::new());
        for event in events {
            under_way.retain(|(since, _)| *since + LOST > now);
            match event {
                Event::Pass(millis) => now += Duration::from_millis(millis),
                Event::Want(path, seconds) => schedule.want(&ask(path), S * u32::try_from(seconds).unwrap(), now),
                Event::Forget(path) => schedule.forget(&ask(path)),
                Event::Refresh(path) => schedule.refresh(&ask(path), now),
                Event::Next => match schedule.next(now) {
                    Next::Call(asks) => {
                        prop_assert!(!asks.is_empty() && asks.len() <= batch);
                        for one in &asks {
                            let twice = under_way.iter().any(|(_, asks)| asks.contains(one));
                            prop_assert!(!twice, "{one:?}");
                        }
                        calls.push(now);
                        under_way.push((now, asks));
                        prop_assert!(under_way.len() <= CALLS);
                    }
                    Next::Wait(pause) => prop_assert!(!pause.is_zero()),
                    Next::Idle => {}
                },
                Event::Answer(index, good) if !under_way.is_empty() => {
                    let (_, asks) = under_way.remove(index % under_way.len());
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
