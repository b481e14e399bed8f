//! Who leads: what to do about the Lease, purely.
//!
//! Every time is a [`Tick`] of our own [steady clock](super::clock). What another replica wrote into the Lease about
//! time is never compared with it: a Lease has expired when *we* have seen it unchanged for as long as it lasts.

use std::time::Duration;

use super::clock::Tick;

/// A Lease that claims to last longer is believed for this long only. No replica is configured beyond it.
pub const LONGEST: Duration = Duration::from_mins(5);

/// How long to wait before leadership is offered again by a replica whose audit trail takes nothing. Doubles each time.
const OFFER_AGAIN: Duration = Duration::from_mins(1);

/// The longest such wait.
const OFFER_AT_LEAST: Duration = Duration::from_mins(10);

/// How long things take, all from the time for which a Lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
}

impl Timing {
    /// From how long a Lease lasts.
    pub fn new(lease: Duration) -> Self {
        Self { lease: lease.min(LONGEST) }
    }

    /// How long a Lease lasts after it was renewed.
    pub fn lease(self) -> Duration {
        self.lease
    }

    /// How often the leader renews, and a standby looks even if its watch tells nothing.
    pub fn renew(self) -> Duration {
        self.lease / 3
    }

    /// How long after a renewal was *sent* the leader may still act. What is left of the lease is the margin for
    /// requests that are on their way.
    pub fn certain(self) -> Duration {
        self.lease * 2 / 3
    }

    /// How soon a request that failed is tried again.
    pub fn retry(self) -> Duration {
        self.lease / 10
    }

    /// How long an answer about the Lease may take.
    pub fn answer(self) -> Duration {
        self.lease / 5
    }

    /// How long a replica whose audit trail takes nothing leaves a free Lease to others.
    pub fn courtesy(self) -> Duration {
        self.lease / 5
    }

    /// How long the audit trail may take nothing before the leader hands over.
    pub fn patience(self) -> Duration {
        self.lease * 2 / 3
    }
}

/// The Lease, as one answer of the API server showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its resourceVersion. Another one means that somebody wrote.
    pub version: String,
    /// Who holds it; nobody after it was given up.
    pub holder: Option<String>,
    /// For how long it lasts when it is not renewed, in the holder's words.
    pub lasts: Duration,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing for so long, unless something new is seen.
    Wait(Duration),
    /// Ask the API server how the Lease stands.
    Look,
    /// Make the Lease, with us as holder.
    Create,
    /// Become the holder, if the Lease is still of this version.
    Take {
        /// The version.
        version: String,
        /// How often it has changed hands then.
        transitions: i32,
    },
    /// Renew, if the Lease is still of this version.
    Renew {
        /// The version.
        version: String,
    },
    /// Act as leader no longer.
    StepDown(Why),
    /// Act as leader no longer and give the Lease up, if it is still of this version: another replica may do better.
    Offer {
        /// The version.
        version: String,
    },
}

/// Why a leader steps down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It could not renew in time, or was paused.
    Lapsed,
    /// The Lease names somebody else.
    Taken,
}

/// One replica's view of the election.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// What was seen last, and since when it has been so.
    sight: Option<(Option<Seen>, Tick)>,
    /// How long the holder that was seen last may act without being seen again.
    shadow: Duration,
    /// When the write that made or kept us leader was sent, and the version that came of it.
    held: Option<(Tick, String)>,
    /// Whether a Lease that names us can be of our making: we wrote it, and saw nobody else in it since. After an
    /// etcd restore it can name us from long ago.
    claimed: bool,
    /// Something was not as expected: look before anything else.
    look: bool,
    not_before: Tick,
    looked: Tick,
    offers: u32,
    offer_not_before: Tick,
    /// Until when a Lease that we offered is left to others, those included that notice only when they look.
    yields: Tick,
    /// When the former leader gave the last sign of itself, as we saw it.
    vacant: Tick,
}

impl Election {
    /// A replica that has seen nothing yet. `me` is this process and no other, ever.
    pub fn new(me: impl Into<String>, timing: Timing) -> Self {
        Self {
            me: me.into(),
            timing,
            sight: None,
            shadow: Duration::ZERO,
            held: None,
            claimed: false,
            look: true,
            not_before: Tick::ZERO,
            looked: Tick::ZERO,
            offers: 0,
            offer_not_before: Tick::ZERO,
            yields: Tick::ZERO,
            vacant: Tick::ZERO,
        }
    }

    /// Whether this replica leads, as far as it knows. Acting needs [certainty](Timing::certain) besides.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// The version of the Lease that we hold.
    pub fn version(&self) -> Option<&str> {
        self.held.as_ref().map(|(_, version)| version.as_str())
    }

    /// When leadership stops being certain.
    pub fn certain_until(&self) -> Option<Tick> {
        self.held.as_ref().map(|(sent, _)| *sent + self.timing.certain())
    }

    /// Since when, at our last taking over, nobody was known to lead: renewed, or gave the Lease up.
    pub fn vacant_since(&self) -> Tick {
        self.vacant
    }

    /// Takes what a watch showed. The leader knows better: its own writes are newer than what a watch shows late.
    pub fn watched(&mut self, now: Tick, seen: Option<Seen>) {
        if self.held.is_none() {
            self.see(now, seen);
        }
    }

