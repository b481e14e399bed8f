//! What is kept of each SealedEnv: enough to see that there is nothing to do, and neither sealed data nor status.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use sealedenv_crds::{KeyMeta, RenderedFile, SealedEnv, SealedEnvSpec, SealedEnvStatus, names};

use crate::digest;
use crate::objects::Verdict;
use crate::plan::{Handled, Subject};

/// What most specs are without their values.
static DEFAULTS: LazyLock<SealedEnvSpec> = LazyLock::new(SealedEnvSpec::default);

/// A SealedEnv without its values. It stands in the watch cache in place of the object.
#[derive(Clone, Debug)]
pub struct Known {
    metadata: ObjectMeta,
    /// The spec without what is in [`Values`]; none where that leaves the defaults.
    spec: Option<Box<SealedEnvSpec>>,
    /// Fingerprint of the whole spec.
    pub input: String,
    /// What the status that it was seen with says has been done.
    pub handled: Handled,
    /// What that status says of the object, for metrics.
    pub verdict: Verdict,
}

impl Known {
    /// Strips an object. Returns the values and the status apart.
    pub fn strip(mut env: SealedEnv) -> (Self, Values) {
        let input = digest::input(&env.spec, None);
        let values = Values {
            data: std::mem::take(&mut env.spec.data),
            public: std::mem::take(&mut env.spec.public),
            meta: std::mem::take(&mut env.spec.meta),
            files: std::mem::take(&mut env.spec.files),
            status: env.status.unwrap_or_default(),
        };
        let requested = env.metadata.annotations.as_mut().and_then(|a| a.remove_entry(names::REQUESTED_AT));
        let metadata = ObjectMeta {
            name: env.metadata.name,
            namespace: env.metadata.namespace,
            uid: env.metadata.uid,
            resource_version: env.metadata.resource_version,
            generation: env.metadata.generation,
            deletion_timestamp: env.metadata.deletion_timestamp,
            annotations: requested.map(|entry| BTreeMap::from([entry])),
            ..ObjectMeta::default()
        };
        let (handled, verdict) = (Handled::of(&values.status), Verdict::of(&values.status));
        let spec = (env.spec != *DEFAULTS).then(|| Box::new(env.spec));
        (Self { metadata, spec, input, handled, verdict }, values)
    }

    /// The spec without `data`, `public`, `meta` and `files`.
    pub fn spec(&self) -> &SealedEnvSpec {
        self.spec.as_deref().unwrap_or(&DEFAULTS)
    }

    /// The subject of a plan; `spec` with or without the values.
    pub fn subject<'a>(&'a self, spec: &'a SealedEnvSpec, status: &'a SealedEnvStatus) -> Subject<'a> {
        Subject {
            namespace: self.namespace(),
            name: self.name(),
            uid: self.metadata.uid.as_deref().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            requested_at: (self.metadata.annotations.as_ref())
                .and_then(|a| a.get(names::REQUESTED_AT))
                .map(String::as_str),
            deleting: self.metadata.deletion_timestamp.is_some(),
            spec,
            input: &self.input,
            status,
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// A reference for the queue.
    pub fn reference(&self) -> ObjectRef<Self> {
        ObjectRef::new(self.name()).within(self.namespace())
    }

    /// Whether its status says that this very spec was handled, so that its values are hardly needed.
    pub fn is_handled(&self) -> bool {
        self.handled.is_of(self.metadata.generation, &self.input)
    }
}

impl Resource for Known {
    type DynamicType = ();
    type Scope = <SealedEnv as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        SealedEnv::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        SealedEnv::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        SealedEnv::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        SealedEnv::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What was stripped from an object: the values of its spec, sealed and public, its files, and its status.
#[derive(Clone, Debug, Default)]
pub struct Values {
    data: BTreeMap<String, String>,
    public: BTreeMap<String, String>,
    meta: BTreeMap<String, KeyMeta>,
    files: BTreeMap<String, RenderedFile>,
    status: SealedEnvStatus,
}

impl Values {
    /// Puts the values back into a spec, and gives the status.
    pub fn restore(self, spec: &SealedEnvSpec) -> (SealedEnvSpec, SealedEnvStatus) {
        let Self { data, public, meta, files, status } = self;
        (SealedEnvSpec { data, public, meta, files, ..spec.clone() }, status)
    }

