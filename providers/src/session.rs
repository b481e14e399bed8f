//! What a login gave, for as long as it lasts. Pure, but for [`Sessions::get`]: time is passed in.
//!
//! It is replaced before its end, so that no question is asked with what ends on the way. Where a store refuses it all the
//! same, there is one login, unless it has only just come from one. A login that is denied is not repeated for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::{Answer, By, Outcome};

/// How long before its end it is replaced; where it lasts less than twice as long, at half of its time.
const EARLY: Duration = Duration::from_mins(5);

/// A refusal of what is younger is about the path.
const YOUNG: Duration = Duration::from_secs(10);

/// How long no login is tried after one that was denied: twice as long each time.
const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// As whom a store is asked.
pub(crate) struct Session<T> {
    kept: Option<Kept<T>>,
    /// No login before then, after a pause of that length.
    denied: Option<(Instant, Duration)>,
}

struct Kept<T> {
    what: Arc<T>,
    since: Instant,
    until: Instant,
}

/// What to ask with.
pub(crate) enum With<T> {
    /// This.
    Kept(Arc<T>),
    /// That of a login.
    Login,
    /// Nothing: a login was denied just now. For how long there is none.
    Nothing(Duration),
}

impl<T> Default for Session<T> {
    fn default() -> Self {
        Self { kept: None, denied: None }
    }
}

impl<T> Session<T> {
    fn with(&self, now: Instant) -> With<T> {
        match (&self.kept, self.denied) {
            (Some(kept), _) if now < kept.until => With::Kept(Arc::clone(&kept.what)),
            (_, Some((until, _))) if now < until => With::Nothing(until - now),
            _ => With::Login,
        }
    }

    /// The store refused what was asked with this. Whether to ask again, with another.
    fn refused(&mut self, what: &Arc<T>, now: Instant) -> bool {
        let is_it = |kept: &Kept<T>| Arc::ptr_eq(&kept.what, what);
        match &self.kept {
            Some(kept) if is_it(kept) && now.duration_since(kept.since) < YOUNG => false,
            Some(kept) if is_it(kept) => {
                self.kept = None;
                true
            }
            // It was replaced meanwhile.
            _ => true,
        }
    }

    fn logged_in(&mut self, what: T, lasts: Duration, now: Instant) -> Arc<T> {
        let what = Arc::new(what);
        let until = now + lasts.saturating_sub(EARLY).max(lasts / 2);
        self.kept = Some(Kept { what: Arc::clone(&what), since: now, until });
        self.denied = None;
        what
    }

    /// For how long no login is tried.
    fn denied(&mut self, now: Instant) -> Duration {
        let pause = self.denied.map_or(PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        self.denied = Some((now + pause, pause));
        pause
    }
}

/// One session, for all who ask. Others wait for the one login that is under way.
pub(crate) struct Sessions<T>(Mutex<Session<T>>);

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Sessions<T> {
    /// What to ask with: what is kept, or what that login gives and for how long.
    pub(crate) async fn get(
        &self,
        login: impl Future<Output = Result<(T, Duration), Answer>>,
    ) -> Result<Arc<T>, Answer> {
        let mut session = self.0.lock().await;
        match session.with(Instant::now()) {
            With::Kept(what) => return Ok(what),
            With::Nothing(pause) => return Err(Answer::here(Outcome::Denied).again(pause)),
            With::Login => {}
        }
        match login.await {
            Ok((what, lasts)) => Ok(session.logged_in(what, lasts, Instant::now())),
            // It says nothing of the path, so that is asked for again when a login is tried again.
            Err(answer) if answer.by == By::Store && matches!(answer.outcome, Outcome::Denied) => {
                Err(answer.again(session.denied(Instant::now())))
            }
            Err(answer) => Err(answer),
        }
    }

    /// As if what is kept had come so much earlier.
    #[cfg(test)]
    pub(crate) async fn age(&self, by: Duration) {
        if let Some(kept) = &mut self.0.lock().await.kept {
            kept.since -= by;
        }
    }

    /// Whether to ask again, after a refusal.
    pub(crate) async fn refused(&self, what: &Arc<T>) -> bool {
        self.0.lock().await.refused(what, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn told<T: Copy>(with: &With<T>) -> Result<T, Duration> {
        match with {
            With::Kept(what) => Ok(**what),
            With::Login => Err(Duration::ZERO),
            With::Nothing(pause) => Err(*pause),
        }
    }

    #[test]
    fn it_is_replaced_before_its_end() {
        for (lasts, until) in [(3600, 3300), (600, 300), (500, 250), (60, 30), (0, 0)] {
            let (mut session, start) = (Session::default(), Instant::now());
            assert_eq!(told(&session.with(start)), Err(Duration::ZERO));
            session.logged_in(1, S * lasts, start);
            let end = start + S * until;
            assert_eq!(told(&session.with(end)), Err(Duration::ZERO), "{lasts}");
            if until > 0 {
                assert_eq!(told(&session.with(end - S)), Ok(1), "{lasts}");
            }
        }
    }

    #[test]
    fn what_is_young_is_not_replaced_for_a_refusal() {
        let (mut session, start) = (Session::default(), Instant::now());
        let first = session.logged_in(1, S * 3600, start);
        assert!(!session.refused(&first, start + YOUNG - S));
        assert_eq!(told(&session.with(start + YOUNG)), Ok(1));
        assert!(session.refused(&first, start + YOUNG));
        assert_eq!(told(&session.with(start + YOUNG)), Err(Duration::ZERO));
        session.logged_in(2, S * 3600, start + YOUNG);
        assert!(session.refused(&first, start + YOUNG), "it was replaced meanwhile");
        assert_eq!(told(&session.with(start + YOUNG)), Ok(2));
    }

    #[test]
    fn after_a_login_that_was_denied_there_is_none_for_a_while() {
        let (mut session, start) = (Session::default(), Instant::now());
        for pause in [30, 60, 120, 240, 300, 300].map(|seconds| S * seconds) {
            assert_eq!(session.denied(start), pause);
            assert_eq!(told(&session.with(start + S)), Err(pause.saturating_sub(S)));
            assert_eq!(told(&session.with(start + pause)), Err(Duration::ZERO));
        }
        session.logged_in(1, S * 3600, start);
        assert_eq!(session.denied(start), PAUSE, "and from the beginning after one that was not");
    }

    #[tokio::test(start_paused = true)]
    async fn one_login_is_for_all_and_only_a_denied_one_makes_a_pause() {
        let sessions = Sessions::default();
        let denied = async || sessions.get(async { Err::<((), _), _>(Outcome::Denied.into()) }).await;
        for by_here in [Answer::here(Outcome::Denied), Outcome::Malformed.into()] {
            assert_eq!(sessions.get(async { Err(by_here) }).await.err().unwrap().again, None);
        }
        assert_eq!(denied().await.err().unwrap().again, Some(PAUSE));
        let meanwhile = sessions.get(async { panic!("no login") }).await.err().unwrap();
        assert_eq!(
            (meanwhile.outcome.as_str(), meanwhile.by, meanwhile.again),
            ("Denied", By::Here, Some(PAUSE))
        );
        tokio::time::advance(PAUSE).await;
        let first = sessions.get(async { Ok(((), S * 3600)) }).await.ok().unwrap();
        let second = sessions.get(async { panic!("no login") }).await.ok().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!sessions.refused(&first).await);
    }
}
