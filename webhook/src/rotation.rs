//! When to make, publish and serve certificates: decisions only, with the time passed in.
//!
//! Each replica is its own authority. A new authority is published first and served only after a pause, in which
//! every API server has learned of it; the old one stays in the bundle until it expires. So at no moment does a
//! replica serve what an API server does not know.
//!
//! Nothing is stored. A replica that slept past everything (a cluster that was paused for a year) makes anew.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sealedenv_runtime::certificate::{Authority, Leaf, MakeError};

use crate::bundle::COMMON_NAME;

/// How long certificates live and how long API servers get to learn of a new one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names that the API server may call us by.
    pub names: Vec<String>,
    /// From making an authority to its expiry. A new one is made after two thirds of it.
    pub lifetime: Duration,
    /// From publishing an authority to serving it, while another is served.
    pub grace: Duration,
    /// From publishing an authority to being ready, while nothing that is valid is served.
    pub first_grace: Duration,
}

impl Plan {
    /// For the service `service` in `namespace`.
    pub fn new(service: &str, namespace: &str, lifetime: Duration) -> Self {
        let host = format!("{service}.{namespace}.svc");
        Self {
            // The API server uses the first; the others are for people with curl.
            names: vec![
                host.clone(),
                format!("{host}.cluster.local"),
                format!("{service}.{namespace}"),
                service.to_owned(),
            ],
            lifetime,
            grace: (lifetime / 20).min(Duration::from_mins(1)),
            first_grace: (lifetime / 20).min(Duration::from_secs(2)),
        }
    }
}

/// An authority with the one certificate it signs.
#[derive(Debug)]
pub struct Pair {
    authority: Authority,
    leaf: Leaf,
    /// Uptime at which it was first seen in every bundle.
    published: Option<Duration>,
}

/// Which certificates there are, and what is to be done with them.
#[derive(Debug)]
pub struct Rotation {
    plan: Plan,
    served: Option<Pair>,
    next: Option<Pair>,
}

impl Rotation {
    /// Nothing yet.
    pub fn new(plan: Plan) -> Self {
        Self { plan, served: None, next: None }
    }

    /// Makes what is missing: a first pair, or a next one when the served one is due. Returns the certificate to
    /// serve from now on, if that changes at once, because nothing valid is served.
    ///
    /// # Errors
    /// The pair cannot be made. Calling again is right.
    pub fn make(&mut self, now: Timestamp) -> Result<Option<Leaf>, MakeError> {
        if self.served.as_ref().is_some_and(|pair| !pair.is_usable(now)) {
            self.served = None;
        }
        if self.next.as_ref().is_some_and(|pair| !pair.is_usable(now)) {
            self.next = None;
        }
        match (&self.served, &self.next) {
            (None, None) => {
                let pair = self.pair(now)?;
                let leaf = pair.leaf.clone();
                self.served = Some(pair);
                Ok(Some(leaf))
            }
            (None, Some(_)) => {
                self.served = self.next.take();
                Ok(self.served.as_ref().map(|pair| pair.leaf.clone()))
            }
            (Some(served), None) if served.is_due(now, self.plan.lifetime) => {
                self.next = Some(self.pair(now)?);
                Ok(None)
            }
            (Some(_), _) => Ok(None),
        }
    }

    /// The authorities that must be in every bundle.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.served.iter().chain(&self.next).map(|pair| pair.authority.der().clone()).collect()
    }

    /// Notes that all of [`Rotation::authorities`] are in every bundle, at this uptime. Returns the certificate to
    /// serve from now on, if that changes.
    ///
    /// Uptime, because a clock that is set must not cut the pause short.
    pub fn published(&mut self, uptime: Duration) -> Option<Leaf> {
        for pair in self.served.iter_mut().chain(&mut self.next) {
            pair.published.get_or_insert(uptime);
        }
        let since = self.next.as_ref()?.published?;
        if uptime.saturating_sub(since) < self.plan.grace {
            return None;
        }
        self.served = self.next.take();
        self.served.as_ref().map(|pair| pair.leaf.clone())
    }

    /// Whether API servers know what is served.
    pub fn is_ready(&self, uptime: Duration) -> bool {
        let published = self.served.as_ref().and_then(|pair| pair.published);
        published.is_some_and(|since| uptime.saturating_sub(since) >= self.plan.first_grace)
    }

    /// Until when the served certificate is valid.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.served.as_ref().map(|pair| pair.leaf.validity().not_after)
    }

    fn pair(&self, now: Timestamp) -> Result<Pair, MakeError> {
        // The time tells one authority of a replica from the next where people look at a bundle.
        let name = format!("{COMMON_NAME} {}", now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        let authority = Authority::generate(&name, now, self.plan.lifetime)?;
        let leaf = authority.issue(&self.plan.names, now, self.plan.lifetime)?;
        Ok(Pair { authority, leaf, published: None })
    }
}

