//! What the node does for other members: the other side of this module.

use super::bounds::{
    COMMAND_BYTES_MAX, LEASES_MAX, MEMBERS_MAX, SNAPSHOT_MESSAGE_BYTES_MAX, URL_BYTES_MAX, URLS_MAX,
};
use super::hello::{Hello, Known, PROTOCOL_VERSION, PeerVersion, Refusal, is_name};
use bytes::Bytes;
use holdfast_proto::peer as pb;
use std::pin::Pin;
use tonic::Status;

/// An answer to another member. A status goes to it as it is.
pub(crate) type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;

/// What the node does for other members. All methods but `begin_snapshot` are called on the thread `hf-peer`.
pub(crate) trait PeerHandler: Send + Sync + 'static {
    /// Judges who introduces itself by the member table. What needs no table was checked before.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::Removed`] or [`Refusal::Wiped`].
    fn check(&self, hello: &Hello) -> Result<Known, Refusal>;

    /// Messages of one member, in the order in which it sent them. May block for one sync of the log.
    fn receive(&self, from: u64, messages: Vec<Bytes>);

    /// Our stream to a member is up.
    fn connected(&self, peer: u64);

    /// Our stream to a member broke, or messages to it were dropped because too many waited: some that were sent have not arrived.
    fn lost(&self, peer: u64);

    /// A member refuses this one; told once for each change. Some reasons are final for this member: it is removed, wiped, or of
    /// another cluster.
    fn refused(&self, peer: u64, refusal: Refusal);

    /// The stream broke, and no process listens where the member was: it has ended.
    fn gone(&self, peer: u64);

    /// What came of a snapshot that was to be sent.
    fn snapshot_sent(&self, to: u64, ok: bool);

    /// Begins to take a snapshot. On a thread that may block.
    ///
    /// # Errors
    /// What the sender is told.
    fn begin_snapshot(&self, from: u64, message: Bytes) -> Result<Box<dyn SnapshotSink>, Status>;

    /// Renews leases; the seconds that each has, 0 for one that is not.
    fn keep_alive(&self, from: u64, request: KeepAlive) -> Reply<'_, Vec<i64>>;

    /// How long a lease has; `None` if there is no such lease.
    fn time_to_live(&self, from: u64, request: TimeToLive) -> Reply<'_, Option<LeaseTimes>>;

    /// Proposes a change of the membership; the index in the log that it was applied at.
    fn change_members(&self, from: u64, request: ChangeMembers) -> Reply<'_, u64>;

    /// Sums of this member's state.
    fn hash(&self, from: u64, request: HashAt) -> Reply<'_, Hashes>;

    /// What a new member asks.
    fn describe(&self) -> Description;
}

/// Takes a snapshot, on a thread that may block. Dropped without `finish`, it was broken off.
pub(crate) trait SnapshotSink: Send {
    /// The next piece: 1 byte to 256 KiB.
    ///
    /// # Errors
    /// It cannot be used, or not be kept; the sender is told.
    fn push(&mut self, piece: Bytes) -> Result<(), Status>;

    /// All has come: checks it, and takes it into use together with the message that it belongs to.
    ///
    /// # Errors
    /// The sender is told.
    fn finish(self: Box<Self>) -> Result<(), Status>;
}

/// Leases to be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    pub(crate) tenant: u32,
    /// For whom, encoded; not looked at here.
    pub(crate) caller: Bytes,
    /// 1 to 1,024.
    pub(crate) leases: Vec<i64>,
}

/// A lease that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeToLive {
    pub(crate) tenant: u32,
    /// For whom, encoded; not looked at here.
    pub(crate) caller: Bytes,
    pub(crate) lease: i64,
}

/// The times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseTimes {
    pub(crate) granted_secs: i64,
    pub(crate) remaining_secs: i64,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembershipChange {
    /// Added as a voter, or promoted to one.
    Voter,
    Learner,
    Remove,
}

/// A change of the membership that a member asks the leader for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeMembers {
    pub(crate) change: MembershipChange,
    pub(crate) member: u64,
    /// What goes into the log with the change, encoded with its caller; not looked at here. At most 1 MiB.
    pub(crate) command: Bytes,
}

/// Which state to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashAt {
    pub(crate) tenant: u32,
    /// 0: the present revision.
    pub(crate) revision: i64,
}

/// Sums of a member's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Of keys and values up to `hash_revision`.
    pub(crate) hash: u32,
    pub(crate) hash_revision: i64,
    pub(crate) compact_revision: i64,
    /// Of users, roles and permissions.
    pub(crate) auth_hash: u64,
    /// Of the log: the entries up to it made this state.
    pub(crate) applied_index: u64,
}

/// Which cluster a member belongs to, and who its members are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) cluster: u64,
    /// The one that answers.
    pub(crate) member: u64,
    pub(crate) name: String,
    pub(crate) instance: u64,
    pub(crate) version: PeerVersion,
    /// Whether the cluster has profile `strict`, and not `etcd`.
    pub(crate) strict: bool,
    /// 0: it knows of none.
    pub(crate) leader: u64,
    /// At most 64.
    pub(crate) members: Vec<DescribedMember>,
}

/// A member in a [`Description`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// At most 32, of at most 2,048 bytes; as the next.
    pub(crate) peer_urls: Vec<String>,
    pub(crate) client_urls: Vec<String>,
    pub(crate) is_learner: bool,
    pub(crate) instance: u64,
}

/// A message that is out of its bounds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct OutOfBounds(&'static str);