    fn size(&self) -> usize {
        let values: usize = (self.data.iter().chain(&self.public)).map(|(k, v)| k.len() + v.len() + 64).sum();
        let files = self.files.iter().map(|(path, file)| {
            let keys: usize = file.keys.iter().flatten().map(|key| key.len() + 32).sum();
            path.len() + file.template.as_ref().map_or(0, String::len) + keys + 256
        });
        values + files.sum::<usize>() + self.status.keys.len() * 256
    }
}

/// Values that came with a watch event and wait for their turn, so that the object need not be read again.
///
/// Bounded: what does not fit is dropped, and read from the API server when its turn comes.
pub struct Waiting(Mutex<Held>);

struct Held {
    values: HashMap<ObjectRef<Known>, (String, Values, usize)>,
    free: usize,
}

impl Waiting {
    /// Holds at most that many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Mutex::new(Held { values: HashMap::new(), free: limit }))
    }

    /// Keeps the values of an object at a resourceVersion.
    pub fn keep(&self, known: &Known, values: Values) {
        let mut held = self.lock();
        let reference = known.reference();
        held.discard(&reference);
        let size = values.size();
        if let Some(free) = held.free.checked_sub(size) {
            held.free = free;
            let version = known.metadata.resource_version.clone().unwrap_or_default();
            held.values.insert(reference, (version, values, size));
        }
    }

    /// Takes the values of an object out, if they are of that very resourceVersion.
    pub fn take(&self, known: &Known) -> Option<Values> {
        let mut held = self.lock();
        let (version, values, size) = held.values.remove(&known.reference())?;
        held.free += size;
        (Some(version.as_str()) == known.metadata.resource_version.as_deref()).then_some(values)
    }

    /// Forgets the values of an object.
    pub fn forget(&self, reference: &ObjectRef<Known>) {
        self.lock().discard(reference);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn discard(&mut self, reference: &ObjectRef<Known>) {
        if let Some((.., size)) = self.values.remove(reference) {
            self.free += size;
        }
    }
}

/// The statuses the operator wrote, until the watch shows them: the next look at an object must not start from an
/// older one.
#[derive(Default)]
pub struct Written(Mutex<Stamps>);

#[derive(Default)]
struct Stamps {
    by_object: HashMap<ObjectRef<Known>, Arc<Stamp>>,
    /// Counts the lists that were begun.
    lists: u64,
}

/// A status that was written.
pub struct Stamp {
    uid: String,
    /// How many lists had been begun when it was written.
    lists: u64,
    resource_version: String,
    status: SealedEnvStatus,
}

impl Written {
    /// Notes a write and the resourceVersion that came of it.
    pub fn note(&self, known: &Known, resource_version: String, status: SealedEnvStatus) {
        let uid = known.metadata.uid.clone().unwrap_or_default();
        let mut stamps = self.lock();
        let lists = stamps.lists;
        let stamp = Stamp { uid, lists, resource_version, status };
        stamps.by_object.insert(known.reference(), Arc::new(stamp));
    }

    /// A list is about to be asked for. The answer is for [`Written::listed`].
    pub fn begin(&self) -> u64 {
        let mut stamps = self.lock();
        stamps.lists += 1;
        stamps.lists
    }

    /// The list that was begun at that point has come, whole. It shows all that was written before; where it shows
    /// something older, etcd was put back to an older state, and that state is the truth.
    pub fn listed(&self, begun: u64, covered: impl Fn(&str) -> bool) {
        let older = |reference: &ObjectRef<Known>, stamp: &Stamp| {
            stamp.lists < begun && reference.namespace.as_deref().is_some_and(&covered)
        };
        self.lock().by_object.retain(|reference, stamp| !older(reference, stamp));
    }

    /// The latest status of an object: the one it was seen with, or ours when that is later.
    pub fn latest(&self, known: &Known, seen: SealedEnvStatus) -> SealedEnvStatus {
        self.later(known).map_or(seen, |stamp| stamp.status.clone())
    }

