//! The net: all that goes to other members, and the thread that carries it.

use super::bounds::SNAPSHOTS_SENT;
use super::dial::{CallError, Connection, KeepAlive as Pings};
use super::doors::Doors;
use super::frames::{FrameError, bounded};
use super::handler::{
    ChangeMembers, Description, HashAt, Hashes, KeepAlive, LeaseTimes, PeerHandler, TimeToLive,
};
use super::hello::{Me, PROTOCOL_VERSION};
use super::inbound::Streams;
use super::link::Link;
use super::notices::Notices;
use super::outbox::Bell;
use super::security::Security;
use super::snapshot::{self, SnapshotPieces};
use super::{bounds, serve};
use crate::metrics::PeerMetrics;
use crate::upkeep;
use bytes::Bytes;
use holdfast_certs::Target;
use holdfast_proto::peer as pb;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, Semaphore};
use tonic::Status;

/// Threads for what blocks: the snapshots that are sent, the one that is received, and names that are looked up.
const BLOCKING_THREADS: usize = SNAPSHOTS_SENT + 3;

/// What the net is told once.
pub(crate) struct PeerOptions {
    pub(crate) me: Me,
    pub(crate) security: Security,
    /// A peer that is silent for so long, pings notwithstanding, is given up (`--raft-read-timeout`).
    pub(crate) read_timeout: Duration,
    /// A peer that takes no messages for so long although some wait is given up (`--raft-write-timeout`).
    pub(crate) write_timeout: Duration,
    pub(crate) metrics: PeerMetrics,
}

/// A listening socket for other members.
#[derive(Debug)]
pub(crate) struct PeerListener {
    /// Bound, listening and not blocking.
    pub(crate) socket: std::net::TcpListener,
    /// Whether TLS is spoken on it.
    pub(crate) tls: bool,
}

/// Where another member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) id: u64,
    /// Tried in turn.
    pub(crate) urls: Vec<String>,
}

/// Traffic with all other members. Clones are the same.
#[derive(Clone)]
pub(crate) struct PeerNet {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Thread>>,
    runtime: Handle,
}

/// The life of the thread `hf-peer`.
enum Thread {
    Prepared(Box<Runtime>),
    Runs(JoinHandle<()>),
    Stopped,
}

/// What the parts of the net share.
pub(super) struct Shared {
    pub(super) me: Me,
    pub(super) security: Security,
    pub(super) keep_alive: Pings,
    pub(super) write_timeout: Duration,
    pub(super) metrics: PeerMetrics,
    pub(super) doors: Doors,
    pub(super) streams: Streams,
    pub(super) notices: Notices,
    /// The hosts of all members' URLs.
    pub(super) hosts: RwLock<Arc<[String]>>,
    pub(super) sending: Semaphore,
    pub(super) receiving: Arc<Semaphore>,
    handler: OnceLock<Arc<dyn PeerHandler>>,
    /// The other members, by id.
    links: RwLock<Vec<Arc<Link>>>,
    bell: Bell,
    stop: Notify,
}

impl Shared {
    /// Who does what others ask for.
    ///
    /// # Errors
    /// The node has not come so far.
    pub(super) fn handler(&self) -> Result<&Arc<dyn PeerHandler>, Status> {
        self.handler
            .get()
            .ok_or_else(|| Status::unavailable("the member is starting"))
    }

    fn link(&self, id: u64) -> Option<Arc<Link>> {
        let links = self.links.read();
        let found = links.binary_search_by_key(&id, |link| link.id).ok()?;
        links.get(found).cloned()
    }

    /// What the bell is rung for.
    async fn answer_bell(self: Arc<Shared>, handler: Arc<dyn PeerHandler>) {
        loop {
            self.bell.wait().await;
            let mut overflowed = Vec::new();
            for link in self.links.read().iter() {
                if link.outbox.answer_bell() {
                    overflowed.push(link.id);
                }
            }
            for id in overflowed {
                tracing::warn!("remote-peer-id" = %format_args!("{id:x}"), "dropped messages to a member that does not take them fast enough");
                handler.lost(id);
            }
        }
    }
}

