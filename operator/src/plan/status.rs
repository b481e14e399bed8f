//! The status, the records and the notices that tell what a plan does.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sealedenv_audit::{Action as AuditAction, Actor, ActorKind, KeyedDigest, ObjectRef, Outcome, Record};
use sealedenv_crds::condition::{self, Status, Wanted};
use sealedenv_crds::{Delivery, KeyState, KeyStatus, OnKeyError, SealedEnvStatus};

use super::altered::{self, News};
use super::content::{States, describe};
use super::decide::Decision;
use super::memory::Ready;
use super::value_digests::ValueDigests;
use super::{Notice, Plan, Step, Subject, handled_input, secret_name};
use crate::digest::Mark;
use crate::opened::Opened;
use crate::reason::Reason;

/// Longest message of a condition, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Whether the last status said that work goes on.
pub(crate) fn is_working(status: &SealedEnvStatus) -> bool {
    condition::status_of(&status.conditions, condition::RECONCILING) == Some("True")
}

/// A status in the making.
pub(crate) struct Draft<'a> {
    now: Timestamp,
    subject: &'a Subject<'a>,
    input: String,
    /// Of the key of the digests.
    mark: Mark,
    unwritten: States,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        now: Timestamp,
        subject: &'a Subject<'a>,
        ring: &str,
        opened: &Opened,
        mark: Mark,
    ) -> Self {
        let held =
            subject.status.keys.iter().filter(|k| k.state != KeyState::Missing).map(|k| k.name.clone());
        let unwritten = States::unwritten(opened, &held.collect());
        let faulty = unwritten.faults().next().is_some();
        let input = if faulty { format!("{}/{ring}", subject.input) } else { subject.input.to_owned() };
        Self { now, subject, input, mark, unwritten }
    }

    /// Nothing is done; the Secret and what is said of it stay.
    pub(crate) fn suspended(self) -> Plan {
        let old = self.subject.status;
        let ready = match condition::status_of(&old.conditions, condition::READY) {
            Some("True") => Status::True,
            Some("False") => Status::False,
            _ => Status::Unknown,
        };
        let message = "reconciliation is suspended; the Secret stays as it is".to_owned();
        let mut wanted = vec![Wanted {
            type_: condition::READY,
            status: ready,
            reason: Reason::Suspended.as_str(),
            message,
        }];
        // A fault does not become work in progress by being left alone: who waits for this object must still fail.
        let fault = old.conditions.iter().find(|c| c.type_ == condition::STALLED);
        if let Some(fault) = fault.filter(|_| ready == Status::False) {
            wanted.push(Wanted {
                type_: condition::STALLED,
                status: Status::True,
                reason: Reason::of(&fault.reason).unwrap_or(Reason::Suspended).as_str(),
                message: fault.message.clone(),
            });
        }
        let mut status = old.clone();
        self.stamp(&mut status, wanted);
        status.input = Some(self.subject.input.to_owned());
        Plan::nothing(status)
    }

    /// Nothing is written, for a reason that has nothing to do with single keys.
    pub(crate) fn refused(mut self, reason: Reason, message: String, requeue: Option<Duration>) -> Plan {
        let states = std::mem::take(&mut self.unwritten);
        self.refused_with(&states, reason, message, requeue)
    }

    /// Nothing is written; what stands there stays.
    pub(crate) fn refused_with(
        self,
        states: &States,
        reason: Reason,
        message: String,
        requeue: Option<Duration>,
    ) -> Plan {
        let old = self.subject.status;
        let news = self.is_news(reason, states);
        let mut status = old.clone();
        self.tell_keys(&mut status, states, false);
        self.stamp(&mut status, conditions(reason, message.clone()));
        let mut plan = Plan { requeue, ..Plan::nothing(status) };
        if news {
            if !reason.conditions().reconciling {
                plan.records.push(self.refusal(reason, states, &message));
            }
            plan.notices.push(Notice { warning: true, reason, message });
        }
        self.tell_altered(states, secret_name(self.subject), &mut plan.records, &mut plan.notices);
        plan
    }

    /// Tells once what somebody else did to values that are kept.
    fn tell_altered(
        &self,
        states: &States,
        secret: &str,
        records: &mut Vec<Record>,
        notices: &mut Vec<Notice>,
    ) {
        let news = News::of(self.subject, states);
        if news.is_empty() {
            return;
        }
        let (reason, message) = (Reason::KeptValueChanged, news.message(secret));
        let record = self.record(AuditAction::Repair, Outcome::Failed).keys(news.keys());
        records.push(record.reason(reason.as_str()).detail(message.clone()));
        notices.push(Notice { warning: true, reason, message });
    }

    /// The Secret holds what it can, now or after the steps.
    pub(crate) fn delivered(self, decision: Decision) -> Plan {
        let old = self.subject.status;
        let Decision { content, digest, secret, steps, write, written_keys } = decision;
        let faults = describe(content.faults());
        let reason = if faults.is_empty() { Reason::Delivered } else { Reason::KeysNotOpened };
        let news = self.is_news(reason, &content);

        let mut status = old.clone();
        self.tell_keys(&mut status, &content, old.digest.as_deref() == Some(digest.as_str()));
        let summary = format!("{} keys delivered to Secret {}", tally(&status.keys), secret.name);
        let message = match (&faults[..], &altered::names(&status.keys)[..]) {
            ("", _) => summary,
            (faults, []) => format!("{summary}; not opened: {faults}"),
            (faults, altered) => format!(
                "{summary}; not opened: {faults}; changed by somebody else, and no longer the last good value: {}",
                altered.join(", ")
            ),
        };
        self.stamp(&mut status, conditions(reason, message.clone()));

        let repairs = write.is_some_and(|(action, _)| action == AuditAction::Repair) && !self.is_asked();
        let mut records = Vec::new();
        let mut notices = Vec::new();
        if let Some((action, why)) = write {
            let mut recipients: Vec<String> =
                content.0.values().flat_map(|k| k.sealed_to.iter().cloned()).collect();
            recipients.sort_unstable();
            recipients.dedup();
            let before = old.digest.as_deref().and_then(|d| d.parse::<KeyedDigest>().ok());
            let record = self.record(action, Outcome::Ok).keys(written_keys);
            let mut record = record.digests(before, digest.parse().ok()).recipients(recipients);
            if let Some(why) = why {
                record = record.reason(why.as_str());
                let message = format!(
                    "Secret {} was changed or deleted by somebody else and is put right",
                    secret.name
                );
                notices.push(Notice { warning: false, reason: why, message });
            } else if faults.is_empty() {
                notices.push(Notice { warning: false, reason, message: message.clone() });
            }
            records.push(record);
        }
        if !faults.is_empty() && (news || !steps.is_empty()) {
            records.push(self.refusal(reason, &content, &faults));
            if news {
                notices.push(Notice { warning: true, reason, message });
            }
        }
        self.tell_altered(&content, &secret.name, &mut records, &mut notices);
        status.digest = Some(digest);
        status.secret = Some(secret);
        Plan { status, steps, records, notices, requeue: None, repairs }
    }

    /// Pods can have the values; no Secret is written, and one from before goes.
    pub(crate) fn in_memory(self, ready: Ready) -> Plan {
        let old = self.subject.status;
        let Ready { states, digest, steps, spared } = ready;
        let faults = describe(states.faults());
        let reason = if faults.is_empty() { Reason::Delivered } else { Reason::KeysNotOpened };
        let news = self.is_news(reason, &states);
        let same = old.digest.as_deref() == Some(digest.as_str());

        let mut status = old.clone();
        self.tell_keys(&mut status, &states, same);
        let summary = format!("{} keys can be delivered to pods; no Secret is written", tally(&status.keys));
        let message = match self.subject.spec.on_key_error {
            _ if faults.is_empty() => summary,
            OnKeyError::KeepLast if spared => format!(
                "{} keys can be delivered to pods; the Secret from before stays until every key opens, for it may hold the last good value of: {faults}",
                tally(&status.keys)
            ),
            OnKeyError::KeepLast => {
                format!("{summary}; not opened, and kept by pods that have them: {faults}")
            }
            OnKeyError::Omit | OnKeyError::Fail => format!("{summary}; not opened: {faults}"),
        };
        self.stamp(&mut status, conditions(reason, message.clone()));
        let mut plan = Plan { steps, ..Plan::nothing(SealedEnvStatus::default()) };
        for step in &plan.steps {
            if let Step::Delete { name, .. } = step {
                let before = old.digest.as_deref().and_then(|d| d.parse::<KeyedDigest>().ok());
                let record = self.record(AuditAction::Delete, Outcome::Ok).digests(before, None);
                let detail = format!("Secret {name}, since delivery is Memory");
                plan.records.push(record.reason("DeliveredInMemory").detail(detail));
            }
        }
        if news && !faults.is_empty() {
            plan.records.push(self.refusal(reason, &states, &faults));
        }
        let worth_telling = if faults.is_empty() { !same } else { news };
        if worth_telling {
            plan.notices.push(Notice { warning: !faults.is_empty(), reason, message });
        }
        status.digest = Some(digest);
        status.secret = status.secret.filter(|_| spared);
        plan.status = status;
        plan
    }

    /// Whether somebody wants something that was not handled yet: another spec, or another look.
    fn is_asked(&self) -> bool {
        let old = self.subject.status;
        old.last_handled_reconcile_at.as_deref() != self.subject.requested_at
            || handled_input(old).is_none_or(|(input, _)| input != self.subject.input)
    }

    /// Whether this was not already said of this generation.
    fn is_news(&self, reason: Reason, states: &States) -> bool {
        let old = self.subject.status;
        let said = old.conditions.iter().find(|c| c.type_ == condition::READY);
        let told: BTreeSet<_> =
            old.keys.iter().filter_map(|k| Some((k.name.as_str(), k.reason.as_deref()?))).collect();
        let tell: BTreeSet<_> = states.faults().map(|(name, fault)| (name, fault.reason)).collect();
        old.observed_generation != Some(self.subject.generation)
            || said.is_none_or(|c| c.reason != reason.as_str())
            || told != tell
    }

    fn tell_keys(&self, status: &mut SealedEnvStatus, states: &States, same_content: bool) {
        status.keys = self.keys(states, same_content);
        status.keys_ready = Some(tally(&status.keys));
        let made = states.0.iter().filter_map(|(name, told)| Some((name.as_str(), told.digest?)));
        let digests = ValueDigests::made(self.mark, made).or(ValueDigests::read(self.subject.status));
        status.value_digests = digests.write(status.keys.iter().map(|key| key.name.as_str()));
    }

    fn keys(&self, states: &States, same_content: bool) -> Vec<KeyStatus> {
        let old = &self.subject.status.keys;
        (states.0.iter())
            .map(|(name, told)| {
                let before = old.iter().find(|k| k.name == *name);
                let since = before.and_then(|k| k.last_good_at.clone());
                let still_good = before.is_some_and(|k| k.state == KeyState::Ready) && same_content;
                let last_good_at = match told.state {
                    KeyState::Ready if still_good => since.or(Some(Time(self.now))),
                    KeyState::Ready => Some(Time(self.now)),
                    KeyState::KeptLast | KeyState::NotWritten => since,
                    KeyState::Missing => None,
                };
                let was_altered = before.is_some_and(|k| k.altered);
                let altered = told.state == KeyState::KeptLast && told.altered.unwrap_or(was_altered);
                KeyStatus {
                    name: name.clone(),
                    class: told.class,
                    source: told.source,
                    state: told.state,
                    reason: told.fault.as_ref().map(|f| f.reason.to_owned()),
                    sealed_to: told.sealed_to.clone(),
                    last_good_at: last_good_at.filter(|_| !altered),
                    altered,
                }
            })
            .collect()
    }

    fn stamp(&self, status: &mut SealedEnvStatus, wanted: Vec<Wanted>) {
        let generation = Some(self.subject.generation);
        let old = &self.subject.status.conditions;
        status.conditions = condition::merge(self.now, generation, old, wanted);
        // Told by whoever answers pods, and not decided here.
        if self.subject.spec.delivery == Delivery::Memory {
            let told = old.iter().find(|condition| condition.type_ == condition::DELIVERY_REFUSED);
            status.conditions.extend(told.cloned());
        } else {
            status.consumers.clear();
        }
        status.observed_generation = generation;
        status.last_handled_reconcile_at = self.subject.requested_at.map(ToOwned::to_owned);
        status.input = Some(self.input.clone());
    }

    fn record(&self, action: AuditAction, outcome: Outcome) -> Record {
        record(self.subject, action, outcome)
    }

    fn refusal(&self, reason: Reason, states: &States, message: &str) -> Record {
        let mut reasons: Vec<_> = states.faults().map(|(_, f)| f.reason).collect();
        reasons.dedup();
        let reason = match reasons[..] {
            [one] if matches!(reason, Reason::KeysNotOpened | Reason::NothingOpened) => one,
            _ => reason.as_str(),
        };
        let recipients =
            states.0.values().filter(|t| t.fault.is_some()).flat_map(|t| t.sealed_to.iter().cloned());
        let recipients: BTreeSet<String> = recipients.collect();
        self.record(AuditAction::Reconcile, Outcome::Refused)
            .keys(states.faults().map(|(name, _)| name))
            .recipients(recipients)
            .reason(reason)
            .detail(message)
    }
}

