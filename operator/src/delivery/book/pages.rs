//! What is known of all SealedEnvs whose pods are told of, and how many pods that are.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::consumers::{Seen, Tally};
use super::{Env, Note};
use crate::backoff::jitter;

/// How long news are gathered before they are written.
pub(super) const SOON: Duration = Duration::from_secs(5);

/// How often pods that did not ask here are looked for.
pub(super) const LOOK: Duration = Duration::from_mins(15);

/// All of them. The sum goes with each change: there may be ten thousand.
#[derive(Default)]
pub(super) struct Pages {
    all: HashMap<Env, Page>,
    sum: Tally,
}

/// What is known of one SealedEnv.
pub(super) struct Page {
    pub(super) due: Instant,
    /// When pods that are gone were looked for.
    pub(super) looked: Instant,
    pub(super) news: HashMap<String, Seen>,
    pub(super) heard: HashMap<String, Instant>,
    tally: Tally,
}

impl Pages {
    /// What is to be written first, and when.
    pub(super) fn next(&self) -> Option<(&Env, Instant)> {
        self.all.iter().map(|(env, page)| (env, page.due)).min_by_key(|(_, due)| *due)
    }

    /// Pods of all of them.
    pub(super) fn sum(&self) -> Tally {
        self.sum
    }

    pub(super) fn get_mut(&mut self, env: &Env) -> Option<&mut Page> {
        self.all.get_mut(env)
    }

    pub(super) fn list(&mut self, env: Env, tally: Tally, now: Instant) {
        // All of them come at once at a start.
        let due = now + LOOK + jitter(LOOK / 4, &env.name);
        let page = self.all.entry(env).or_insert_with(|| Page::new(due, now));
        page.count(tally, &mut self.sum);
    }

    pub(super) fn take(&mut self, note: Note, now: Instant) {
        let page = self.all.entry(note.env).or_insert_with(|| Page::new(now + LOOK, now));
        page.heard.insert(note.seen.uid.clone(), now);
        if note.is_told {
            // It may have changed and changed back before anything was written.
            page.news.remove(&note.seen.uid);
        } else {
            page.due = page.due.min(now + SOON);
            page.news.insert(note.seen.uid.clone(), note.seen);
        }
    }

    /// The status has so many pods now.
    pub(super) fn count(&mut self, env: &Env, tally: Tally) {
        if let Some(page) = self.all.get_mut(env) {
            page.count(tally, &mut self.sum);
        }
    }

    pub(super) fn remove(&mut self, env: &Env) {
        if let Some(mut page) = self.all.remove(env) {
            page.count(Tally::default(), &mut self.sum);
        }
    }
}

impl Page {
    fn new(due: Instant, looked: Instant) -> Self {
        Self { due, looked, news: HashMap::new(), heard: HashMap::new(), tally: Tally::default() }
    }

    fn count(&mut self, tally: Tally, sum: &mut Tally) {
        let old = std::mem::replace(&mut self.tally, tally);
        sum.current += tally.current - old.current;
        sum.outdated += tally.outdated - old.outdated;
        sum.refused += tally.refused - old.refused;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::consumers::Told;
    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        List(Tally),
        Take,
        Count(Tally),
        Remove,
    }

    fn changes() -> impl Strategy<Value = Vec<(u8, Change)>> {
        let tally = (0..256_i64, 0..256_i64, 0..256_i64);
        let tally = tally.prop_map(|(current, outdated, refused)| Tally { current, outdated, refused });
        let change = prop_oneof![
            tally.clone().prop_map(Change::List),
            Just(Change::Take),
            tally.prop_map(Change::Count),
            Just(Change::Remove),
        ];
        prop::collection::vec((0..4_u8, change), 0..40)
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_all_pages_whatever_happened(changes in changes()) {
            let mut pages = Pages::default();
            let now = Instant::now();
            for (n, change) in changes {
                let env = Env { namespace: "shop".to_owned(), name: n.to_string() };
                match change {
                    Change::List(tally) => pages.list(env, tally, now),
                    Change::Take => {
                        let seen = Seen { uid: "u".to_owned(), pod: "p".to_owned(), told: Told::Refused("no") };
                        pages.take(Note { env, seen, is_told: false }, now);
                    }
                    Change::Count(tally) => pages.count(&env, tally),
                    Change::Remove => pages.remove(&env),
                }
                let sum = |of: fn(&Tally) -> i64| pages.all.values().map(|page| of(&page.tally)).sum::<i64>();
                let all = Tally {
                    current: sum(|tally| tally.current),
                    outdated: sum(|tally| tally.outdated),
                    refused: sum(|tally| tally.refused),
                };
                prop_assert_eq!(pages.sum(), all);
            }
        }
    }
}
