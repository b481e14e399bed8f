//! Where a sealed value may be opened.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What a sealed value is bound to. The key name is always bound; see [`ScopeKind`] for the rest.
///
/// Made only through the constructors, which check every field: a line break or a space in a name would forge
/// header text. See [`Scope::admits`] for the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Bound);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bound {
    Strict { namespace: String, name: String, key: String },
    Namespace { namespace: String, key: String },
    Cluster { key: String },
}

/// How much of its place a sealed value is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeKind {
    /// Namespace, `SealedEnv` name and key.
    Strict,
    /// Namespace and key: any `SealedEnv` of the namespace.
    Namespace,
    /// The key only: any `SealedEnv` of any namespace.
    Cluster,
}

/// The place a value stands in: a key of a `SealedEnv`. Not checked: it is only compared with a [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The namespace of the `SealedEnv`.
    pub namespace: &'a str,
    /// The name of the `SealedEnv`.
    pub name: &'a str,
    /// The key within it.
    pub key: &'a str,
}

/// Which part of a scope an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeField {
    /// The namespace.
    Namespace,
    /// The name of the `SealedEnv`.
    Name,
    /// The key.
    Key,
}

/// Why a scope was refused. The text that was refused is not repeated: it may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// The field has no characters.
    #[error("the {0} is empty")]
    Empty(ScopeField),
    /// The field is longer than Kubernetes allows: 63 for a namespace, 253 for a name or a key.
    #[error("the {field} is longer than {limit} characters")]
    TooLong {
        /// Which field.
        field: ScopeField,
        /// How many characters it may have.
        limit: usize,
    },
    /// The field has a character other than letters and digits of ASCII, `-`, `_` and `.`.
    #[error("the {0} may hold only letters, digits, '-', '_' and '.'")]
    Character(ScopeField),
    /// The field is a word with another meaning: `-` stands for "any" in the header, and names that begin with
    /// `..`, or are `.`, cannot be keys of a Secret.
    #[error("the {0} is a reserved word")]
    Reserved(ScopeField),
}

/// The text is none of `strict`, `namespace`, `cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the scope must be one of strict, namespace, cluster")]
pub struct ScopeKindError;

/// Kubernetes' limit for the name of a namespace.
const MAX_NAMESPACE: usize = 63;
/// Kubernetes' limit for the name of an object, and for a key of a Secret.
const MAX_NAME: usize = 253;
/// What the header has in place of a field that the kind leaves open.
pub(crate) const OPEN: &str = "-";

// === impl Scope ===

impl Scope {
    /// Bound to one key of one `SealedEnv`.
    pub fn strict(namespace: &str, name: &str, key: &str) -> Result<Self, ScopeError> {
        Ok(Self(Bound::Strict {
            namespace: ScopeField::Namespace.check(namespace)?,
            name: ScopeField::Name.check(name)?,
            key: ScopeField::Key.check(key)?,
        }))
    }

    /// Bound to one key in any `SealedEnv` of a namespace.
    pub fn namespace(namespace: &str, key: &str) -> Result<Self, ScopeError> {
        Ok(Self(Bound::Namespace {
            namespace: ScopeField::Namespace.check(namespace)?,
            key: ScopeField::Key.check(key)?,
        }))
    }

    /// Bound to one key in any `SealedEnv` of any namespace.
    pub fn cluster(key: &str) -> Result<Self, ScopeError> {
        Ok(Self(Bound::Cluster { key: ScopeField::Key.check(key)? }))
    }

    /// How much is bound.
    pub fn kind(&self) -> ScopeKind {
        match self.0 {
            Bound::Strict { .. } => ScopeKind::Strict,
            Bound::Namespace { .. } => ScopeKind::Namespace,
            Bound::Cluster { .. } => ScopeKind::Cluster,
        }
    }

    /// The key it is bound to.
    pub fn key(&self) -> &str {
        match &self.0 {
            Bound::Strict { key, .. } | Bound::Namespace { key, .. } | Bound::Cluster { key } => key,
        }
    }

