//! Which pods hold the values of a SealedEnv, as its status tells it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sealedenv_crds::condition::{self, Status, Wanted};
use sealedenv_crds::{Consumer, SealedEnvStatus};

use crate::plan::cut;

/// Most pods in one status: it is stored with the SealedEnv, which has a bound of its own.
pub(crate) const MOST: usize = 256;

/// Pods that a condition names.
const NAMED: usize = 5;

/// Longest message of the condition, in bytes.
const MAX_MESSAGE: usize = 1024;

/// What a pod was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// UID of the pod.
    pub(crate) uid: String,
    /// Its name.
    pub(crate) pod: String,
    /// What it got.
    pub(crate) told: Told,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It holds what has this digest.
    Holds(String),
    /// Nothing, for this reason. It keeps what it has.
    Refused(&'static str),
}

/// Pods by how they stand to what the SealedEnv is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// They have it.
    pub(crate) current: i64,
    /// They have something older.
    pub(crate) outdated: i64,
    /// They were refused when they asked last.
    pub(crate) refused: i64,
}

impl Seen {
    /// Whether the status tells this, or has no room to.
    pub(crate) fn is_told(&self, status: Option<&SealedEnvStatus>) -> bool {
        let consumers = status.map_or(&[][..], |status| &status.consumers);
        let Some(consumer) = consumers.iter().find(|one| one.uid == self.uid) else {
            return consumers.len() >= MOST;
        };
        match &self.told {
            Told::Holds(digest) => {
                consumer.refused.is_none() && consumer.digest.as_deref() == Some(digest.as_str())
            }
            Told::Refused(reason) => consumer.refused.as_deref() == Some(reason),
        }
    }

    fn on(&self, consumer: &mut Consumer, now: Timestamp) {
        consumer.pod.clone_from(&self.pod);
        match &self.told {
            Told::Holds(digest) => {
                if consumer.digest.as_ref() != Some(digest) {
                    consumer.digest = Some(digest.clone());
                    consumer.since = Some(Time(now));
                }
                consumer.refused = None;
            }
            Told::Refused(reason) => consumer.refused = Some((*reason).to_owned()),
        }
    }
}

/// The status with what was seen, and without pods that are gone.
pub(crate) fn after<'a>(
    old: &SealedEnvStatus,
    seen: impl IntoIterator<Item = &'a Seen>,
    gone: &BTreeSet<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> SealedEnvStatus {
    let kept = old.consumers.iter().filter(|one| !gone.contains(&one.uid));
    let mut consumers: BTreeMap<String, Consumer> = kept.map(|one| (one.uid.clone(), one.clone())).collect();
    for one in seen {
        let room = consumers.len() < MOST;
        match consumers.get_mut(&one.uid) {
            Some(consumer) => one.on(consumer, now),
            None if room => {
                let mut consumer = Consumer { uid: one.uid.clone(), ..Consumer::default() };
                one.on(&mut consumer, now);
                consumers.insert(one.uid.clone(), consumer);
            }
            None => {}
        }
    }
    let mut status = old.clone();
    status.consumers = consumers.into_values().collect();
    status.consumers.sort_by(|a, b| (&a.pod, &a.uid).cmp(&(&b.pod, &b.uid)));
    status.conditions.retain(|one| one.type_ != condition::DELIVERY_REFUSED);
    if let Some(wanted) = refused(&status.consumers) {
        status.conditions.extend(condition::merge(now, generation, &old.conditions, vec![wanted]));
    }
    status
}

fn refused(consumers: &[Consumer]) -> Option<Wanted> {
    let refused: Vec<_> =
        consumers.iter().filter_map(|one| Some((one.pod.as_str(), one.refused.as_deref()?))).collect();
    if refused.is_empty() {
        return None;
    }
    let named: Vec<_> = refused.iter().take(NAMED).map(|(pod, why)| format!("{pod} ({why})")).collect();
    let more = refused.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message =
        format!("refused to pods, which keep what they have been given: {}{more}", named.join(", "));
    Some(Wanted {
        type_: condition::DELIVERY_REFUSED,
        status: Status::True,
        reason: "PodRefused",
        message: cut(message, MAX_MESSAGE),
    })
}

/// Pods that are refused now and were not before, with the reason.
pub(crate) fn newly_refused<'a>(
    old: &'a SealedEnvStatus,
    new: &'a SealedEnvStatus,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let before = |uid: &str| old.consumers.iter().find(|one| one.uid == uid)?.refused.as_deref();
    new.consumers.iter().filter_map(move |one| {
        let reason = one.refused.as_deref()?;
        (before(&one.uid) != Some(reason)).then_some((one.pod.as_str(), reason))
    })
}

