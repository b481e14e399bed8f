//! Decisions about keys, purely.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sealedenv_crds::condition::{self, Status, Wanted};
use sealedenv_crds::{SealingKeyEntry, SealingKeyState, SealingKeyStatus};

/// One usable key, by its public side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFact {
    /// Fingerprint of the recipient.
    pub fingerprint: String,
    /// The recipient.
    pub recipient: String,
    /// The Secret that holds the identity.
    pub secret_name: String,
    /// When it was made, by the annotation of the operator that made it. A key added by hand has none.
    pub made_at: Option<Timestamp>,
    /// When its Secret was created.
    pub created_at: Option<Timestamp>,
    /// The rotation request that it was made for.
    pub rotation: Option<String>,
}

/// Whether keys may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generate {
    /// The first one, unless sealed values show that one was lost; and at a rotation.
    Auto,
    /// None at start, whatever is there; only at a rotation.
    Never,
    /// The first one even where sealed values show that one was lost.
    Always,
}

/// What to do at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is a key: go.
    Go,
    /// Make the first key.
    MakeFirst,
    /// Do not start.
    Refuse(NoKey),
}

/// Why the operator does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// There is none and making one is switched off.
    GenerationOff,
    /// There is none, but there was one: sealed values or the SealingKey show it.
    Lost,
}

/// Decides at start (I3): no key, no start; and a fresh key must not paper over a lost one.
pub fn start(
    usable_keys: usize,
    generate: Generate,
    sealed_values_exist: bool,
    keys_were_there: bool,
) -> Start {
    match (usable_keys, generate) {
        (1.., _) => Start::Go,
        (0, Generate::Never) => Start::Refuse(NoKey::GenerationOff),
        (0, Generate::Auto) if sealed_values_exist || keys_were_there => Start::Refuse(NoKey::Lost),
        (0, Generate::Auto | Generate::Always) => Start::MakeFirst,
    }
}

/// The key that new values are sealed to: the one the operator made last. Keys added by hand open values but are
/// not sealed to, unless there are no others.
///
/// It follows from the Secrets alone, so a restored SealingKey or a lost status cannot change it.
pub fn current(keys: &[KeyFact]) -> Option<&KeyFact> {
    keys.iter().max_by(|a, b| {
        let age = |k: &KeyFact| (k.made_at.is_some(), k.made_at.or(k.created_at));
        age(a).cmp(&age(b)).then_with(|| a.fingerprint.cmp(&b.fingerprint))
    })
}

/// The time to give to a key that is made now: later than that of every other, so that it becomes the current one even
/// when one was made by a clock that was ahead.
pub fn made_at(now: Timestamp, keys: &[KeyFact]) -> Timestamp {
    let latest = keys.iter().filter_map(|key| key.made_at).max();
    let after = latest.and_then(|latest| latest.checked_add(jiff::SignedDuration::from_millis(1)).ok());
    after.map_or(now, |after| after.max(now))
}

/// The rotation request to serve now: one that was not served before, by the status or by a key that was made for
/// it (so that a crash between making the key and writing the status makes no second one).
pub fn rotation<'a>(
    requested: Option<&'a str>,
    status: &SealingKeyStatus,
    keys: &[KeyFact],
) -> Option<&'a str> {
    requested
        .filter(|r| !r.is_empty())
        .filter(|r| status.last_handled_rotation.as_deref() != Some(*r))
        .filter(|r| !keys.iter().any(|k| k.rotation.as_deref() == Some(*r)))
}

/// What the SealingKey should say.
pub struct KeyReport<'a> {
    /// Generation of the SealingKey.
    pub generation: Option<i64>,
    /// The keys at hand.
    pub keys: &'a [KeyFact],
    /// Key Secrets that hold no usable identity, each with the reason.
    pub unusable: &'a [(String, String)],
    /// Whether the last key's Secret is gone and the operator works from memory.
    pub from_memory: bool,
    /// The annotation `sealedenv.dev/rotate`.
    pub rotation: Option<&'a str>,
    /// The annotation `sealedenv.dev/requestedAt`.
    pub requested_at: Option<&'a str>,
}