    /// The namespace it is bound to, unless the kind leaves it open.
    pub fn bound_namespace(&self) -> Option<&str> {
        match &self.0 {
            Bound::Strict { namespace, .. } | Bound::Namespace { namespace, .. } => Some(namespace),
            Bound::Cluster { .. } => None,
        }
    }

    /// The name of the `SealedEnv` it is bound to, unless the kind leaves it open.
    pub fn bound_name(&self) -> Option<&str> {
        match &self.0 {
            Bound::Strict { name, .. } => Some(name),
            Bound::Namespace { .. } | Bound::Cluster { .. } => None,
        }
    }

    /// Whether a value of this scope may be opened in `place`: every field that is bound is equal, byte for byte.
    pub fn admits(&self, place: &Place<'_>) -> bool {
        self.key() == place.key
            && self.bound_namespace().is_none_or(|bound| bound == place.namespace)
            && self.bound_name().is_none_or(|bound| bound == place.name)
    }
}

/// `strict shop/checkout/KEY`, `namespace shop/KEY`, `cluster KEY`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        for part in [self.bound_namespace(), self.bound_name()].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        f.write_str(self.key())
    }
}

// === impl ScopeKind ===

impl ScopeKind {
    /// The word for it in headers, flags and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            ScopeKind::Strict => "strict",
            ScopeKind::Namespace => "namespace",
            ScopeKind::Cluster => "cluster",
        }
    }
}

impl fmt::Display for ScopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ScopeKind {
    type Err = ScopeKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "strict" => Ok(ScopeKind::Strict),
            "namespace" => Ok(ScopeKind::Namespace),
            "cluster" => Ok(ScopeKind::Cluster),
            _ => Err(ScopeKindError),
        }
    }
}

// === impl Place ===

/// `shop/checkout/KEY`. Characters that no name can have are shown as `?`, so that the text is one safe line.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &str| -> String {
            part.chars().take(MAX_NAME).map(|c| if is_name_char(c) { c } else { '?' }).collect()
        };
        write!(f, "{}/{}/{}", shown(self.namespace), shown(self.name), shown(self.key))
    }
}

// === impl ScopeField ===

impl ScopeField {
    pub(crate) fn check(self, text: &str) -> Result<String, ScopeError> {
        let limit = match self {
            ScopeField::Namespace => MAX_NAMESPACE,
            ScopeField::Name | ScopeField::Key => MAX_NAME,
        };
        if text.is_empty() {
            Err(ScopeError::Empty(self))
        } else if text.len() > limit {
            Err(ScopeError::TooLong { field: self, limit })
        } else if !text.chars().all(is_name_char) {
            Err(ScopeError::Character(self))
        } else if self.reserves(text) {
            Err(ScopeError::Reserved(self))
        } else {
            Ok(text.to_owned())
        }
    }

    fn reserves(self, text: &str) -> bool {
        match self {
            // A namespace "-" would read back as "any namespace" to a careless reader.
            ScopeField::Namespace | ScopeField::Name => text == OPEN,
            // Kubernetes' rule for keys of Secrets: such names would leave the volume's directory.
            ScopeField::Key => text == "." || text.starts_with(".."),
        }
    }
}

