//! A ServiceAccount token on its way.

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use crate::MAX_TOKEN;

const SCHEME: &str = "Bearer ";

/// A credential: no `Debug`, `Display` or `Clone`, wiped when dropped.
///
/// ```compile_fail
/// let token = sealedenv_delivery::Token::new("header.claims.signature".to_owned()).unwrap();
/// println!("{token:?}"); // no Debug
/// ```
pub struct Token(Zeroizing<String>);

/// Text that is no token. It is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("the token is empty")]
    Empty,
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Something that cannot stand in a token.
    #[error("the token has characters that no token has")]
    Characters,
    /// Metadata that is not `Bearer TOKEN`, or stands there twice.
    #[error("the metadata is not one bearer token")]
    NotBearer,
}

impl Token {
    /// Takes a token over. White space around it, such as a file's last line feed, is not part of it.
    ///
    /// # Errors
    /// It is empty, too long, or has characters beyond those of RFC 6750.
    pub fn new(text: String) -> Result<Self, TokenError> {
        let text = Zeroizing::new(text);
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, TokenError> {
        let token = text.trim();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err(TokenError::Characters);
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// The token. Every copy made of it is the caller's to wipe.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As metadata that says of itself that it must not be printed or compressed.
    pub(crate) fn to_metadata(&self) -> Result<MetadataValue<Ascii>, TokenError> {
        let text = Zeroizing::new(format!("{SCHEME}{}", *self.0));
        let mut value = MetadataValue::try_from(text.as_str()).map_err(|_| TokenError::Characters)?;
        value.set_sensitive(true);
        Ok(value)
    }

    pub(crate) fn from_metadata(value: &MetadataValue<Ascii>) -> Result<Self, TokenError> {
        let text = value.to_str().map_err(|_| TokenError::Characters)?;
        // The scheme's case does not matter (RFC 9110, 11.1).
        match text.split_at_checked(SCHEME.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => Self::parse(token),
            _ => Err(TokenError::NotBearer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<TokenError> {
        Token::new(text.to_owned()).err()
    }

    #[test]
    fn only_what_can_be_a_token_is_taken() {
        assert_eq!(
            Token::new("a.b-c_~+/=9\n".to_owned()).ok().map(|t| t.expose().to_owned()).unwrap(),
            "a.b-c_~+/=9"
        );
        assert_eq!(refused(" \n"), Some(TokenError::Empty));
        assert_eq!(refused(&"a".repeat(MAX_TOKEN + 1)), Some(TokenError::TooLong));
        assert_eq!(refused(&"a".repeat(MAX_TOKEN)), None);
        for text in ["a b", "a\nb", "a\0", "ä", "a,b", "\u{7f}"] {
            assert_eq!(refused(text), Some(TokenError::Characters), "{text:?}");
        }
    }

    #[test]
    fn metadata_goes_there_and_back_and_is_not_printable() {
        let token = Token::new("canary.token".to_owned()).ok().unwrap();
        let value = token.to_metadata().unwrap();
        assert!(!format!("{value:?}").contains("canary"));
        assert_eq!(Token::from_metadata(&value).ok().unwrap().expose(), "canary.token");
        for text in ["canary.token", "Basic canary", "Bearer", "Bear", ""] {
            assert!(Token::from_metadata(&MetadataValue::try_from(text).unwrap()).is_err(), "{text}");
        }
        assert!(Token::from_metadata(&MetadataValue::from_static("bearer a")).is_ok());
    }
}