/// The status of the SealingKey.
pub fn status(now: Timestamp, report: &KeyReport<'_>, old: &SealingKeyStatus) -> SealingKeyStatus {
    let current = current(report.keys);
    let mut keys: Vec<_> = (report.keys.iter())
        .map(|key| SealingKeyEntry {
            fingerprint: key.fingerprint.clone(),
            recipient: key.recipient.clone(),
            state: if current.is_some_and(|c| c.fingerprint == key.fingerprint) {
                SealingKeyState::Current
            } else {
                SealingKeyState::Accepted
            },
            secret_name: key.secret_name.clone(),
            created_at: key.made_at.or(key.created_at).map(Time),
        })
        .collect();
    keys.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));

    let wanted =
        |type_, status, reason, message: &str| Wanted { type_, status, reason, message: message.to_owned() };
    let trouble = if report.from_memory {
        let text = "the Secret of the last key is gone; the operator still holds it in memory. Restore the Secret from its backup before the operator restarts";
        Some(("KeySecretLost", text.to_owned()))
    } else if let Some((secret, why)) = report.unusable.first() {
        let more = report.unusable.len() - 1;
        let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        Some(("KeyUnusable", format!("Secret {secret} holds no usable identity: {why}{others}")))
    } else {
        None
    };
    let conditions = match (&trouble, current) {
        (Some((reason, message)), _) => vec![
            wanted(condition::READY, Status::False, reason, message),
            wanted(condition::STALLED, Status::True, reason, message),
        ],
        (None, Some(key)) => {
            let message = format!("seal to {}; {} accepted", key.fingerprint, report.keys.len());
            vec![wanted(condition::READY, Status::True, "KeysLoaded", &message)]
        }
        (None, None) => vec![
            wanted(condition::READY, Status::False, "NoKey", "there is no key"),
            wanted(condition::STALLED, Status::True, "NoKey", "there is no key"),
        ],
    };
    SealingKeyStatus {
        observed_generation: report.generation,
        last_handled_reconcile_at: report.requested_at.map(ToOwned::to_owned),
        last_handled_rotation: report
            .rotation
            // Without a key Secret nothing was made. It is asked for still when there is one again.
            .filter(|r| !r.is_empty() && !report.from_memory)
            .map(ToOwned::to_owned)
            .or_else(|| old.last_handled_rotation.clone()),
        conditions: condition::merge(now, report.generation, &old.conditions, conditions),
        current: current.map(|k| k.fingerprint.clone()),
        recipients: current.map(|k| k.recipient.clone()).into_iter().collect(),
        keys,
    }
}

/// The keys that are new to the status, but for those that were `made` here and are on record as such. What a Secret says
/// of itself does not count: whoever may create one could say that the operator made it.
pub(crate) fn accepted<'a>(
    facts: &'a [KeyFact],
    old: &'a SealingKeyStatus,
    made: &'a [String],
) -> impl Iterator<Item = &'a str> {
    let known = |key: &str| old.keys.iter().any(|k| k.fingerprint == key);
    let keys = facts.iter().map(|fact| fact.fingerprint.as_str());
    keys.filter(move |key| !known(key) && !made.iter().any(|m| m == key))
}

/// The keys of the status that are not there any more.
pub(crate) fn retired<'a>(facts: &'a [KeyFact], old: &'a SealingKeyStatus) -> impl Iterator<Item = &'a str> {
    let there = |key: &str| facts.iter().any(|fact| fact.fingerprint == key);
    old.keys.iter().map(|key| key.fingerprint.as_str()).filter(move |key| !there(key))
}

