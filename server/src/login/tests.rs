mod backoff;
mod pool;

use super::backoff::PAIR;
use super::*;
use prometheus::HistogramOpts;

fn address(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 2379))
}

fn logins_with(memory_bytes: u64, cores: usize) -> io::Result<Arc<Logins>> {
    let histogram = |name| Histogram::with_opts(HistogramOpts::new(name, name)).unwrap();
    Logins::new(LoginOptions {
        memory_bytes,
        cores,
        share_of_cores: 1.0,
        params: HashParams::default(),
        hashing_seconds: histogram("hashing"),
        waiting_seconds: histogram("waiting"),
    })
}

fn logins() -> Arc<Logins> {
    logins_with(64 << 20, 8).unwrap()
}

/// The hash of `right`.
fn stored() -> PasswordHash {
    password::hash_argon2id(b"right", [7; 16], &HashParams::default()).unwrap()
}

async fn offer(
    logins: &Logins,
    user: &str,
    source: u32,
    text: &str,
    stored: Option<PasswordHash>,
) -> Result<bool, LoginError> {
    let peer = Some(address(source));
    let password = text.as_bytes().to_vec();
    let checked = logins.check(TenantId::DEFAULT, user, peer, password, stored);
    checked
        .await
        .map(|checked| matches!(checked, Checked::Right { .. }))
}

#[tokio::test]
async fn passwords_are_right_or_wrong() {
    let logins = logins();
    let hash = Some(stored());
    assert_eq!(
        offer(&logins, "ann", 1, "right", hash.clone()).await,
        Ok(true)
    );
    assert_eq!(
        offer(&logins, "ann", 1, "wrong", hash.clone()).await,
        Ok(false)
    );
    assert_eq!(offer(&logins, "ann", 1, "", hash).await, Ok(false));
    assert_eq!(offer(&logins, "nobody", 1, "right", None).await, Ok(false));
    let stats = logins.stats();
    assert_eq!((stats.right, stats.wrong, stats.stored), (1, 3, 0));
    assert!(stats.hashing_nanos > 0);
    let made = logins.hash(None, b"new".to_vec()).await.unwrap();
    assert!(password::verify(b"new", &made));
    let again = logins.hash(None, b"new".to_vec()).await.unwrap();
    assert!(again != made, "salts differ");
}

#[tokio::test]
async fn imported_hashes_are_made_anew() {
    let logins = logins();
    let text = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let imported = PasswordHash::parse(text).unwrap();
    let check = |password: &str| {
        let (password, stored) = (password.as_bytes().to_vec(), Some(imported.clone()));
        logins.check(TenantId::DEFAULT, "ann", None, password, stored)
    };
    assert!(matches!(check("U*V").await, Ok(Checked::Wrong)));
    let Ok(Checked::Right {
        upgrade: Some(fresh),
    }) = check("U*U").await
    else {
        panic!("not right, or not made anew");
    };
    assert!(!password::needs_upgrade(&fresh));
    assert!(password::verify(b"U*U", &fresh));
}

#[tokio::test]
async fn long_passwords_and_names_are_no_work() {
    let logins = logins();
    let check = |user: usize, bytes: usize| {
        let (user, password) = ("u".repeat(user), vec![b'x'; bytes]);
        let logins = logins.clone();
        async move {
            let source = Some(address(1));
            let checked = logins.check(TenantId::DEFAULT, &user, source, password, None);
            checked.await.map(|_| ())
        }
    };
    assert_eq!(check(1, 10 << 20).await, Err(LoginError::TooLong));
    assert_eq!(
        check(1, MAX_PASSWORD_BYTES + 1).await,
        Err(LoginError::TooLong)
    );
    assert_eq!(
        check(MOST_NAME_BYTES + 1, 1).await,
        Err(LoginError::TooLong)
    );
    let hash = logins.hash(None, vec![b'x'; MAX_PASSWORD_BYTES + 1]).await;
    assert!(matches!(hash, Err(LoginError::TooLong)));
    let stats = logins.stats();
    assert_eq!(
        (stats.too_long, stats.hashing_nanos, stats.remembered),
        (4, 0, 0)
    );
    assert_eq!(check(MOST_NAME_BYTES, MAX_PASSWORD_BYTES).await, Ok(()));
}

