//! The Secrets of interest by their metadata: no Secret data is ever cached.
//!
//! Two things feed it: the watch, and the operator's own writes. A write is remembered until the watch has caught
//! up with it, so that the operator never takes its own work for a change by somebody else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt as _};
use sealedenv_crds::names;

use crate::controller::Extent;
use crate::plan::{Ownership, SecretFacts};

/// Namespace and name.
pub type Id = (String, String);

/// What is kept of a Secret's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// The SealedEnv that its annotation names.
    pub owner: Option<String>,
    /// UID of the SealedEnv that its controller reference names.
    pub owner_uid: Option<String>,
    /// Whether it has our label.
    pub managed: bool,
    /// Whether its owner hands it over.
    pub adoptable: bool,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
}

/// Index of Secrets, shared by watch and workers.
#[derive(Default)]
pub struct Secrets(Mutex<State>);

#[derive(Default)]
struct State {
    seen: HashMap<Id, Seen>,
    /// Lists that are coming in.
    relisted: HashMap<Extent, Relisted>,
    /// Our own writes that the watch has not shown yet, with the count of relists at that time.
    written: HashMap<Id, (Seen, u64)>,
    relists: u64,
    /// The latest version that each watch has shown since its list began. It shows them in their order, so nothing that
    /// it watches and that is no later can be news.
    shown: HashMap<Extent, String>,
}

impl State {
    fn show(&mut self, extent: &Extent, version: &str) {
        match self.shown.get_mut(extent) {
            None => drop(self.shown.insert(extent.clone(), version.to_owned())),
            Some(shown) if later(version, shown) => version.clone_into(shown),
            Some(_) => {}
        }
    }

    /// Whether the watch has shown a Secret as it is there, or what came after it.
    fn is_shown(&self, namespace: &str, seen: &Seen) -> bool {
        let is_past = |shown: &str| shown == seen.resource_version || later(shown, &seen.resource_version);
        seen.managed && self.shown.iter().any(|(extent, shown)| extent.has(namespace) && is_past(shown))
    }
}

/// What a list has shown so far, and the count of relists when it was begun.
#[derive(Default)]
struct Relisted {
    seen: HashMap<Id, Seen>,
    begun: u64,
}

impl Seen {
    /// Reads the metadata of a Secret.
    pub fn of(meta: &kube::api::ObjectMeta) -> Self {
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|a| a.get(name)).cloned();
        let controller = meta.owner_references.iter().flatten().find(|o| {
            o.controller == Some(true) && o.kind == "SealedEnv" && o.api_version.starts_with(names::GROUP)
        });
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owner: annotation(names::OWNER),
            owner_uid: controller.map(|o| o.uid.clone()),
            managed: meta.labels.as_ref().and_then(|l| l.get(names::MANAGED_BY)).map(String::as_str)
                == Some(names::MANAGED_BY_VALUE),
            adoptable: annotation(names::ADOPT).as_deref() == Some("true"),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// Whose the Secret is, seen from the SealedEnv of that name and UID in its namespace.
    ///
    /// A controller reference to that very UID decides alone: who removes our label or annotation by hand does not
    /// turn our Secret into somebody else's.
    pub fn ownership(&self, env: &str, env_uid: &str) -> Ownership {
        if self.owner_uid.as_deref() == Some(env_uid) {
            return Ownership::Ours;
        }
        match (self.managed, self.owner.as_deref()) {
            (true, Some(owner)) if owner == env => Ownership::Ours,
            (true, Some(owner)) => Ownership::Another(owner.to_owned()),
            _ => Ownership::Foreign { adoptable: self.adoptable },
        }
    }

    /// The facts a plan wants.
    pub fn facts(&self, env: &str, env_uid: &str) -> SecretFacts {
        SecretFacts {
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            ownership: self.ownership(env, env_uid),
            deleting: self.deleting,
            live: None,
        }
    }
}

/// Whether `a` is a later resourceVersion than `b`. They are numbers of one counter on every API server there is;
/// where they are not, nothing is later.
pub(crate) fn later(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a > b)
}

impl Secrets {
    /// What is known of a Secret: what the watch showed, or our own later write.
    pub fn get(&self, id: &Id) -> Option<Seen> {
        let state = self.lock();
        let seen = state.seen.get(id);
        match state.written.get(id) {
            Some((written, _))
                if seen.is_none_or(|s| later(&written.resource_version, &s.resource_version)) =>
            {
                Some(written.clone())
            }
            _ => seen.cloned(),
        }
    }

