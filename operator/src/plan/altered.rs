//! Whether a value that is kept is still the last good one.
//!
//! A key that does not open has no value but the one that stands in the Secret. Who edits it there by hand takes the last
//! good one away for good, and nobody could tell but for its digest in the status. There is nothing to put back, and
//! to take out what stands there would harm pods a second time (I4): it stays, and is told of.

use std::collections::BTreeMap;

use sealedenv_crds::{Delivery, KeyState, KeyStatus, OnKeyError};
use sealedenv_seal::Plain;

use super::content::States;
use super::value_digests::ValueDigests;
use super::{Subject, secret_name};
use crate::digest::{DigestKey, ValueDigest};

/// What is known of the values that were written.
pub(crate) struct Traces<'a> {
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) digests: &'a DigestKey,
    /// What stands in the Secret, and then in the one of a former name.
    pub(crate) last: &'a [&'a BTreeMap<String, Plain>],
    /// Whether nobody wrote to the Secret since the status was written.
    pub(crate) untouched: bool,
}

impl Traces<'_> {
    /// Notes of good values what they are, and of kept ones whether they are.
    pub(crate) fn note(&self, states: &mut States, good: &BTreeMap<String, Plain>) {
        let before = ValueDigests::read(self.subject.status);
        let known = Known { ours: before.are_of(self.digests.mark()), digests: before };
        for (name, told) in &mut states.0 {
            match told.state {
                KeyState::Ready => told.digest = good.get(name).map(|value| self.digest(name, value)),
                KeyState::KeptLast => {
                    let value = self.last.iter().find_map(|content| content.get(name));
                    told.altered = value.map(|value| self.is_altered(&known, name, value));
                    told.digest = value.filter(|_| told.altered == Some(false)).map(|v| self.digest(name, v));
                }
                KeyState::Missing | KeyState::NotWritten => {}
            }
        }
    }

    fn digest(&self, key: &str, value: &Plain) -> ValueDigest {
        self.digests.of_value([self.subject.namespace, self.subject.name, key], value)
    }

    fn is_altered(&self, known: &Known<'_>, key: &str, value: &Plain) -> bool {
        // Of a Secret that was handed over or found again, nothing is known.
        let Some(before) = before(self.subject, key) else { return false };
        // The key of the digests may have been lost, and this Secret is as it was left all the same.
        if self.untouched && !before.altered {
            return false;
        }
        match known.digests.get(key) {
            Some(digest) if known.ours => digest != self.digest(key, value),
            // The key of the digests is another by now. A settled object is not looked at for that.
            Some(_) => before.altered,
            // There was no good value. An operator of before wrote no digests, and is believed of what it held.
            None => before.altered || before.state == KeyState::Missing,
        }
    }
}

/// What the status tells of values, and whether the key of the digests is still the one that made it.
struct Known<'a> {
    digests: ValueDigests<'a>,
    ours: bool,
}

fn before<'a>(subject: &Subject<'a>, key: &str) -> Option<&'a KeyStatus> {
    subject.status.keys.iter().find(|before| before.name == key)
}

/// What somebody else did to kept values, that the status does not tell yet.
#[derive(Default)]
pub(crate) struct News<'a> {
    /// Keys whose value is another.
    pub(crate) changed: Vec<&'a str>,
    /// Keys whose value is gone.
    pub(crate) removed: Vec<&'a str>,
}

impl<'a> News<'a> {
    pub(crate) fn of(subject: &Subject<'_>, states: &'a States) -> Self {
        let mut news = Self::default();
        // Otherwise nothing was written that anybody could change.
        let Some(written) = &subject.status.secret else { return news };
        if subject.spec.delivery != Delivery::Secret {
            return news;
        }
        // Nobody took out of the Secret of a new name what never was in it.
        let removes = subject.spec.on_key_error == OnKeyError::Omit || written.name != secret_name(subject);
        let digests = ValueDigests::read(subject.status);
        for (name, told) in states.0.iter().filter(|(_, told)| told.fault.is_some()) {
            let Some(before) = before(subject, name) else { continue };
            let was_held =
                digests.get(name).is_some() && matches!(before.state, KeyState::Ready | KeyState::KeptLast);
            match told.state {
                KeyState::KeptLast if told.altered == Some(true) && !before.altered => {
                    news.changed.push(name);
                }
                KeyState::Missing if was_held && !removes => news.removed.push(name),
                _ => {}
            }
        }
        news
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.changed.iter().chain(&self.removed).copied()
    }

    pub(crate) fn message(&self, secret: &str) -> String {
        let done = [("changed", &self.changed), ("removed", &self.removed)];
        let done = done.iter().filter(|(_, keys)| !keys.is_empty());
        let done: Vec<_> = done.map(|(what, keys)| format!("{what} {}", keys.join(", "))).collect();
        format!(
            "somebody else {} in Secret {secret}; these keys do not open, so their last good values are nowhere else and cannot be put back",
            done.join(" and ")
        )
    }
}

/// The keys that are held with a value that is not their last good one.
pub(crate) fn names(keys: &[KeyStatus]) -> Vec<&str> {
    keys.iter().filter(|key| key.altered).map(|key| key.name.as_str()).collect()
}
