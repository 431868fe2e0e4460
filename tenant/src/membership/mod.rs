//! Who belongs to the group: replicated state like any other, changed by commands in the log and by nothing else. What raft calls
//! its configuration is derived from it.

mod change;
mod record;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The level of what this build writes to the log, to snapshots and to its peers. It is raised with the first thing that a build
/// without it could not read; such things are written only once [`Membership::version`] says that no member is below their level.
/// 1: the first that runs in clusters.
pub const MEMBER_LEVEL: u32 = 1;

/// Most members of a group, learners included. Groups are small: each change is a round to a majority.
pub const MEMBERS_MAX: usize = 64;
/// Most ids that a group remembers, present and removed ones together. They are never forgotten; beyond it no member is added.
pub const MEMBER_IDS_MAX: usize = 16_384;
/// Most peer URLs, and most client URLs, of one member.
pub const MEMBER_URLS_MAX: usize = 32;
/// Longest URL, bytes.
pub const MEMBER_URL_BYTES_MAX: usize = 2_048;
/// Longest name, bytes.
pub const MEMBER_NAME_BYTES_MAX: usize = 255;
/// Longest text of a version, bytes.
pub const MEMBER_VERSION_BYTES_MAX: usize = 32;

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id; never 0, and never that of another member before or after it.
    pub id: u64,
    /// Its name for people; empty until it has published one, unless it is a founding member.
    pub name: String,
    /// Where its peers find it; at least one, and none of another member.
    pub peer_urls: Vec<String>,
    /// Where clients find it; empty until it has published them.
    pub client_urls: Vec<String>,
    /// It receives everything and has no vote.
    pub is_learner: bool,
    /// Which data directory it runs on: a random number that is made with the directory. 0 until it has published it; the first one
    /// stays for good.
    pub instance: u64,
    /// What it runs; the default until it has published it.
    pub version: MemberVersion,
}

impl Member {
    /// Whether it has been heard of since it was added: what etcd calls started. Founding members have a name from the beginning.
    pub fn is_started(&self) -> bool {
        self.has_published() || !self.name.is_empty()
    }

    /// Whether it has published itself, so that its instance and version are known.
    pub fn has_published(&self) -> bool {
        self.instance != 0
    }
}

/// The version of the software that a member runs. Ordered by level, then by the numbers in the text, so that 3.10 is above 3.9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberVersion {
    /// The build's [`MEMBER_LEVEL`]; 0 is unknown.
    pub level: u32,
    /// The version of etcd's API, such as `3.7.1`.
    pub text: String,
}

impl MemberVersion {
    fn numbers(&self) -> impl Iterator<Item = u64> {
        // The text is bounded where it enters, and saturates where it is nonsense.
        self.text
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| match number {
                "" => 0,
                number => number.parse().unwrap_or(u64::MAX),
            })
    }
}

impl Ord for MemberVersion {
    fn cmp(&self, other: &MemberVersion) -> Ordering {
        self.level
            .cmp(&other.level)
            .then_with(|| self.numbers().cmp(other.numbers()))
            .then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for MemberVersion {
    fn partial_cmp(&self, other: &MemberVersion) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The members of the group as at one position in the log, and the ids of those that were removed. A value that never changes: a
/// change makes another one. Empty on a member that has not received its first snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
}

impl Membership {
    /// A member, if it belongs to the group.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The members, learners included, in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// How many members there are, learners included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing is known yet: there is no group without members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether this id was a member's that has been removed. It never is a member's again.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The ids that were removed, ascending.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// The ids of the members that vote, ascending.
    pub fn voters(&self) -> Vec<u64> {
        self.ids(false)
    }

    /// The ids of the members that do not vote, ascending.
    pub fn learners(&self) -> Vec<u64> {
        self.ids(true)
    }

    fn ids(&self, learners: bool) -> Vec<u64> {
        self.iter()
            .filter(|member| member.is_learner == learners)
            .map(|member| member.id)
            .collect()
    }

    /// The cluster's version: the lowest that a member, voter or learner, has published. `None` before any has.
    pub fn version(&self) -> Option<&MemberVersion> {
        self.iter()
            .filter(|member| member.has_published())
            .map(|member| &member.version)
            .min()
    }

    /// Whether a majority of the voters would have started if one that has not were added. For the check of
    /// `--strict-reconfig-check`, which is done before a change is proposed. From one voter to two is allowed always: there is no
    /// other way to more.
    pub fn may_add_voter(&self) -> bool {
        let (voters, started) = self.count_voters(None);
        (voters == 1 && started == 1) || started >= majority(voters + 1)
    }

    /// Whether a majority of the voters would have started if this learner, taken as started, became one.
    pub fn may_promote(&self, id: u64) -> bool {
        let (voters, started) = self.count_voters(Some(id));
        started + 1 >= majority(voters + 1)
    }

    /// Whether a majority of the voters that are left would have started if this member were removed; a learner may always go.
    pub fn may_remove(&self, id: u64) -> bool {
        if self.get(id).is_some_and(|member| member.is_learner) {
            return true;
        }
        let (voters, started) = self.count_voters(Some(id));
        started >= majority(voters)
    }

    /// Voters, and those of them that have started, one left out.
    fn count_voters(&self, without: Option<u64>) -> (usize, usize) {
        self.iter()
            .filter(|member| !member.is_learner && Some(member.id) != without)
            .fold((0, 0), |(voters, started), member| {
                (voters + 1, started + usize::from(member.is_started()))
            })
    }

    /// Puts together what founds a group or was stored of one, and checks it.
    ///
    /// # Errors
    /// What is wrong with it. Nothing at all is no error: a member that joins has nothing.
    pub(crate) fn assemble(
        members: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = u64>,
    ) -> Result<Membership, MembershipFault> {
        let mut membership = Membership {
            members: BTreeMap::new(),
            removed: removed.into_iter().collect(),
        };
        for member in members {
            change::check_member(&member).map_err(|reason| MembershipFault::Member {
                id: member.id,
                reason,
            })?;
            if membership.removed.contains(&member.id) {
                return Err(MembershipFault::Removed(member.id));
            }
            if membership.has_peer_url(&member.peer_urls, member.id) {
                return Err(MembershipFault::SharedUrl(member.id));
            }
            let id = member.id;
            if membership.members.insert(id, member).is_some() {
                return Err(MembershipFault::Twice(id));
            }
        }
        if membership.len() > MEMBERS_MAX {
            return Err(MembershipFault::TooMany);
        }
        let is_nothing = membership.is_empty() && membership.removed.is_empty();
        if !is_nothing && membership.voters().is_empty() {
            return Err(MembershipFault::NoVoter);
        }
        Ok(membership)
    }

    /// Whether a member other than `id` has one of these peer URLs.
    fn has_peer_url(&self, urls: &[String], id: u64) -> bool {
        self.iter()
            .filter(|member| member.id != id)
            .any(|member| member.peer_urls.iter().any(|url| urls.contains(url)))
    }
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Why members do not make a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipFault {
    /// A member by itself is impossible.
    #[error("member {id:x}: {reason}")]
    Member {
        /// Its id.
        id: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two have the same id.
    #[error("member {0:x} is there twice")]
    Twice(u64),
    /// One is there and was removed.
    #[error("member {0:x} is there and was removed")]
    Removed(u64),
    /// One has a peer URL of another.
    #[error("member {0:x} has a peer URL of another member")]
    SharedUrl(u64),
    /// More than [`MEMBERS_MAX`].
    #[error("more than {MEMBERS_MAX} members")]
    TooMany,
    /// None that votes.
    #[error("no member has a vote")]
    NoVoter,
}