#[tokio::test]
async fn a_thousand_guesses_at_once_are_a_few() {
    for existing in [true, false] {
        let logins = logins();
        let hash = existing.then(stored);
        let guesses: Vec<_> = (0..1_000)
            .map(|_| {
                let (logins, hash) = (logins.clone(), hash.clone());
                tokio::spawn(async move { offer(&logins, "ann", 1, "wrong", hash).await })
            })
            .collect();
        for guess in guesses {
            let result = guess.await.unwrap();
            let blocked = Err(LoginError::Blocked(BlockedBy::User));
            let busy = Err(LoginError::Busy);
            assert!(result == Ok(false) || result == blocked || result == busy);
        }
        let stats = logins.stats();
        assert_eq!(stats.wrong, u64::from(PAIR.free), "existing: {existing}");
        assert_eq!(stats.wrong + stats.blocked_user + stats.busy, 1_000);
        let owner = offer(&logins, "ann", 2, "right", hash).await;
        assert_eq!(owner, Ok(existing));
    }
}

#[tokio::test]
async fn many_clients_of_one_user_behind_one_address_get_in() {
    let logins = logins();
    let hash = stored();
    let all: Vec<_> = (0..QUEUE)
        .map(|_| {
            let (logins, hash) = (logins.clone(), hash.clone());
            tokio::spawn(async move { offer(&logins, "ann", 1, "right", Some(hash)).await })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), Ok(true));
    }
}

#[tokio::test]
async fn budgets_and_stopping() {
    let own = password::memory_bytes(&password::decoy(&HashParams::default()).unwrap());
    let error = logins_with(own - 1, 8).err();
    assert_eq!(
        error.map(|error| error.kind()),
        Some(io::ErrorKind::InvalidInput)
    );
    let logins = logins_with(own, 64).unwrap();
    logins.stop();
    let hash = logins.hash(None, b"new".to_vec()).await;
    assert!(matches!(hash, Err(LoginError::Stopping)));
    let checked = offer(&logins, "ann", 1, "right", Some(stored())).await;
    assert_eq!(checked, Err(LoginError::Stopping));
}

#[tokio::test]
async fn unknown_users_take_as_long() {
    const ROUNDS: usize = 25;
    let logins = logins_with(64 << 20, 1).unwrap();
    let hash = stored();
    let mut times = [Vec::new(), Vec::new()];
    // In turns, so that what else the machine does meets both.
    for round in 0..ROUNDS {
        for (kind, stored) in [Some(hash.clone()), None].into_iter().enumerate() {
            let begun = Instant::now();
            let user = ["ann", "nobody"][kind];
            let checked = offer(&logins, user, round as u32, "wrong", stored).await;
            assert_eq!(checked, Ok(false));
            times[kind].push(begun.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let [known, unknown] = &times;
    let half = ROUNDS / 2;
    println!(
        "known: {:?}, median {:?}; unknown: {:?}, median {:?}",
        known[0], known[half], unknown[0], unknown[half]
    );
    // The shortest times: medians move with what else runs here.
    let (less, more) = (known[0].min(unknown[0]), known[0].max(unknown[0]));
    assert!(more < less * 2, "{known:?} and {unknown:?}");
}

/// A flood from many sources, so that back-off does not end it: the queue and its turns must.
#[tokio::test]
async fn a_flood_leaves_room_for_others() {
    const SECONDS: u64 = 3;
    let budget = 64 << 20;
    let logins = logins_with(budget, 1).unwrap();
    let hash = stored();
    let before = offer(&logins, "ann", 1, "right", Some(hash.clone())).await;
    assert_eq!(before, Ok(true));
    let flood = {
        let logins = logins.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            for round in 0..SECONDS * 100 {
                tick.tick().await;
                assert!(logins.stats().memory_bytes <= budget);
                for number in 0..10 {
                    let logins = logins.clone();
                    let number = round as u32 * 10 + number;
                    let (user, source) = (format!("user-{}", number % 7), 100 + number % 40);
                    tokio::spawn(async move {
                        let _ = offer(&logins, &user, source, "wrong", None).await;
                    });
                }
            }
        })
    };
    let mut longest = Duration::ZERO;
    let mut served = 0;
    while !flood.is_finished() {
        let begun = Instant::now();
        let checked = offer(&logins, "ann", 1, "right", Some(hash.clone())).await;
        assert_eq!(checked, Ok(true));
        longest = longest.max(begun.elapsed());
        served += 1;
    }
    flood.await.unwrap();
    let stats = logins.stats();
    println!("{served} logins, the longest took {longest:?}; {stats:?}");
    assert!(stats.blocked_user + stats.blocked_source + stats.busy > 500 * SECONDS);
    assert!(longest < PATIENCE);
}