impl PeerNet {
    /// A net without members. What is sent before [`Self::run`] waits.
    ///
    /// # Errors
    /// Its event loop cannot be made.
    pub(crate) fn new(options: PeerOptions) -> io::Result<PeerNet> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .on_thread_start(upkeep::yield_to_everything)
            .thread_name("hf-peer-blocking")
            .build()?;
        options.metrics.set_local(options.me.member);
        let shared = Arc::new(Shared {
            me: options.me,
            security: options.security,
            keep_alive: Pings::within(options.read_timeout),
            write_timeout: options.write_timeout,
            doors: Doors::new(options.metrics.clone()),
            metrics: options.metrics,
            streams: Streams::default(),
            notices: Notices::default(),
            hosts: RwLock::new(Arc::from([])),
            sending: Semaphore::new(SNAPSHOTS_SENT),
            receiving: Arc::new(Semaphore::new(1)),
            handler: OnceLock::new(),
            links: RwLock::default(),
            bell: Bell::default(),
            stop: Notify::new(),
        });
        Ok(PeerNet {
            shared,
            runtime: runtime.handle().clone(),
            thread: Arc::new(Mutex::new(Thread::Prepared(Box::new(runtime)))),
        })
    }

    /// Begins to accept and to dial, on the thread `hf-peer`.
    ///
    /// # Errors
    /// It runs already, or was stopped, or the thread cannot be made.
    pub(crate) fn run(
        &self,
        listeners: Vec<PeerListener>,
        handler: Arc<dyn PeerHandler>,
    ) -> io::Result<()> {
        let mut thread = self.thread.lock();
        let runtime = match std::mem::replace(&mut *thread, Thread::Stopped) {
            Thread::Prepared(runtime) => runtime,
            other => {
                *thread = other;
                return Err(io::Error::other("the peer net was started before"));
            }
        };
        let shared = self.shared.clone();
        // Under the lock, so that each link is started either here or where it is made.
        let links = shared.links.write();
        // Set once, since the runtime is taken once.
        let _ = shared.handler.set(handler.clone());
        for link in links.iter() {
            self.start(link, &handler);
        }
        drop(links);
        let run = std::thread::Builder::new().name("hf-peer".to_owned());
        let run = run.spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    let accepting = serve::accept(shared.clone(), listener);
                    tokio::spawn(async {
                        if let Err(error) = accepting.await {
                            tracing::error!(%error, "cannot accept connections of members");
                        }
                    });
                }
                tokio::select! {
                    () = shared.clone().answer_bell(handler) => {}
                    () = shared.stop.notified() => {}
                }
            });
            // A snapshot that is still read or written must not hold up the stop.
            runtime.shutdown_background();
        })?;
        *thread = Thread::Runs(run);
        Ok(())
    }

    fn start(&self, link: &Arc<Link>, handler: &Arc<dyn PeerHandler>) {
        let run = link.clone().run(self.shared.clone(), handler.clone());
        let task = self.runtime.spawn(run);
        *link.task.lock() = Some(task.abort_handle());
    }

    /// Ends the thread and closes all connections. Not to be called on the thread itself.
    pub(crate) fn stop(&self) {
        let thread = std::mem::replace(&mut *self.thread.lock(), Thread::Stopped);
        self.shared.stop.notify_one();
        match thread {
            Thread::Prepared(runtime) => runtime.shutdown_background(),
            Thread::Runs(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the thread of the peers panicked");
                }
            }
            Thread::Stopped => {}
        }
    }

    /// The other members as they are now. New ones are dialled; of those that are gone every connection is closed.
    pub(crate) fn set_members(&self, others: &[PeerAddress]) {
        let mut others: Vec<_> = others
            .iter()
            .filter(|other| other.id != self.shared.me.member)
            .collect();
        others.sort_by_key(|other| other.id);
        others.dedup_by_key(|other| other.id);
        let hosts =
            others
                .iter()
                .flat_map(|other| &other.urls)
                .filter_map(|url| match Target::parse(url, false) {
                    Ok(Target::Tcp { host, .. }) => Some(host),
                    _ => None,
                });
        *self.shared.hosts.write() = hosts.collect();
        let mut links = self.shared.links.write();
        let handler = self.shared.handler.get();
        let mut before = std::mem::take(&mut *links);
        for other in others {
            let known = before.binary_search_by_key(&other.id, |link| link.id);
            let link = match known {
                Ok(position) => {
                    let link = before.remove(position);
                    link.set_urls(other.urls.clone());
                    link
                }
                Err(_) => {
                    let series = self.shared.metrics.to(other.id);
                    let link = Arc::new(Link::new(other.id, other.urls.clone(), series));
                    if let Some(handler) = handler {
                        self.start(&link, handler);
                    }
                    link
                }
            };
            links.push(link);
        }
        drop(links);
        for gone in before {
            gone.remove();
            self.shared.doors.kick(gone.id);
            self.shared.metrics.forget(gone.id);
        }
    }

    /// The members that our streams are up to.
    pub(crate) fn connected(&self) -> Vec<u64> {
        let links = self.shared.links.read();
        let up = links.iter().filter(|link| link.is_up());
        up.map(|link| link.id).collect()
    }

    /// Queues messages, each of which the other side's handler gets as it is. Never blocks; what cannot be sent is dropped and counted.
    /// One wake serves them all, so give them together.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = (u64, Bytes)>) {
        let mut ring = false;
        let links = self.shared.links.read();
        for (to, message) in messages {
            if let Ok(found) = links.binary_search_by_key(&to, |link| link.id)
                && let Some(link) = links.get(found)
            {
                ring |= link.outbox.push(message);
            }
        }
        drop(links);
        if ring {
            self.shared.bell.ring();
        }
    }

    /// Sends a snapshot, read from `pieces` no faster than it is taken; [`PeerHandler::snapshot_sent`] hears what came of it. One to
    /// each member at a time, two in all: others wait.
    pub(crate) fn send_snapshot(&self, to: u64, message: Bytes, pieces: SnapshotPieces) {
        let Some(handler) = self.shared.handler.get() else {
            return;
        };
        let link = self.shared.link(to);
        let shared = self.shared.clone();
        self.runtime.spawn(snapshot::send(
            shared,
            handler.clone(),
            link,
            to,
            message,
            pieces,
        ));
    }

    /// Asks a member to renew leases; the seconds that each has.
    ///
    /// # Errors
    /// There is no answer within `deadline`, or it is an error.
    pub(crate) async fn keep_alive(
        &self,
        to: u64,
        request: KeepAlive,
        deadline: Duration,
    ) -> Result<Vec<i64>, CallError> {
        let wanted = request.leases.len();
        let message = pb::KeepAliveRequest {
            hello: Some(self.shared.me.hello(to)),
            tenant: request.tenant,
            caller: request.caller,
            lease_ids: request.leases,
        };
        let answer: pb::KeepAliveResponse = self.call(to, "KeepAlive", &message, deadline).await?;
        if answer.ttl_seconds.len() != wanted {
            return Err(CallError::Malformed("an answer is missing".to_owned()));
        }
        Ok(answer.ttl_seconds)
    }

    /// Asks a member how long a lease has; `None` if there is no such lease.
    ///
    /// # Errors
    /// There is no answer within `deadline`, or it is an error.
    pub(crate) async fn time_to_live(
        &self,
        to: u64,
        request: TimeToLive,
        deadline: Duration,
    ) -> Result<Option<LeaseTimes>, CallError> {
        let message = pb::TimeToLiveRequest {
            hello: Some(self.shared.me.hello(to)),
            tenant: request.tenant,
            caller: request.caller,
            lease_id: request.lease,
        };
        let answer: pb::TimeToLiveResponse =
            self.call(to, "TimeToLive", &message, deadline).await?;
        Ok(answer.found.then_some(LeaseTimes {
            granted_secs: answer.granted_seconds,
            remaining_secs: answer.remaining_seconds,
        }))
    }

    /// Asks the leader for a change of the membership; the index in the log that it was applied at.
    ///
    /// # Errors
    /// There is no answer within `deadline`, in which case the change may still come, or it is an error.
    pub(crate) async fn change_members(
        &self,
        to: u64,
        request: ChangeMembers,
        deadline: Duration,
    ) -> Result<u64, CallError> {
        let message = pb::ChangeMembersRequest {
            hello: Some(self.shared.me.hello(to)),
            change: request.wire_change(),
            member: request.member,
            command: request.command,
        };
        let answer: pb::ChangeMembersResponse =
            self.call(to, "ChangeMembers", &message, deadline).await?;
        Ok(answer.index)
    }

    /// Asks a member for the sums of its state.
    ///
    /// # Errors
    /// There is no answer within `deadline`, or it is an error.
    pub(crate) async fn hash(
        &self,
        to: u64,
        at: HashAt,
        deadline: Duration,
    ) -> Result<Hashes, CallError> {
        let message = pb::HashRequest {
            hello: Some(self.shared.me.hello(to)),
            tenant: at.tenant,
            revision: at.revision,
        };
        let answer: pb::HashResponse = self.call(to, "Hash", &message, deadline).await?;
        Ok(Hashes {
            hash: answer.hash,
            hash_revision: answer.hash_revision,
            compact_revision: answer.compact_revision,
            auth_hash: answer.auth_hash,
            applied_index: answer.applied_index,
        })
    }

    /// One call on the connection that our stream is on, once it is up.
    async fn call<T: Message + Default>(
        &self,
        to: u64,
        method: &'static str,
        message: &impl Message,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let link = self.shared.link(to);
        let link = link.ok_or_else(|| CallError::Unreachable("it is no member".to_owned()))?;
        let calling = async {
            let mut requests = link.requests().await?;
            requests.call(method, message, |_| Ok(())).await
        };
        let answer = tokio::time::timeout(deadline, Box::pin(calling)).await;
        answer.unwrap_or(Err(CallError::Deadline))
    }
}

