//! Passwords: who may try one now, and the threads that hash them.
//!
//! [`Logins::check`] is the way of every password that a client offers, [`Logins::hash`] of every password that becomes a user's. Nothing
//! here knows users or holds a lock while it hashes. An unknown user costs the same work, the same memory and the same back-off as a
//! known one.
//!
//! What is not hidden: a user whose hash was imported (bcrypt, or Argon2id of another cost) takes as long as that hash does, until the
//! first right password replaces a bcrypt one.

mod backoff;
mod pool;
#[cfg(test)]
mod tests;

pub(crate) use backoff::BlockedBy;

use backoff::{Attempt, Backoff, Source, Verdict};
use holdfast_auth::PasswordHash;
use holdfast_auth::password::{self, HashParams, MAX_PASSWORD_BYTES};
use holdfast_storage::TenantId;
use parking_lot::Mutex;
use pool::{Begin, Pool, PoolLimits, Turn, Work};
use prometheus::Histogram;
use rand::TryRng;
use rand::rngs::SysRng;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// The longest user name that is looked at; no user has a longer one.
const MOST_NAME_BYTES: usize = 256;

/// Passwords that wait for a thread: so many of trusted clients, and so many of others.
const QUEUE: usize = 64;
/// How long one waits for a thread at most; clients give up soon after.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the cores, one in so many may be busy with hashing.
const CORES_FOR_EACH_THREAD: usize = 4;

/// How passwords are hashed, and what that may cost.
pub(crate) struct LoginOptions {
    /// Memory for hashing. It bounds the threads; an imported hash that needs more than all of it is verified while nothing else is.
    pub(crate) memory_bytes: u64,
    /// Cores of the machine, or those that this process may use.
    pub(crate) cores: usize,
    /// How much of all cores together hashing may take in the long run, at most 1.
    pub(crate) share_of_cores: f64,
    /// Cost of hashes that are made here, and of those that unknown users are checked against.
    pub(crate) params: HashParams,
    /// Gets the seconds that each hashing took.
    pub(crate) hashing_seconds: Histogram,
    /// Gets the seconds that each password waited for a thread.
    pub(crate) waiting_seconds: Histogram,
}

/// What a password was.
#[derive(Debug)]
pub(crate) enum Checked {
    /// Right. If the stored hash is of a kind that is no longer made: a fresh one of the same password.
    Right { upgrade: Option<PasswordHash> },
    /// Wrong; or there is no such user, or none with a password.
    Wrong,
}

/// Why a password was not looked at. None of them depends on whether the user exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    /// Too many wrong passwords before. `ResourceExhausted`.
    #[error("etcdserver: too many requests")]
    Blocked(BlockedBy),
    /// Too many passwords wait, or this one waited too long. `ResourceExhausted`.
    #[error("etcdserver: too many requests")]
    Busy,
    /// Password or name are longer than any that exists. `InvalidArgument`.
    #[error("etcdserver: user name or password is too long")]
    TooLong,
    /// The server stops. `Unavailable`.
    #[error("etcdserver: server stopped")]
    Stopping,
    /// No random bytes for a salt, or no memory; the log has the reason. `Internal`.
    #[error("etcdserver: password could not be hashed")]
    Failed,
}

/// Counts since the start, and what is in use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginStats {
    pub(crate) right: u64,
    pub(crate) wrong: u64,
    pub(crate) blocked_user: u64,
    pub(crate) blocked_source: u64,
    pub(crate) busy: u64,
    pub(crate) too_long: u64,
    /// Passwords hashed for being stored, fresh hashes in place of imported ones included.
    pub(crate) stored: u64,
    /// Time that threads spent hashing, in nanoseconds.
    pub(crate) hashing_nanos: u64,
    /// Passwords that wait for a thread.
    pub(crate) waiting: usize,
    /// Passwords that are being hashed.
    pub(crate) running: usize,
    /// Memory in use for hashing.
    pub(crate) memory_bytes: u64,
    /// Pairs, sources or users whose failures are remembered, whichever are most.
    pub(crate) remembered: usize,
}

/// Checks and hashes passwords. One for the whole process.
pub(crate) struct Logins {
    pool: Pool,
    shared: Arc<Shared>,
}

/// What the jobs use.
struct Shared {
    backoff: Mutex<Backoff>,
    params: HashParams,
    /// Memory for one hash made here.
    own_memory_bytes: u64,
    /// Nobody's password: what unknown users are checked against.
    decoy: PasswordHash,
    counts: Counts,
    hashing_seconds: Histogram,
    waiting_seconds: Histogram,
}

#[derive(Default)]
struct Counts {
    right: AtomicU64,
    wrong: AtomicU64,
    blocked_user: AtomicU64,
    blocked_source: AtomicU64,
    busy: AtomicU64,
    too_long: AtomicU64,
    stored: AtomicU64,
    hashing_nanos: AtomicU64,
}

