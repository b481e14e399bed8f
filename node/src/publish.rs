//! What a call of the kubelet means, given what stands at its target. Pure.

use std::time::{Duration, Instant};

use sealedenv_volume::Held;

/// What stands at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing; the directory above may be missing as well.
    Nothing,
    /// A directory with nothing in it and nothing mounted on it.
    EmptyDirectory,
    /// A tmpfs of ours, and what it holds if that can be told.
    Ours(Option<Held>),
    /// Something that the plugin did not make.
    Foreign(Foreign),
}

/// What is in the way at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A file, a socket, a device.
    #[error("a file is in the way")]
    File,
    /// A symbolic link. It is never followed.
    #[error("a symbolic link is in the way")]
    Link,
    /// A directory that has something in it.
    #[error("a directory that is not empty is in the way")]
    Directory,
    /// A mount that is not ours.
    #[error("another mount is in the way")]
    Mount,
}

/// What to do about a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch, and mount what comes. A failure is an error to the kubelet.
    Make,
    /// Fetch what differs from the digest, and swap it in. A failure leaves the files and is no error.
    Refresh {
        /// The digest of what is there, if it is known.
        held: Option<String>,
        /// Whether an older version is to be removed.
        tidy: bool,
    },
    /// It is not time to ask again.
    Leave {
        /// Whether an older version is to be removed.
        tidy: bool,
    },
    /// Not ours to touch.
    Refuse(Foreign),
}

/// Decides about a publish of `environment`. `due` is when the operator wants to be asked again, if it said so.
pub fn decide(found: &Found, environment: &str, now: Instant, due: Option<Instant>) -> Step {
    match found {
        Found::Nothing | Found::EmptyDirectory => Step::Make,
        Found::Foreign(foreign) => Step::Refuse(*foreign),
        // Of another SealedEnv, or broken: as if it held nothing.
        Found::Ours(held) => match held.as_ref().filter(|held| held.environment == environment) {
            None => Step::Refresh { held: None, tidy: false },
            Some(held) if due.is_some_and(|due| now < due) => Step::Leave { tidy: held.stale },
            Some(held) => Step::Refresh { held: Some(held.digest.clone()), tidy: held.stale },
        },
    }
}

/// What to do about an unpublish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left.
    Done,
    /// Remove the directory.
    Directory,
    /// Unmount, then remove the directory.
    Mount,
    /// Not ours to touch.
    Refuse(Foreign),
}

/// Decides about an unpublish.
pub fn remove(found: &Found) -> Removal {
    match found {
        Found::Nothing => Removal::Done,
        Found::EmptyDirectory => Removal::Directory,
        Found::Ours(_) => Removal::Mount,
        Found::Foreign(foreign) => Removal::Refuse(*foreign),
    }
}

/// When to ask again, from the operator's hint. The kubelet calls when it likes, about once a minute: what is wanted
/// sooner is had at its next call, and no hint keeps a volume from being asked about for more than an hour.
pub fn due(now: Instant, hint: Duration) -> Option<Instant> {
    const LONGEST: Duration = Duration::from_hours(1);
    now.checked_add(hint.min(LONGEST)).filter(|_| !hint.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(stale: bool) -> Found {
        Found::Ours(Some(Held { environment: "checkout".to_owned(), digest: "d1".to_owned(), stale }))
    }

    #[test]
    fn what_is_found_says_what_a_publish_is() {
        let now = Instant::now();
        let later = now.checked_add(Duration::from_secs(1));
        let refresh = |held: Option<&str>, tidy| Step::Refresh { held: held.map(str::to_owned), tidy };
        for (found, due, step) in [
            (Found::Nothing, None, Step::Make),
            (Found::Nothing, later, Step::Make),
            (Found::EmptyDirectory, None, Step::Make),
            (Found::EmptyDirectory, later, Step::Make),
            (held(false), None, refresh(Some("d1"), false)),
            (held(true), None, refresh(Some("d1"), true)),
            (held(false), Some(now), refresh(Some("d1"), false)),
            (held(false), later, Step::Leave { tidy: false }),
            (held(true), later, Step::Leave { tidy: true }),
            (Found::Ours(None), later, refresh(None, false)),
            (Found::Foreign(Foreign::Link), None, Step::Refuse(Foreign::Link)),
            (Found::Foreign(Foreign::Mount), later, Step::Refuse(Foreign::Mount)),
        ] {
            assert_eq!(decide(&found, "checkout", now, due), step, "{found:?} {due:?}");
        }
        assert_eq!(decide(&held(false), "other", now, later), refresh(None, false), "of another SealedEnv");
    }

    #[test]
    fn only_what_the_plugin_makes_is_removed() {
        for (found, removal) in [
            (Found::Nothing, Removal::Done),
            (Found::EmptyDirectory, Removal::Directory),
            (held(true), Removal::Mount),
            (Found::Ours(None), Removal::Mount),
            (Found::Foreign(Foreign::File), Removal::Refuse(Foreign::File)),
            (Found::Foreign(Foreign::Directory), Removal::Refuse(Foreign::Directory)),
        ] {
            assert_eq!(remove(&found), removal, "{found:?}");
        }
    }

    #[test]
    fn a_hint_is_bounded() {
        let now = Instant::now();
        assert_eq!(due(now, Duration::ZERO), None);
        assert_eq!(due(now, Duration::from_secs(30)), now.checked_add(Duration::from_secs(30)));
        assert_eq!(due(now, Duration::MAX), now.checked_add(Duration::from_hours(1)));
    }
}
