//! What is asked for.

use std::collections::BTreeSet;

use crate::wire;
use crate::{MAX_DIGEST, MAX_NAME, MAX_WANTED};

/// One SealedEnv of the pod's namespace, and what the caller has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Digest of what the caller holds, as it was given with [`crate::Files`]. The answer to what has not changed is
    /// [`crate::Outcome::Unchanged`].
    pub held: Option<String>,
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// No SealedEnv is wanted.
    #[error("no SealedEnv is asked for")]
    None,
    /// More than [`MAX_WANTED`].
    #[error("more than {MAX_WANTED} SealedEnvs are asked for")]
    TooMany,
    /// The same one twice.
    #[error("a SealedEnv is asked for twice")]
    Twice,
    /// A name that no SealedEnv can have.
    #[error("what is asked for is not the name of a SealedEnv")]
    Name,
    /// A digest that was never given.
    #[error("a digest is not one that was given")]
    Digest,
}

/// Checks a request against the bounds of the contract.
///
/// # Errors
/// See [`WantedError`].
pub fn check(wanted: &[Wanted]) -> Result<(), WantedError> {
    if wanted.is_empty() {
        return Err(WantedError::None);
    }
    if wanted.len() > MAX_WANTED {
        return Err(WantedError::TooMany);
    }
    let mut names = BTreeSet::new();
    for Wanted { name, held } in wanted {
        if !is_name(name) {
            return Err(WantedError::Name);
        }
        if held.as_deref().is_some_and(|held| !is_digest(held)) {
            return Err(WantedError::Digest);
        }
        if !names.insert(name) {
            return Err(WantedError::Twice);
        }
    }
    Ok(())
}

/// The name of a Kubernetes object, an RFC 1123 subdomain.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.split('.').all(|label| {
            let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inside)
        })
}

pub(crate) fn is_digest(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_DIGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) fn from_wire(request: wire::FetchRequest) -> Result<Vec<Wanted>, WantedError> {
    // Before anything is made of them.
    if request.wanted.len() > MAX_WANTED {
        return Err(WantedError::TooMany);
    }
    let wanted: Vec<Wanted> = (request.wanted.into_iter())
        .map(|wire::Wanted { name, held }| Wanted { name, held: Some(held).filter(|held| !held.is_empty()) })
        .collect();
    check(&wanted)?;
    Ok(wanted)
}

pub(crate) fn to_wire(wanted: &[Wanted]) -> wire::FetchRequest {
    let wanted = (wanted.iter())
        .map(|one| wire::Wanted { name: one.name.clone(), held: one.held.clone().unwrap_or_default() })
        .collect();
    wire::FetchRequest { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Wanted> {
        names.iter().map(|name| Wanted { name: (*name).to_owned(), held: None }).collect()
    }

    #[test]
    fn requests_out_of_bounds_are_refused() {
        assert_eq!(check(&named(&["checkout", "a.b-c.9"])), Ok(()));
        assert_eq!(check(&named(&[])), Err(WantedError::None));
        assert_eq!(check(&named(&["a", "b", "a"])), Err(WantedError::Twice));
        let many: Vec<String> = (0..=MAX_WANTED).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(check(&named(&many)), Err(WantedError::TooMany));
        assert_eq!(check(&named(&many[..MAX_WANTED])), Ok(()));
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", "A", "a/b", "../a", "a..b", "-a", "a-", ".a", "a_b", "a\nb", "ä", &long] {
            assert_eq!(check(&named(&[name])), Err(WantedError::Name), "{name:?}");
        }
    }

    #[test]
    fn digests_out_of_bounds_are_refused() {
        let held = |held: &str| [Wanted { name: "a".to_owned(), held: Some(held.to_owned()) }];
        assert_eq!(check(&held("hmac-sha256:00")), Ok(()));
        for digest in ["", "a b", "a\n", &"a".repeat(MAX_DIGEST + 1)] {
            assert_eq!(check(&held(digest)), Err(WantedError::Digest), "{digest:?}");
        }
    }

    #[test]
    fn requests_come_back_as_they_went() {
        let wanted = vec![
            Wanted { name: "a".to_owned(), held: Some("d1".to_owned()) },
            Wanted { name: "b".to_owned(), held: None },
        ];
        assert_eq!(from_wire(to_wire(&wanted)), Ok(wanted));
        let many = wire::FetchRequest { wanted: vec![wire::Wanted::default(); MAX_WANTED + 1] };
        assert_eq!(from_wire(many), Err(WantedError::TooMany));
    }
}
