use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(15);

fn timing() -> Timing {
    Timing::new(LEASE)
}

fn at(seconds: f64) -> Tick {
    Tick::after(Duration::from_secs_f64(seconds))
}

fn lease(version: u64, holder: Option<&str>) -> Seen {
    Seen { version: version.to_string(), holder: holder.map(Into::into), lasts: LEASE, transitions: 3 }
}

/// A standby that saw this at second 0.
fn standby(seen: Option<Seen>) -> Election {
    let mut election = Election::new("me", timing());
    assert_eq!(election.step(at(0.0), None), Step::Look);
    election.looked(at(0.0), seen);
    election
}

/// A leader whose write was sent at second 0 and made version 1.
fn leader() -> Election {
    let mut election = standby(None);
    assert_eq!(election.step(at(0.0), None), Step::Create);
    election.writing();
    election.wrote(at(0.0), lease(1, Some("me")));
    election
}

fn wait(seconds: f64) -> Step {
    Step::Wait(Duration::from_secs_f64(seconds))
}

fn take(version: u64) -> Step {
    Step::Take { version: version.to_string(), transitions: 4 }
}

#[test]
fn a_free_or_missing_lease_is_taken_at_once() {
    assert_eq!(standby(None).step(at(0.0), None), Step::Create);
    assert_eq!(standby(Some(lease(7, None))).step(at(0.0), None), take(7));
}

#[test]
fn a_held_lease_is_taken_only_when_it_was_seen_unchanged_for_its_time() {
    let mut election = standby(Some(lease(7, Some("other"))));
    assert_eq!(election.step(at(1.0), None), wait(4.0), "then it looks, even if the watch is silent");
    assert_eq!(election.step(at(5.0), None), Step::Look);
    election.looked(at(5.0), Some(lease(7, Some("other"))));
    election.looked(at(14.9), Some(lease(7, Some("other"))));
    assert!(matches!(election.step(at(14.9), None), Step::Wait(_)));
    assert_eq!(election.step(at(15.0), None), take(7));
    election.watched(at(15.0), Some(lease(8, Some("other"))));
    assert!(!matches!(election.step(at(29.9), None), Step::Take { .. }), "a renewal starts the time anew");
    election.looked(at(30.0), Some(lease(8, Some("other"))));
    assert_eq!(election.step(at(30.0), None), take(8));
}

#[test]
fn a_release_that_the_watch_shows_is_taken_at_once() {
    let mut election = standby(Some(lease(7, Some("other"))));
    election.watched(at(3.0), Some(lease(8, None)));
    assert_eq!(election.step(at(3.0), None), take(8));
}

#[test]
fn a_lease_deleted_while_held_is_not_free_before_its_time() {
    let mut election = standby(Some(lease(7, Some("other"))));
    election.watched(at(3.0), None);
    for second in [3.0, 10.0, 17.9] {
        assert_ne!(election.step(at(second), None), Step::Create);
        election.looked(at(second), None);
    }
    assert_eq!(election.step(at(18.0), None), Step::Create);
}

#[test]
fn a_lease_that_claims_to_last_for_ever_does_not() {
    let forever = Seen { lasts: Duration::from_secs(1 << 30), ..lease(7, Some("other")) };
    let mut election = standby(Some(forever.clone()));
    let end = Tick::after(LONGEST);
    election.looked(end, Some(forever));
    assert_eq!(election.step(end, None), take(7));
}

#[test]
fn the_leader_renews_and_knows_until_when_it_is_certain() {
    let mut election = leader();
    assert_eq!(election.certain_until(), Some(at(10.0)));
    assert_eq!(election.step(at(1.0), None), wait(4.0));
    assert_eq!(election.step(at(5.0), None), Step::Renew { version: "1".into() });
    election.wrote(at(5.0), lease(2, Some("me")));
    assert_eq!(election.certain_until(), Some(at(15.0)));
}

#[test]
fn a_watch_does_not_confuse_the_leader() {
    let mut election = leader();
    election.watched(at(1.0), Some(lease(0, Some("other"))));
    assert_eq!(election.step(at(1.0), None), wait(4.0));
}

