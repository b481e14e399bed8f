//! Answers one call: gathers facts, climbs the ladder, opens the values, has the release recorded, and gives them.
//!
//! Nothing is kept from one call to the next: no review, no pod, no value. What a call saw is good for `CALL`, on a clock
//! that goes on while a machine sleeps.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use sealedenv_audit::{Outcome as Ended, Record};
use sealedenv_crds::SealedEnv;
use sealedenv_delivery::server::{Call, Fetch, Refusal, Sending};
use sealedenv_delivery::{Answer, Fetched, Outcome, Reason, Refused, Wanted};
use sealedenv_runtime::report::chain;
use tokio::sync::{AcquireError, Semaphore};

use super::account;
use super::ca::Bundle;
use super::consumers::{Seen, Told};
use super::gate::{Budget, Lines, ONE, Share};
use super::ladder::{Claims, Facts, Ladder, Rung, Stage};
use super::look::{LookError, Looks};
use super::metrics::Deliveries;
use super::opening::{REFRESH, Release, opening};
use super::refusals::Refusals;
use crate::controller::Extent;
use crate::leader::clock::{Steady, Tick};
use crate::opened::is_quick;
use crate::reconcile::Context;
use crate::trail::NotRecorded;

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
    looks: Looks,
    bundle: Bundle,
    steady: Steady,
    metrics: Deliveries,
    refusals: Mutex<Refusals>,
    lines: Lines<IpAddr>,
    strangers: Semaphore,
    values: Budget,
    ladder: Ladder,
}

