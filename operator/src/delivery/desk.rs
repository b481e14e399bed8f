//! Answers one call: gathers facts, climbs the ladder, opens the values, has the release recorded, and gives them.
//!
//! Nothing is kept from one call to the next: no review, no pod, no value. What a call saw is good for `CALL`, on a clock
//! that goes on while a machine sleeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::OptionFuture;
use kube::Client;
use kube::api::Api;
use sealedenv_audit::{Action, Actor, ActorKind, KeyedDigest, ObjectRef, Outcome as Ended, Record};
use sealedenv_crds::{SealedEnv, SealedEnvSpec};
use sealedenv_delivery::server::{Call, Fetch, Refusal};
use sealedenv_delivery::{Answer, Content, Fetched, File, FilePath, Files, Outcome, Reason, Refused, Wanted};
use sealedenv_runtime::report::chain;
use sealedenv_seal::OpenPolicy;
use tokio::sync::{AcquireError, Semaphore};

use super::asking::Asking;
use super::ca::Bundle;
use super::consumers::{Seen, Told};
use super::gate::{Budget, Gate};
use super::ladder::{Claims, Facts, Ladder, Reviewed, Rung, Stage};
use super::metrics::Deliveries;
use super::refusals::Refusals;
use super::review::review;
use crate::arrival::Arrival;
use crate::controller::Extent;
use crate::files;
use crate::leader::clock::{Steady, Tick};
use crate::opened::{Opened, open_all};
use crate::plan::{self, memory};
use crate::reconcile::Context;
use crate::trail::NotRecorded;

/// Longest time for one question to the API server.
const READS: Duration = Duration::from_secs(2);

/// Longest time for a call. What the trail takes later than this is not released.
const CALL: Duration = Duration::from_secs(8);

/// The most values that are opened on the spot, and the most bytes of sealed text.
const QUICK: (usize, usize) = (32, 128 << 10);

/// When a pod should ask again.
const REFRESH: Duration = Duration::from_mins(1);

/// Calls of one address that are worked on, or whose answers are on their way. Others of it wait. More than one pod may
/// stand behind an address.
const EACH: usize = 8;

/// Calls of which nobody knows yet whose they are.
const STRANGERS: usize = 32;

/// Bytes of values in work and on their way. What opening them takes on top is some times as much.
const VALUES: usize = 20 << 20;

/// What answers calls.
pub struct Desk {
    ctx: Arc<Context>,
    client: Client,
    extents: Vec<Extent>,
    plugin_user: String,
    bundle: Bundle,
    steady: Steady,
    metrics: Deliveries,
    refusals: Mutex<Refusals>,
    gate: Gate,
    strangers: Semaphore,
    values: Budget,
    ladder: Ladder,
}

/// Values that wait for their record.
struct Release {
    files: Files,
    keys: Vec<String>,
    recipients: Vec<String>,
}

