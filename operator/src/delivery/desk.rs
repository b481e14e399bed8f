//! Answers one call: gathers facts, climbs the ladder, opens the values, has the release recorded, and gives them.
//!
//! Nothing is kept from one call to the next: no review, no pod, no value. What a call saw is good for `CALL`, on a clock
//! that goes on while a machine sleeps.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::OptionFuture;
use kube::Client;
use kube::api::Api;
use sealedenv_audit::{Action, Actor, ActorKind, KeyedDigest, ObjectRef, Outcome as Ended, Record};
use sealedenv_crds::SealedEnv;
use sealedenv_delivery::server::{Call, Fetch, Refusal, Sending};
use sealedenv_delivery::{Answer, Fetched, Outcome, Reason, Refused, Wanted};
use sealedenv_runtime::report::chain;
use tokio::sync::{AcquireError, Semaphore};

use super::asking::Asking;
use super::ca::Bundle;
use super::consumers::{Seen, Told};
use super::gate::{Budget, Lines, ONE, Share};
use super::ladder::{Claims, Facts, Ladder, Reviewed, Rung, Stage};
use super::metrics::Deliveries;
use super::opening::{REFRESH, Release, is_quick, opening};
use super::refusals::Refusals;
use super::review::review;
use crate::arrival::Arrival;
use crate::controller::Extent;
use crate::leader::clock::{Steady, Tick};
use crate::reconcile::Context;
use crate::trail::NotRecorded;

/// Longest time for one question to the API server.
const READS: Duration = Duration::from_secs(2);

/// Longest time for a call. What the trail takes later than this is not released.
const CALL: Duration = Duration::from_secs(8);

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
    lines: Lines<IpAddr>,
    strangers: Semaphore,
    values: Budget,
    ladder: Ladder,
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
        let (lines, strangers, values) = (Lines::new(EACH), Semaphore::new(STRANGERS), Budget::new(VALUES));
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
            lines,
            strangers,
            values,
            ladder,
        }
    }

    async fn answer(&self, call: Call) -> Result<Fetched, Refusal> {
        if let Some(peer) = &call.peer {
            call.sending.keep(self.lines.enter(peer.address).await.map_err(closed)?);
        }
        let stranger = self.strangers.acquire().await.map_err(closed)?;
        let begun = self.steady.now();
        let mut facts = self.reviewed(&call).await.map_err(|error| self.not_looked(&error))?;
        drop(stranger);
        self.climb(Stage::Caller, &facts, &call.wanted, Refusal::Unauthenticated).await?;
        facts.pod = self.pod(facts.claims()).await.map_err(|error| self.not_looked(&error))?;
        self.climb(Stage::Pod, &facts, &call.wanted, Refusal::Denied).await?;
        let share = self.share(&mut facts, &call).await?;
        let (mut answers, mut notes, mut made) = (Vec::with_capacity(call.wanted.len()), Vec::new(), 0);
        let mut left = call.wanted.len();
        for wanted in call.wanted {
            facts.name.clone_from(&wanted.name);
            facts.env = None;
            facts.recorded = false;
            let outcome = self.one(&mut facts, &wanted, begun, &call.sending).await;
            notes.extend(note(&facts, &wanted, &outcome));
            (made, left) = (made + outcome.size(), left - 1);
            share.lock().unwrap_or_else(PoisonError::into_inner).shrink(made + left * ONE);
            answers.push(Answer { name: wanted.name, outcome });
        }
        // Only now: what is given up half-way, nobody has.
        for (env, seen) in notes {
            self.ctx.book.note(&env, seen);
        }
        Ok(Fetched { answers, authorities: self.bundle.get() })
    }

    /// Memory for those SealedEnvs of a call that the pod's spec names. It is counted for as long as anything of the call
    /// goes on: also what a caller who is gone has left to do.
    async fn share(&self, facts: &mut Facts, call: &Call) -> Result<Arc<Mutex<Share>>, Refusal> {
        let mut count = 0;
        for wanted in &call.wanted {
            facts.name.clone_from(&wanted.name);
            count += usize::from(self.ladder.climb(Stage::Name, facts).is_ok());
        }
        let namespace = facts.claims().namespace.as_deref().unwrap_or_default();
        let share = self.values.share(namespace, count).await.map_err(closed)?;
        let share = Arc::new(Mutex::new(share));
        call.sending.keep(Arc::clone(&share));
        Ok(share)
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
    async fn one(&self, facts: &mut Facts, wanted: &Wanted, begun: Tick, sending: &Sending) -> Outcome {
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
        let (ctx, counted) = (Arc::clone(&self.ctx), sending.clone());
        let open = move || {
            // Nobody can end it, not even who does not wait for it any more.
            let _counted = counted;
            opening(&ctx, &env)
        };
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
        self.release(facts, wanted, release, (begun, sending)).await
    }

    /// No record, no release.
    async fn release(
        &self,
        facts: &mut Facts,
        wanted: &Wanted,
        release: Release,
        (begun, sending): (Tick, &Sending),
    ) -> Outcome {
        let digest = |text: &str| text.parse::<KeyedDigest>().ok();
        let record = record(facts, Ended::Ok).keys(release.keys).recipients(release.recipients);
        let record = record.digests(wanted.held.as_deref().and_then(digest), digest(&release.files.digest));
        let (steady, counted) = (self.steady.clone(), sending.clone());
        let still = move || {
            let _counted = &counted;
            steady.now() - begun < CALL
        };
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

/// The semaphores are never closed, so nobody meets this.
fn closed(_: AcquireError) -> Refusal {
    Refusal::Unavailable
}

/// What the status is to tell of the pod, where there is a SealedEnv to tell it.
fn note(facts: &Facts, wanted: &Wanted, outcome: &Outcome) -> Option<(Arc<SealedEnv>, Seen)> {
    let Claims { pod, uid, .. } = facts.claims();
    let (env, pod, uid) = (facts.env.clone()?, pod.clone()?, uid.clone()?);
    let told = match outcome {
        Outcome::Files(files) => Told::Holds(files.digest.clone()),
        Outcome::Unchanged { .. } => Told::Holds(wanted.held.clone().unwrap_or_default()),
        // A moment of ours, and nothing about this pod.
        Outcome::Refused(Refused { reason: Reason::Unavailable, .. }) => return None,
        Outcome::Refused(refused) => Told::Refused(refused.reason.as_str()),
    };
    Some((env, Seen { uid, pod, told }))
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