/// Asks which cluster the members at these URLs belong to, before there is a net; the first answer counts. Blocks.
///
/// # Errors
/// None of them answers within `deadline`: what was wrong with the last.
pub(crate) fn describe(
    urls: &[String],
    security: &Security,
    deadline: Duration,
) -> Result<Description, CallError> {
    let unreachable = |error: io::Error| CallError::Unreachable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unreachable)?;
    let asking = async {
        let mut failure = CallError::Unreachable("no URL is given".to_owned());
        for url in urls {
            match describe_one(url, security).await {
                Ok(description) => return Ok(description),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    };
    let answer = runtime.block_on(async { tokio::time::timeout(deadline, asking).await });
    // A name that is still being looked up is nobody's business any more.
    runtime.shutdown_background();
    answer.unwrap_or(Err(CallError::Deadline))
}

async fn describe_one(url: &str, security: &Security) -> Result<Description, CallError> {
    let pings = Pings::within(bounds::HELLO_DEADLINE);
    let mut connection = Connection::open(security, url, pings).await?;
    let message = pb::DescribeRequest {
        protocol: PROTOCOL_VERSION,
    };
    // The list of members, which is counted before it is decoded.
    let check =
        |bytes: &Bytes| -> Result<(), FrameError> { bounded(bytes, 8, bounds::MEMBERS_MAX) };
    let call = connection.requests.call("Describe", &message, check);
    let answer: pb::DescribeResponse = tokio::time::timeout(bounds::HELLO_DEADLINE, call)
        .await
        .unwrap_or(Err(CallError::Deadline))?;
    let described = Description::from_wire(answer);
    let described = described.map_err(|error| CallError::Malformed(error.to_string()))?;
    let known = super::hello::Known {
        name: Some(described.name.clone()),
        named_elsewhere: false,
    };
    let holder = &connection.holder;
    holder
        .may_speak_for(&described.name, &known)
        .map_err(CallError::Unreachable)?;
    Ok(described)
}
