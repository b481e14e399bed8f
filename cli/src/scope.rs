//! Scopes from arguments.

use sealedenv_seal::{Scope, ScopeError, ScopeKind, ScopeKindError};
use thiserror::Error;

use crate::failure::{Exit, Fault};

/// Why arguments make no scope.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ScopeArgsError {
    /// An argument that the kind needs is not there.
    #[error("--scope {kind} needs {missing}")]
    Missing {
        /// The kind of scope.
        kind: ScopeKind,
        /// The arguments.
        missing: &'static str,
    },
    /// An argument that the kind leaves open is there: it would be ignored.
    #[error("--scope {kind} does not use {extra}")]
    Extra {
        /// The kind of scope.
        kind: ScopeKind,
        /// The arguments.
        extra: &'static str,
    },
    /// A name cannot be one.
    #[error("the scope cannot be made")]
    Name(#[source] ScopeError),
}

impl Fault for ScopeArgsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Extra { kind: ScopeKind::Namespace, .. } => {
                Some("a value of this scope opens under any name".to_owned())
            }
            Self::Extra { kind: ScopeKind::Cluster, .. } => {
                Some("a value of this scope opens under any name of any namespace".to_owned())
            }
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Parses `--scope`.
pub(crate) fn kind(text: &str) -> Result<ScopeKind, ScopeKindError> {
    text.parse()
}

/// The scope of a kind, from exactly the arguments that it binds.
pub(crate) fn exact(
    kind: ScopeKind,
    namespace: Option<&str>,
    name: Option<&str>,
    key: &str,
) -> Result<Scope, ScopeArgsError> {
    let missing = |missing| ScopeArgsError::Missing { kind, missing };
    let extra = |extra| ScopeArgsError::Extra { kind, extra };
    match (kind, namespace, name) {
        (ScopeKind::Strict, Some(namespace), Some(name)) => Scope::strict(namespace, name, key),
        (ScopeKind::Namespace, Some(namespace), None) => Scope::namespace(namespace, key),
        (ScopeKind::Cluster, None, None) => Scope::cluster(key),
        (ScopeKind::Strict, None, None) => return Err(missing("--namespace and --name")),
        (ScopeKind::Strict, Some(_), None) => return Err(missing("--name")),
        (ScopeKind::Strict | ScopeKind::Namespace, None, _) => return Err(missing("--namespace")),
        (ScopeKind::Cluster, Some(_), Some(_)) => return Err(extra("--namespace and --name")),
        (ScopeKind::Cluster, Some(_), None) => return Err(extra("--namespace")),
        (ScopeKind::Namespace | ScopeKind::Cluster, _, Some(_)) => return Err(extra("--name")),
    }
    .map_err(ScopeArgsError::Name)
}

/// The scope of a kind for a place: what the kind leaves open is left out.
pub(crate) fn of_place(
    kind: ScopeKind,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Scope, ScopeArgsError> {
    match kind {
        ScopeKind::Strict => Scope::strict(namespace, name, key),
        ScopeKind::Namespace => Scope::namespace(namespace, key),
        ScopeKind::Cluster => Scope::cluster(key),
    }
    .map_err(ScopeArgsError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_scope_or_names_its_flag() {
        let (s, n, c) = (ScopeKind::Strict, ScopeKind::Namespace, ScopeKind::Cluster);
        let cases = [
            (s, Some("shop"), Some("checkout"), "strict shop/checkout/K"),
            (s, Some("shop"), None, "--scope strict needs --name"),
            (s, None, Some("checkout"), "--scope strict needs --namespace"),
            (s, None, None, "--scope strict needs --namespace and --name"),
            (n, Some("shop"), None, "namespace shop/K"),
            (n, Some("shop"), Some("checkout"), "--scope namespace does not use --name"),
            (n, None, Some("checkout"), "--scope namespace needs --namespace"),
            (n, None, None, "--scope namespace needs --namespace"),
            (c, None, None, "cluster K"),
            (c, Some("shop"), None, "--scope cluster does not use --namespace"),
            (c, None, Some("checkout"), "--scope cluster does not use --name"),
            (c, Some("shop"), Some("checkout"), "--scope cluster does not use --namespace and --name"),
        ];
        for (kind, namespace, name, expected) in cases {
            let said = match exact(kind, namespace, name, "K") {
                Ok(scope) => scope.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected);
        }
        assert_eq!(
            exact(s, Some("a b"), Some("c"), "K"),
            Err(ScopeArgsError::Name(ScopeError::Character(sealedenv_seal::ScopeField::Namespace)))
        );
    }
}