#[test]
fn a_leader_that_cannot_renew_steps_down_before_anybody_else_may_lead() {
    let mut election = leader();
    for second in [5.0, 6.5, 8.0, 9.5] {
        assert!(matches!(election.step(at(second), None), Step::Renew { .. } | Step::Look), "{second}");
        election.failed(at(second));
    }
    assert_eq!(election.step(at(9.6), None), wait(0.4), "it does not sleep beyond its time");
    assert_eq!(election.step(at(10.0), None), Step::StepDown(Why::Lapsed));
}

#[test]
fn a_leader_that_was_paused_steps_down_whatever_it_was_about_to_do() {
    let mut election = leader();
    assert_eq!(election.step(at(60.0), None), Step::StepDown(Why::Lapsed));
    election.stepped_down();
    assert_eq!(election.step(at(60.0), None), Step::Look);
    election.looked(at(60.0), Some(lease(5, Some("other"))));
    assert!(matches!(election.step(at(60.0), None), Step::Wait(_)));
}

#[test]
fn a_paused_leader_that_nobody_replaced_goes_on_after_a_renewal() {
    let mut election = leader();
    assert_eq!(election.step(at(60.0), None), Step::StepDown(Why::Lapsed));
    election.stepped_down();
    election.looked(at(60.0), Some(lease(1, Some("me"))));
    assert!(!election.holds());
    assert_eq!(election.step(at(60.0), None), Step::Renew { version: "1".into() });
}

#[test]
fn an_answer_that_came_after_a_pause_gives_no_certainty() {
    let mut election = leader();
    election.wrote(at(5.0), lease(2, Some("me")));
    assert_eq!(election.step(at(40.0), None), Step::StepDown(Why::Lapsed));
}

#[test]
fn a_conflict_makes_the_leader_look_and_it_steps_down_if_another_holds_it() {
    let mut election = leader();
    election.conflicted();
    assert_eq!(election.step(at(5.0), None), Step::Look);
    election.looked(at(5.0), Some(lease(4, Some("other"))));
    assert_eq!(election.step(at(5.0), None), Step::StepDown(Why::Taken));

    let mut election = leader();
    election.conflicted();
    election.looked(at(5.0), Some(lease(4, None)));
    assert_eq!(election.step(at(5.0), None), Step::StepDown(Why::Taken), "somebody freed it by hand");
}

#[test]
fn a_renewal_whose_answer_was_lost_is_found_again() {
    let mut election = leader();
    election.failed(at(5.0));
    assert_eq!(election.step(at(6.5), None), Step::Look);
    election.looked(at(6.5), Some(lease(2, Some("me"))));
    assert_eq!(election.step(at(6.5), None), Step::Renew { version: "2".into() });
    assert_eq!(election.certain_until(), Some(at(10.0)), "what is not known to be renewed is not counted");
}

#[test]
fn an_acquisition_whose_answer_was_lost_is_found_again() {
    let mut election = standby(Some(lease(7, None)));
    assert_eq!(election.step(at(0.0), None), take(7));
    election.writing();
    election.failed(at(3.0));
    assert!(!election.holds());
    assert_eq!(election.step(at(3.0), None), wait(1.5));
    assert_eq!(election.step(at(4.5), None), Step::Look);
    election.looked(at(4.5), Some(lease(8, Some("me"))));
    assert_eq!(election.step(at(4.5), None), Step::Renew { version: "8".into() });
}

#[test]
fn a_lease_that_names_us_from_before_another_led_is_not_ours() {
    // As after an etcd restore.
    let mut election = leader();
    election.conflicted();
    election.looked(at(5.0), Some(lease(4, Some("other"))));
    election.stepped_down();
    election.looked(at(6.0), Some(lease(2, Some("me"))));
    assert!(matches!(election.step(at(6.0), None), Step::Wait(_)));
    election.looked(at(21.0), Some(lease(2, Some("me"))));
    assert_eq!(election.step(at(21.0), None), take(2));
}

#[test]
fn a_lease_deleted_under_the_leader_is_made_anew() {
    let mut election = leader();
    election.conflicted();
    election.looked(at(5.0), None);
    assert_eq!(election.step(at(5.0), None), Step::Create);
}

