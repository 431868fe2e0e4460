//! Who may use a lease. What it takes depends on the keys attached to it and, where leases have owners, on who made it.
//!
//! etcd asks for WRITE on all keys attached to a lease, which lets every user end a lease that has none yet. With
//! [`MachineOptions::lease_ownership`](crate::MachineOptions) a lease belongs to its creator; others need to be root, or WRITE on its
//! keys, of which there must be one.
//!
//! A lease that is not there has nothing to protect. That it is not is no secret either: whoever may create leases may try any id.

use crate::state::Tenant;
use bytes::Bytes;
use holdfast_auth::{Access, Caller, Denied, KeyRange, Verb};
use holdfast_storage::lease::{LeaseTable, Millis, TimeToLive};

/// What a lease is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseUse {
    /// Attach a key to it.
    Attach,
    /// End it and delete its keys.
    Revoke,
    /// Start its time anew.
    KeepAlive,
    /// Ask how long it lives.
    TimeToLive {
        /// And which keys it has.
        keys: bool,
    },
}

/// How long a lease lives, and the keys attached to it, in order.
pub type LeaseLife = (TimeToLive, Vec<Vec<u8>>);

/// Leases that are looked at under one hold of their lock: whoever lists them does not hold up what is being applied.
const LEASES_AT_ONCE: usize = 256;
/// Attached keys that one question about a range answers for, if they lie in one grant.
const KEYS_AT_ONCE: usize = 256;

impl Tenant {
    /// Whether a caller with this access may use a lease.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`].
    pub fn may_use_lease(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        id: i64,
        usage: LeaseUse,
    ) -> Result<(), Denied> {
        if access.is_admin() {
            return Ok(());
        }
        self.may_use(&self.leases.lock(), access, caller, id, usage)
    }

    fn may_use(
        &self,
        leases: &LeaseTable,
        access: &Access<'_>,
        caller: &Caller,
        id: i64,
        usage: LeaseUse,
    ) -> Result<(), Denied> {
        if access.is_admin() || !leases.contains(id) {
            return Ok(());
        }
        let (verb, names_keys) = match usage {
            LeaseUse::Attach | LeaseUse::Revoke | LeaseUse::KeepAlive => (Verb::Write, false),
            LeaseUse::TimeToLive { keys } => (Verb::Read, keys),
        };
        let permitted = if self.lease_ownership {
            if owns(leases, caller, id) {
                !names_keys || covers(access, verb, leases.keys(id))
            } else {
                leases.keys(id).next().is_some() && covers(access, verb, leases.keys(id))
            }
        } else {
            (verb == Verb::Read && !names_keys) || covers(access, verb, leases.keys(id))
        };
        if permitted {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    /// How long a lease lives, and its keys if they are asked for, for a caller who may know. `None` if there is no such lease. The
    /// keys are those for which the permission was checked.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`].
    pub fn lease_time_to_live_for(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        id: i64,
        keys: bool,
        now: Millis,
    ) -> Result<Option<LeaseLife>, Denied> {
        let leases = self.leases.lock();
        let usage = LeaseUse::TimeToLive { keys };
        self.may_use(&leases, access, caller, id, usage)?;
        let Some(time) = leases.time_to_live(id, now) else {
            return Ok(None);
        };
        let keys = keys.then(|| leases.keys(id).map(<[u8]>::to_vec).collect());
        Ok(Some((time, keys.unwrap_or_default())))
    }

    /// The leases that a caller may know of, the one that ends first first. Where leases have owners these are its own, and those
    /// whose keys (one at least) it may all read; else all of them.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`] where leases have no owners and one of them has a key that the caller may not read, as in etcd.
    pub fn visible_leases(&self, access: &Access<'_>, caller: &Caller) -> Result<Vec<i64>, Denied> {
        let all = self.lease_ids();
        let reads_all = !self.lease_ownership && access.allows(Verb::Read, &KeyRange::All);
        if access.is_admin() || reads_all {
            return Ok(all);
        }
        let mut visible = Vec::new();
        for some in all.chunks(LEASES_AT_ONCE) {
            let leases = self.leases.lock();
            for &id in some {
                let readable = covers(access, Verb::Read, leases.keys(id));
                if !self.lease_ownership {
                    if !readable {
                        return Err(Denied::NotPermitted);
                    }
                    visible.push(id);
                } else if owns(&leases, caller, id) || readable && leases.keys(id).next().is_some()
                {
                    visible.push(id);
                }
            }
        }
        Ok(visible)
    }
}

fn owns(leases: &LeaseTable, caller: &Caller, id: i64) -> bool {
    let owner = leases.owner(id);
    owner.is_some() && owner == caller.owner().as_deref()
}

/// Whether `verb` is granted on each of `keys`, which are in order. Most leases have their keys below one prefix, so that the range
/// from the first to the last is asked for before each of them is.
fn covers<'k>(
    access: &Access<'_>,
    verb: Verb,
    mut keys: impl DoubleEndedIterator<Item = &'k [u8]>,
) -> bool {
    let point = |key: &[u8]| KeyRange::Point(Bytes::copy_from_slice(key));
    let Some(first) = keys.next() else {
        return true;
    };
    let Some(last) = keys.next_back() else {
        return access.allows(verb, &point(first));
    };
    if access.allows(verb, &through(first, last)) {
        return true;
    }
    if !access.allows(verb, &point(first)) || !access.allows(verb, &point(last)) {
        return false;
    }
    let mut some: Vec<&[u8]> = Vec::with_capacity(KEYS_AT_ONCE);
    loop {
        some.clear();
        some.extend(keys.by_ref().take(KEYS_AT_ONCE));
        let [first, .., last] = some[..] else {
            return some.iter().all(|key| access.allows(verb, &point(key)));
        };
        if !access.allows(verb, &through(first, last))
            && !some.iter().all(|key| access.allows(verb, &point(key)))
        {
            return false;
        }
    }
}

/// The range that begins with `first` and ends with `last`.
fn through(first: &[u8], last: &[u8]) -> KeyRange {
    KeyRange::Span {
        start: Bytes::copy_from_slice(first),
        end: [last, &[0]].concat().into(),
    }
}
