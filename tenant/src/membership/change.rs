//! The changes of a membership: pure functions, so that every member comes to the same result, and whoever is to propose one can ask
//! beforehand.

use super::{
    MEMBER_IDS_MAX, MEMBER_NAME_BYTES_MAX, MEMBER_URL_BYTES_MAX, MEMBER_URLS_MAX,
    MEMBER_VERSION_BYTES_MAX, MEMBERS_MAX, Member, MemberVersion, Membership,
};
use crate::answer::Refusal;
use crate::command::Command;

impl Membership {
    /// What a command makes of this membership; itself if the command is none of the members'.
    ///
    /// # Errors
    /// The [`Refusal`] that the command meets when it is applied to this membership.
    pub fn after(&self, command: &Command) -> Result<Membership, Refusal> {
        match command {
            Command::MemberAdd {
                id,
                peer_urls,
                is_learner,
                max_learners,
            } => self.with_added(*id, peer_urls, *is_learner, *max_learners),
            Command::MemberPromote { id } => self.with(*id, |member| {
                if !member.is_learner {
                    return Err(Refusal::NotLearner);
                }
                member.is_learner = false;
                Ok(())
            }),
            Command::MemberRemove { id } => self.without(*id),
            Command::MemberUpdate { id, peer_urls } => {
                check_peer_urls(peer_urls)?;
                self.with(*id, |member| {
                    if self.has_peer_url(peer_urls, *id) {
                        return Err(Refusal::PeerUrlExists);
                    }
                    member.peer_urls.clone_from(peer_urls);
                    Ok(())
                })
            }
            Command::MemberPublish {
                id,
                name,
                client_urls,
                instance,
                version,
            } => self.with(*id, |member| {
                check_published(name, client_urls, *instance, version)?;
                if member.instance != 0 && member.instance != *instance {
                    return Err(Refusal::MemberInstance);
                }
                member.name.clone_from(name);
                member.client_urls.clone_from(client_urls);
                member.instance = *instance;
                member.version.clone_from(version);
                Ok(())
            }),
            _ => Ok(self.clone()),
        }
    }

    /// With an id that never is a member's: as if one had been added with it, and removed at once.
    ///
    /// # Errors
    /// [`Refusal`] if it is a member's, or was one's, or if no more ids can be remembered.
    pub(crate) fn with_removed(&self, id: u64) -> Result<Membership, Refusal> {
        if id == 0 {
            return Err(Refusal::Malformed("member id 0"));
        }
        if self.get(id).is_some() {
            return Err(Refusal::MemberExists);
        }
        if self.is_removed(id) {
            return Err(Refusal::MemberNotFound);
        }
        if self.len() + self.removed.len() >= MEMBER_IDS_MAX {
            return Err(Refusal::TooManyMembers);
        }
        let mut after = self.clone();
        after.removed.insert(id);
        Ok(after)
    }

    fn with_added(
        &self,
        id: u64,
        peer_urls: &[String],
        is_learner: bool,
        max_learners: u32,
    ) -> Result<Membership, Refusal> {
        check_peer_urls(peer_urls)?;
        if id == 0 {
            return Err(Refusal::Malformed("member id 0"));
        }
        if self.is_removed(id) {
            // As etcd says it.
            return Err(Refusal::MemberNotFound);
        }
        if self.get(id).is_some() {
            return Err(Refusal::MemberExists);
        }
        if self.has_peer_url(peer_urls, id) {
            return Err(Refusal::PeerUrlExists);
        }
        if is_learner && self.learners().len() as u64 >= u64::from(max_learners) {
            return Err(Refusal::TooManyLearners);
        }
        if is_learner && self.voters().is_empty() {
            // A group begins with somebody who can decide; without, its records would not be read back.
            return Err(Refusal::NotEnoughStarted);
        }
        if self.len() >= MEMBERS_MAX || self.len() + self.removed.len() >= MEMBER_IDS_MAX {
            return Err(Refusal::TooManyMembers);
        }
        let mut after = self.clone();
        let member = Member {
            id,
            peer_urls: peer_urls.to_vec(),
            is_learner,
            ..Member::default()
        };
        after.members.insert(id, member);
        Ok(after)
    }

    /// With one member changed.
    fn with(
        &self,
        id: u64,
        change: impl FnOnce(&mut Member) -> Result<(), Refusal>,
    ) -> Result<Membership, Refusal> {
        let mut after = self.clone();
        // One that was removed is not there either.
        let member = after.members.get_mut(&id).ok_or(Refusal::MemberNotFound)?;
        change(member)?;
        Ok(after)
    }

    fn without(&self, id: u64) -> Result<Membership, Refusal> {
        let mut after = self.clone();
        after.members.remove(&id).ok_or(Refusal::MemberNotFound)?;
        if after.voters().is_empty() {
            return Err(Refusal::NotEnoughStarted);
        }
        after.removed.insert(id);
        Ok(after)
    }
}

fn check_peer_urls(urls: &[String]) -> Result<(), Refusal> {
    if urls.is_empty() || !are_urls(urls) {
        return Err(Refusal::MemberUrlsInvalid);
    }
    Ok(())
}

fn check_published(
    name: &str,
    client_urls: &[String],
    instance: u64,
    version: &MemberVersion,
) -> Result<(), Refusal> {
    if instance == 0 {
        return Err(Refusal::Malformed("member instance 0"));
    }
    if !are_urls(client_urls) {
        return Err(Refusal::MemberUrlsInvalid);
    }
    if !is_name(name) {
        return Err(Refusal::Malformed("member name"));
    }
    if !is_version(version) {
        return Err(Refusal::Malformed("member version"));
    }
    Ok(())
}

/// What every member must be, whether it is of a command, of a record or of the founding.
pub(super) fn check_member(member: &Member) -> Result<(), &'static str> {
    if member.id == 0 {
        return Err("id 0");
    }
    if member.peer_urls.is_empty() || !are_urls(&member.peer_urls) {
        return Err("impossible peer URLs");
    }
    if !are_urls(&member.client_urls) {
        return Err("impossible client URLs");
    }
    if !is_name(&member.name) {
        return Err("impossible name");
    }
    if !is_version(&member.version) {
        return Err("impossible version");
    }
    Ok(())
}

/// Bounded, and nothing that would break a line of the log. What a URL is beyond that is judged where it enters the cluster.
fn are_urls(urls: &[String]) -> bool {
    let is_url = |url: &String| {
        (1..=MEMBER_URL_BYTES_MAX).contains(&url.len())
            && !url.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    urls.len() <= MEMBER_URLS_MAX && urls.iter().all(is_url)
}

fn is_name(name: &str) -> bool {
    name.len() <= MEMBER_NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

fn is_version(version: &MemberVersion) -> bool {
    version.text.len() <= MEMBER_VERSION_BYTES_MAX
        && version.text.bytes().all(|byte| byte.is_ascii_graphic())
}
