//! Watches and workers: what happens in the cluster becomes a queue of SealedEnvs to reconcile.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use futures::{FutureExt as _, future};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use sealedenv_audit::{Action as AuditAction, Outcome};
use sealedenv_crds::{SealedEnvStatus, names};
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::arrival::Arrival;
use crate::departed::Departed;
use crate::known::Known;
use crate::leader::Role;
use crate::plan;
use crate::queue::{Queue, Why};
use crate::reconcile::{Context, ReconcileError, forget, reconcile, retry};
use crate::secrets::Id;
use crate::trace;
use crate::undecodable::{Broken, Undecodable};
use crate::watching::watch;

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All.
    Cluster,
    /// One.
    Namespace(String),
}

impl Extent {
    /// Whether a namespace is in it.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(own) => own == namespace,
        }
    }

    /// The API of a namespaced kind within it.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// Opens a gate when every controller has seen what was there at start.
#[derive(Clone)]
pub struct Synced(Arc<(AtomicUsize, Gate)>);

impl Synced {
    /// A gate for that many controllers.
    pub fn new(controllers: usize, gate: Gate) -> Self {
        Self(Arc::new((AtomicUsize::new(controllers), gate)))
    }

    fn one_more(&self) {
        let (left, gate) = &*self.0;
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            gate.set(true);
        }
    }
}

/// Objects to look at, and why.
type Requests = Pin<Box<dyn Stream<Item = (ObjectRef<Known>, Why)> + Send>>;

/// Runs the controller of one extent until shutdown; then finishes what it has begun.
///
/// `synced` is told when every object that was there at start has been seen.
pub async fn run(ctx: Arc<Context>, extent: Extent, workers: u16, synced: Synced, shutdown: Shutdown) {
    let (secrets_ready, secrets_listed) = futures::channel::oneshot::channel();
    let secrets = secret_requests(&ctx, &extent, secrets_ready);
    let departed = Departed::new(ctx.trail.clone(), ctx.leadership.clone());
    let (store, envs) = env_requests(&ctx, &extent, departed.clone(), synced);
    ctx.metrics.objects.add(store.clone());
    let keys = key_requests(&ctx, store.clone());
    let term = term_requests(&ctx, departed, store.clone());
    let queue = ctx.metrics.queues.open();

    let mut sources = JoinSet::new();
    for source in [secrets, envs, keys, term] {
        sources.spawn(ask(source, queue.clone(), shutdown.clone()));
    }
    // A worker that knows no Secrets would take each of them for deleted: wait for the first list.
    let listed = async {
        // The sender is gone only at shutdown.
        let _ = secrets_listed.await;
    };
    tokio::select! {
        () = listed => {}
        () = shutdown.triggered() => {}
    }
    let work = move |reference: ObjectRef<Known>| {
        let (ctx, store) = (Arc::clone(&ctx), store.clone());
        async move { look(&ctx, &store, &reference).await }
    };
    queue.run(workers, &shutdown, work).await;
    sources.join_all().await;
}

/// Puts into the queue what a source asks for.
async fn ask(mut requests: Requests, queue: Queue, shutdown: Shutdown) {
    let asking = async {
        while let Some((reference, why)) = requests.next().await {
            queue.add(reference, why);
        }
    };
    tokio::select! {
        biased;
        () = shutdown.triggered() => {}
        () = asking => {}
    }
}

/// A look at one object. Says when to look again without being asked.
async fn look(ctx: &Arc<Context>, store: &Store<Known>, reference: &ObjectRef<Known>) -> Option<Duration> {
    // Somebody asked for an object that is gone by now, which is no failure: a Secret often outlives its SealedEnv for
    // a moment.
    let known = store.get(reference)?;
    // A standby does nothing. What it passes over here comes again when it leads.
    if !ctx.leadership.leads() {
        return None;
    }
    let span = trace::span(&known);
    // A panic ends this one object's look only. What it held is behind locks that do without their poison.
    let done = AssertUnwindSafe(reconcile(Arc::clone(&known), Arc::clone(ctx)))
        .catch_unwind()
        .instrument(span.clone())
        .await
        .unwrap_or(Err(ReconcileError::Panicked));
    // Within the span, so that the log line has the same id.
    done.unwrap_or_else(|error| span.in_scope(|| retry(&known, &error, ctx)))
}

