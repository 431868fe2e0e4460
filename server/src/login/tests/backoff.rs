use super::super::backoff::{
    BUDGET, FORGIVEN_IN, KNOWN_FOR, LONGEST_WAIT, MOST_ENTRIES, MOST_KNOWN, PAIR, SOURCE,
};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A back-off under a clock that only tests move.
struct World {
    backoff: Backoff,
    now: Instant,
}

impl World {
    fn new() -> World {
        World::with_entries(MOST_ENTRIES)
    }

    fn with_entries(most: usize) -> World {
        World {
            backoff: Backoff::new(most),
            now: Instant::now(),
        }
    }

    fn attempt(&self, user: &str, source: u32) -> Attempt {
        let source = Source::of(Some(address(source)));
        self.backoff.attempt(TenantId::DEFAULT, user, source)
    }

    /// One password from beginning to end.
    fn offer(&mut self, user: &str, source: u32, right: bool) -> Verdict {
        let attempt = self.attempt(user, source);
        let verdict = self.backoff.begin(&attempt, self.now);
        match verdict {
            Verdict::Go if right => self.backoff.succeeded(&attempt, self.now),
            Verdict::Go => self.backoff.failed(&attempt, self.now),
            Verdict::Later | Verdict::Blocked(_) => {}
        }
        verdict
    }

    fn guess(&mut self, user: &str, source: u32) -> Verdict {
        self.offer(user, source, false)
    }

    fn log_in(&mut self, user: &str, source: u32) -> Verdict {
        self.offer(user, source, true)
    }

    /// Offers wrong passwords in every second of `time`; how many were hashed.
    fn guess_for(&mut self, time: Duration, mut which: impl FnMut(u64) -> (String, u32)) -> u32 {
        let mut hashed = 0;
        for second in 0..time.as_secs() {
            self.now += SECOND;
            let (user, source) = which(second);
            hashed += u32::from(self.guess(&user, source) == Verdict::Go);
        }
        hashed
    }
}

#[test]
fn waits_double_after_some_free_failures() {
    let mut world = World::new();
    for _ in 0..PAIR.free {
        assert_eq!(world.guess("ann", 1), Verdict::Go);
    }
    // 32 twice: a minute has passed, and one failure is forgiven.
    for wait in [1, 2, 4, 8, 16, 32, 32, 60, 60, 60].map(Duration::from_secs) {
        world.now += wait - Duration::from_millis(1);
        assert_eq!(
            world.guess("ann", 1),
            Verdict::Blocked(BlockedBy::User),
            "{wait:?}"
        );
        world.now += Duration::from_millis(1);
        assert_eq!(world.guess("ann", 1), Verdict::Go, "{wait:?}");
    }
}

#[test]
fn a_source_waits_whatever_users_it_names() {
    let mut world = World::new();
    for number in 0..SOURCE.free {
        assert_eq!(world.guess(&format!("user-{number}"), 1), Verdict::Go);
    }
    assert_eq!(world.guess("ann", 1), Verdict::Blocked(BlockedBy::Source));
    assert_eq!(world.guess("ann", 2), Verdict::Go);
}

#[test]
fn patience_is_no_way_to_more_guesses() {
    let day = Duration::from_secs(86_400);
    let most = |free: u32| free + 7 + (day.as_secs() / LONGEST_WAIT.as_secs()) as u32;
    let mut world = World::new();
    let hashed = world.guess_for(day, |_| ("ann".into(), 1));
    assert!(hashed <= most(PAIR.free), "{hashed} of one pair");
    let hashed = world.guess_for(day, |second| (format!("user-{second}"), 1));
    assert!(hashed <= most(SOURCE.free), "{hashed} of one source");
    let hashed = world.guess_for(day, |second| ("bob".into(), second as u32));
    let most = BUDGET + (day.as_secs() / 6) as u32;
    assert!(hashed <= most, "{hashed} for one user");
}

#[test]
fn guessing_does_not_lock_the_owner_out_elsewhere() {
    let mut world = World::new();
    assert_eq!(world.log_in("ann", 1), Verdict::Go);
    // From one source.
    let hashed = (0..1_000).filter(|_| world.guess("ann", 2) == Verdict::Go);
    assert_eq!(hashed.count(), PAIR.free as usize);
    assert_eq!(world.log_in("ann", 1), Verdict::Go, "where she was before");
    assert_eq!(world.log_in("ann", 3), Verdict::Go, "at a new place");
    // From a thousand.
    let hashed = (1_000..2_000).filter(|source| world.guess("ann", *source) == Verdict::Go);
    assert!(hashed.count() <= BUDGET as usize);
    let blocked = Verdict::Blocked(BlockedBy::User);
    assert_eq!(world.guess("ann", 5_000), blocked);
    assert_eq!(world.log_in("ann", 1), Verdict::Go, "where she was before");
    assert_eq!(world.log_in("bob", 5_000), Verdict::Go, "another user");
    // Known sources are forgotten in time.
    world.now += KNOWN_FOR;
    for source in 10_000..10_000 + BUDGET {
        world.guess("ann", source);
    }
    assert_eq!(world.log_in("ann", 1), blocked);
}