/// The same identity in two Secrets is one key. The Secret that tells when it was made speaks for it, so that a copy
/// does not change which key is current; then the one that sorts first.
pub(crate) fn distinct(mut facts: Vec<KeyFact>) -> Vec<KeyFact> {
    facts.sort_by(|a, b| {
        let other = (&b.fingerprint, b.made_at.is_none(), &b.secret_name);
        (&a.fingerprint, a.made_at.is_none(), &a.secret_name).cmp(&other)
    });
    facts.dedup_by(|b, a| a.fingerprint == b.fingerprint);
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::constant(1_790_000_000, 0);

    fn key(fingerprint: &str, made: Option<i64>, created: i64, rotation: Option<&str>) -> KeyFact {
        KeyFact {
            fingerprint: fingerprint.into(),
            recipient: format!("age1{fingerprint}"),
            secret_name: format!("sealedenv-key-{fingerprint}"),
            made_at: made.map(|s| Timestamp::new(s, 0).unwrap()),
            created_at: Some(Timestamp::new(created, 0).unwrap()),
            rotation: rotation.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn no_key_no_start() {
        use Generate::{Always, Auto, Never};
        let cases = [
            (1, Never, true, true, Start::Go),
            (1, Auto, true, true, Start::Go),
            (0, Auto, false, false, Start::MakeFirst),
            (0, Always, true, true, Start::MakeFirst),
            (0, Auto, true, false, Start::Refuse(NoKey::Lost)),
            (0, Auto, false, true, Start::Refuse(NoKey::Lost)),
            (0, Never, false, false, Start::Refuse(NoKey::GenerationOff)),
            (0, Never, true, true, Start::Refuse(NoKey::GenerationOff)),
        ];
        for (keys, generate, sealed, before, wanted) in cases {
            assert_eq!(
                start(keys, generate, sealed, before),
                wanted,
                "{keys} {generate:?} {sealed} {before}"
            );
        }
    }

    #[test]
    fn the_current_key_is_the_one_made_last() {
        let keys = [key("aa", Some(10), 99, None), key("bb", Some(20), 5, None), key("cc", None, 1000, None)];
        assert_eq!(current(&keys).unwrap().fingerprint, "bb", "neither the restore nor the added key counts");
        assert_eq!(current(&keys[2..]).unwrap().fingerprint, "cc", "unless there is no other");
        assert_eq!(current(&[]), None);
    }

    #[test]
    fn a_key_that_claims_to_be_made_by_the_operator_is_on_the_trail_all_the_same() {
        let facts = [key("aa", Some(10), 10, None), key("bb", Some(99), 20, None), key("cc", None, 30, None)];
        let report = KeyReport {
            generation: None,
            keys: &facts[..1],
            unusable: &[],
            from_memory: false,
            rotation: None,
            requested_at: None,
        };
        let old = status(T, &report, &SealingKeyStatus::default());
        assert_eq!(accepted(&facts, &old, &[]).collect::<Vec<_>>(), ["bb", "cc"]);
        assert_eq!(accepted(&facts, &old, &["bb".to_owned()]).collect::<Vec<_>>(), ["cc"]);
        assert_eq!(retired(&facts[1..], &old).collect::<Vec<_>>(), ["aa"]);
        assert_eq!(retired(&facts, &old).count(), 0);
    }

    #[test]
    fn a_copy_of_a_key_does_not_change_which_is_current() {
        let (old, new) = (key("aa", Some(10), 10, None), key("bb", Some(20), 20, Some("r1")));
        let copy = KeyFact { secret_name: "backup".into(), ..key("bb", None, 99, None) };
        for facts in [[old.clone(), new.clone(), copy.clone()], [copy, old, new.clone()]] {
            let distinct = distinct(facts.to_vec());
            assert_eq!(distinct.len(), 2);
            assert_eq!(current(&distinct), Some(&new));
        }
    }

    #[test]
    fn a_rotation_is_served_once_per_value() {
        let mut status = SealingKeyStatus::default();
        let mut keys = vec![key("aa", Some(10), 10, None)];
        assert_eq!(rotation(None, &status, &keys), None);
        assert_eq!(rotation(Some(""), &status, &keys), None);
        assert_eq!(rotation(Some("r1"), &status, &keys), Some("r1"));
        keys.push(key("bb", Some(20), 20, Some("r1")));
        assert_eq!(rotation(Some("r1"), &status, &keys), None, "made, but a crash came before the status");
        status.last_handled_rotation = Some("r1".into());
        keys.pop();
        assert_eq!(rotation(Some("r1"), &status, &keys), None, "its key was retired since");
        assert_eq!(rotation(Some("r2"), &status, &keys), Some("r2"));
    }

    #[test]
    fn the_status_names_current_and_accepted_keys() {
        let keys = [key("bb", Some(20), 20, Some("r1")), key("aa", Some(10), 10, None)];
        let report = KeyReport {
            generation: Some(1),
            keys: &keys,
            unusable: &[],
            from_memory: false,
            rotation: Some("r1"),
            requested_at: None,
        };
        let first = status(T, &report, &SealingKeyStatus::default());
        assert_eq!(first.current.as_deref(), Some("bb"));
        assert_eq!(first.recipients, ["age1bb"]);
        let states: Vec<_> = first.keys.iter().map(|k| (k.fingerprint.as_str(), k.state)).collect();
        assert_eq!(states, [("aa", SealingKeyState::Accepted), ("bb", SealingKeyState::Current)]);
        assert_eq!(first.last_handled_rotation.as_deref(), Some("r1"));
        assert_eq!(condition::status_of(&first.conditions, condition::READY), Some("True"));
        let later = Timestamp::new(1_790_009_999, 0).unwrap();
        assert_eq!(status(later, &report, &first), first, "the clock alone changes nothing");
        let kept = status(T, &KeyReport { rotation: None, ..report }, &first);
        assert_eq!(kept.last_handled_rotation.as_deref(), Some("r1"), "also when the annotation goes");
    }

    #[test]
    fn a_new_key_is_current_though_the_last_one_was_made_by_a_clock_that_was_ahead() {
        let ahead = key("ahead", Some(4_102_444_800), 0, None);
        let made = made_at(T, std::slice::from_ref(&ahead));
        let new = KeyFact { made_at: Some(made), ..key("new", None, 1, Some("r")) };
        assert_eq!(current(&[new, ahead]).unwrap().fingerprint, "new");
        assert_eq!(made_at(T, &[key("old", Some(1), 0, None), key("added", None, 9, None)]), T);
        assert_eq!(made_at(T, &[]), T);
        let last = KeyFact { made_at: Some(Timestamp::MAX), ..key("last", None, 0, None) };
        assert_eq!(made_at(T, &[last]), T, "nothing is later: better a true time than none");
    }

    #[test]
    fn trouble_is_shown() {
        let keys = [key("aa", Some(10), 10, None)];
        let unusable = [("s1".to_owned(), "not an identity".to_owned()), ("s2".to_owned(), "x".to_owned())];
        let report = KeyReport {
            generation: None,
            keys: &keys,
            unusable: &unusable,
            from_memory: false,
            rotation: None,
            requested_at: None,
        };
        let told = status(T, &report, &SealingKeyStatus::default());
        assert_eq!(told.conditions[0].reason, "KeyUnusable");
        assert!(told.conditions[0].message.contains("s1") && told.conditions[0].message.contains("1 more"));
        let lost = KeyReport { from_memory: true, rotation: Some("r9"), ..report };
        let told = status(T, &lost, &SealingKeyStatus::default());
        assert_eq!(told.conditions[0].reason, "KeySecretLost");
        assert_eq!(told.last_handled_rotation, None, "it is asked for still");
        assert_eq!(condition::status_of(&told.conditions, condition::STALLED), Some("True"));
        let none = KeyReport { keys: &[], unusable: &[], from_memory: false, ..report };
        let told = status(T, &none, &SealingKeyStatus::default());
        assert_eq!(told.conditions[0].reason, "NoKey");
        assert_eq!(condition::status_of(&told.conditions, condition::STALLED), Some("True"));
    }
}