/// Secrets by their metadata: each change concerns the SealedEnv that the Secret names.
fn secret_requests(
    ctx: &Arc<Context>,
    extent: &Extent,
    ready: futures::channel::oneshot::Sender<()>,
) -> Requests {
    let config =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGED_BY_VALUE));
    let events = watch(extent.api::<PartialObjectMeta<Secret>>(&ctx.client), config);
    let (ctx, extent, mut ready) = (Arc::clone(ctx), extent.clone(), Some(ready));
    let requests = events.flat_map(move |event| {
        let concerned = match event {
            Ok(event) => {
                let done = matches!(event, Event::InitDone);
                let concerned = ctx.secrets.observe(&extent, event);
                if done && let Some(ready) = ready.take() {
                    // The receiver is gone only at shutdown.
                    let _ = ready.send(());
                }
                concerned
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the watch of Secrets is interrupted");
                Vec::new()
            }
        };
        let change = |(namespace, name): Id| (ObjectRef::new(&name).within(&namespace), Why::Change);
        stream::iter(concerned.into_iter().map(change))
    });
    Box::pin(requests)
}

/// SealedEnvs: stripped of their values into the store, and each change is a request.
fn env_requests(
    ctx: &Arc<Context>,
    extent: &Extent,
    departed: Departed,
    synced: Synced,
) -> (Store<Known>, Requests) {
    let writer = Writer::<Known>::default();
    let store = writer.as_reader();
    let api: Api<Arrival> = extent.api(&ctx.client);
    let events = watch(api, watcher::Config::default().page_size(100));
    let undecodable = Undecodable::start(Arc::clone(ctx));
    let intake = Intake {
        undecodable,
        broken: Broken::default(),
        departed,
        ctx: Arc::clone(ctx),
        writer,
        listed: Vec::new(),
        listing: 0,
        extent: extent.clone(),
        synced: Some(synced),
    };
    let requests = events
        .scan(intake, |intake, event| future::ready(Some(intake.take(event))))
        .flat_map(|(references, why)| stream::iter(references.into_iter().map(move |r| (r, why))));
    (store, Box::pin(requests))
}

/// Takes watch events into the store.
struct Intake {
    ctx: Arc<Context>,
    writer: Writer<Known>,
    undecodable: Undecodable,
    departed: Departed,
    /// What the list that is coming in has shown so far.
    listed: Vec<ObjectRef<Known>>,
    /// Where that list stands among our own writes.
    listing: u64,
    extent: Extent,
    broken: Broken,
    synced: Option<Synced>,
}

impl Intake {
    /// Takes an event. Returns the objects to look at.
    fn take(&mut self, event: Result<Event<Arrival>, watcher::Error>) -> (Vec<ObjectRef<Known>>, Why) {
        let why = if matches!(event, Ok(Event::InitDone)) { Why::Routine } else { Why::Change };
        (self.seen(event), why)
    }

    fn seen(&mut self, event: Result<Event<Arrival>, watcher::Error>) -> Vec<ObjectRef<Known>> {
        match event {
            Err(error) => {
                tracing::warn!(error = chain(&error), "the watch of SealedEnvs is interrupted");
                Vec::new()
            }
            Ok(Event::Init) => {
                self.listed.clear();
                self.listing = self.ctx.written.begin();
                self.broken.relist();
                self.writer.apply_watcher_event(&Event::Init);
                Vec::new()
            }
            Ok(Event::InitApply(env)) => {
                let reference = ObjectRef::new(&env.name_any()).within(&env.namespace().unwrap_or_default());
                if let Some(known) = self.strip(env) {
                    self.writer.apply_watcher_event(&Event::InitApply(known));
                } else {
                    self.broken.listed(reference.clone());
                    forget(&self.ctx, &reference);
                }
                self.listed.push(reference);
                Vec::new()
            }
            Ok(Event::InitDone) => self.listed(),
            Ok(Event::Apply(env)) => {
                let reference = ObjectRef::new(&env.name_any()).within(&env.namespace().unwrap_or_default());
                let Some(known) = self.strip(env) else {
                    self.remove(&reference);
                    self.ctx.metrics.undecodable(self.broken.is(reference, true));
                    return Vec::new();
                };
                self.ctx.metrics.undecodable(self.broken.is(reference.clone(), false));
                self.writer.apply_watcher_event(&Event::Apply(known));
                vec![reference]
            }
            Ok(Event::Delete(env)) => {
                let reference = ObjectRef::new(&env.name_any()).within(&env.namespace().unwrap_or_default());
                self.deleted(&reference);
                self.remove(&reference);
                self.ctx.metrics.undecodable(self.broken.is(reference, false));
                Vec::new()
            }
        }
    }

