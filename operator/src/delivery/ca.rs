//! The certificate authorities of the delivery API: made by the leader, kept in Secrets of the operator's namespace, used
//! by every replica to sign a certificate of its own, and published for clients.
//!
//! They are kept, unlike the webhook's, because their clients learn slowly: the kubelet takes minutes to show a changed
//! ConfigMap to a node plugin. With an authority for each process every rollout would begin with minutes in which no pod
//! gets its files. Who can read these Secrets can read the identities beside them, so nothing new is at stake.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use sealedenv_crds::names;
use sealedenv_delivery::Authorities;
use sealedenv_runtime::certificate::{Authority, BACKDATE, Leaf, MakeError, Validity};
use sealedenv_runtime::readiness::Gate;
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use sealedenv_runtime::tls::Certificates;
use serde_json::json;
use zeroize::{Zeroize as _, Zeroizing};

use crate::clock::Clock;
use crate::leader::{Leadership, NotLeading};

/// How long an authority lives. A new one is made after two thirds of it.
const LIFETIME: Duration = Duration::from_hours(24 * 365);

/// From making an authority to signing with it, while another one can: clients learn of it meanwhile.
const GRACE: Duration = Duration::from_hours(24);

/// How long a replica's own certificate lives. A new one is signed after two thirds of it.
const LEAF_LIFETIME: Duration = Duration::from_hours(24 * 7);

/// How often everything is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// The same until there is a certificate: the leader makes the first authority.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// The same after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The certificates of the authorities, as clients are told of them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Bundle(Arc<RwLock<Option<Authorities>>>);

impl Bundle {
    /// What clients may trust at the moment, if that is known.
    pub fn get(&self) -> Option<Authorities> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From PEM. What is no bundle leaves things as they are: clients would be left without anybody to trust.
    fn set(&self, pem: &str) {
        if let Ok(authorities) = Authorities::parse(pem) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(authorities);
        }
    }
}

/// Why there is no certificate, or clients were not told.
#[derive(Debug, thiserror::Error)]
enum CaError {
    #[error("{doing}")]
    Api { doing: &'static str, source: kube::Error },
    #[error("making a certificate of the delivery API")]
    Make(#[from] MakeError),
}

/// What to do about the authorities there are.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    /// Which one signs.
    signs: Option<usize>,
    /// Whether a new one is due.
    make: bool,
}

/// Decides. `validities` in any order.
fn choose(now: Timestamp, validities: &[Validity]) -> Choice {
    let mut usable: Vec<usize> = (0..validities.len())
        .filter(|i| validities[*i].not_before <= now && !validities[*i].is_expired(now))
        .collect();
    usable.sort_by_key(|i| validities[*i].not_before);
    let settled = |i: &&usize| validities[**i].not_before + BACKDATE + GRACE <= now;
    // Without one that every client had the time to learn of, the oldest is the best known.
    let signs = usable.iter().rev().find(settled).or(usable.first()).copied();
    let make = usable.last().is_none_or(|newest| now + LIFETIME / 3 >= validities[*newest].not_after);
    Choice { signs, make }
}

/// Keeps the authorities and this replica's certificate.
pub(crate) struct Ca {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Names that clients may call the API by.
    pub(crate) names: Vec<String>,
    pub(crate) clock: Clock,
    pub(crate) leadership: Leadership,
    /// What is served.
    pub(crate) certificates: Certificates,
    /// What answers tell clients of the authorities.
    pub(crate) bundle: Bundle,
    /// Opened when there is a certificate, or when there can be none yet.
    pub(crate) ready: Gate,
}

/// The certificate that is served, and who signed it.
struct Served {
    authority: Vec<u8>,
    leaf: Leaf,
}

impl Ca {
    /// Keeps them until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut served = None;
        let mut roles = self.leadership.roles();
        loop {
            let failed = match self.look(&mut served).await {
                Ok(()) => false,
                Err(error) if NotLeading::is_in(&error) => false,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "the delivery API's certificates are not in line yet"
                    );
                    true
                }
            };
            let pause = match (failed, &served) {
                (true, _) => LOOK_AGAIN,
                (false, None) => LOOK_SOON,
                (false, Some(_)) => LOOK,
            };
            tokio::select! {
                () = shutdown.triggered() => return,
                _ = roles.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self, served: &mut Option<Served>) -> Result<(), CaError> {
        let now = self.clock.now();
        let mut authorities = self.load().await?;
        if self.leadership.leads() && choose(now, &validities(&authorities)).make {
            self.make(now).await?;
            authorities = self.load().await?;
        }
        let bundle = bundle(now, &authorities);
        self.bundle.set(&bundle);
        let choice = choose(now, &validities(&authorities));
        if let Some(authority) = choice.signs.map(|i| &authorities[i]) {
            let due = served.as_ref().is_none_or(|served| {
                served.authority != authority.der().as_ref()
                    || now + LEAF_LIFETIME / 3 >= served.leaf.validity().not_after
                    || now < served.leaf.validity().not_before
            });
            if due {
                let leaf = authority.issue(&self.names, now, LEAF_LIFETIME)?;
                self.certificates.swap(&leaf);
                *served = Some(Served { authority: authority.der().to_vec(), leaf });
                tracing::info!("the delivery API has a new certificate");
                self.ready.set(true);
            }
        }
        if self.leadership.leads() {
            self.publish(&bundle).await?;
        } else if choice.signs.is_none() {
            // The leader may be of a release without this API, and a rollout replaces it only when this one is ready.
            self.ready.set(true);
        }
        Ok(())
    }