#[test]
fn a_leader_whose_trail_stays_dead_offers_once_and_then_ever_more_seldom() {
    let mut election = leader();
    let dead = Some(at(0.0));
    election.wrote(at(5.0), lease(2, Some("me")));
    election.wrote(at(9.0), lease(3, Some("me")));
    assert!(!matches!(election.step(at(9.9), dead), Step::Offer { .. }), "not for a hiccup");
    assert_eq!(election.step(at(10.0), dead), Step::Offer { version: "3".into() });
    election.offered(at(10.0));
    assert_eq!(election.step(at(10.0), dead), Step::Look);
    election.looked(at(10.0), Some(lease(4, None)));
    assert_eq!(election.step(at(10.0), dead), wait(5.0), "others first");
    election.looked(at(15.0), Some(lease(4, None)));
    assert_eq!(election.step(at(15.0), dead), wait(3.0));
    assert_eq!(election.step(at(18.0), dead), take(4), "nobody wanted it");
    let mut offers = Vec::new();
    for second in 18..4000_u32 {
        let now = at(second.into());
        election.wrote(now, lease(5, Some("me")));
        if matches!(election.step(now, dead), Step::Offer { .. }) {
            election.offered(now);
            offers.push(second);
        }
    }
    assert_eq!(offers, [70, 190, 430, 910, 1510, 2110, 2710, 3310, 3910]);
    election.wrote(at(4000.0), lease(6, Some("me")));
    assert_eq!(election.step(at(4000.0), None), wait(5.0));
    let again = Some(at(4000.0));
    election.wrote(at(4010.0), lease(7, Some("me")));
    assert_eq!(
        election.step(at(4010.0), again),
        Step::Offer { version: "7".into() },
        "another outage counts anew"
    );
}

// --- Replicas against one Lease, with everything that goes wrong between them. ---

/// The Lease as the API server has it.
#[derive(Default)]
struct Server {
    lease: Option<Seen>,
    revision: u64,
}

impl Server {
    fn write(&mut self, expected: Option<&str>, holder: Option<&str>) -> Option<Seen> {
        if self.lease.as_ref().map(|l| l.version.as_str()) != expected {
            return None;
        }
        self.revision += 1;
        let seen = Seen {
            version: self.revision.to_string(),
            holder: holder.map(Into::into),
            lasts: LEASE,
            transitions: 0,
        };
        self.lease = Some(seen.clone());
        Some(seen)
    }
}

/// How a request fares.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    LostBefore,
    LostAfter,
}

/// What happens next, and to which of the replicas.
#[derive(Clone, Debug)]
enum Happening {
    /// It does its next step; the answer comes so many milliseconds later.
    Steps(usize, Fate, u64),
    /// Its watch shows how the Lease stands.
    Watches(usize),
    /// Time passes.
    Passes(u64),
    /// Its trail breaks or works again.
    Trail(usize, bool),
    /// It gives up in order.
    Ends(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let replica = 0_usize..3;
    let fate =
        prop_oneof![6 => Just(Fate::Answered), 1 => Just(Fate::LostBefore), 1 => Just(Fate::LostAfter)];
    prop_oneof![
        8 => (replica.clone(), fate, prop_oneof![5 => 0_u64..50, 1 => 0_u64..30_000])
            .prop_map(|(r, f, ms)| Happening::Steps(r, f, ms)),
        2 => replica.clone().prop_map(Happening::Watches),
        6 => prop_oneof![4 => 0_u64..2_000, 1 => 0_u64..40_000].prop_map(Happening::Passes),
        1 => (replica.clone(), any::<bool>()).prop_map(|(r, b)| Happening::Trail(r, b)),
        1 => replica.prop_map(Happening::Ends),
    ]
}

struct World {
    now: Duration,
    server: Server,
    replicas: Vec<(Election, Option<Tick>)>,
    led: u32,
}

impl World {
    fn tick(&self) -> Tick {
        Tick::after(self.now)
    }

    /// The replicas that may write at this moment.
    fn certain(&self) -> Vec<usize> {
        let now = self.tick();
        let certain = |e: &Election| e.certain_until().is_some_and(|until| now < until);
        (0..self.replicas.len()).filter(|r| certain(&self.replicas[*r].0)).collect()
    }

