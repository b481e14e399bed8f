//! The state of the SealedEnvs as metrics, read from the watch caches at each scrape.
//!
//! Nothing is kept beside the caches, so the series of an object end when the object does. Series of single objects
//! are bounded in number; those that are not ready come first. The counts by reason are always whole.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use sealedenv_crds::SealedEnvStatus;
use sealedenv_crds::condition::{READY, Status};

use crate::known::Known;
use crate::reason::Reason;

/// Watch caches to look into. Clones share them.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    stores: Vec<Store<Known>>,
    limit: usize,
}

/// What a status says of its object, as far as metrics tell it. Kept of every object in place of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    ready: Status,
    reason: &'static str,
    last_success: Option<Timestamp>,
}

impl Verdict {
    /// Reads a status.
    pub fn of(status: &SealedEnvStatus) -> Self {
        let condition = status.conditions.iter().find(|condition| condition.type_ == READY);
        let ready = match condition.map(|condition| condition.status.as_str()) {
            Some("True") => Status::True,
            Some("False") => Status::False,
            _ => Status::Unknown,
        };
        // Who may write a status could write any text there; it must not become a series.
        let reason = condition
            .map_or("New", |condition| Reason::of(&condition.reason).map_or("Other", Reason::as_str));
        let last_success =
            status.keys.iter().filter_map(|key| key.last_good_at.as_ref()).map(|at| at.0).max();
        Self { ready, reason, last_success }
    }
}

/// What is told of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    namespace: String,
    name: String,
    verdict: Verdict,
}

impl State {
    fn of(known: &Known) -> Self {
        Self {
            namespace: known.namespace().to_owned(),
            name: known.name().to_owned(),
            verdict: known.verdict.clone(),
        }
    }

    /// Suspended objects say nothing of whether they are as they should be.
    fn is_suspended(&self) -> bool {
        self.verdict.reason == Reason::Suspended.as_str()
    }
}

/// The states as they are told: whole counts, and single objects up to a limit.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    counts: BTreeMap<(&'static str, &'static str), i64>,
    single: Vec<State>,
    left_out: usize,
}

fn shown(states: impl Iterator<Item = State>, limit: usize) -> Shown {
    let mut counts = BTreeMap::new();
    let mut single = Vec::new();
    for state in states {
        *counts.entry((state.verdict.ready.as_str(), state.verdict.reason)).or_default() += 1;
        if limit > 0 {
            single.push(state);
        }
    }
    let left_out = single.len().saturating_sub(limit);
    if left_out > 0 {
        // The same ones at each scrape, as long as they stay as they are.
        let order = |state: &State| {
            (state.verdict.ready == Status::True, state.namespace.clone(), state.name.clone())
        };
        single.select_nth_unstable_by_key(limit, order);
        single.truncate(limit);
    }
    Shown { counts, single, left_out }
}

impl Objects {
    /// Looks into this cache, too.
    pub fn add(&self, store: Store<Known>) {
        self.lock().stores.push(store);
    }

    /// Tells of at most so many single objects; of none where it is 0.
    pub fn limit(&self, limit: usize) {
        self.lock().limit = limit;
    }