    async fn load(&self) -> Result<Vec<Authority>, CaError> {
        let params = ListParams::default().labels(names::DELIVERY_CA);
        let found = self.secrets().list(&params).await;
        let found = found
            .map_err(|source| CaError::Api { doing: "listing the delivery API's authorities", source })?;
        let mut authorities = Vec::new();
        for mut secret in found.items {
            let name = secret.metadata.name.take().unwrap_or_default();
            let mut data = secret.data.take().unwrap_or_default();
            let mut text = |field| {
                let ByteString(bytes) = data.remove(field).unwrap_or_default();
                Zeroizing::new(String::from_utf8(bytes).unwrap_or_default())
            };
            match Authority::restore(&text(CERTIFICATE), &text(KEY)) {
                Ok(authority) => authorities.push(authority),
                Err(error) => {
                    tracing::warn!(secret = name, error = chain(&error), "no authority of the delivery API");
                }
            }
        }
        Ok(authorities)
    }

    /// Makes one, as a Secret that nothing changes.
    async fn make(&self, now: Timestamp) -> Result<(), CaError> {
        let name = format!("{}-{}", names::DELIVERY_CA_SECRET, now.as_second());
        let authority = Authority::generate(&name, now, LIFETIME)?;
        let key = authority.key_pem();
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(
                    [
                        (names::DELIVERY_CA.to_owned(), "true".to_owned()),
                        (names::MANAGED_BY.to_owned(), names::MANAGED_BY_VALUE.to_owned()),
                    ]
                    .into(),
                ),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            immutable: Some(true),
            data: Some(
                [
                    (CERTIFICATE.to_owned(), ByteString(authority.pem().into_bytes())),
                    (KEY.to_owned(), ByteString(key.as_bytes().to_vec())),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let created = self.secrets().create(&params(), &secret).await;
        wipe(&mut secret);
        let mut created = created
            .map_err(|source| CaError::Api { doing: "keeping an authority of the delivery API", source })?;
        wipe(&mut created);
        tracing::info!(secret = name, "made a certificate authority of the delivery API");
        Ok(())
    }

    /// Tells clients of every authority that has not expired.
    async fn publish(&self, bundle: &str) -> Result<(), CaError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let fail = |source| CaError::Api { doing: "publishing the delivery API's authorities", source };
        let found = maps.get_opt(names::DELIVERY_CA_BUNDLE).await.map_err(fail)?;
        let data = found.as_ref().and_then(|map| map.data.as_ref());
        if data.and_then(|data| data.get(names::CA_BUNDLE_FIELD)).map(String::as_str) == Some(bundle) {
            return Ok(());
        }
        let labels = json!({ names::MANAGED_BY: names::MANAGED_BY_VALUE });
        let patch = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": names::DELIVERY_CA_BUNDLE, "labels": labels },
            "data": { names::CA_BUNDLE_FIELD: bundle },
        });
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        maps.patch(names::DELIVERY_CA_BUNDLE, &params, &Patch::Apply(&patch)).await.map_err(fail)?;
        Ok(())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Those that have not expired, as PEM.
fn bundle(now: Timestamp, authorities: &[Authority]) -> String {
    let valid = authorities.iter().filter(|authority| !authority.validity().is_expired(now));
    let mut bundle: Vec<String> = valid.map(Authority::pem).collect();
    bundle.sort_unstable();
    bundle.concat()
}

fn validities(authorities: &[Authority]) -> Vec<Validity> {
    authorities.iter().map(Authority::validity).collect()
}

fn params() -> PostParams {
    PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() }
}

