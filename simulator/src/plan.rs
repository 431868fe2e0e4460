//! What kind of run a seed makes: how many members, which faults, how often. Runs differ on purpose, so that each kind of trouble also
//! comes without all the others.

use crate::chance::Chance;

/// Microseconds of virtual time.
pub(crate) type Micros = u64;

pub(crate) const MILLISECOND: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// Time between raft's ticks by a clock that is right.
pub(crate) const TICK: Micros = 100 * MILLISECOND;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) voters: usize,
    pub(crate) clients: usize,
    pub(crate) watchers: usize,
    pub(crate) keys: u64,
    pub(crate) election_ticks: usize,
    pub(crate) pre_vote: bool,
    /// Messages are lost and overtake each other one by one; else each link is a stream that breaks.
    pub(crate) datagrams: bool,
    pub(crate) drop_permille: u64,
    pub(crate) latency: Micros,
    /// Mean time between two faults; 0 for none.
    pub(crate) faults_every: Micros,
    /// Mean time between a client's requests.
    pub(crate) think: Micros,
    /// Mean time between two looks of a member at its store, leases and log.
    pub(crate) upkeep_every: Micros,
    pub(crate) checkpoint_percent: u64,
    pub(crate) keep_entries: u64,
    pub(crate) auth: bool,
    /// How many of the root user's requests change users and roles.
    pub(crate) auth_percent: u64,
    pub(crate) leases: bool,
    /// How many requests are about leases.
    pub(crate) lease_percent: u64,
    pub(crate) lease_secs_max: u64,
    pub(crate) compaction: bool,
    pub(crate) members_change: bool,
    pub(crate) crashes: bool,
    pub(crate) disk_faults: bool,
    pub(crate) partitions: bool,
    pub(crate) pauses: bool,
    pub(crate) transfers: bool,
    pub(crate) alarms: bool,
    /// How far clocks run fast or slow, permille.
    pub(crate) skew_permille: u64,
    /// Bytes by which some values are longer.
    pub(crate) long_value_bytes: u64,
}

impl Plan {
    pub(crate) fn new(chance: &mut Chance) -> Plan {
        let voters = *chance.pick(&[1, 3, 3, 3, 3, 3, 3, 5, 5, 5]);
        let latency = *chance.pick(&[200, MILLISECOND, 5 * MILLISECOND, 30 * MILLISECOND]);
        Plan {
            voters,
            clients: chance.between(2, 6) as usize,
            watchers: chance.below(4) as usize,
            keys: chance.between(2, 16),
            election_ticks: chance.between(4, 10) as usize,
            pre_vote: chance.percent(85),
            datagrams: chance.percent(35),
            drop_permille: *chance.pick(&[0, 0, 10, 50, 150]),
            latency,
            faults_every: *chance.pick(&[0, SECOND / 5, SECOND / 2, SECOND, SECOND]),
            think: *chance.pick(&[40, 100, 200, 300, 500]) * MILLISECOND,
            upkeep_every: *chance.pick(&[30, 100, 300]) * MILLISECOND,
            checkpoint_percent: *chance.pick(&[5, 20, 60]),
            keep_entries: *chance.pick(&[0, 1, 4, 20]),
            auth: chance.percent(50),
            auth_percent: *chance.pick(&[5, 20, 60]),
            leases: chance.percent(50),
            lease_percent: *chance.pick(&[10, 10, 40]),
            lease_secs_max: *chance.pick(&[3, 5, 12]),
            compaction: chance.percent(60),
            members_change: chance.percent(45),
            crashes: chance.percent(75),
            disk_faults: chance.percent(40),
            partitions: chance.percent(70),
            pauses: chance.percent(45),
            transfers: chance.percent(40),
            alarms: chance.percent(20),
            skew_permille: *chance.pick(&[0, 0, 10, 100, 300]),
            long_value_bytes: *chance.pick(&[0, 0, 100, 3_000]),
        }
    }
}