    fn shown(&self) -> Shown {
        let (stores, limit) = {
            let inner = self.lock();
            (inner.stores.clone(), inner.limit)
        };
        shown(stores.iter().flat_map(Store::state).map(|known| State::of(&known)), limit)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Shown { counts, single, left_out } = self.shown();
        if !counts.is_empty() {
            let mut metric = encoder.encode_descriptor(
                "sealedenvs",
                "SealedEnvs by status and reason of their condition Ready.",
                None,
                MetricType::Gauge,
            )?;
            for ((ready, reason), count) in counts {
                let labels = [("ready", ready), ("reason", reason)];
                ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let labels = |state: &State| {
            [("object_namespace", state.namespace.clone()), ("object_name", state.name.clone())]
        };
        if single.iter().any(|state| !state.is_suspended()) {
            let mut metric = encoder.encode_descriptor(
                "object_ready",
                "1 where a SealedEnv is Ready, else 0; absent where it is suspended.",
                None,
                MetricType::Gauge,
            )?;
            for state in single.iter().filter(|state| !state.is_suspended()) {
                let ready = i64::from(state.verdict.ready == Status::True);
                ConstGauge::new(ready).encode(metric.encode_family(&labels(state))?)?;
            }
        }
        if single.iter().any(|state| state.verdict.last_success.is_some()) {
            let mut metric = encoder.encode_descriptor(
                "object_last_success_timestamp",
                "When a value of a SealedEnv was last opened and delivered.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            for (state, at) in single.iter().filter_map(|state| Some((state, state.verdict.last_success?))) {
                ConstGauge::new(at.as_second()).encode(metric.encode_family(&labels(state))?)?;
            }
        }
        let metric = encoder.encode_descriptor(
            "objects_without_series",
            "SealedEnvs beyond the limit of object series; the counts by reason include them.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(left_out).unwrap_or(i64::MAX)).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use prometheus_client::registry::Registry;
    use sealedenv_crds::{SealedEnv, SealedEnvSpec, SealedEnvStatus};

    fn known(name: &str, ready: &str, reason: &str) -> Known {
        let mut env = SealedEnv::new(name, SealedEnvSpec::default());
        env.metadata.namespace = Some("shop".into());
        let condition = Condition {
            type_: READY.into(),
            status: ready.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        env.status = Some(SealedEnvStatus { conditions: vec![condition], ..SealedEnvStatus::default() });
        Known::strip(env).0
    }

    fn text(objects: &Objects) -> String {
        let mut registry = Registry::with_prefix("x");
        registry.register_collector(Box::new(objects.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_of_a_deleted_object_vanish() {
        let mut writer = Writer::<Known>::default();
        let objects = Objects::default();
        objects.add(writer.as_reader());
        objects.limit(10);
        writer.apply_watcher_event(&Event::Apply(known("a", "True", "Delivered")));
        writer.apply_watcher_event(&Event::Apply(known("b", "False", "NothingOpened")));
        let both = text(&objects);
        for line in [
            r#"x_sealedenvs{ready="True",reason="Delivered"} 1"#,
            r#"x_sealedenvs{ready="False",reason="NothingOpened"} 1"#,
            r#"x_object_ready{object_namespace="shop",object_name="a"} 1"#,
            r#"x_object_ready{object_namespace="shop",object_name="b"} 0"#,
            "x_objects_without_series 0",
        ] {
            assert!(both.contains(line), "{line} is missing from:\n{both}");
        }
        writer.apply_watcher_event(&Event::Delete(known("b", "False", "NothingOpened")));
        let one = text(&objects);
        assert!(one.contains("object_name=\"a\"") && !one.contains("object_name=\"b\""), "{one}");
        assert!(!one.contains("NothingOpened"), "{one}");
        writer.apply_watcher_event(&Event::Delete(known("a", "True", "Delivered")));
        assert_eq!(text(&objects).lines().count(), 4, "{}", text(&objects));
    }

    #[test]
    fn single_objects_are_bounded_those_not_ready_first_and_can_be_switched_off() {
        let all = || {
            (0..100).map(|i| {
                let (ready, reason) = if i % 10 == 7 { ("False", "TooLarge") } else { ("True", "Delivered") };
                State::of(&known(&format!("env-{i:02}"), ready, reason))
            })
        };
        let bounded = shown(all(), 12);
        assert_eq!((bounded.single.len(), bounded.left_out), (12, 88));
        assert_eq!(bounded.single.iter().filter(|s| s.verdict.ready == Status::False).count(), 10);
        let mut good: Vec<_> =
            bounded.single.iter().filter(|s| s.verdict.ready == Status::True).map(|s| &*s.name).collect();
        good.sort_unstable();
        assert_eq!(good, ["env-00", "env-01"], "the same at each scrape");
        assert_eq!(bounded.counts[&("True", "Delivered")], 90);
        let off = shown(all(), 0);
        assert_eq!((off.single.len(), off.left_out, off.counts[&("False", "TooLarge")]), (0, 0, 10));
        assert_eq!(shown(all(), 100).left_out, 0);
    }

    #[test]
    fn what_somebody_writes_into_a_status_makes_no_series() {
        let foreign = State::of(&known("a", "Perhaps", "canary"));
        assert_eq!((foreign.verdict.ready, foreign.verdict.reason), (Status::Unknown, "Other"));
        let new = State::of(&Known::strip(SealedEnv::new("a", SealedEnvSpec::default())).0);
        assert_eq!(
            (new.verdict.ready, new.verdict.reason, new.verdict.last_success),
            (Status::Unknown, "New", None)
        );
    }

    #[test]
    fn a_suspended_object_is_counted_and_not_called_unready() {
        let mut writer = Writer::<Known>::default();
        let objects = Objects::default();
        objects.add(writer.as_reader());
        objects.limit(10);
        writer.apply_watcher_event(&Event::Apply(known("a", "Unknown", "Suspended")));
        let text = text(&objects);
        assert!(text.contains(r#"x_sealedenvs{ready="Unknown",reason="Suspended"} 1"#), "{text}");
        assert!(!text.contains("object_ready"), "{text}");
    }
}