    /// Takes the answer to [`Step::Look`].
    pub fn looked(&mut self, now: Tick, seen: Option<Seen>) {
        (self.look, self.looked) = (false, now);
        self.see(now, seen);
        if let (Some((_, version)), Some((Some(seen), _))) = (&mut self.held, &self.sight)
            && self.claimed
            && seen.holder.as_deref() == Some(&self.me)
        {
            version.clone_from(&seen.version);
        }
    }

    fn see(&mut self, now: Tick, seen: Option<Seen>) {
        match &seen {
            Some(seen) if seen.holder.as_deref() != Some(&self.me) => self.claimed = false,
            _ => {}
        }
        if self.sight.as_ref().is_none_or(|(before, _)| *before != seen) {
            if let Some(seen) = &seen {
                self.shadow = seen.holder.as_ref().map_or(Duration::ZERO, |_| seen.lasts.min(LONGEST));
            }
            self.sight = Some((seen, now));
        }
    }

    /// A write is about to be sent. Whatever the answer, a Lease that names us may be of our making from now on.
    pub fn writing(&mut self) {
        self.claimed = true;
    }

    /// A write that was sent then has been answered: we hold the Lease.
    pub fn wrote(&mut self, sent: Tick, seen: Seen) {
        self.look = false;
        if self.held.is_none() {
            self.vacant = self.sight.as_ref().map_or(Tick::ZERO, |(_, since)| *since);
        }
        self.held = Some((sent, seen.version.clone()));
        self.shadow = seen.lasts;
        self.sight = Some((Some(seen), sent));
        self.claimed = true;
    }

    /// The Lease was not as we knew it when we wrote.
    pub fn conflicted(&mut self) {
        self.look = true;
    }

    /// A request failed, or was not answered in time: nobody knows what came of it.
    pub fn failed(&mut self, now: Tick) {
        self.look = true;
        self.not_before = now + self.timing.retry();
    }

    /// We act as leader no longer.
    pub fn stepped_down(&mut self) {
        self.held = None;
        self.look = true;
    }

    /// We acted as leader no longer and gave the Lease up, or tried to.
    pub fn offered(&mut self, now: Tick) {
        self.held = None;
        self.claimed = false;
        self.look = true;
        self.offer_not_before =
            now + OFFER_AGAIN.saturating_mul(2_u32.saturating_pow(self.offers)).min(OFFER_AT_LEAST);
        self.offers = self.offers.saturating_add(1);
        self.yields = now + self.timing.renew() + self.timing.courtesy();
    }

    /// What to do now. `unfit` says since when the audit trail has taken nothing of what it was given.
    pub fn step(&mut self, now: Tick, unfit: Option<Tick>) -> Step {
        if unfit.is_none() {
            (self.offers, self.offer_not_before) = (0, Tick::ZERO);
        }
        match self.held.clone() {
            Some((sent, version)) => self.lead(now, unfit, sent, version),
            None => self.stand_by(now, unfit),
        }
    }

    fn lead(&self, now: Tick, unfit: Option<Tick>, sent: Tick, version: String) -> Step {
        let until = sent + self.timing.certain();
        if now >= until {
            return Step::StepDown(Why::Lapsed);
        }
        if !self.look {
            match &self.sight {
                Some((Some(seen), _)) if !(self.claimed && seen.holder.as_deref() == Some(&self.me)) => {
                    return Step::StepDown(Why::Taken);
                }
                // Somebody deleted it under us. Nobody else makes it anew before our time is over.
                Some((None, _)) if now >= self.not_before => return Step::Create,
                _ => {}
            }
            if unfit.is_some_and(|since| now >= since + self.timing.patience())
                && now >= self.offer_not_before
            {
                return Step::Offer { version };
            }
        }
        let due = if self.look { self.not_before } else { self.not_before.max(sent + self.timing.renew()) };
        if now < due {
            return Step::Wait((due - now).min(until - now));
        }
        if self.look { Step::Look } else { Step::Renew { version } }
    }

    fn stand_by(&self, now: Tick, unfit: Option<Tick>) -> Step {
        if now < self.not_before {
            return Step::Wait(self.not_before - now);
        }
        let Some((seen, since)) = self.sight.as_ref().filter(|_| !self.look) else { return Step::Look };
        let courtesy = if unfit.is_some() { self.timing.courtesy() } else { Duration::ZERO };
        let ours = self.claimed && seen.as_ref().is_some_and(|s| s.holder.as_deref() == Some(&self.me));
        let free_at = match seen {
            // A write of ours arrived though we never heard of it.
            Some(_) if ours => *since,
            Some(Seen { holder: None, .. }) => (*since + courtesy).max(self.yields),
            // Held, or deleted while it was held: whoever held it may act until that time is over.
            Some(_) | None => *since + self.shadow + courtesy,
        };
        if now >= free_at {
            return match seen {
                None => Step::Create,
                Some(seen) if ours => Step::Renew { version: seen.version.clone() },
                Some(seen) => Step::Take {
                    version: seen.version.clone(),
                    transitions: seen.transitions.saturating_add(1),
                },
            };
        }
        let look_at = self.looked + self.timing.renew();
        if now >= look_at { Step::Look } else { Step::Wait((free_at - now).min(look_at - now)) }
    }
}

#[cfg(test)]
mod tests;
