//! The only type that may hold an opened value.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A value in the clear: the bytes that were sealed, or that are about to be.
///
/// It has no `Debug`, `Display`, `Clone` or `Serialize`, so that no log line, error, status or record can come to
/// hold one by accident, and its memory is wiped when it is dropped. To look inside, say so: [`Plain::expose`].
///
/// ```compile_fail
/// let value = sealedenv_seal::Plain::from(b"hunter2".to_vec());
/// println!("{value:?}"); // no Debug
/// ```
/// ```compile_fail
/// let value = sealedenv_seal::Plain::from(b"hunter2".to_vec());
/// println!("{value}"); // no Display
/// ```
/// ```compile_fail
/// let value = sealedenv_seal::Plain::from(b"hunter2".to_vec());
/// let copy = value.clone(); // no Clone
/// ```
/// What those three refuse is only the last line:
/// ```
/// let value = sealedenv_seal::Plain::from(b"hunter2".to_vec());
/// assert_eq!(value.expose(), b"hunter2");
/// ```
pub struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    /// Takes the bytes over. Copies that the caller made before are the caller's to wipe.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Every copy made of them is the caller's to wipe.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes. The empty value is a value: it can be sealed and opened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same bytes, in time that depends on their lengths only.
    pub fn same_as(&self, other: &Plain) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl From<Vec<u8>> for Plain {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<String> for Plain {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Keyring, Sealed};

    /// Fails to compile if the type has the trait: two impls of `Has` would fit, and `_` could be either.
    macro_rules! has_not {
        ($type:ty: $($trait:path),+) => {$({
            trait Has<A> { fn it() {} }
            impl<T: ?Sized> Has<()> for T {}
            struct Both;
            impl<T: ?Sized + $trait> Has<Both> for T {}
            let _ = <$type as Has<_>>::it;
        })+};
    }

    #[test]
    fn secrets_cannot_be_printed_copied_or_serialized() {
        use std::fmt::{Binary, Debug, Display, LowerHex};
        has_not!(Plain: Debug, Display, LowerHex, Binary, Clone, Default, serde::Serialize);
        has_not!(Plain: AsRef<[u8]>, std::ops::Deref, PartialEq, std::hash::Hash, ToString);
        has_not!(Identity: Debug, Display, LowerHex, Binary, Clone, Default, serde::Serialize);
        has_not!(Identity: AsRef<[u8]>, std::ops::Deref, PartialEq, std::hash::Hash, ToString);
        has_not!(Keyring: Debug, Display, Clone, serde::Serialize);
    }

    #[test]
    fn everything_can_be_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Plain>();
        shared::<Identity>();
        shared::<Keyring>();
        shared::<Sealed>();
    }

    #[test]
    fn values_are_compared_whole() {
        let of = |text: &str| Plain::from(text.to_owned());
        assert!(of("value").same_as(&of("value")) && of("").same_as(&of("")));
        for other in ["", "valu", "values", "Value", "valuf"] {
            assert!(!of("value").same_as(&of(other)), "{other}");
        }
        assert!(of("").is_empty() && !of("v").is_empty());
        assert_eq!(of("value").len(), 5);
    }
}
