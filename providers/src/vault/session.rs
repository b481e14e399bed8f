//! When to log in anew. Pure: time is passed in.
//!
//! A token that expired gives the same answer as one that may not. So a refusal leads to a login, but not where the token
//! has only just come from one: then it is a refusal. A login that is denied is not repeated for a while.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

/// A refusal of a token that is younger is about the path and not about the token.
pub(super) const YOUNG: Duration = Duration::from_secs(10);

/// How long no login is tried after one that was denied.
pub(super) const DENIED: Duration = Duration::from_secs(30);

/// As whom Vault is asked.
#[derive(Default)]
pub(super) struct Session {
    kept: Option<Kept>,
    /// No login before then.
    until: Option<Instant>,
}

struct Kept {
    token: HeaderValue,
    since: Instant,
    /// It was refused, and the next question takes another.
    is_over: bool,
}

/// What to ask with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum With {
    /// This token.
    Token(HeaderValue),
    /// That of a login.
    Login,
    /// Nothing: a login was denied just now.
    Nothing,
}

impl Session {
    pub(super) fn with(&self, now: Instant) -> With {
        match &self.kept {
            Some(kept) if !kept.is_over => With::Token(kept.token.clone()),
            _ if self.until.is_some_and(|until| now < until) => With::Nothing,
            _ => With::Login,
        }
    }

    /// Vault refused what was asked with this token. Whether to ask again, with another.
    pub(super) fn refused(&mut self, token: &HeaderValue, now: Instant) -> bool {
        match &mut self.kept {
            Some(kept) if kept.token != *token => true,
            Some(kept) => {
                kept.is_over |= now.duration_since(kept.since) >= YOUNG;
                kept.is_over
            }
            None => true,
        }
    }

    /// A login gave this token. What it replaces, if that is another.
    pub(super) fn logged_in(&mut self, token: HeaderValue, now: Instant) -> Option<HeaderValue> {
        self.until = None;
        let is_same = self.kept.as_ref().is_some_and(|kept| kept.token == token);
        let before = self.kept.replace(Kept { token, since: now, is_over: false });
        before.filter(|_| !is_same).map(|kept| kept.token)
    }

    /// As if it had come so much earlier.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        if let Some(kept) = &mut self.kept {
            kept.since = kept.since.checked_sub(by).unwrap_or(kept.since);
        }
    }

    pub(super) fn denied(&mut self, now: Instant) {
        self.until = Some(now + DENIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn token(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn a_young_token_is_not_replaced_and_an_old_one_is() {
        let (mut session, start) = (Session::default(), Instant::now());
        assert_eq!(session.with(start), With::Login);
        assert_eq!(session.logged_in(token("a"), start), None);
        assert!(!session.refused(&token("a"), start + YOUNG - S));
        assert_eq!(session.with(start + YOUNG - S), With::Token(token("a")));
        assert!(session.refused(&token("a"), start + YOUNG));
        assert_eq!(session.with(start + YOUNG), With::Login);
        assert_eq!(session.logged_in(token("b"), start + YOUNG), Some(token("a")), "to be revoked");
        assert!(session.refused(&token("a"), start + YOUNG), "it was replaced meanwhile: ask with the other");
        assert_eq!(session.with(start + YOUNG), With::Token(token("b")));
        assert_eq!(session.logged_in(token("b"), start + YOUNG), None, "nothing is replaced by itself");
    }

    #[test]
    fn after_a_login_that_was_denied_there_is_none_for_a_while() {
        let (mut session, start) = (Session::default(), Instant::now());
        session.denied(start);
        assert_eq!(session.with(start + DENIED - S), With::Nothing);
        assert_eq!(session.with(start + DENIED), With::Login);
        session.logged_in(token("a"), start + DENIED);
        assert_eq!(session.with(start + DENIED), With::Token(token("a")));
    }
}
