//! In place of `agreement.rs` for processors that it has no assembly for. Tests compile it for every processor.

use age::DecryptError;
use age_core::format::{FileKey, Stanza};

/// There is none.
pub(crate) enum Agreement {}

impl Agreement {
    pub(crate) fn new(_identity: &str) -> Option<Self> {
        None
    }

    pub(crate) fn unwrap(&self, _stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use age_core::secrecy::ExposeSecret as _;

    use super::*;
    use crate::agreement::Agreement as Other;

    type New<A> = fn(&str) -> Option<A>;
    type Unwrap<A> = fn(&A, &Stanza) -> Option<Result<FileKey, DecryptError>>;

    #[test]
    fn it_has_the_same_functions_as_the_other_and_there_never_is_one() {
        let (new, _): (New<Agreement>, Unwrap<Agreement>) = (Agreement::new, Agreement::unwrap);
        let (_, _): (New<Other>, Unwrap<Other>) = (Other::new, Other::unwrap);
        assert!(new(age::x25519::Identity::generate().to_string().expose_secret()).is_none());
    }
}