    /// Does one step of a replica. Others may have their turn only before or after it, but time passes in between.
    fn step(&mut self, replica: usize, fate: Fate, answer_after: u64) {
        let sent = self.tick();
        let me = format!("r{replica}");
        let (election, unfit) = &mut self.replicas[replica];
        let step = election.step(sent, *unfit);
        let reached = !matches!(fate, Fate::LostBefore);
        let written = match &step {
            Step::Wait(_) => return,
            Step::StepDown(_) => return election.stepped_down(),
            Step::Look => {
                let seen = self.server.lease.clone();
                self.now += Duration::from_millis(answer_after);
                let now = Tick::after(self.now);
                match fate {
                    Fate::Answered => election.looked(now, seen),
                    _ => election.failed(now),
                }
                return;
            }
            Step::Offer { version } => {
                if reached {
                    self.server.write(Some(version), None);
                }
                return election.offered(sent);
            }
            Step::Create => {
                election.writing();
                reached.then(|| self.server.write(None, Some(&me)))
            }
            Step::Take { version, .. } => {
                election.writing();
                reached.then(|| self.server.write(Some(version), Some(&me)))
            }
            Step::Renew { version } => reached.then(|| self.server.write(Some(version), Some(&me))),
        };
        self.now += Duration::from_millis(answer_after);
        match (fate, written) {
            (Fate::Answered, Some(Some(seen))) => {
                election.wrote(sent, seen);
                self.led += 1;
            }
            (Fate::Answered, Some(None)) => election.conflicted(),
            _ => election.failed(Tick::after(self.now)),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Steps(replica, fate, ms) => self.step(replica, fate, ms),
            Happening::Watches(replica) => {
                let (now, seen) = (self.tick(), self.server.lease.clone());
                self.replicas[replica].0.watched(now, seen);
            }
            Happening::Passes(ms) => self.now += Duration::from_millis(ms),
            Happening::Trail(replica, works) => {
                let now = self.tick();
                self.replicas[replica].1 = (!works).then_some(now);
            }
            Happening::Ends(replica) => {
                if let Some(version) = self.replicas[replica].0.version().map(ToOwned::to_owned) {
                    self.server.write(Some(&version), None);
                }
                self.replicas[replica].0 = Election::new(format!("r{replica}"), timing());
            }
        }
    }
}

fn world() -> World {
    let replica = |r: usize| (Election::new(format!("r{r}"), timing()), None);
    World {
        now: Duration::from_secs(1),
        server: Server::default(),
        replicas: (0..3).map(replica).collect(),
        led: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost, late or paused: never can two replicas be certain of leading at the same moment.
    #[test]
    fn never_do_two_replicas_lead(happenings in proptest::collection::vec(happening(), 1..250)) {
        let mut world = world();
        for happening in &happenings {
            world.happen(happening);
            let certain = world.certain();
            prop_assert!(certain.len() <= 1, "{certain:?} at {:?} after {happening:?}", world.now);
        }
    }

    /// When the faults end, somebody leads soon, and stays.
    #[test]
    fn somebody_leads_when_the_faults_end(happenings in proptest::collection::vec(happening(), 0..100)) {
        let mut world = world();
        for happening in &happenings {
            world.happen(happening);
        }
        world.replicas.iter_mut().for_each(|r| r.1 = None);
        let mut leaders = Vec::new();
        for tenth in 0..600 {
            for replica in 0..3 {
                // More than one step may be due.
                (0..4).for_each(|_| world.step(replica, Fate::Answered, 0));
            }
            world.now += Duration::from_millis(100);
            if tenth > 200 {
                leaders.push(world.certain());
            }
        }
        prop_assert_eq!(leaders[0].len(), 1);
        prop_assert!(leaders.iter().all(|l| *l == leaders[0]), "{:?}", leaders);
    }
}

#[test]
fn with_every_trail_dead_leadership_does_not_go_back_and_forth() {
    let mut world = world();
    let dead = world.tick();
    world.replicas.iter_mut().for_each(|r| r.1 = Some(dead));
    let (mut last, mut changes, mut without) = (None, 0, 0);
    for turn in 0..36_000 {
        for replica in 0..3 {
            // Nobody is always the fastest.
            (0..4).for_each(|_| world.step((replica + turn) % 3, Fate::Answered, 0));
        }
        world.now += Duration::from_millis(100);
        match world.certain().first() {
            Some(leader) if last != Some(*leader) => (last, changes) = (Some(*leader), changes + 1),
            Some(_) => {}
            None => without += 1,
        }
    }
    assert!((2..=30).contains(&changes), "{changes} changes in an hour");
    assert!(without < 36_000 / 20, "nobody led for {without} tenths of a second of an hour");
}