/// A call of a pod that may ask.
struct InHand {
    facts: Facts,
    begun: Tick,
    sending: Sending,
    /// Memory for its values. It lasts for as long as anything of the call goes on: also what a caller who is gone has
    /// left to do.
    share: Arc<Mutex<Share>>,
    /// Bytes of values that wait for the others of the call.
    made: usize,
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
        let (looks, ladder) = (Looks { client, extents, plugin_user }, Ladder::default());
        Self { ctx, looks, bundle, steady, metrics, refusals, lines, strangers, values, ladder }
    }

    async fn answer(&self, call: Call) -> Result<Fetched, Refusal> {
        if let Some(peer) = &call.peer {
            call.sending.keep(self.lines.enter(peer.address).await.map_err(closed)?);
        }
        let stranger = self.strangers.acquire().await.map_err(closed)?;
        let begun = self.steady.now();
        let mut facts = self.looks.reviewed(&call).await.map_err(|error| self.not_looked(&error))?;
        drop(stranger);
        self.climb(Stage::Caller, &facts, &call.wanted, Refusal::Unauthenticated).await?;
        facts.pod = self.looks.pod(facts.claims()).await.map_err(|error| self.not_looked(&error))?;
        self.climb(Stage::Pod, &facts, &call.wanted, Refusal::Denied).await?;
        // What the pod's spec does not name needs no memory.
        let named: Vec<_> = call.wanted.iter().map(|wanted| self.named(&mut facts, wanted)).collect();
        let mut left = named.iter().filter(|named| named.is_ok()).count();
        let mut in_hand = self.take_in_hand(facts, begun, call.sending, left).await?;
        let (mut answers, mut notes) = (Vec::with_capacity(call.wanted.len()), Vec::new());
        for (wanted, named) in call.wanted.into_iter().zip(named) {
            in_hand.turn_to(&wanted);
            let outcome = if let Err(rung) = named {
                self.refuse(&in_hand.facts, rung.name, rung.reason, told(rung)).await
            } else {
                left -= 1;
                self.one(&mut in_hand, &wanted).await
            };
            notes.extend(note(&in_hand.facts, &wanted, &outcome));
            in_hand.made(&outcome, left);
            answers.push(Answer { name: wanted.name, outcome });
        }
        // Only now: what is given up half-way, nobody has.
        for (env, seen) in notes {
            self.ctx.book.note(&env, seen);
        }
        Ok(Fetched { answers, authorities: self.bundle.get() })
    }

    fn named(&self, facts: &mut Facts, wanted: &Wanted) -> Result<(), &'static Rung> {
        facts.name.clone_from(&wanted.name);
        self.ladder.climb(Stage::Name, facts)
    }

    /// Waits for memory for so many SealedEnvs.
    async fn take_in_hand(
        &self,
        facts: Facts,
        begun: Tick,
        sending: Sending,
        count: usize,
    ) -> Result<InHand, Refusal> {
        let namespace = facts.claims().namespace.as_deref().unwrap_or_default();
        let share = Arc::new(Mutex::new(self.values.share(namespace, count).await.map_err(closed)?));
        sending.keep(Arc::clone(&share));
        Ok(InHand { facts, begun, sending, share, made: 0 })
    }

    /// One SealedEnv that the pod's spec names.
    async fn one(&self, in_hand: &mut InHand, wanted: &Wanted) -> Outcome {
        match self.looks.env(&in_hand.facts).await {
            Ok(env) => in_hand.facts.env = env,
            Err(error) => {
                tracing::warn!(error = chain(&error), name = wanted.name, "a SealedEnv could not be read");
                self.metrics.refused("ApiServer");
                return refused(Reason::Unavailable, "the operator could not read it".to_owned());
            }
        }
        let facts = &in_hand.facts;
        if let Err(rung) = self.ladder.climb(Stage::Env, facts) {
            return self.refuse(facts, rung.name, rung.reason, told(rung)).await;
        }
        // A ladder that lacks the rung `Found`, in a test, gets here without one.
        let Some(env) = facts.env.clone() else { return refused(Reason::NotFound, String::new()) };
        if !in_hand.has_room() {
            self.metrics.refused("Room");
            return refused(
                Reason::Unavailable,
                "the operator has no room for more values now; ask again".to_owned(),
            );
        }
        let Some(opened) = self.open(env, in_hand.sending.clone()).await else {
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
        self.release(in_hand, wanted, release).await
    }

    /// Opens the values. None: that panicked.
    async fn open(&self, env: Arc<SealedEnv>, counted: Sending) -> Option<Result<Release, (Reason, String)>> {
        let (ctx, quick) = (Arc::clone(&self.ctx), is_quick(&env.spec));
        let open = move || {
            // Nobody can end it, not even who does not wait for it any more.
            let _counted = counted;
            opening(&ctx, &env)
        };
        // To hand ten values to another thread costs a third of what it takes to open them.
        if quick {
            catch_unwind(AssertUnwindSafe(open)).ok()
        } else {
            tokio::task::spawn_blocking(open).await.ok()
        }
    }

    /// No record, no release.
    async fn release(&self, in_hand: &mut InHand, wanted: &Wanted, mut release: Release) -> Outcome {
        let record = account::released(&in_hand.facts, wanted, &mut release);
        let (steady, begun, counted) = (self.steady.clone(), in_hand.begun, in_hand.sending.clone());
        let still = move || {
            let _counted = &counted;
            steady.now() - begun < CALL
        };
        let taken = self.ctx.trail.record_delivery(vec![record], still).await;
        if let Err(error) = &taken {
            tracing::warn!(error = chain(error), name = wanted.name, "a delivery is not on record");
        }
        in_hand.facts.recorded = taken.is_ok();
        if let Err(rung) = self.ladder.climb(Stage::Release, &in_hand.facts) {
            self.metrics.refused(rung.name);
            return match taken {
                Err(NotRecorded::Late) => refused(Reason::Unavailable, told(rung)),
                _ => refused(rung.reason, told(rung)),
            };
        }
        self.metrics.released();
        Outcome::Files(release.files)
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
        self.put_on_record(account::turned_away(facts, stage, rung, wanted)).await;
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
        self.put_on_record(account::record(facts, Ended::Refused).reason(name)).await;
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

impl InHand {
    fn turn_to(&mut self, wanted: &Wanted) {
        self.facts.name.clone_from(&wanted.name);
        self.facts.env = None;
        self.facts.recorded = false;
    }

    /// Whether one more SealedEnv may be opened.
    fn has_room(&self) -> bool {
        self.share.lock().unwrap_or_else(PoisonError::into_inner).has_room(self.made + ONE)
    }

    /// One is done, and so many are left.
    fn made(&mut self, outcome: &Outcome, left: usize) {
        self.made += outcome.size();
        self.share.lock().unwrap_or_else(PoisonError::into_inner).shrink(self.made + left * ONE);
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