fn wipe(secret: &mut Secret) {
    for ByteString(bytes) in secret.data.iter_mut().flat_map(|data| data.values_mut()) {
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use sealedenv_runtime::readiness::Readiness;

    use super::*;
    use crate::leader::clock::{Steady, Tick};

    const DAY: Duration = Duration::from_hours(24);

    fn at(days: u32) -> Timestamp {
        "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap() + DAY * days
    }

    /// As one that was made then.
    fn made(days: u32) -> Validity {
        Validity { not_before: at(days) - BACKDATE, not_after: at(days) + LIFETIME }
    }

    #[test]
    fn the_first_signs_at_once() {
        assert_eq!(choose(at(0), &[]), Choice { signs: None, make: true });
        assert_eq!(choose(at(0), &[made(0)]), Choice { signs: Some(0), make: false });
    }

    #[test]
    fn the_next_is_made_early_and_signs_when_clients_know_it() {
        assert!(!choose(at(243), &[made(0)]).make);
        assert!(choose(at(244), &[made(0)]).make, "a third of the time is left");
        let both = [made(244), made(0)];
        assert_eq!(choose(at(244), &both), Choice { signs: Some(1), make: false });
        assert_eq!(choose(at(245), &both), Choice { signs: Some(0), make: false });
    }

    #[tokio::test]
    async fn a_standby_is_ready_though_the_leader_made_no_authority_yet() {
        let (service, mut server) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
        let ready = Readiness::new().gate("delivery");
        let ca = Ca {
            client: Client::new(service, "default"),
            namespace: "system".into(),
            names: vec!["delivery.system.svc".into()],
            clock: Clock::from_fn(|| at(0)),
            leadership: Leadership::elected(Steady::from_fn(|| Tick::ZERO)),
            certificates: Certificates::new(),
            bundle: Bundle::default(),
            ready: ready.clone(),
        };
        let look = tokio::spawn(async move { ca.look(&mut None).await });
        let (request, answer) = server.next_request().await.unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().path()),
            ("GET", "/api/v1/namespaces/system/secrets")
        );
        let none = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []});
        answer.send_response(http::Response::new(Body::from(none.to_string().into_bytes())));
        look.await.unwrap().unwrap();
        assert!(ready.is_open());
    }

    #[test]
    fn what_expired_or_is_of_the_future_signs_nothing() {
        assert_eq!(choose(at(366), &[made(0)]), Choice { signs: None, make: true });
        assert_eq!(choose(at(366), &[made(0), made(366)]), Choice { signs: Some(1), make: false });
        // The clock was set back.
        assert_eq!(choose(at(0), &[made(10)]), Choice { signs: None, make: true });
    }
}
