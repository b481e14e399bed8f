//! Whether there is nothing to do about a SealedEnv: decided without opening anything and without a request to the API.
//! And what must be known for that, and to put its end on record.

use sealedenv_crds::{Delivery, SealedEnvStatus};

use super::{Observed, Ownership, Subject, memory, secret_name, status};

/// What a status says has been done. A tenth of the status: this is kept of every object, and the status only of those
/// that are being worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    generation: Option<i64>,
    requested_at: Option<Box<str>>,
    /// See [`handled_input`].
    input: Option<Box<str>>,
    secret: Option<Written>,
    digest: Option<Box<str>>,
    keys: Names,
    working: bool,
    unopened: bool,
}

/// The Secret as it was after the last write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    name: Box<str>,
    resource_version: Option<Box<str>>,
}

/// Names of keys in one piece of memory, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Names {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for name in names {
            text.push_str(name);
            // A Kubernetes object holds no 4 GiB.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { text: text.into(), ends: ends.into() }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().filter_map(move |end| {
            let end = usize::try_from(*end).ok()?;
            self.text.get(std::mem::replace(&mut start, end)..end)
        })
    }
}

impl Handled {
    /// Reads a status.
    pub fn of(status: &SealedEnvStatus) -> Self {
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        Self {
            generation: status.observed_generation,
            requested_at: boxed(&status.last_handled_reconcile_at),
            input: boxed(&status.input),
            secret: status.secret.as_ref().map(|secret| Written {
                name: secret.name.as_str().into(),
                resource_version: boxed(&secret.resource_version),
            }),
            digest: boxed(&status.digest),
            keys: Names::of(status.keys.iter().map(|key| key.name.as_str())),
            working: status::is_working(status),
            unopened: status.keys.iter().any(|key| key.reason.is_some()),
        }
    }

    /// Whether a Secret was written.
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The digest of what was delivered.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Names of the keys that the status told of.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter()
    }

    /// Whether a value could not be opened, so that the object is worth another look with other keys.
    pub fn has_unopened(&self) -> bool {
        self.unopened
    }

    /// Whether this generation with this input was handled. Then values are needed only if something else changed.
    pub fn is_of(&self, generation: Option<i64>, input: &str) -> bool {
        !self.working
            && self.generation == generation
            && self.input().is_some_and(|(handled, _)| handled == input)
    }

    fn input(&self) -> Option<(&str, Option<&str>)> {
        self.input.as_deref().map(parts)
    }
}

/// The input that was handled, and the key set with which a part of it did not open.
pub(crate) fn handled_input(status: &SealedEnvStatus) -> Option<(&str, Option<&str>)> {
    status.input.as_deref().map(parts)
}

fn parts(handled: &str) -> (&str, Option<&str>) {
    handled.split_once('/').map_or((handled, None), |(input, ring)| (input, Some(ring)))
}

/// Whether there is nothing to do. This is what makes a restart free: the status says which input was handled and which
/// Secret, at which resourceVersion, came of it. `subject.status` is not looked at.
pub fn is_settled(handled: &Handled, subject: &Subject<'_>, observed: &Observed) -> bool {
    if subject.deleting {
        return true;
    }
    let same_keys = handled.input().is_some_and(|(_, with)| with.is_none_or(|ring| ring == observed.ring));
    if !handled.is_of(Some(subject.generation), subject.input)
        || !same_keys
        || handled.requested_at.as_deref() != subject.requested_at
    {
        return false;
    }
    if subject.spec.suspend {
        return true;
    }
    if subject.spec.delivery == Delivery::Memory {
        return handled.secret.is_none()
            && observed.secret.as_ref().is_none_or(|seen| !memory::is_left_over(subject, seen));
    }
    match (&handled.secret, &observed.secret) {
        (Some(written), Some(seen)) => {
            *written.name == *secret_name(subject)
                && seen.ownership == Ownership::Ours
                && !seen.deleting
                && written.resource_version.as_deref() == Some(seen.resource_version.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_they_went_in() {
        for names in [vec![], vec![""], vec!["A", "", "B_2", "ä"], vec!["x\ny", "/"]] {
            assert_eq!(Names::of(names.iter().copied()).iter().collect::<Vec<_>>(), names);
        }
    }
}