    /// What the latest status says has been done.
    pub fn handled<'a>(&self, known: &'a Known) -> Cow<'a, Handled> {
        self.later(known)
            .map_or(Cow::Borrowed(&known.handled), |stamp| Cow::Owned(Handled::of(&stamp.status)))
    }

    /// What we wrote, if that is later than what was seen. Otherwise the watch has caught up, and it is forgotten.
    fn later(&self, known: &Known) -> Option<Arc<Stamp>> {
        let reference = known.reference();
        let written = &mut self.lock().by_object;
        let stamp = written.get(&reference)?;
        let seen = known.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
        let ours = stamp.resource_version.parse::<u64>().ok();
        let same_object = known.metadata.uid.as_deref() == Some(stamp.uid.as_str());
        if same_object && matches!((ours, seen), (Some(ours), Some(seen)) if ours > seen) {
            return Some(Arc::clone(stamp));
        }
        written.remove(&reference);
        None
    }

    /// Forgets an object.
    pub fn forget(&self, reference: &ObjectRef<Known>) {
        self.lock().by_object.remove(reference);
    }

    fn lock(&self) -> MutexGuard<'_, Stamps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(version: &str, value: &str) -> SealedEnv {
        let mut env = SealedEnv::new("checkout", SealedEnvSpec::default());
        env.metadata.namespace = Some("shop".into());
        env.metadata.uid = Some("u".into());
        env.metadata.resource_version = Some(version.into());
        env.spec.data.insert("A".into(), value.into());
        env
    }

    #[test]
    fn stripping_keeps_no_value_and_putting_back_restores_the_spec() {
        let mut whole = env("1", "sealed:v1:canary");
        let file = RenderedFile { template: Some("canary".into()), ..RenderedFile::default() };
        whole.spec.files.insert("f".into(), file);
        let (known, values) = Known::strip(whole.clone());
        assert!(!format!("{known:?}").contains("canary"));
        assert_eq!(known.input, digest::input(&whole.spec, None));
        assert_eq!(values.restore(known.spec()), (whole.spec, SealedEnvStatus::default()));
        let mut another = env("1", "x");
        another.spec.suspend = true;
        let (known, values) = Known::strip(another.clone());
        assert_eq!(values.restore(known.spec()).0, another.spec);
    }

    #[test]
    fn waiting_is_bounded_and_gives_out_only_the_version_asked_for() {
        let waiting = Waiting::new(200);
        let (first, values) = Known::strip(env("1", &"x".repeat(100)));
        waiting.keep(&first, values.clone());
        let (second, _) = Known::strip(env("2", "x"));
        assert!(waiting.take(&second).is_none(), "another version");
        waiting.keep(&first, values.clone());
        assert!(waiting.take(&first).is_some());
        assert!(waiting.take(&first).is_none(), "once");
        let (mut other, _) = Known::strip(env("3", "x"));
        other.metadata.name = Some("other".into());
        waiting.keep(&first, values.clone());
        waiting.keep(&other, values.clone());
        assert!(waiting.take(&other).is_none(), "no room");
        waiting.forget(&first.reference());
        waiting.keep(&other, values);
        assert!(waiting.take(&other).is_some(), "room again");
    }

    #[test]
    fn a_list_that_shows_something_older_than_our_write_is_believed() {
        let written = Written::default();
        let (known, _) = Known::strip(env("5", "x"));
        let ours = SealedEnvStatus { digest: Some("ours".into()), ..SealedEnvStatus::default() };
        written.note(&known, "90".into(), ours.clone());
        let begun = written.begin();
        written.listed(begun, |namespace| namespace == "elsewhere");
        assert_eq!(
            written.latest(&known, SealedEnvStatus::default()),
            ours,
            "the list was of another namespace"
        );
        written.listed(begun, |namespace| namespace == "shop");
        assert_eq!(
            written.latest(&known, SealedEnvStatus::default()),
            SealedEnvStatus::default(),
            "etcd was put back to an older state"
        );

        let begun = written.begin();
        written.note(&known, "91".into(), ours.clone());
        written.listed(begun, |_| true);
        assert_eq!(
            written.latest(&known, SealedEnvStatus::default()),
            ours,
            "written while the list was under way"
        );
    }

    #[test]
    fn the_later_status_wins() {
        let written = Written::default();
        let (known, _) = Known::strip(env("5", "x"));
        let ours = SealedEnvStatus { digest: Some("ours".into()), ..SealedEnvStatus::default() };
        written.note(&known, "7".into(), ours.clone());
        let seen = SealedEnvStatus::default;
        assert_eq!(written.latest(&known, seen()), ours);
        let mut later = known.clone();
        later.metadata.resource_version = Some("7".into());
        assert_eq!(written.latest(&later, seen()), seen(), "the watch has caught up");
        written.note(&known, "7".into(), ours);
        let mut recreated = known;
        recreated.metadata.uid = Some("u2".into());
        assert_eq!(written.latest(&recreated, seen()), seen());
    }
}