impl Logins {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the memory is not enough for one hash, or the system gives no threads.
    pub(crate) fn new(options: LoginOptions) -> io::Result<Arc<Logins>> {
        let decoy = password::decoy(&options.params).map_err(io::Error::other)?;
        let own_memory_bytes = password::memory_bytes(&decoy);
        let at_once = options.memory_bytes / own_memory_bytes.max(1);
        if at_once == 0 {
            let text = format!(
                "{} bytes for logins are not enough: one password takes {own_memory_bytes}",
                options.memory_bytes
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let threads = (options.cores / CORES_FOR_EACH_THREAD).max(1);
        let threads = usize::try_from(at_once).map_or(threads, |at_once| threads.min(at_once));
        let pool = Pool::start(PoolLimits {
            threads,
            share: (options.share_of_cores * options.cores as f64 / threads as f64).min(1.0),
            memory_bytes: options.memory_bytes,
            queue: QUEUE,
            patience: PATIENCE,
        })?;
        let shared = Arc::new(Shared {
            backoff: Mutex::new(Backoff::new(backoff::MOST_ENTRIES)),
            params: options.params,
            own_memory_bytes,
            decoy,
            counts: Counts::default(),
            hashing_seconds: options.hashing_seconds,
            waiting_seconds: options.waiting_seconds,
        });
        Ok(Arc::new(Logins { pool, shared }))
    }

    /// Compares a password with `stored`, the hash of the user of that name; `None` if there is no such user or it has no password. The
    /// bytes are wiped from memory when they are no longer needed.
    ///
    /// # Errors
    /// When it was not compared: the user's or the source's turn is later, there is too much to do, or it is too long. If the caller
    /// goes away, what has begun is finished and counted.
    pub(crate) async fn check(
        &self,
        tenant: TenantId,
        user: &str,
        source: Option<SocketAddr>,
        password: Vec<u8>,
        stored: Option<PasswordHash>,
    ) -> Result<Checked, LoginError> {
        let password = Zeroizing::new(password);
        let source = Source::of(source);
        if user.len() > MOST_NAME_BYTES {
            return Err(self.shared.counted(LoginError::TooLong));
        }
        self.shared.check_length(&password)?;
        let (attempt, trusted) = {
            let backoff = self.shared.backoff.lock();
            let (attempt, now) = (backoff.attempt(tenant, user, source), Instant::now());
            // Asked again when its turn comes; but what is refused now needs no place in the queue.
            match backoff.verdict(&attempt, now) {
                Verdict::Go | Verdict::Later => (attempt, backoff.is_known(&attempt, now)),
                Verdict::Blocked(by) => {
                    return Err(self.shared.counted(LoginError::Blocked(by)));
                }
            }
        };
        let memory_bytes = match &stored {
            None => self.shared.own_memory_bytes,
            Some(stored) if password::needs_upgrade(stored) => {
                password::memory_bytes(stored).max(self.shared.own_memory_bytes)
            }
            Some(stored) => password::memory_bytes(stored),
        };
        let turn = Turn { source, trusted };
        self.submit(turn, password, memory_bytes, |answer| Task::Check {
            attempt,
            stored,
            answer,
        })
        .await
    }

    /// Hashes a password that is to be stored, for a caller who may do so; `source` is whose turn it uses.
    ///
    /// # Errors
    /// When it was not hashed; never [`LoginError::Blocked`].
    pub(crate) async fn hash(
        &self,
        source: Option<SocketAddr>,
        password: Vec<u8>,
    ) -> Result<PasswordHash, LoginError> {
        let password = Zeroizing::new(password);
        self.shared.check_length(&password)?;
        let memory_bytes = self.shared.own_memory_bytes;
        let turn = Turn {
            source: Source::of(source),
            trusted: true,
        };
        let task = |answer| Task::Hash { answer };
        self.submit(turn, password, memory_bytes, task).await
    }

    async fn submit<T>(
        &self,
        turn: Turn,
        password: Zeroizing<Vec<u8>>,
        memory_bytes: u64,
        task: impl FnOnce(Answer<T>) -> Task,
    ) -> Result<T, LoginError> {
        let (answer, answered) = oneshot::channel();
        self.pool.submit(Box::new(Job {
            shared: self.shared.clone(),
            turn,
            password,
            memory_bytes,
            task: task(answer),
        }));
        // A job that is dropped unanswered was lost with its thread.
        answered.await.unwrap_or(Err(LoginError::Stopping))
    }

    /// Counts and gauges, for the metrics.
    pub(crate) fn stats(&self) -> LoginStats {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let usage = self.pool.usage();
        LoginStats {
            right: read(&counts.right),
            wrong: read(&counts.wrong),
            blocked_user: read(&counts.blocked_user),
            blocked_source: read(&counts.blocked_source),
            busy: read(&counts.busy),
            too_long: read(&counts.too_long),
            stored: read(&counts.stored),
            hashing_nanos: read(&counts.hashing_nanos),
            waiting: usage.waiting,
            running: usage.running,
            memory_bytes: usage.memory_bytes,
            remembered: self.shared.backoff.lock().entries(),
        }
    }

    /// Refuses what waits and what comes, and ends the threads after what they are at. Does not wait for them.
    pub(crate) fn stop(&self) {
        self.pool.stop();
    }
}

impl Shared {
    fn check_length(&self, password: &[u8]) -> Result<(), LoginError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(self.counted(LoginError::TooLong));
        }
        Ok(())
    }

