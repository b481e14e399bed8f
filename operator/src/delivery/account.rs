//! What goes on record of a call: who asked for what, and how it ended. Pure.

use sealedenv_audit::{Action, Actor, ActorKind, KeyedDigest, ObjectRef, Outcome as Ended, Record};
use sealedenv_delivery::Wanted;

use super::ladder::{Claims, Facts, Rung, Stage};
use super::opening::Release;

/// About one SealedEnv and the pod that asks for it.
pub(super) fn record(facts: &Facts, ended: Ended) -> Record {
    let meta = facts.env.as_ref().map(|env| &env.metadata);
    let object = ObjectRef::new("SealedEnv", facts.name.clone())
        .namespace(facts.claims().namespace.clone().unwrap_or_default())
        .uid(meta.and_then(|meta| meta.uid.clone()))
        .generation(meta.and_then(|meta| meta.generation));
    Record::new(Action::Deliver, actor(facts), ended).object(object).detail(describe(facts))
}

/// About a call that is refused as a whole. The pod is no object of it while nobody vouches for the claims.
pub(super) fn turned_away(facts: &Facts, stage: Stage, rung: &Rung, wanted: &[Wanted]) -> Record {
    let asked: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let record = Record::new(Action::Deliver, actor(facts), Ended::Refused)
        .reason(rung.name)
        .detail(format!("{}; asked for {}", describe(facts), asked.join(", ")));
    let claims = facts.claims();
    match (&claims.namespace, &claims.pod) {
        (Some(namespace), Some(pod)) if stage != Stage::Caller => {
            record.object(ObjectRef::new("Pod", pod).namespace(namespace).uid(claims.uid.clone()))
        }
        _ => record,
    }
}

/// A release: its keys, whom they are sealed to, and the digests before, as the caller says, and after.
pub(super) fn released(facts: &Facts, wanted: &Wanted, release: &mut Release) -> Record {
    let digest = |text: &str| text.parse::<KeyedDigest>().ok();
    let (keys, recipients) = (std::mem::take(&mut release.keys), std::mem::take(&mut release.recipients));
    let record = record(facts, Ended::Ok).keys(keys).recipients(recipients);
    record.digests(wanted.held.as_deref().and_then(digest), digest(&release.files.digest))
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
