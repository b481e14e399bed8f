//! What has to be read before a decision can be made.

use kube::Resource as _;
use sealedenv_crds::{Delivery, OnKeyError};

use crate::known::Known;
use crate::opened::Opened;
use crate::plan::{self, Observed, Ownership, Subject};
use crate::secrets::later;

/// Whether the Secret was written later than what is known of the SealedEnv. Then another replica may have handled a
/// newer one, while our watch of SealedEnvs lagged behind that of Secrets: acting on what we know would bring an older
/// value back. A read tells.
pub(super) fn is_overtaken(known: &Known, observed: &Observed) -> bool {
    let seen = observed.secret.as_ref().map(|secret| secret.resource_version.as_str());
    let ours = known.meta().resource_version.as_deref();
    matches!((seen, ours), (Some(seen), Some(ours)) if later(seen, ours))
}

/// Whether the decision needs what stands in the Secret.
pub(super) fn needs_content(subject: &Subject<'_>, observed: &Observed, opened: &Opened) -> bool {
    // It goes or stays, whatever stands in it.
    if subject.spec.delivery == Delivery::Memory {
        return false;
    }
    let written = subject.status.secret.as_ref();
    let Some(seen) = &observed.secret else {
        // Without our label it is not watched, and a record that its last good values are gone could not be taken back.
        return written.is_some_and(|w| w.name == plan::secret_name(subject))
            && subject.spec.on_key_error != OnKeyError::Omit
            && is_any_bad(opened);
    };
    let asked = subject.status.last_handled_reconcile_at.as_deref() != subject.requested_at;
    !plan::is_as_written(subject, seen)
        || keeps_last(subject, opened)
        || asked
        || seen.ownership != Ownership::Ours
}

/// The Secret of a former name, which goes, if it may hold the last good value of a key.
pub(super) fn needs_former<'a>(
    subject: &Subject<'a>,
    observed: &Observed,
    opened: &Opened,
) -> Option<&'a str> {
    observed.former.as_ref().filter(|former| former.ownership == Ownership::Ours)?;
    let wanted = subject.spec.delivery == Delivery::Secret && keeps_last(subject, opened);
    wanted.then_some(subject.status.secret.as_ref()?.name.as_str())
}

fn keeps_last(subject: &Subject<'_>, opened: &Opened) -> bool {
    subject.spec.on_key_error == OnKeyError::KeepLast && is_any_bad(opened)
}

fn is_any_bad(opened: &Opened) -> bool {
    opened.0.values().any(|k| k.value.is_err())
}

#[cfg(test)]
mod tests {
    use sealedenv_crds::{Class, SealedEnv, SealedEnvSpec, SealedEnvStatus, SecretRef, Source};
    use sealedenv_seal::Plain;

    use super::*;
    use crate::opened::{KeyFault, OpenedKey};
    use crate::plan::SecretFacts;

    fn opened(opens: bool) -> Opened {
        let fault = || KeyFault { reason: "NoIdentity", message: "no identity".into() };
        let value = if opens { Ok(Plain::new(b"v".to_vec())) } else { Err(fault()) };
        let key = OpenedKey { source: Source::Sealed, class: Class::Secret, sealed_to: Vec::new(), value };
        Opened([("A".to_owned(), key)].into())
    }

    fn secret(version: &str, ownership: Ownership) -> SecretFacts {
        SecretFacts {
            uid: "secret-uid".into(),
            resource_version: version.into(),
            ownership,
            deleting: false,
            live: None,
        }
    }

    fn seen(version: &str) -> Observed {
        Observed { secret: Some(secret(version, Ownership::Ours)), ..Observed::default() }
    }

    fn env() -> (Known, SealedEnvSpec, SealedEnvStatus) {
        let mut env = SealedEnv::new("checkout", SealedEnvSpec::default());
        env.metadata.resource_version = Some("20".into());
        let written = SecretRef {
            name: "before".into(),
            uid: None,
            resource_version: Some("10".into()),
            type_: None,
            immutable: false,
        };
        let status = SealedEnvStatus { secret: Some(written), ..SealedEnvStatus::default() };
        (Known::strip(env).0, SealedEnvSpec::default(), status)
    }

    #[test]
    fn a_secret_is_read_only_where_its_content_decides() {
        let (known, spec, former) = env();
        let mut status = former.clone();
        status.secret.as_mut().unwrap().name = "checkout".into();
        let of = |spec: &SealedEnvSpec, observed: &Observed, opens| {
            needs_content(&known.subject(spec, &status), observed, &opened(opens))
        };
        let omit = SealedEnvSpec { on_key_error: OnKeyError::Omit, ..spec.clone() };
        let memory = SealedEnvSpec { delivery: Delivery::Memory, ..spec.clone() };
        let foreign = Ownership::Foreign { adoptable: true };
        assert!(!of(&spec, &seen("10"), true), "as it was written");
        let renamed = known.subject(&spec, &former);
        assert!(
            !needs_content(&renamed, &Observed::default(), &opened(false)),
            "none of this name was written"
        );
        assert!(needs_content(&renamed, &seen("11"), &opened(true)), "another one was written");
        assert!(of(&spec, &seen("11"), true), "somebody wrote to it");
        assert!(of(&spec, &seen("10"), false), "a last good value is to be kept");
        assert!(!of(&omit, &seen("10"), false), "nothing is to be kept");
        assert!(!of(&memory, &seen("11"), false), "it goes or stays, whatever stands in it");
        let observed = Observed { secret: Some(secret("10", foreign)), ..Observed::default() };
        assert!(of(&spec, &observed, true), "it may be adopted");
    }

    #[test]
    fn a_secret_that_should_be_there_is_looked_for_before_a_kept_value_is_called_gone() {
        let (known, spec, mut status) = env();
        status.secret.as_mut().unwrap().name = "checkout".into();
        let of = |policy, opens| {
            let spec = SealedEnvSpec { on_key_error: policy, ..spec.clone() };
            needs_content(&known.subject(&spec, &status), &Observed::default(), &opened(opens))
        };
        assert!(of(OnKeyError::KeepLast, false) && of(OnKeyError::Fail, false));
        assert!(!of(OnKeyError::Omit, false) && !of(OnKeyError::KeepLast, true));
    }

    #[test]
    fn the_former_secret_is_read_for_a_last_good_value_only() {
        let (known, spec, status) = env();
        let subject = known.subject(&spec, &status);
        let former = |ownership| Observed { former: Some(secret("10", ownership)), ..Observed::default() };
        assert_eq!(needs_former(&subject, &former(Ownership::Ours), &opened(false)), Some("before"));
        assert_eq!(needs_former(&subject, &former(Ownership::Ours), &opened(true)), None);
        assert_eq!(needs_former(&subject, &former(Ownership::Another("x".into())), &opened(false)), None);
        assert_eq!(needs_former(&subject, &Observed::default(), &opened(false)), None);
    }

    #[test]
    fn a_secret_that_is_newer_than_what_is_known_of_its_owner_was_written_by_somebody_who_knew_more() {
        let (known, ..) = env();
        assert!(is_overtaken(&known, &seen("21")));
        assert!(!is_overtaken(&known, &seen("19")));
        assert!(!is_overtaken(&known, &Observed::default()));
    }
}