    /// Counts a refusal.
    fn counted(&self, error: LoginError) -> LoginError {
        let count = match error {
            LoginError::Blocked(BlockedBy::User) => &self.counts.blocked_user,
            LoginError::Blocked(BlockedBy::Source) => &self.counts.blocked_source,
            LoginError::Busy => &self.counts.busy,
            LoginError::TooLong => &self.counts.too_long,
            LoginError::Stopping | LoginError::Failed => return error,
        };
        count.fetch_add(1, Ordering::Relaxed);
        error
    }

    /// Compares, and settles the attempt.
    fn check(&self, attempt: &Attempt, password: &[u8], stored: Option<&PasswordHash>) -> Checked {
        let matches = password::verify(password, stored.unwrap_or(&self.decoy));
        let right = stored.filter(|_| matches);
        {
            let mut backoff = self.backoff.lock();
            let now = Instant::now();
            match right {
                Some(_) => backoff.succeeded(attempt, now),
                None => backoff.failed(attempt, now),
            }
        }
        let Some(stored) = right else {
            self.counts.wrong.fetch_add(1, Ordering::Relaxed);
            return Checked::Wrong;
        };
        self.counts.right.fetch_add(1, Ordering::Relaxed);
        // If that fails, the old hash does for this time, too.
        let upgrade = password::needs_upgrade(stored)
            .then(|| self.hash(password).ok())
            .flatten();
        Checked::Right { upgrade }
    }

    fn hash(&self, password: &[u8]) -> Result<PasswordHash, LoginError> {
        let mut salt = [0; 16];
        SysRng.try_fill_bytes(&mut salt).map_err(|error| {
            tracing::error!(%error, "no random bytes for the salt of a password");
            LoginError::Failed
        })?;
        let hash = password::hash_argon2id(password, salt, &self.params).map_err(|error| {
            tracing::error!(%error, "cannot hash a password");
            LoginError::Failed
        })?;
        self.counts.stored.fetch_add(1, Ordering::Relaxed);
        Ok(hash)
    }
}

type Answer<T> = oneshot::Sender<Result<T, LoginError>>;

/// One password on its way through the pool.
struct Job {
    shared: Arc<Shared>,
    turn: Turn,
    password: Zeroizing<Vec<u8>>,
    memory_bytes: u64,
    task: Task,
}

enum Task {
    Check {
        attempt: Attempt,
        stored: Option<PasswordHash>,
        answer: Answer<Checked>,
    },
    Hash {
        answer: Answer<PasswordHash>,
    },
}

impl Work for Job {
    fn turn(&self) -> Turn {
        self.turn
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn is_wanted(&self) -> bool {
        match &self.task {
            Task::Check { answer, .. } => !answer.is_closed(),
            Task::Hash { answer } => !answer.is_closed(),
        }
    }

    fn begin(&mut self, now: Instant) -> Begin {
        match &self.task {
            Task::Check { attempt, .. } => match self.shared.backoff.lock().begin(attempt, now) {
                Verdict::Go => Begin::Now,
                Verdict::Later => Begin::Later,
                Verdict::Blocked(by) => Begin::Refused(LoginError::Blocked(by)),
            },
            Task::Hash { .. } => Begin::Now,
        }
    }

    fn run(self: Box<Self>, waited: Duration) {
        let shared = &self.shared;
        shared.waiting_seconds.observe(waited.as_secs_f64());
        let begun = Instant::now();
        let finished = || {
            let took = begun.elapsed();
            shared.hashing_seconds.observe(took.as_secs_f64());
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            shared
                .counts
                .hashing_nanos
                .fetch_add(nanos, Ordering::Relaxed);
        };
        // Whoever asked may have gone: then nobody hears the answer.
        match self.task {
            Task::Check {
                attempt,
                stored,
                answer,
            } => {
                let checked = shared.check(&attempt, &self.password, stored.as_ref());
                finished();
                let _ = answer.send(Ok(checked));
            }
            Task::Hash { answer } => {
                let hash = shared.hash(&self.password);
                finished();
                let _ = answer.send(hash);
            }
        }
    }

    fn refuse(self: Box<Self>, why: LoginError) {
        if !self.is_wanted() {
            return;
        }
        let why = self.shared.counted(why);
        match self.task {
            Task::Check { answer, .. } => {
                let _ = answer.send(Err(why));
            }
            Task::Hash { answer } => {
                let _ = answer.send(Err(why));
            }
        }
    }
}
