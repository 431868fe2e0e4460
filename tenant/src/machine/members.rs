//! The membership: changed by commands, kept in records, and read back.

use super::alarm::refresh_alarm_bits;
use super::records::{GIVEN_UP, MEMBER, REMOVED, alarm_key, member_key, removed_key, token_key};
use super::restore::{RestoreError, damaged};
use super::{Machine, Outcome};
use crate::answer::{Answer, Refusal};
use crate::command::Command;
use crate::membership::{Member, Membership};
use bytes::Bytes;
use holdfast_storage::Change;
use holdfast_storage::backend::StoreView;
use std::sync::Arc;

/// The value of a removed id's record: its format, and nothing more.
const REMOVED_VALUE: &[u8] = &[1];
/// The first byte of the record of a group that was given up; the term follows, little endian.
const GIVEN_UP_FORMAT: u8 = 1;

impl Machine {
    /// Applies one of the members' commands. The answer is the membership after it.
    pub(super) fn change_members(&mut self, command: &Command) -> Outcome {
        let before = self.tenants.members();
        let after = match command {
            // By the group that was given up: nobody comes back by it. What else it has to say of its members is refused by the membership
            // as it is, whose only voter may not go either.
            Command::MemberAdd { id, .. } if self.given_up.is_some() => before.with_removed(*id)?,
            _ => before.after(command)?,
        };
        if after == *before {
            return Ok(Answer::Members(before));
        }
        self.changes.extend(difference(&before, &after));
        for id in after.removed().filter(|id| !before.is_removed(*id)) {
            self.forget_member(id);
        }
        let after = Arc::new(after);
        *self.tenants.members.write() = after.clone();
        Ok(Answer::Members(after))
    }

    /// Makes a member the only one of its group, without asking the others: what they have is given up. `term` is the last that the log
    /// knows. Entries up to there are of the group as it was: they bring nobody in, and do not take this member out.
    ///
    /// To be persisted before anything relies on it, which is one step, and never while another member lives.
    ///
    /// # Errors
    /// [`Refusal`] if there is no such member.
    pub fn force_sole_member(&mut self, id: u64, term: u64) -> Result<(), Refusal> {
        let members = self.tenants.members();
        let own = members.get(id).ok_or(Refusal::MemberNotFound)?;
        if own.is_learner {
            self.change_members(&Command::MemberPromote { id })?;
        }
        for other in members.iter().filter(|member| member.id != id) {
            self.change_members(&Command::MemberRemove { id: other.id })?;
        }
        let term = term.max(self.position.term);
        self.given_up = Some(term);
        let mut value = vec![GIVEN_UP_FORMAT];
        value.extend(term.to_le_bytes());
        let mut changes = std::mem::take(&mut self.changes);
        changes.push(Change::PutMeta(given_up_key(), value.into()));
        self.tenants.store.stage(self.position, changes);
        Ok(())
    }

    /// Before an entry of a term is applied: terms never fall, and so nothing comes after it of a group that was given up before.
    pub(super) fn leave_given_up(&mut self, term: u64) {
        if self.given_up.take_if(|last| *last < term).is_some() {
            self.changes.push(Change::DropMeta(given_up_key()));
        }
    }

    /// Ends what a member leaves behind that is removed: alarms that nobody could clear by mending it, and keys whose private half is
    /// on its disk, wherever that goes.
    fn forget_member(&mut self, id: u64) {
        for tenant in self.tenants.all() {
            let mut alarms = tenant.alarms.write();
            let its: Vec<_> = alarms.iter().copied().filter(|a| a.member == id).collect();
            for alarm in its {
                alarms.remove(&alarm);
                self.changes
                    .push(Change::DropMeta(alarm_key(tenant.id, alarm)));
            }
            drop(alarms);
            refresh_alarm_bits(&tenant);
        }
        let keys = self.tenants.token_keys();
        let (gone, kept): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.member == id);
        if gone.is_empty() {
            return;
        }
        let drops = gone.iter().map(|key| Change::DropMeta(token_key(&key.kid)));
        self.changes.extend(drops);
        *self.tenants.token_keys.write() = Arc::new(kept.into_iter().cloned().collect());
    }

    /// Refuses what is for a member that was removed: it may have proposed it before it heard of that.
    pub(super) fn refuse_removed(&self, member: u64) -> Result<(), Refusal> {
        if self.tenants.members.read().is_removed(member) {
            return Err(Refusal::MemberNotFound);
        }
        Ok(())
    }
}

/// What the store is to be told to come from one membership to another.
fn difference(before: &Membership, after: &Membership) -> Vec<Change> {
    let written = after
        .iter()
        .filter(|member| before.get(member.id) != Some(member))
        .map(|member| Change::PutMeta(member_key(member.id), member.encode()));
    let dropped = before
        .iter()
        .filter(|member| after.get(member.id).is_none())
        .map(|member| Change::DropMeta(member_key(member.id)));
    let removed = after
        .removed()
        .filter(|id| !before.is_removed(*id))
        .map(|id| Change::PutMeta(removed_key(id), Bytes::from_static(REMOVED_VALUE)));
    written.chain(dropped).chain(removed).collect()
}

/// The stored membership; an empty one if none is stored.
pub(super) fn stored_members(store: &StoreView) -> Result<Membership, RestoreError> {
    let mut members = Vec::new();
    for (key, value) in store.meta(&[MEMBER])? {
        let member = Member::decode(record_id(&key)?, &value);
        members.push(member.map_err(|error| damaged(&key, error))?);
    }
    let mut removed = Vec::new();
    for (key, value) in store.meta(&[REMOVED])? {
        if value != REMOVED_VALUE {
            return Err(damaged(&key, "unknown format"));
        }
        removed.push(record_id(&key)?);
    }
    Membership::assemble(members, removed).map_err(RestoreError::Members)
}

/// The last term of a group that was given up, if entries of it may still come.
pub(super) fn stored_given_up(store: &StoreView) -> Result<Option<u64>, RestoreError> {
    let Some((key, value)) = store.meta(&[GIVEN_UP])?.into_iter().next() else {
        return Ok(None);
    };
    match value.split_first() {
        Some((&GIVEN_UP_FORMAT, term)) => <[u8; 8]>::try_from(term)
            .map(|term| Some(u64::from_le_bytes(term)))
            .map_err(|_| damaged(&key, "no term")),
        _ => Err(damaged(&key, "unknown format")),
    }
}

/// The stored membership. If the store has none, those that found the group, with the records that make the store say so: they are
/// to be staged before anything reads the store for a snapshot.
pub(super) fn stored_or_founding(
    store: &StoreView,
    founding: &[Member],
) -> Result<(Membership, Vec<Change>), RestoreError> {
    let stored = stored_members(store)?;
    if !stored.is_empty() {
        return Ok((stored, Vec::new()));
    }
    let founded =
        Membership::assemble(founding.iter().cloned(), []).map_err(RestoreError::Founding)?;
    let changes = difference(&stored, &founded);
    Ok((founded, changes))
}

fn given_up_key() -> Bytes {
    Bytes::from_static(&[GIVEN_UP])
}

fn record_id(key: &Bytes) -> Result<u64, RestoreError> {
    key.get(1..)
        .and_then(|id| <[u8; 8]>::try_from(id).ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| damaged(key, "no member id"))
}