    /// Notes our own write, or what a read showed: both can be ahead of the watch.
    pub fn wrote(&self, id: Id, seen: Seen) {
        let mut state = self.lock();
        // Or it could hide for good that the Secret was deleted meanwhile.
        if state.is_shown(&id.0, &seen) {
            return;
        }
        let relists = state.relists;
        state.written.insert(id, (seen, relists));
    }

    /// Notes that a Secret is gone, as a read or our own deletion showed.
    pub fn gone(&self, id: &Id) {
        let mut state = self.lock();
        state.written.remove(id);
        state.seen.remove(id);
    }

    /// Takes an event of the watch of one extent: a list of it says nothing about others. Returns the SealedEnvs, by
    /// namespace and name, that it concerns.
    pub fn observe(&self, extent: &Extent, event: Event<PartialObjectMeta<Secret>>) -> Vec<Id> {
        let mut state = self.lock();
        let state = &mut *state;
        match event {
            Event::Init => {
                state.relists += 1;
                let list = Relisted { begun: state.relists, ..Relisted::default() };
                state.relisted.insert(extent.clone(), list);
                state.shown.remove(extent);
                Vec::new()
            }
            Event::InitApply(secret) => {
                let (id, seen) = entry(&secret);
                state.relisted.entry(extent.clone()).or_default().seen.insert(id, seen);
                Vec::new()
            }
            Event::InitDone => {
                let fresh = state.relisted.remove(extent).unwrap_or_default();
                let old: HashMap<Id, Seen> =
                    state.seen.extract_if(|(namespace, _), _| extent.has(namespace)).collect();
                // The list was read after these writes: what it does not show is gone.
                state.written.retain(|(namespace, _), (_, at)| *at >= fresh.begun || !extent.has(namespace));
                let mut changed = Vec::new();
                for (id, seen) in &fresh.seen {
                    if old.get(id) != Some(seen) {
                        changed.extend(concerned(id, Some(seen)));
                    }
                }
                for (id, seen) in &old {
                    if !fresh.seen.contains_key(id) {
                        changed.extend(concerned(id, Some(seen)));
                    }
                }
                state.seen.extend(fresh.seen);
                changed
            }
            Event::Apply(secret) => {
                let (id, seen) = entry(&secret);
                state.show(extent, &seen.resource_version);
                if state
                    .written
                    .get(&id)
                    .is_some_and(|(w, _)| !later(&w.resource_version, &seen.resource_version))
                {
                    state.written.remove(&id);
                }
                let concerned = concerned(&id, Some(&seen));
                state.seen.insert(id, seen);
                concerned.into_iter().collect()
            }
            Event::Delete(secret) => {
                let (id, seen) = entry(&secret);
                state.show(extent, &seen.resource_version);
                if state
                    .written
                    .get(&id)
                    .is_some_and(|(w, _)| !later(&w.resource_version, &seen.resource_version))
                {
                    state.written.remove(&id);
                }
                let before = state.seen.remove(&id);
                concerned(&id, before.as_ref().or(Some(&seen))).into_iter().collect()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(secret: &PartialObjectMeta<Secret>) -> (Id, Seen) {
    ((secret.namespace().unwrap_or_default(), secret.name_any()), Seen::of(secret.meta()))
}

fn concerned(id: &Id, seen: Option<&Seen>) -> Option<Id> {
    let owner = seen?.owner.clone()?;
    Some((id.0.clone(), owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::{ObjectMeta, PartialObjectMetaExt as _};

    fn secret(rv: &str) -> PartialObjectMeta<Secret> {
        ObjectMeta {
            namespace: Some("shop".into()),
            name: Some("s".into()),
            uid: Some("u1".into()),
            resource_version: Some(rv.into()),
            labels: Some([(names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into())].into()),
            annotations: Some([(names::OWNER.into(), "checkout".into())].into()),
            ..ObjectMeta::default()
        }
        .into_response_partial()
    }

    fn id() -> Id {
        ("shop".into(), "s".into())
    }

    fn version(secrets: &Secrets) -> Option<String> {
        secrets.get(&id()).map(|s| s.resource_version)
    }

    #[test]
    fn our_own_write_is_not_undone_by_a_late_event() {
        let secrets = Secrets::default();
        secrets.wrote(id(), Seen::of(secret("12").meta()));
        assert_eq!(version(&secrets).as_deref(), Some("12"), "before the watch shows it");
        secrets.observe(&Extent::Cluster, Event::Apply(secret("9")));
        assert_eq!(version(&secrets).as_deref(), Some("12"), "an older event changes nothing");
        secrets.observe(&Extent::Cluster, Event::Apply(secret("12")));
        secrets.observe(&Extent::Cluster, Event::Apply(secret("13")));
        assert_eq!(version(&secrets).as_deref(), Some("13"), "a later edit is seen");
        secrets.observe(&Extent::Cluster, Event::Delete(secret("14")));
        assert_eq!(version(&secrets), None);
    }

    #[test]
    fn a_write_that_is_noted_after_its_deletion_was_shown_brings_nothing_back() {
        let secrets = Secrets::default();
        secrets.observe(&Extent::Cluster, Event::Apply(secret("12")));
        secrets.observe(&Extent::Cluster, Event::Delete(secret("13")));
        secrets.wrote(id(), Seen::of(secret("12").meta()));
        assert_eq!(version(&secrets), None);
        secrets.wrote(id(), Seen::of(secret("14").meta()));
        assert_eq!(version(&secrets).as_deref(), Some("14"), "written again");
        // After a list, versions may be those of an older state of etcd.
        secrets.observe(&Extent::Cluster, Event::Init);
        secrets.observe(&Extent::Cluster, Event::InitDone);
        secrets.wrote(id(), Seen::of(secret("7").meta()));
        assert_eq!(version(&secrets).as_deref(), Some("7"));
        // One that is not ours is not watched: what a read shows counts.
        secrets.observe(&Extent::Cluster, Event::Apply(secret("20")));
        let foreign = Seen { managed: false, ..Seen::of(secret("15").meta()) };
        secrets.wrote(("shop".into(), "other".into()), foreign);
        assert!(secrets.get(&("shop".into(), "other".into())).is_some());
    }

    #[test]
    fn a_late_deletion_of_the_former_secret_does_not_hide_the_new_one() {
        let secrets = Secrets::default();
        secrets.observe(&Extent::Cluster, Event::Apply(secret("5")));
        secrets.wrote(id(), Seen { uid: "u2".into(), ..Seen::of(secret("8").meta()) });
        secrets.observe(&Extent::Cluster, Event::Delete(secret("6")));
        assert_eq!(version(&secrets).as_deref(), Some("8"));
    }

    #[test]
    fn a_relist_forgets_what_is_gone_and_names_whom_it_concerns() {
        let secrets = Secrets::default();
        secrets.wrote(id(), Seen::of(secret("12").meta()));
        let concerned: Vec<Id> = [Event::Init, Event::InitDone]
            .into_iter()
            .flat_map(|e| secrets.observe(&Extent::Cluster, e))
            .collect();
        assert!(concerned.is_empty());
        assert_eq!(version(&secrets), None, "deleted while the watch was down");

        let concerned: Vec<Id> = [Event::Init, Event::InitApply(secret("12")), Event::InitDone]
            .into_iter()
            .flat_map(|e| secrets.observe(&Extent::Cluster, e))
            .collect();
        assert_eq!(concerned, [("shop".to_owned(), "checkout".to_owned())]);
        assert_eq!(version(&secrets).as_deref(), Some("12"));
    }

    #[test]
    fn a_list_of_one_namespace_hides_nothing_of_another() {
        let secrets = Secrets::default();
        let (shop, other) = (Extent::Namespace("shop".into()), Extent::Namespace("other".into()));
        secrets.observe(&shop, Event::Init);
        secrets.observe(&shop, Event::InitApply(secret("12")));
        secrets.observe(&other, Event::Init);
        secrets.observe(&shop, Event::InitDone);
        assert_eq!(version(&secrets).as_deref(), Some("12"), "the lists came at the same time");
        secrets.wrote(id(), Seen::of(secret("15").meta()));
        secrets.observe(&other, Event::InitDone);
        secrets.observe(&other, Event::Init);
        assert!(secrets.observe(&other, Event::InitDone).is_empty());
        assert_eq!(version(&secrets).as_deref(), Some("15"));
    }

    #[test]
    fn ownership_follows_uid_first_then_label_and_name() {
        let seen = Seen::of(secret("1").meta());
        assert_eq!(seen.ownership("checkout", "x"), Ownership::Ours);
        assert_eq!(seen.ownership("billing", "x"), Ownership::Another("checkout".into()));
        let stripped = Seen { managed: false, owner: None, owner_uid: Some("env".into()), ..seen.clone() };
        assert_eq!(stripped.ownership("checkout", "env"), Ownership::Ours);
        assert_eq!(stripped.ownership("checkout", "other"), Ownership::Foreign { adoptable: false });
        let unlabelled = Seen { managed: false, adoptable: true, ..seen };
        assert_eq!(unlabelled.ownership("checkout", "x"), Ownership::Foreign { adoptable: true });
    }
}
