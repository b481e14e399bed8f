//! The `caBundle` of a webhook configuration: certificates of every replica's authority, kept by all of them.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sealedenv_runtime::certificate::{Facts, facts, read_bundle, to_pem};

/// The most authorities of replicas in one bundle. Restarts leave one behind each until it expires.
pub const MOST: usize = 32;

/// What the common name of every replica's authority starts with.
pub const COMMON_NAME: &str = "sealedenv-webhook";

/// The bundle that should stand where `current` stands, or `None` if `current` is right.
///
/// * Our certificates are in it, each once; new ones go to the end.
/// * What has expired is gone, and what is no certificate.
/// * Of other replicas' authorities the newest stay, so that with ours there are at most [`MOST`].
/// * Every other certificate stays where it is, whoever put it there.
///
/// So two replicas that merge in turn agree, and the one that finds nothing to do writes nothing.
pub fn merge(now: Timestamp, current: &[u8], ours: &[CertificateDer<'_>]) -> Option<String> {
    let found = read_bundle(current);
    let mut kept: Vec<(CertificateDer<'static>, Facts)> = Vec::new();
    for certificate in found.iter().cloned().chain(ours.iter().map(|ours| ours.clone().into_owned())) {
        let Ok(facts) = facts(&certificate) else { continue };
        let is_known = kept.iter().any(|(known, _)| *known == certificate);
        if !is_known && !facts.validity.is_expired(now) {
            kept.push((certificate, facts));
        }
    }
    drop_oldest_replicas(&mut kept, ours);
    let wanted: Vec<_> = kept.into_iter().map(|(certificate, _)| certificate).collect();
    (wanted != found).then(|| wanted.iter().map(to_pem).collect())
}

fn drop_oldest_replicas(kept: &mut Vec<(CertificateDer<'static>, Facts)>, ours: &[CertificateDer<'_>]) {
    loop {
        let replicas =
            || kept.iter().enumerate().filter(|(_, (_, facts))| facts.common_name.starts_with(COMMON_NAME));
        let others = replicas().filter(|(_, (certificate, _))| !ours.contains(certificate));
        let oldest = others.min_by_key(|(_, (_, facts))| facts.validity.not_before).map(|(index, _)| index);
        match oldest {
            Some(oldest) if replicas().count() > MOST => kept.remove(oldest),
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_runtime::certificate::Authority;
    use std::time::Duration;

    const DAY: Duration = Duration::from_hours(24);

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    /// An authority made `age` days ago that lives for seven.
    fn authority(name: &str, age: u32) -> CertificateDer<'static> {
        Authority::generate(name, now() - age * DAY, 7 * DAY).unwrap().der().clone()
    }

    fn replica(age: u32) -> CertificateDer<'static> {
        authority(COMMON_NAME, age)
    }

    fn bundle(certificates: &[&CertificateDer<'static>]) -> String {
        certificates.iter().map(|certificate| to_pem(certificate)).collect()
    }

    fn ours_only<'a>(ours: &'a CertificateDer<'static>) -> &'a [CertificateDer<'static>] {
        std::slice::from_ref(ours)
    }

    fn merged(current: &str, ours: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
        let merged = merge(now(), current.as_bytes(), ours).expect("something to write");
        assert_eq!(merge(now(), merged.as_bytes(), ours), None, "a second merge must find nothing to do");
        read_bundle(merged.as_bytes())
    }

    #[test]
    fn ours_is_added_once_and_others_stay() {
        let (ours, other, foreign) = (replica(0), replica(1), authority("cert-manager", 3));
        assert_eq!(merged("", ours_only(&ours)), *ours_only(&ours));
        let both = bundle(&[&foreign, &other]);
        assert_eq!(merged(&both, ours_only(&ours)), [foreign.clone(), other.clone(), ours.clone()]);
        let all = bundle(&[&ours, &foreign, &other]);
        assert_eq!(merge(now(), all.as_bytes(), ours_only(&ours)), None);
        assert_eq!(merge(now(), all.as_bytes(), &[ours.clone(), ours.clone()]), None);
        assert_eq!(merge(now(), b"", &[]), None);
    }

    #[test]
    fn what_expired_or_is_rubbish_goes() {
        let (ours, old, foreign_old) = (replica(0), replica(8), authority("cert-manager", 8));
        let rubbish = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
        let current =
            format!("{}{rubbish}{}{}", bundle(&[&old]), bundle(&[&ours, &ours]), bundle(&[&foreign_old]));
        assert_eq!(merged(&current, ours_only(&ours)), *ours_only(&ours));
        // Ours is no exception: an expired authority serves nobody.
        assert_eq!(merge(now(), b"", &[old]), None);
    }

    #[test]
    fn the_oldest_other_replicas_give_way_never_ours_and_never_what_is_foreign() {
        // Ours and the foreign one are older than all others.
        let (ours, foreign) = (replica(6), authority("cert-manager", 6));
        let others: Vec<_> = (0..40).map(|n| replica(n % 5)).collect();
        let current = bundle(&std::iter::once(&foreign).chain(&others).collect::<Vec<_>>());
        let merged = merged(&current, ours_only(&ours));
        assert_eq!(merged.len(), MOST + 1);
        assert!(merged.contains(&ours) && merged.contains(&foreign));
        let ages = |certificates: &[CertificateDer<'_>]| {
            certificates.iter().filter(|c| facts(c).unwrap().validity.not_before < now() - 4 * DAY).count()
        };
        assert_eq!(ages(&others), 8);
        assert_eq!(ages(&merged), 2, "all eight of the oldest others went");
    }
}