    /// A list is complete. Only now the store has what it showed, so only now can it be looked at. What is in the
    /// store and not in the list was deleted while the watch was broken.
    fn listed(&mut self) -> Vec<ObjectRef<Known>> {
        let listed = std::mem::take(&mut self.listed);
        let there: HashSet<&ObjectRef<Known>> = listed.iter().collect();
        for known in self.writer.as_reader().state() {
            let reference = known.reference();
            if !there.contains(&reference) {
                self.deleted(&reference);
                forget(&self.ctx, &reference);
            }
        }
        self.ctx.written.listed(self.listing, |namespace| self.extent.has(namespace));
        self.writer.apply_watcher_event(&Event::InitDone);
        self.ctx.metrics.undecodable(self.broken.relisted());
        if let Some(synced) = self.synced.take() {
            synced.one_more();
        }
        listed
    }

    fn strip(&self, env: Arrival) -> Option<Known> {
        match env.0 {
            Ok(env) => {
                self.ctx.book.listed(&env);
                let (known, values) = Known::strip(env);
                // What was dealt with needs no values unless something else changed; then it is read.
                if known.is_handled() {
                    self.ctx.waiting.forget(&known.reference());
                } else {
                    self.ctx.waiting.keep(&known, values);
                }
                Some(known)
            }
            Err(metadata) => {
                self.undecodable.report(*metadata);
                None
            }
        }
    }

    fn remove(&mut self, reference: &ObjectRef<Known>) {
        if let Some(known) = self.writer.as_reader().get(reference) {
            self.writer.apply_watcher_event(&Event::Delete(Known::clone(&known)));
        }
        forget(&self.ctx, reference);
    }

    /// Sees to it that a deletion gets on record.
    fn deleted(&self, reference: &ObjectRef<Known>) {
        let Some(known) = self.writer.as_reader().get(reference) else { return };
        let handled = self.ctx.written.handled(&known);
        if !handled.has_secret() {
            return;
        }
        let none = SealedEnvStatus::default();
        let record = plan::record(&known.subject(known.spec(), &none), AuditAction::Delete, Outcome::Ok)
            .keys(handled.keys())
            .digests(handled.digest().and_then(|digest| digest.parse().ok()), None)
            .reason(match known.spec().deletion_policy {
                sealedenv_crds::DeletionPolicy::Delete => "Deleted",
                sealedenv_crds::DeletionPolicy::Retain => "Retained",
            });
        self.departed.take(record);
    }
}

/// Other keys: another look at every object with a value that did not open.
fn key_requests(ctx: &Arc<Context>, store: Store<Known>) -> Requests {
    let changes = stream::unfold(ctx.keys.subscribe(), |mut changes| async move {
        changes.changed().await.ok().map(|()| ((), changes))
    });
    let ctx = Arc::clone(ctx);
    let requests = changes.flat_map(move |()| {
        // A standby looks when it leads.
        let known = if ctx.leadership.leads() { store.state() } else { Vec::new() };
        let again: Vec<_> = (known.iter())
            .filter(|known| ctx.written.handled(known).has_unopened())
            .map(|known| known.reference())
            .collect();
        if !again.is_empty() {
            tracing::info!(objects = again.len(), "keys changed; looking again at values that did not open");
        }
        stream::iter(again.into_iter().map(|reference| (reference, Why::Routine)))
    });
    Box::pin(requests)
}

/// This replica leads from now on: a look at every object. What the former leader finished costs no request.
fn term_requests(ctx: &Arc<Context>, departed: Departed, store: Store<Known>) -> Requests {
    let mut roles = ctx.leadership.roles();
    roles.mark_changed();
    let terms = stream::unfold(roles, |mut roles| async move {
        roles.changed().await.ok()?;
        let role = *roles.borrow_and_update();
        Some((role, roles))
    });
    let requests = terms.flat_map(move |role| {
        let all = if matches!(role, Role::Leader(_)) {
            departed.lead();
            store.state()
        } else {
            Vec::new()
        };
        stream::iter(all.into_iter().map(|known| (known.reference(), Why::Routine)))
    });
    Box::pin(requests)
}