fn within(good: bool, what: &'static str) -> Result<(), OutOfBounds> {
    if good { Ok(()) } else { Err(OutOfBounds(what)) }
}

/// The message of a snapshot.
pub(super) fn snapshot_message(message: &Bytes) -> Result<(), OutOfBounds> {
    let length = message.len();
    within(
        (1..=SNAPSHOT_MESSAGE_BYTES_MAX).contains(&length),
        "the message of a snapshot is missing or too long",
    )
}

impl KeepAlive {
    pub(super) fn from_wire(wire: pb::KeepAliveRequest) -> Result<KeepAlive, OutOfBounds> {
        within(
            (1..=LEASES_MAX).contains(&wire.lease_ids.len()),
            "there must be 1 to 1024 leases",
        )?;
        within(wire.caller.len() <= COMMAND_BYTES_MAX, "caller too long")?;
        Ok(KeepAlive {
            tenant: wire.tenant,
            caller: wire.caller,
            leases: wire.lease_ids,
        })
    }
}

impl TimeToLive {
    pub(super) fn from_wire(wire: pb::TimeToLiveRequest) -> Result<TimeToLive, OutOfBounds> {
        within(wire.caller.len() <= COMMAND_BYTES_MAX, "caller too long")?;
        Ok(TimeToLive {
            tenant: wire.tenant,
            caller: wire.caller,
            lease: wire.lease_id,
        })
    }
}

impl ChangeMembers {
    pub(super) fn from_wire(wire: pb::ChangeMembersRequest) -> Result<ChangeMembers, OutOfBounds> {
        let change = match pb::MembershipChange::try_from(wire.change) {
            Ok(pb::MembershipChange::Voter) => MembershipChange::Voter,
            Ok(pb::MembershipChange::Learner) => MembershipChange::Learner,
            Ok(pb::MembershipChange::Remove) => MembershipChange::Remove,
            Ok(pb::MembershipChange::None) | Err(_) => {
                return Err(OutOfBounds("no such change of the membership"));
            }
        };
        within(wire.member != 0, "no member has the id 0")?;
        within(wire.command.len() <= COMMAND_BYTES_MAX, "command too long")?;
        Ok(ChangeMembers {
            change,
            member: wire.member,
            command: wire.command,
        })
    }

    pub(super) fn wire_change(&self) -> i32 {
        let change = match self.change {
            MembershipChange::Voter => pb::MembershipChange::Voter,
            MembershipChange::Learner => pb::MembershipChange::Learner,
            MembershipChange::Remove => pb::MembershipChange::Remove,
        };
        change.into()
    }
}

impl HashAt {
    pub(super) fn from_wire(wire: &pb::HashRequest) -> Result<HashAt, OutOfBounds> {
        within(wire.revision >= 0, "no revision is negative")?;
        Ok(HashAt {
            tenant: wire.tenant,
            revision: wire.revision,
        })
    }
}

impl Description {
    pub(super) fn to_wire(&self) -> pb::DescribeResponse {
        pb::DescribeResponse {
            protocol: PROTOCOL_VERSION,
            cluster_id: self.cluster,
            member_id: self.member,
            name: self.name.clone(),
            instance: self.instance,
            version: Some(self.version.to_wire()),
            strict: self.strict,
            leader_id: self.leader,
            members: self
                .members
                .iter()
                .map(|member| pb::Member {
                    id: member.id,
                    name: member.name.clone(),
                    peer_urls: member.peer_urls.clone(),
                    client_urls: member.client_urls.clone(),
                    is_learner: member.is_learner,
                    instance: member.instance,
                })
                .collect(),
        }
    }

    pub(super) fn from_wire(wire: pb::DescribeResponse) -> Result<Description, OutOfBounds> {
        within(
            wire.protocol == PROTOCOL_VERSION,
            "it speaks another version of the peer protocol",
        )?;
        within(
            wire.cluster_id != 0 && wire.member_id != 0,
            "a cluster or member without an id",
        )?;
        within(wire.members.len() <= MEMBERS_MAX, "too many members")?;
        within(is_name(&wire.name), "a name that is none")?;
        let version = PeerVersion::from_wire(wire.version);
        let version = version.ok_or(OutOfBounds("a version that is none"))?;
        let members = wire.members.into_iter().map(DescribedMember::from_wire);
        let members: Vec<_> = members.collect::<Result<_, _>>()?;
        let mut ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        ids.dedup();
        within(ids.len() == members.len(), "two members with one id")?;
        Ok(Description {
            cluster: wire.cluster_id,
            member: wire.member_id,
            name: wire.name,
            instance: wire.instance,
            version,
            strict: wire.strict,
            leader: wire.leader_id,
            members,
        })
    }
}

impl DescribedMember {
    fn from_wire(wire: pb::Member) -> Result<DescribedMember, OutOfBounds> {
        within(wire.id != 0, "a member without an id")?;
        within(is_name(&wire.name), "a name that is none")?;
        for urls in [&wire.peer_urls, &wire.client_urls] {
            within(urls.len() <= URLS_MAX, "too many URLs")?;
            let fits =
                |url: &String| url.len() <= URL_BYTES_MAX && !url.chars().any(char::is_control);
            within(urls.iter().all(fits), "a URL that is none")?;
        }
        Ok(DescribedMember {
            id: wire.id,
            name: wire.name,
            peer_urls: wire.peer_urls,
            client_urls: wire.client_urls,
            is_learner: wire.is_learner,
            instance: wire.instance,
        })
    }
}
