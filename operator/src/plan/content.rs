//! Which value each key gets under the policy for keys that cannot be opened.

use std::collections::{BTreeMap, BTreeSet};

use sealedenv_crds::{Class, KeyState, OnKeyError, Source};
use sealedenv_seal::Plain;

use super::{SecretFacts, Subject};
use crate::digest::ValueDigest;
use crate::opened::{KeyFault, Opened};
use crate::reason::Reason;

/// The largest sum of values that a Secret takes (Kubernetes: `core.MaxSecretSize`).
pub(crate) const MAX_SECRET_SIZE: usize = 1 << 20;

/// What a Secret will hold, and what is said of each key and each file.
pub(crate) struct Content {
    pub(crate) values: BTreeMap<String, Plain>,
    pub(crate) states: States,
}

/// What is said of each key.
#[derive(Default)]
pub(crate) struct States(pub(crate) BTreeMap<String, Told>);

/// What is said of one key.
pub(crate) struct Told {
    pub(crate) source: Source,
    pub(crate) class: Class,
    pub(crate) sealed_to: Vec<String>,
    pub(crate) state: KeyState,
    pub(crate) fault: Option<KeyFault>,
    /// Digest of a good value that the Secret holds, or will.
    pub(crate) digest: Option<ValueDigest>,
    /// Whether what is kept is not the last good value. None where the Secret was not looked into.
    pub(crate) altered: Option<bool>,
}

/// Why no content comes of the values.
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) states: States,
}

/// The keys that the Secret holds now, as far as is known.
pub(crate) fn held(subject: &Subject<'_>, secret: Option<&SecretFacts>) -> BTreeSet<String> {
    match secret.map(|s| s.live.as_ref()) {
        None => BTreeSet::new(),
        Some(Some(live)) => live.content.keys().cloned().collect(),
        Some(None) => (subject.status.keys.iter())
            .filter(|k| matches!(k.state, KeyState::Ready | KeyState::KeptLast))
            .map(|k| k.name.clone())
            .collect(),
    }
}

impl States {
    /// Nothing is written: a good value waits, a bad one is as the Secret has it.
    pub(crate) fn unwritten(opened: &Opened, held: &BTreeSet<String>) -> Self {
        Self(
            opened
                .0
                .iter()
                .map(|(name, key)| {
                    let fault = key.value.as_ref().err().cloned();
                    let state = match (&fault, held.contains(name)) {
                        (None, _) => KeyState::NotWritten,
                        (Some(_), true) => KeyState::KeptLast,
                        (Some(_), false) => KeyState::Missing,
                    };
                    let told = Told {
                        source: key.source,
                        class: key.class,
                        sealed_to: key.sealed_to.clone(),
                        state,
                        fault,
                        digest: None,
                        altered: None,
                    };
                    (name.clone(), told)
                })
                .collect(),
        )
    }

    /// None of the values is written after all: what is known of those in the Secret stays.
    pub(crate) fn turned_away(mut self) -> Self {
        for told in self.0.values_mut().filter(|told| told.state == KeyState::Ready) {
            (told.state, told.digest) = (KeyState::NotWritten, None);
        }
        self
    }

    /// The keys that could not be opened, each with its fault.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&str, &KeyFault)> {
        self.0.iter().filter_map(|(name, told)| Some((name.as_str(), told.fault.as_ref()?)))
    }
}

/// Applies the policy. `last` is what stands in the Secret, and then in the one of a former name, where they were read.
pub(crate) fn fold(
    opened: Opened,
    policy: OnKeyError,
    last: &[&BTreeMap<String, Plain>],
    held: &BTreeSet<String>,
) -> Result<Content, Refused> {
    let bad = opened.0.values().filter(|k| k.value.is_err()).count();
    if bad > 0 && policy == OnKeyError::Fail {
        let message =
            format!("{}; nothing is written while a key is bad (onKeyError: Fail)", bad_keys(&opened));
        return Err(Refused {
            reason: Reason::KeysNotOpened,
            message,
            states: States::unwritten(&opened, held),
        });
    }
    // A file that needs no key is no reason to write.
    if opened.0.values().all(|k| k.value.is_err() || k.source == Source::File) {
        let message = format!("{}; no value is left to write", bad_keys(&opened));
        return Err(Refused {
            reason: Reason::NothingOpened,
            message,
            states: States::unwritten(&opened, held),
        });
    }
    let size: usize = opened
        .0
        .iter()
        .map(|(name, key)| match &key.value {
            Ok(value) => value.len(),
            Err(_) => kept(policy, last, name).map_or(0, Plain::len),
        })
        .sum();
    if size > MAX_SECRET_SIZE {
        let message = format!(
            "the values are {size} bytes together, more than the {MAX_SECRET_SIZE} that a Secret holds; split the SealedEnv"
        );
        return Err(Refused { reason: Reason::TooLarge, message, states: States::unwritten(&opened, held) });
    }

    let mut values = BTreeMap::new();
    let mut states = BTreeMap::new();
    for (name, key) in opened.0 {
        let (state, fault) = match key.value {
            Ok(value) => {
                values.insert(name.clone(), value);
                (KeyState::Ready, None)
            }
            Err(fault) => match kept(policy, last, &name) {
                Some(value) => {
                    values.insert(name.clone(), Plain::new(value.expose().to_vec()));
                    (KeyState::KeptLast, Some(fault))
                }
                None => (KeyState::Missing, Some(fault)),
            },
        };
        let told = Told {
            source: key.source,
            class: key.class,
            sealed_to: key.sealed_to,
            state,
            fault,
            digest: None,
            altered: None,
        };
        states.insert(name, told);
    }
    Ok(Content { values, states: States(states) })
}

fn kept<'a>(policy: OnKeyError, last: &[&'a BTreeMap<String, Plain>], name: &str) -> Option<&'a Plain> {
    match policy {
        OnKeyError::KeepLast => last.iter().find_map(|content| content.get(name)),
        OnKeyError::Omit | OnKeyError::Fail => None,
    }
}

fn bad_keys(opened: &Opened) -> String {
    let faults = opened.0.iter().filter_map(|(name, key)| Some((name.as_str(), key.value.as_ref().err()?)));
    describe(faults)
}

/// `KEY: Reason (message)` for the first few keys, and how many more there are.
pub(crate) fn describe<'a>(faults: impl Iterator<Item = (&'a str, &'a KeyFault)>) -> String {
    const SHOWN: usize = 3;
    let mut faults = faults.map(|(name, fault)| format!("{name}: {} ({})", fault.reason, fault.message));
    let mut shown: Vec<_> = faults.by_ref().take(SHOWN).collect();
    let more = faults.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join("; ")
}