/// A record about a SealedEnv by the operator.
pub(crate) fn record(subject: &Subject<'_>, action: AuditAction, outcome: Outcome) -> Record {
    let actor = Actor { kind: ActorKind::Operator, name: crate::ACTOR.to_owned() };
    Record::new(action, actor, outcome).object(ObjectRef {
        kind: "SealedEnv".to_owned(),
        namespace: Some(subject.namespace.to_owned()),
        name: subject.name.to_owned(),
        uid: Some(subject.uid.to_owned()),
        generation: Some(subject.generation),
    })
}

/// The conditions of a reason.
pub(crate) fn conditions(reason: Reason, message: String) -> Vec<Wanted> {
    let meaning = reason.conditions();
    let message = cut(message, MAX_MESSAGE);
    let mut wanted = vec![Wanted {
        type_: condition::READY,
        status: meaning.ready,
        reason: reason.as_str(),
        message: message.clone(),
    }];
    for (there, type_) in
        [(meaning.reconciling, condition::RECONCILING), (meaning.stalled, condition::STALLED)]
    {
        if there {
            wanted.push(Wanted {
                type_,
                status: Status::True,
                reason: reason.as_str(),
                message: message.clone(),
            });
        }
    }
    wanted
}

fn tally(keys: &[KeyStatus]) -> String {
    let ready = keys.iter().filter(|k| k.state == KeyState::Ready).count();
    format!("{ready}/{}", keys.len())
}

/// Cuts a text at a character boundary.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    const MARK: char = '…';
    if text.len() > limit {
        let end = (0..=limit - MARK.len_utf8()).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push(MARK);
    }
    text
}