impl fmt::Display for ScopeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScopeField::Namespace => "namespace",
            ScopeField::Name => "name",
            ScopeField::Key => "key",
        })
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "KEY" };

    #[test]
    fn a_place_is_admitted_if_all_that_is_bound_is_equal() {
        let places = [
            HERE,
            Place { namespace: "other", ..HERE },
            Place { name: "other", ..HERE },
            Place { key: "OTHER", ..HERE },
            Place { namespace: "Shop", ..HERE },
            Place { name: "", ..HERE },
            Place { key: "KEY ", ..HERE },
        ];
        for (scope, expected) in [
            (Scope::strict("shop", "checkout", "KEY"), [true, false, false, false, false, false, false]),
            (Scope::namespace("shop", "KEY"), [true, false, true, false, false, true, false]),
            (Scope::cluster("KEY"), [true, true, true, false, true, true, false]),
        ] {
            let scope = scope.unwrap();
            assert_eq!(places.map(|place| scope.admits(&place)), expected, "{scope}");
        }
    }

    #[test]
    fn what_is_bound_is_told() {
        let strict = Scope::strict("shop", "checkout", "KEY").unwrap();
        assert_eq!((strict.bound_namespace(), strict.bound_name()), (Some("shop"), Some("checkout")));
        let namespace = Scope::namespace("shop", "KEY").unwrap();
        assert_eq!((namespace.bound_namespace(), namespace.bound_name()), (Some("shop"), None));
        let cluster = Scope::cluster("KEY").unwrap();
        assert_eq!((cluster.bound_namespace(), cluster.bound_name()), (None, None));
        for (scope, shown) in [
            (strict, "strict shop/checkout/KEY"),
            (namespace, "namespace shop/KEY"),
            (cluster, "cluster KEY"),
        ] {
            assert_eq!(scope.to_string(), shown);
            assert_eq!(scope.key(), "KEY");
            assert_eq!(scope.kind().to_string().parse(), Ok(scope.kind()));
        }
        assert_eq!("Strict".parse::<ScopeKind>(), Err(ScopeKindError));
    }

    #[test]
    fn names_are_checked_one_character_at_a_time() {
        for c in (0..=0x2ff).filter_map(char::from_u32) {
            let allowed = c.is_ascii_alphanumeric() || "-_.".contains(c);
            let name = format!("a{c}b");
            assert_eq!(Scope::strict(&name, "n", "K").is_ok(), allowed, "{c:?}");
            assert_eq!(Scope::strict("n", &name, "K").is_ok(), allowed, "{c:?}");
            assert_eq!(Scope::strict("n", "n", &name).is_ok(), allowed, "{c:?}");
        }
    }

    #[test]
    fn names_are_as_long_as_kubernetes_allows() {
        let of = |len| "n".repeat(len);
        assert!(Scope::strict(&of(63), &of(253), &of(253)).is_ok());
        for (scope, field, limit) in [
            (Scope::strict(&of(64), "n", "K"), ScopeField::Namespace, 63),
            (Scope::namespace(&of(64), "K"), ScopeField::Namespace, 63),
            (Scope::strict("n", &of(254), "K"), ScopeField::Name, 253),
            (Scope::strict("n", "n", &of(254)), ScopeField::Key, 253),
            (Scope::cluster(&of(254)), ScopeField::Key, 253),
        ] {
            assert_eq!(scope, Err(ScopeError::TooLong { field, limit }));
        }
        assert_eq!(Scope::strict("", "n", "K"), Err(ScopeError::Empty(ScopeField::Namespace)));
        assert_eq!(Scope::strict("n", "", "K"), Err(ScopeError::Empty(ScopeField::Name)));
        assert_eq!(Scope::cluster(""), Err(ScopeError::Empty(ScopeField::Key)));
    }

    #[test]
    fn words_with_another_meaning_are_no_names() {
        assert_eq!(Scope::strict("-", "n", "K"), Err(ScopeError::Reserved(ScopeField::Namespace)));
        assert_eq!(Scope::strict("n", "-", "K"), Err(ScopeError::Reserved(ScopeField::Name)));
        for key in [".", "..", "..data", "..."] {
            assert_eq!(Scope::cluster(key), Err(ScopeError::Reserved(ScopeField::Key)), "{key}");
        }
        for key in ["-", ".a", "a..", "_"] {
            assert!(Scope::cluster(key).is_ok(), "{key}");
        }
    }

    #[test]
    fn a_place_is_shown_on_one_line() {
        let place = Place { namespace: "a\nb", name: "\u{1b}[31m", key: "K K" };
        assert_eq!(place.to_string(), "a?b/??31m/K?K");
    }
}