#[test]
fn a_known_user_does_not_wait_for_its_source() {
    let mut world = World::new();
    assert_eq!(world.log_in("ann", 1), Verdict::Go);
    for number in 0..100 {
        world.guess(&format!("user-{number}"), 1);
    }
    let blocked = Verdict::Blocked(BlockedBy::Source);
    assert_eq!(world.guess("bob", 1), blocked);
    assert_eq!(world.log_in("ann", 1), Verdict::Go);
    assert_eq!(
        world.guess("bob", 1),
        blocked,
        "one account must not clear the way to others"
    );
    // Nor can a known source guess without end.
    let hashed = (0..1_000).filter(|_| world.guess("ann", 1) == Verdict::Go);
    assert_eq!(hashed.count(), PAIR.free as usize);
}

#[test]
fn one_old_password_does_not_block_a_shared_address() {
    let mut world = World::new();
    for _ in 0..86_400 {
        world.now += SECOND;
        world.guess("stale", 1);
    }
    assert_eq!(world.log_in("ann", 1), Verdict::Go);
}

#[test]
fn failures_are_forgiven() {
    let mut world = World::new();
    for _ in 0..PAIR.free - 1 {
        world.guess("ann", 1);
    }
    assert_eq!(world.log_in("ann", 1), Verdict::Go);
    for _ in 0..PAIR.free {
        assert_eq!(world.guess("ann", 1), Verdict::Go, "success clears");
    }
    assert_ne!(world.guess("ann", 1), Verdict::Go);
    world.now += FORGIVEN_IN * (PAIR.free + 6);
    for _ in 0..PAIR.free {
        assert_eq!(world.guess("ann", 1), Verdict::Go, "time clears");
    }
    assert_ne!(world.guess("ann", 1), Verdict::Go);
}

#[test]
fn no_source_is_in_debt_for_long() {
    let mut world = World::new();
    // Known users do not wait for their source, and so go on when it already has to.
    let users: Vec<_> = (0..50).map(|number| format!("user-{number}")).collect();
    for user in &users {
        world.log_in(user, 1);
    }
    for second in 0..3_600 {
        world.now += SECOND;
        world.guess(&users[second % users.len()], 1);
    }
    let blocked = Verdict::Blocked(BlockedBy::Source);
    assert_eq!(world.guess("new", 1), blocked);
    world.now += FORGIVEN_IN * (SOURCE.free + 6);
    for number in 0..SOURCE.free {
        assert_eq!(world.guess(&format!("new-{number}"), 1), Verdict::Go);
    }
}

#[test]
fn guesses_at_once_are_no_more_than_guesses_in_turn() {
    let mut world = World::new();
    let attempt = world.attempt("ann", 1);
    let now = world.now;
    for _ in 0..PAIR.free {
        assert_eq!(world.backoff.begin(&attempt, now), Verdict::Go);
    }
    assert_eq!(world.backoff.begin(&attempt, now), Verdict::Later);
    world.backoff.succeeded(&attempt, now);
    assert_eq!(world.backoff.begin(&attempt, now), Verdict::Go);
    for _ in 0..PAIR.free {
        world.backoff.failed(&attempt, now);
    }
    let blocked = Verdict::Blocked(BlockedBy::User);
    assert_eq!(world.backoff.begin(&attempt, now), blocked);
}

#[test]
fn tables_are_bounded_and_forget_the_least() {
    const MOST: usize = 64;
    let mut world = World::with_entries(MOST);
    assert_eq!(world.log_in("known", 1), Verdict::Go);
    for _ in 0..1_000 {
        world.guess("ann", 2);
    }
    let running = world.attempt("ann", 3);
    for _ in 0..PAIR.free {
        assert_eq!(world.backoff.begin(&running, world.now), Verdict::Go);
    }
    for number in 0..10_000 {
        world.guess(&format!("user-{number}"), 100 + number);
        assert!(world.backoff.entries() <= MOST);
    }
    let blocked = Verdict::Blocked(BlockedBy::User);
    assert_eq!(world.guess("ann", 2), blocked, "a block survives");
    for source in 20_000..20_000 + BUDGET {
        world.guess("known", source);
    }
    assert_eq!(world.guess("known", 5), blocked);
    assert_eq!(
        world.log_in("known", 1),
        Verdict::Go,
        "a known source survives"
    );
    let verdict = world.backoff.begin(&running, world.now);
    assert_eq!(verdict, Verdict::Later, "what runs is still counted");
}

#[test]
fn known_sources_are_bounded() {
    let mut world = World::new();
    let sources = 0..10 * MOST_KNOWN as u32;
    for source in sources.clone() {
        world.log_in("ann", source);
    }
    for source in 10_000..10_000 + BUDGET {
        world.guess("ann", source);
    }
    let known = sources.filter(|source| world.log_in("ann", *source) == Verdict::Go);
    assert_eq!(known.count(), MOST_KNOWN);
}

#[test]
fn sources_are_what_one_party_holds() {
    let of = |text: &str| Source::of(Some(text.parse().unwrap()));
    assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
    assert_eq!(of("10.0.0.1:1"), of("[::ffff:10.0.0.1]:1"));
    assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
    assert_eq!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:1:ffff::2]:1"));
    assert_ne!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::1]:1"));
    assert_ne!(Source::of(None), of("127.0.0.1:1"));
}