/// Counts the pods of a status.
pub(crate) fn tally(status: &SealedEnvStatus) -> Tally {
    let mut tally = Tally::default();
    for consumer in &status.consumers {
        if consumer.refused.is_some() {
            tally.refused += 1;
        } else if consumer.digest == status.digest {
            tally.current += 1;
        } else {
            tally.outdated += 1;
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pod: &str, digest: &str) -> Seen {
        Seen { uid: format!("uid-{pod}"), pod: pod.to_owned(), told: Told::Holds(digest.to_owned()) }
    }

    fn refused(pod: &str, reason: &'static str) -> Seen {
        Seen { uid: format!("uid-{pod}"), pod: pod.to_owned(), told: Told::Refused(reason) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn with(seen: &[Seen], second: i64, old: &SealedEnvStatus) -> SealedEnvStatus {
        after(old, seen, &BTreeSet::new(), Some(3), at(second))
    }

    fn condition(status: &SealedEnvStatus) -> Option<String> {
        let found = status.conditions.iter().find(|one| one.type_ == "DeliveryRefused")?;
        Some(found.message.clone())
    }

    #[test]
    fn a_pod_is_told_once_with_the_time_when_it_got_what_it_has() {
        let seen = [holds("b", "one"), holds("a", "one")];
        let first = with(&seen, 10, &SealedEnvStatus::default());
        assert_eq!(first.consumers.iter().map(|one| &*one.pod).collect::<Vec<_>>(), ["a", "b"]);
        assert!(seen.iter().all(|one| one.is_told(Some(&first)) && !one.is_told(None)));
        assert_eq!(with(&seen, 20, &first), first, "nothing new");
        let second = with(&[holds("a", "two")], 30, &first);
        assert_eq!(second.consumers[0].since, Some(Time(at(30))));
        assert_eq!(second.consumers[1].since, Some(Time(at(10))));
        assert!(!holds("a", "one").is_told(Some(&second)));
    }

    #[test]
    fn a_refused_pod_keeps_what_it_has_and_stands_in_a_condition() {
        let first = with(&[holds("a", "one"), holds("b", "one")], 10, &SealedEnvStatus::default());
        assert_eq!(condition(&first), None);
        let second = with(&[refused("a", "NotAllowed")], 20, &first);
        assert_eq!(
            (second.consumers[0].digest.as_deref(), second.consumers[0].since.clone()),
            (Some("one"), Some(Time(at(10))))
        );
        assert_eq!(
            condition(&second).as_deref(),
            Some("refused to pods, which keep what they have been given: a (NotAllowed)")
        );
        assert_eq!(newly_refused(&first, &second).collect::<Vec<_>>(), [("a", "NotAllowed")]);
        assert!(
            refused("a", "NotAllowed").is_told(Some(&second)) && !holds("a", "one").is_told(Some(&second))
        );
        let same = with(&[refused("a", "NotAllowed")], 30, &second);
        assert_eq!(same, second, "the condition's time too");
        assert_eq!(newly_refused(&second, &same).count(), 0);
        let other = with(&[refused("a", "TooLarge")], 40, &second);
        assert_eq!(newly_refused(&second, &other).collect::<Vec<_>>(), [("a", "TooLarge")]);
        let again = with(&[holds("a", "one")], 50, &other);
        assert_eq!(condition(&again), None);
        assert_eq!(again.consumers, first.consumers);
    }

    #[test]
    fn other_conditions_stay_and_many_pods_are_counted_not_listed() {
        let ready =
            Wanted { type_: "Ready", status: Status::True, reason: "Delivered", message: String::new() };
        let old = SealedEnvStatus {
            conditions: condition::merge(at(1), Some(3), &[], vec![ready]),
            ..SealedEnvStatus::default()
        };
        let seen: Vec<Seen> = (0..9).map(|i| refused(&format!("p{i}"), "TooLarge")).collect();
        let new = with(&seen, 2, &old);
        assert_eq!(new.conditions[0], old.conditions[0]);
        assert!(condition(&new).unwrap().ends_with("p4 (TooLarge) and 4 more"));
        assert_eq!(with(&[], 3, &new), new);
    }

    #[test]
    fn pods_that_are_gone_go_and_make_room() {
        let many: Vec<Seen> = (0..MOST).map(|i| holds(&format!("p{i:03}"), "one")).collect();
        let full = with(&many, 1, &SealedEnvStatus::default());
        assert_eq!(full.consumers.len(), MOST);
        let late = holds("late", "one");
        assert!(late.is_told(Some(&full)), "there is no room for it");
        assert_eq!(with(std::slice::from_ref(&late), 2, &full), full);
        let gone = BTreeSet::from(["uid-p007".to_owned()]);
        let next = after(&full, [&late], &gone, Some(3), at(3));
        assert_eq!(next.consumers.len(), MOST);
        assert!(next.consumers.iter().all(|one| one.pod != "p007") && late.is_told(Some(&next)));
    }

    #[test]
    fn pods_are_counted_by_what_they_have() {
        let seen = [holds("a", "new"), holds("b", "old"), refused("c", "Suspended"), holds("d", "new")];
        let status = SealedEnvStatus { digest: Some("new".into()), ..SealedEnvStatus::default() };
        let status = with(&seen, 1, &status);
        assert_eq!(tally(&status), Tally { current: 2, outdated: 1, refused: 1 });
    }
}