impl Pair {
    /// Valid now, by our own clock. One from the future means that the clock was set back by more than the
    /// back-dating; peers would refuse it.
    fn is_usable(&self, now: Timestamp) -> bool {
        let validity = self.leaf.validity();
        now >= validity.not_before && !validity.is_expired(now)
    }

    fn is_due(&self, now: Timestamp, lifetime: Duration) -> bool {
        now + lifetime / 3 >= self.leaf.validity().not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn rotation() -> Rotation {
        Rotation::new(Plan::new("sealedenv-webhook", "sealedenv-system", 7 * DAY))
    }

    #[test]
    fn the_first_pair_is_served_at_once_and_ready_after_publishing_and_a_pause() {
        let mut rotation = rotation();
        assert!(rotation.authorities().is_empty() && !rotation.is_ready(Duration::ZERO));
        let leaf = rotation.make(start()).unwrap().expect("something to serve");
        assert_eq!(leaf.validity().not_after, start() + 7 * DAY);
        assert!(rotation.make(start()).unwrap().is_none(), "made once");
        assert_eq!(rotation.authorities().len(), 1);
        assert!(!rotation.is_ready(DAY), "not published");
        assert!(rotation.published(10 * SECOND).is_none());
        assert!(!rotation.is_ready(11 * SECOND));
        assert!(rotation.is_ready(12 * SECOND));
    }

    #[test]
    fn the_next_pair_is_published_before_it_is_served() {
        let mut rotation = rotation();
        rotation.make(start()).unwrap();
        rotation.published(Duration::ZERO);
        let first = rotation.authorities();
        let due = start() + 5 * DAY;
        assert!(rotation.make(start() + 4 * DAY).unwrap().is_none());
        assert_eq!(rotation.authorities(), first, "not due yet");
        assert!(rotation.make(due).unwrap().is_none());
        let both = rotation.authorities();
        assert_eq!((both.len(), &both[0]), (2, &first[0]), "both must be in the bundles now");
        assert_eq!(rotation.not_after(), Some(start() + 7 * DAY), "the old one is still served");
        assert!(rotation.published(100 * SECOND).is_none());
        assert!(rotation.published(159 * SECOND).is_none(), "the pause counts from publishing");
        assert!(rotation.is_ready(159 * SECOND), "ready all the time");
        let leaf = rotation.published(160 * SECOND).expect("served now");
        assert_eq!(leaf.validity().not_after, due + 7 * DAY);
        assert_eq!(rotation.authorities(), both[1..]);
        assert!(rotation.is_ready(160 * SECOND));
    }

    #[test]
    fn after_a_year_asleep_it_starts_anew_and_is_not_ready_meanwhile() {
        let mut rotation = rotation();
        rotation.make(start()).unwrap();
        rotation.published(Duration::ZERO);
        assert!(rotation.is_ready(DAY));
        let later = start() + 400 * DAY;
        let leaf = rotation.make(later).unwrap().expect("something valid to serve");
        assert!(!leaf.validity().is_expired(later));
        assert!(!rotation.is_ready(DAY), "no API server knows it yet");
        rotation.published(DAY);
        assert!(rotation.is_ready(DAY + 2 * SECOND));
    }

    #[test]
    fn a_clock_set_back_makes_anew_and_one_set_a_little_does_not() {
        let mut rotation = rotation();
        rotation.make(start()).unwrap();
        let first = rotation.authorities();
        assert!(rotation.make(start() - 299 * SECOND).unwrap().is_none());
        assert_eq!(rotation.authorities(), first);
        assert!(rotation.make(start() - DAY).unwrap().is_some());
        assert_ne!(rotation.authorities(), first);
    }

    #[test]
    fn a_next_pair_takes_over_when_the_served_one_expires_unpublished() {
        let mut rotation = rotation();
        rotation.make(start()).unwrap();
        rotation.make(start() + 5 * DAY).unwrap();
        let next = rotation.authorities()[1].clone();
        assert!(rotation.make(start() + 8 * DAY).unwrap().is_some());
        assert_eq!(rotation.authorities(), [next]);
        assert!(!rotation.is_ready(DAY));
    }
}
