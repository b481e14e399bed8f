//! When to log in anew. Pure: time is passed in.
//!
//! A token that expired gives the same answer as one that may not. So a refusal leads to a login, but not where the token
//! has only just come from one: then it is a refusal. Nor where leases were given with the token, unless Vault says that
//! it is over: they end with it. A login that is denied is not repeated for a while, and for longer each time.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

/// A refusal of a token that is younger is about the path and not about the token.
pub(super) const YOUNG: Duration = Duration::from_secs(10);

/// How long no login is tried after one that was denied; doubled for each in a row, up to the second.
pub(super) const DENIED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));

/// As whom Vault is asked.
#[derive(Default)]
pub(super) struct Session {
    kept: Option<Kept>,
    /// No login before then.
    until: Option<Instant>,
    /// Logins that were denied, in a row.
    denials: u32,
    /// Nobody asks any more.
    is_closed: bool,
}

struct Kept {
    token: HeaderValue,
    since: Instant,
    /// Leases came with it, and end with it.
    gave_leases: bool,
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
    /// Nothing for so long: a login was denied just now.
    Nothing(Duration),
    /// Nothing any more.
    Closed,
}

/// What a refusal says of the token that was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nothing: it is about the path.
    Path,
    /// That it is replaced: ask with another.
    Token,
    /// Perhaps that it is over, which Vault has to be asked.
    Unclear,
}

impl Session {
    pub(super) fn with(&self, now: Instant) -> With {
        match &self.kept {
            _ if self.is_closed => With::Closed,
            Some(kept) if !kept.is_over => With::Token(kept.token.clone()),
            _ => match self.until.map(|until| until.saturating_duration_since(now)) {
                Some(pause) if !pause.is_zero() => With::Nothing(pause),
                _ => With::Login,
            },
        }
    }

    /// Vault refused what was asked with this token.
    pub(super) fn refused(&mut self, token: &HeaderValue, now: Instant) -> Refused {
        match &mut self.kept {
            Some(kept) if kept.token != *token || kept.is_over => Refused::Token,
            Some(kept) if now.duration_since(kept.since) < YOUNG => Refused::Path,
            Some(kept) if kept.gave_leases => Refused::Unclear,
            Some(kept) => {
                kept.is_over = true;
                Refused::Token
            }
            None => Refused::Token,
        }
    }

    /// Vault does not know the token any more.
    pub(super) fn is_over(&mut self, token: &HeaderValue) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.token == *token) {
            kept.is_over = true;
        }
    }

    /// A lease came with this token.
    pub(super) fn leased(&mut self, token: &HeaderValue) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.token == *token) {
            kept.gave_leases = true;
        }
    }

    /// A login gave this token. What it replaces and is to be revoked.
    pub(super) fn logged_in(&mut self, token: HeaderValue, now: Instant) -> Option<HeaderValue> {
        (self.until, self.denials) = (None, 0);
        let is_same = self.kept.as_ref().is_some_and(|kept| kept.token == token);
        let gave_leases = is_same && self.kept.as_ref().is_some_and(|kept| kept.gave_leases);
        let before = self.kept.replace(Kept { token, since: now, gave_leases, is_over: false });
        before.filter(|before| !is_same && !before.gave_leases).map(|kept| kept.token)
    }

    /// Nobody asks any more. The token that is to be revoked.
    pub(super) fn close(&mut self) -> Option<HeaderValue> {
        self.is_closed = true;
        self.kept.take().filter(|kept| !kept.gave_leases).map(|kept| kept.token)
    }

    /// As if it had come so much earlier.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        if let Some(kept) = &mut self.kept {
            kept.since = kept.since.checked_sub(by).unwrap_or(kept.since);
        }
    }

    /// A login was denied. How long there is none.
    pub(super) fn denied(&mut self, now: Instant) -> Duration {
        let (first, longest) = DENIED;
        let pause = first.saturating_mul(2_u32.saturating_pow(self.denials)).min(longest);
        self.denials = self.denials.saturating_add(1);
        self.until = Some(now + pause);
        pause
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
        assert_eq!(session.refused(&token("a"), start + YOUNG - S), Refused::Path);
        assert_eq!(session.with(start + YOUNG - S), With::Token(token("a")));
        assert_eq!(session.refused(&token("a"), start + YOUNG), Refused::Token);
        assert_eq!(session.with(start + YOUNG), With::Login);
        assert_eq!(session.logged_in(token("b"), start + YOUNG), Some(token("a")), "to be revoked");
        let refused = session.refused(&token("a"), start + YOUNG);
        assert_eq!(refused, Refused::Token, "it was replaced meanwhile: ask with the other");
        assert_eq!(session.with(start + YOUNG), With::Token(token("b")));
        assert_eq!(session.logged_in(token("b"), start + YOUNG), None, "nothing is replaced by itself");
    }

    #[test]
    fn a_token_that_gave_leases_is_replaced_only_when_it_is_over_and_never_revoked() {
        let (mut session, start) = (Session::default(), Instant::now());
        session.logged_in(token("a"), start);
        session.leased(&token("of before"));
        session.leased(&token("a"));
        assert_eq!(session.refused(&token("a"), start + YOUNG), Refused::Unclear);
        assert_eq!(session.with(start + YOUNG), With::Token(token("a")));
        session.logged_in(token("a"), start + YOUNG);
        assert_eq!(session.refused(&token("a"), start + YOUNG * 2), Refused::Unclear, "the same once more");
        session.is_over(&token("of before"));
        assert_eq!(session.with(start + YOUNG), With::Token(token("a")));
        session.is_over(&token("a"));
        assert_eq!(session.with(start + YOUNG), With::Login);
        assert_eq!(session.logged_in(token("b"), start + YOUNG), None);
        session.leased(&token("b"));
        assert_eq!(session.close(), None);
    }

    #[test]
    fn after_its_end_nothing_is_asked_with() {
        let (mut session, start) = (Session::default(), Instant::now());
        session.logged_in(token("a"), start);
        assert_eq!(session.close(), Some(token("a")), "to be revoked");
        assert_eq!(session.with(start + YOUNG), With::Closed);
        assert_eq!(session.close(), None);
    }

    #[test]
    fn after_a_login_that_was_denied_there_is_none_for_a_while_and_longer_each_time() {
        let (mut session, start) = (Session::default(), Instant::now());
        for pause in [30, 60, 120, 240, 300, 300].map(|seconds| S * seconds) {
            assert_eq!(session.denied(start), pause);
            assert_eq!(session.with(start + S), With::Nothing(pause.saturating_sub(S)));
            assert_eq!(session.with(start + pause), With::Login);
        }
        session.logged_in(token("a"), start);
        assert_eq!(session.with(start), With::Token(token("a")));
        assert_eq!(session.denied(start), DENIED.0, "not in a row");
    }
}