/// Nothing could be established.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("reviewing a token")]
    Review(#[source] kube::Error),
    #[error("reading the pod")]
    Pod(#[source] kube::Error),
    #[error("reading the SealedEnv")]
    Env(#[source] kube::Error),
    #[error("the SealedEnv does not decode")]
    Undecodable,
    #[error("the API server took longer than {} s", READS.as_secs())]
    Time,
}

impl Desk {
    /// For pods of those namespaces, and node plugins of that user name. `client` asks the API server, `bundle` is what
    /// answers say of whom to trust.
    pub fn new(
        ctx: Arc<Context>,
        client: Client,
        extents: Vec<Extent>,
        plugin_user: String,
        bundle: Bundle,
        steady: Steady,
        metrics: Deliveries,
    ) -> Self {
        let refusals = Mutex::new(Refusals::new(steady.now()));
        let (gate, strangers, values) = (Gate::new(EACH), Semaphore::new(STRANGERS), Budget::new(VALUES));
        let ladder = Ladder::default();
        Self {
            ctx,
            client,
            extents,
            plugin_user,
            bundle,
            steady,
            metrics,
            refusals,
            gate,
            strangers,
            values,
            ladder,
        }
    }

    async fn answer(&self, call: Call) -> Result<Fetched, Refusal> {
        if let Some(peer) = &call.peer {
            call.sending.keep(self.gate.enter(peer.address).await.map_err(ending)?);
        }
        let stranger = self.strangers.acquire().await.map_err(ending)?;
        let begun = self.steady.now();
        let mut facts = self.reviewed(&call).await.map_err(|error| self.not_looked(&error))?;
        drop(stranger);
        self.climb(Stage::Caller, &facts, &call.wanted, Refusal::Unauthenticated).await?;
        facts.pod = self.pod(facts.claims()).await.map_err(|error| self.not_looked(&error))?;
        self.climb(Stage::Pod, &facts, &call.wanted, Refusal::Denied).await?;
        let mut share = self.values.share(call.wanted.len()).await.map_err(ending)?;
        let mut answers = Vec::with_capacity(call.wanted.len());
        for wanted in call.wanted {
            facts.name.clone_from(&wanted.name);
            facts.env = None;
            facts.recorded = false;
            let outcome = self.one(&mut facts, &wanted, begun).await;
            self.note(&facts, &wanted, &outcome);
            answers.push(Answer { name: wanted.name, outcome });
        }
        share.shrink(answers.iter().map(|answer| answer.outcome.size()).sum());
        call.sending.keep(share);
        Ok(Fetched { answers, authorities: self.bundle.get() })
    }

    async fn reviewed(&self, call: &Call) -> Result<Facts, LookError> {
        let client = &self.client;
        let reviews = futures::future::try_join(review(client, &call.pod), async {
            OptionFuture::from(call.node.as_ref().map(|token| review(client, token))).await.transpose()
        });
        let (reviewed, plugin) = in_time(reviews).await?.map_err(LookError::Review)?;
        let (reviewed, plugin) = (Reviewed::from(reviewed), plugin.map(Reviewed::from));
        let namespace = reviewed.claims.namespace.as_ref();
        let served = namespace.is_some_and(|namespace| self.extents.iter().any(|e| e.has(namespace)));
        Ok(Facts {
            reviewed,
            plugin,
            plugin_user: self.plugin_user.clone(),
            served,
            pod: None,
            name: String::new(),
            env: None,
            recorded: false,
        })
    }

    async fn pod(&self, claims: &Claims) -> Result<Option<Asking>, LookError> {
        let (Some(namespace), Some(name)) = (&claims.namespace, &claims.pod) else { return Ok(None) };
        let pods: Api<Asking> = Api::namespaced(self.client.clone(), namespace);
        in_time(pods.get_opt(name)).await?.map_err(LookError::Pod)
    }

    /// One SealedEnv of a pod that may ask.
    async fn one(&self, facts: &mut Facts, wanted: &Wanted, begun: Tick) -> Outcome {
        if let Err(rung) = self.ladder.climb(Stage::Name, facts) {
            return self.refuse(facts, rung.name, rung.reason, told(rung)).await;
        }
        match self.env(facts).await {
            Ok(env) => facts.env = env,
            Err(error) => {
                tracing::warn!(error = chain(&error), name = facts.name, "a SealedEnv could not be read");
                self.metrics.refused("ApiServer");
                return refused(Reason::Unavailable, "the operator could not read it".to_owned());
            }
        }
        if let Err(rung) = self.ladder.climb(Stage::Env, facts) {
            return self.refuse(facts, rung.name, rung.reason, told(rung)).await;
        }
        // A ladder that lacks the rung `Found`, in a test, gets here without one.
        let Some(env) = facts.env.clone() else { return refused(Reason::NotFound, String::new()) };
        let ctx = Arc::clone(&self.ctx);
        let open = move || opening(&ctx, &env);
        // To hand ten values to another thread costs a third of what it takes to open them.
        let opened = if facts.env.as_deref().is_some_and(is_quick) {
            catch_unwind(AssertUnwindSafe(open)).ok()
        } else {
            tokio::task::spawn_blocking(open).await.ok()
        };
        let Some(opened) = opened else {
            self.metrics.refused("Opened");
            return refused(Reason::Unavailable, "opening its values failed".to_owned());
        };
        let release = match opened {
            Ok(release) => release,
            Err((reason, message)) => {
                let name = if reason == Reason::TooLarge { "Sized" } else { "Opened" };
                return self.refuse(facts, name, reason, message).await;
            }
        };
        if wanted.held.as_ref() == Some(&release.files.digest) {
            self.metrics.unchanged();
            return Outcome::Unchanged { refresh_after: REFRESH };
        }
        self.release(facts, wanted, release, begun).await
    }

    /// No record, no release.
    async fn release(&self, facts: &mut Facts, wanted: &Wanted, release: Release, begun: Tick) -> Outcome {
        let digest = |text: &str| text.parse::<KeyedDigest>().ok();
        let record = record(facts, Ended::Ok).keys(release.keys).recipients(release.recipients);
        let record = record.digests(wanted.held.as_deref().and_then(digest), digest(&release.files.digest));
        let steady = self.steady.clone();
        let still = move || steady.now() - begun < CALL;
        let taken = self.ctx.trail.record_delivery(vec![record], still).await;
        if let Err(error) = &taken {
            tracing::warn!(error = chain(error), name = facts.name, "a delivery is not on record");
        }
        facts.recorded = taken.is_ok();
        if let Err(rung) = self.ladder.climb(Stage::Release, facts) {
            self.metrics.refused(rung.name);
            return match taken {
                Err(NotRecorded::Late) => refused(Reason::Unavailable, told(rung)),
                _ => refused(rung.reason, told(rung)),
            };
        }
        self.metrics.released();
        Outcome::Files(release.files)
    }

    async fn env(&self, facts: &Facts) -> Result<Option<Arc<SealedEnv>>, LookError> {
        let Some(namespace) = &facts.claims().namespace else { return Ok(None) };
        let envs: Api<Arrival> = Api::namespaced(self.client.clone(), namespace);
        let found = in_time(envs.get_opt(&facts.name)).await?.map_err(LookError::Env)?;
        found.map(|Arrival(env)| env.map(Arc::new).map_err(|_| LookError::Undecodable)).transpose()
    }

    async fn climb(
        &self,
        stage: Stage,
        facts: &Facts,
        wanted: &[Wanted],
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let Err(rung) = self.ladder.climb(stage, facts) else { return Ok(()) };
        self.metrics.turned_away(rung.name);
        let claims = facts.claims();
        tracing::info!(
            missing = rung.name,
            namespace = claims.namespace,
            pod = claims.pod,
            "a call of the delivery API is refused"
        );
        let asked: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
        let mut record = Record::new(Action::Deliver, actor(facts), Ended::Refused)
            .reason(rung.name)
            .detail(format!("{}; asked for {}", describe(facts), asked.join(", ")));
        if stage != Stage::Caller
            && let (Some(namespace), Some(pod)) = (&claims.namespace, &claims.pod)
        {
            record = record.object(ObjectRef::new("Pod", pod).namespace(namespace).uid(claims.uid.clone()));
        }
        self.put_on_record(record).await;
        Err(refusal)
    }

    /// Refuses one SealedEnv.
    async fn refuse(&self, facts: &Facts, name: &'static str, reason: Reason, message: String) -> Outcome {
        self.metrics.refused(name);
        let claims = facts.claims();
        tracing::info!(
            missing = name,
            namespace = claims.namespace,
            pod = claims.pod,
            name = facts.name,
            "a delivery is refused"
        );
        self.put_on_record(record(facts, Ended::Refused).reason(name)).await;
        refused(reason, message)
    }

    /// Has the status told what the pod has, where there is a SealedEnv to tell it.
    fn note(&self, facts: &Facts, wanted: &Wanted, outcome: &Outcome) {
        let Claims { pod, uid, .. } = facts.claims();
        let (Some(env), Some(pod), Some(uid)) = (&facts.env, pod, uid) else { return };
        let (pod, uid) = (pod.clone(), uid.clone());
        let told = match outcome {
            Outcome::Files(files) => Told::Holds(files.digest.clone()),
            Outcome::Unchanged { .. } => Told::Holds(wanted.held.clone().unwrap_or_default()),
            // A moment of ours, and nothing about this pod.
            Outcome::Refused(Refused { reason: Reason::Unavailable, .. }) => return,
            Outcome::Refused(refused) => Told::Refused(refused.reason.as_str()),
        };
        self.ctx.book.note(env, Seen { uid, pod, told });
    }

    fn not_looked(&self, error: &LookError) -> Refusal {
        tracing::warn!(error = chain(error), "a call of the delivery API cannot be answered");
        self.metrics.turned_away("ApiServer");
        Refusal::Unavailable
    }

    /// A refusal goes on record where that is possible, and stands without it.
    async fn put_on_record(&self, record: Record) {
        let now = self.steady.now();
        let room = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).one_more(now);
        let record = match room {
            None => return,
            Some(0) => record,
            Some(omitted) => {
                let detail = record.detail.clone().unwrap_or_default();
                record.detail(format!("{omitted} refusals before this one are not on record; {detail}"))
            }
        };
        if let Err(error) = self.ctx.trail.record_delivery(vec![record], || true).await {
            tracing::warn!(error = chain(&error), "a refusal is not on record");
        }
    }
}

impl Fetch for Desk {
    async fn fetch(&self, call: Call) -> Result<Fetched, Refusal> {
        let begun = tokio::time::Instant::now();
        let answer = tokio::time::timeout(CALL, self.answer(call)).await;
        self.metrics.took(begun.elapsed().as_secs_f64());
        answer.unwrap_or_else(|_| {
            self.metrics.turned_away("Time");
            Err(Refusal::Unavailable)
        })
    }
}

async fn in_time<T>(question: impl Future<Output = T>) -> Result<T, LookError> {
    tokio::time::timeout(READS, question).await.map_err(|_| LookError::Time)
}

/// Nothing is counted any more: the process ends.
fn ending(_: AcquireError) -> Refusal {
    Refusal::Unavailable
}

/// Whether opening takes about a millisecond at most.
fn is_quick(env: &SealedEnv) -> bool {
    let texts = env.spec.data.values().map(String::len).sum::<usize>();
    env.spec.files.is_empty() && env.spec.data.len() <= QUICK.0 && texts <= QUICK.1
}

/// Opens the values. Wiped when what comes of it is dropped.
fn opening(ctx: &Context, env: &SealedEnv) -> Result<Release, (Reason, String)> {
    let namespace = env.metadata.namespace.as_deref().unwrap_or_default();
    let name = env.metadata.name.as_deref().unwrap_or_default();
    let ring = ctx.keys.ring();
    if let Some(problem) = plan::problem(&env.spec) {
        return Err((Reason::NotOpened, problem));
    }
    let mut opened = open_all(namespace, name, &env.spec, &ring.keyring, OpenPolicy::default());
    ctx.metrics.opened(&opened);
    files::add(&env.spec, &mut opened);
    rendered(ctx, &env.spec, opened)
}

fn rendered(ctx: &Context, spec: &SealedEnvSpec, opened: Opened) -> Result<Release, (Reason, String)> {
    let policy = spec.on_key_error;
    let modes = files::modes(spec);
    let mut recipients: Vec<String> =
        opened.0.values().flat_map(|key| key.sealed_to.iter().cloned()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let content = memory::fold(opened, policy).map_err(|refusal| {
        let reason = match refusal.reason {
            crate::reason::Reason::TooLarge => Reason::TooLarge,
            _ => Reason::NotOpened,
        };
        (reason, refusal.message)
    })?;
    let keep = memory::kept_by_pods(&content.states, policy);
    let digest = ctx.digests.of_files(&content.values, &modes, &keep);
    let path = |key: &str| {
        FilePath::parse(key).map_err(|_| (Reason::NotOpened, format!("{key} cannot be the name of a file")))
    };
    let keep = keep.into_iter().map(path).collect::<Result<_, _>>()?;
    let keys = content.values.keys().cloned().collect();
    let files = (content.values.iter())
        .map(|(key, value)| {
            let content = Content::new(value.expose().to_vec());
            Ok(File { path: path(key)?, content, mode: modes.get(key).copied() })
        })
        .collect::<Result<_, _>>()?;
    Ok(Release { files: Files { digest, files, keep, refresh_after: REFRESH }, keys, recipients })
}

/// About one SealedEnv and the pod that asks for it.
fn record(facts: &Facts, ended: Ended) -> Record {
    let meta = facts.env.as_ref().map(|env| &env.metadata);
    let object = ObjectRef::new("SealedEnv", facts.name.clone())
        .namespace(facts.claims().namespace.clone().unwrap_or_default())
        .uid(meta.and_then(|meta| meta.uid.clone()))
        .generation(meta.and_then(|meta| meta.generation));
    Record::new(Action::Deliver, actor(facts), ended).object(object).detail(describe(facts))
}

/// Whose token it is. A name that nobody vouches for goes nowhere.
fn actor(facts: &Facts) -> Actor {
    let user = facts.reviewed.status.user.as_ref().and_then(|user| user.username.clone());
    match user.filter(|_| facts.reviewed.status.authenticated == Some(true)) {
        Some(name) => Actor::authenticated(name),
        None => Actor::new(ActorKind::User, "unauthenticated"),
    }
}

/// Which pod, where, and through whom. The UID comes first: what is too long for a line is cut at its end.
fn describe(facts: &Facts) -> String {
    let Claims { pod, uid, node, .. } = facts.claims();
    let through = match &facts.plugin {
        None => "the agent".to_owned(),
        Some(plugin) => {
            format!("the node plugin of {}", plugin.claims.node.as_deref().unwrap_or("no node"))
        }
    };
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    format!("pod UID {}, {through}, pod {}, node {}", or_none(uid), or_none(pod), or_none(node))
}

fn refused(reason: Reason, message: String) -> Outcome {
    Outcome::Refused(Refused { reason, message })
}

/// What the caller is told: it knows its own pod, and its pod names the SealedEnv. It learns no more.
fn told(rung: &Rung) -> String {
    let text = match rung.reason {
        Reason::NotNamed => "the pod's spec does not name this SealedEnv",
        Reason::NotFound => "there is no such SealedEnv in the pod's namespace",
        Reason::NotMemory => "its delivery is not Memory",
        Reason::NotAllowed => "its allow list does not have the pod's ServiceAccount",
        Reason::Suspended => "it is suspended or being deleted",
        Reason::NotRecorded => "no audit sink takes records, so nothing is released",
        _ => "it is not available",
    };
    text.to_owned()
}
