//! What clients ask for.

use crate::clients::{key, range};
use crate::world::World;
use bytes::Bytes;
use holdfast_auth::{AuthChange, KeyRange, Permission, PermissionKind, ROOT};
use holdfast_tenant::request::{Compare, DeleteRange, Op, Operand, Put, Relation, Txn};
use holdfast_tenant::{Alarm, AlarmKind, Command};
use std::collections::VecDeque;

const ROLES: [&str; 3] = ["low", "middle", "high"];
const HOLDERS: [&str; 3] = ["ann", "ben", "cay"];

/// The ranges that roles are about.
fn areas(keys: u64) -> [KeyRange; 5] {
    let span = |from: u64, to: u64| KeyRange::Span {
        start: key(from),
        end: key(to),
    };
    [
        span(0, keys / 2 + 1),
        span(keys / 3, keys * 2 / 3 + 1),
        span(keys / 2, keys + 1),
        KeyRange::Point(key(0)),
        KeyRange::From(Bytes::from_static(b"k")),
    ]
}

/// What puts users and roles in force.
pub(crate) fn founding_users(keys: u64) -> VecDeque<Command> {
    let mut changes = vec![
        AuthChange::UserAdd {
            name: ROOT.into(),
            password: None,
        },
        AuthChange::UserGrantRole {
            user: ROOT.into(),
            role: ROOT.into(),
        },
    ];
    for (at, role) in ROLES.iter().enumerate() {
        changes.push(AuthChange::RoleAdd {
            name: (*role).into(),
        });
        changes.push(AuthChange::RoleGrantPermission {
            role: (*role).into(),
            permission: Some(Permission {
                keys: areas(keys)[at].clone(),
                kind: PermissionKind::ReadWrite,
            }),
        });
    }
    for (at, user) in HOLDERS.iter().enumerate() {
        changes.push(AuthChange::UserAdd {
            name: (*user).into(),
            password: None,
        });
        for role in [at, (at + 1) % ROLES.len()] {
            changes.push(AuthChange::UserGrantRole {
                user: (*user).into(),
                role: ROLES[role].into(),
            });
        }
    }
    changes.push(AuthChange::Enable);
    changes.into_iter().map(Command::Auth).collect()
}

impl World {
    /// A client asks for something, whatever comes to its mind.
    pub(crate) fn ask_something(&mut self, at: usize) {
        let is_root = self.clients[at].user == ROOT;
        if is_root && self.plan.auth && self.chance.percent(self.plan.auth_percent) {
            let change = self.some_auth_change();
            return self.ask(at, &Command::Auth(change));
        }
        if self.plan.leases && self.chance.percent(self.plan.lease_percent) {
            return self.ask_about_leases(at);
        }
        match self.chance.below(100) {
            0..=34 => {
                let command = Command::Put(self.some_put(at));
                self.ask(at, &command);
            }
            35..=49 => {
                let command = Command::Txn(self.some_txn(at));
                self.ask(at, &command);
            }
            50..=53 => {
                let keys = self.key_range();
                let command = Command::DeleteRange(DeleteRange {
                    keys,
                    previous: self.chance.percent(40),
                });
                self.ask(at, &command);
            }
            54..=70 => {
                let range = self.some_range();
                self.ask_range(at, range);
            }
            71..=78 => {
                let range = self.some_range();
                self.read_here(at, &range);
            }
            91..=93 if self.plan.compaction && (is_root || !self.plan.auth) => {
                let current = self.truth().model.revision as u64;
                let back = self.chance.around(20);
                let revision = current.saturating_sub(back).max(1) as i64;
                self.ask(at, &Command::Compact { revision });
            }
            99 if self.plan.alarms && (is_root || !self.plan.auth) => {
                let raised = self.truth().model.alarms().next().copied();
                let command = match raised {
                    Some(alarm) => Command::ClearAlarm(alarm),
                    None => Command::RaiseAlarm(Alarm {
                        member: self.nodes[0].id,
                        kind: AlarmKind::NoSpace,
                    }),
                };
                self.ask(at, &command);
            }
            _ => {
                let command = Command::Put(self.some_put(at));
                self.ask(at, &command);
            }
        }
    }

    fn some_key(&mut self) -> Bytes {
        key(self.chance.below(self.plan.keys))
    }

    pub(crate) fn key_range(&mut self) -> KeyRange {
        let (a, b) = (
            self.chance.below(self.plan.keys),
            self.chance.below(self.plan.keys),
        );
        match self.chance.below(8) {
            0 => KeyRange::All,
            1 => KeyRange::From(key(a)),
            2..=4 => KeyRange::Span {
                start: key(a.min(b)),
                end: key(a.max(b) + 1),
            },
            _ => KeyRange::Point(key(a)),
        }
    }

    /// A value that nobody writes a second time.
    fn value(&mut self, at: usize) -> Bytes {
        let client = &mut self.clients[at];
        client.sequence += 1;
        let mut value = format!("{at}.{}.", client.sequence).into_bytes();
        if self.plan.long_value_bytes > 0 && self.chance.percent(30) {
            let length = self.chance.below(self.plan.long_value_bytes) as usize;
            value.resize(value.len() + length, b'x');
        }
        value.into()
    }

    fn some_put(&mut self, at: usize) -> Put {
        let lease = match self.clients[at].leases.last() {
            Some(lease) if self.chance.percent(40) => *lease,
            _ => 0,
        };
        Put {
            key: self.some_key(),
            value: self.value(at),
            lease,
            previous: self.chance.percent(30),
            keep_value: false,
            keep_lease: false,
        }
    }

    fn some_range(&mut self) -> holdfast_tenant::request::Range {
        let mut wanted = range(self.key_range());
        if self.chance.percent(20) {
            wanted.limit = 1 + self.chance.below(3);
        }
        wanted.keys_only = self.chance.percent(10);
        wanted.count_only = self.chance.percent(10);
        if self.chance.percent(25) {
            let current = self.truth().model.revision as u64;
            wanted.revision = 1 + self.chance.below(current + 1) as i64;
        }
        wanted
    }

    /// Mostly a compare-and-swap, as locks and counters are made of.
    fn some_txn(&mut self, at: usize) -> Txn {
        let first = self.chance.below(self.plan.keys);
        let place = key(first);
        let known = {
            let truth = self.truth();
            truth
                .model
                .get(&place)
                .map(|row| (row.revision.main, row.value.clone(), row.version))
        };
        let (modified, value, version) = known.unwrap_or_default();
        let operand = match self.chance.below(3) {
            0 => Operand::Mod(modified),
            1 => Operand::Version(version),
            _ => Operand::Value(value),
        };
        let compare = Compare {
            keys: KeyRange::Point(place.clone()),
            relation: *self.chance.pick(&[
                Relation::Equal,
                Relation::Equal,
                Relation::Less,
                Relation::NotEqual,
            ]),
            operand,
        };
        let mut put = self.some_put(at);
        put.key = place.clone();
        let mut success = vec![Op::Put(put)];
        // Other keys than the one that is written, so that no key is changed twice.
        if first + 1 < self.plan.keys {
            let rest = KeyRange::Span {
                start: key(first + 1),
                end: key(first + 1 + self.chance.below(3)),
            };
            if self.chance.percent(30) {
                success.push(Op::DeleteRange(DeleteRange {
                    keys: rest,
                    previous: self.chance.percent(50),
                }));
            } else if self.chance.percent(40) {
                let mut put = self.some_put(at);
                put.key = key(first + 1);
                success.push(Op::Put(put));
            }
        }
        success.push(Op::Range(range(KeyRange::Point(place.clone()))));
        let mut failure = vec![Op::Range(range(KeyRange::Point(place)))];
        if self.chance.percent(30) {
            failure.push(Op::Put(self.some_put(at)));
        }
        Txn {
            compares: vec![compare],
            success,
            failure,
        }
    }

    fn ask_about_leases(&mut self, at: usize) {
        let leases = &self.clients[at].leases;
        let lease = leases.last().copied();
        match (self.chance.below(10), lease) {
            (0..=5, Some(lease)) => self.ask_keep_alive(at, lease),
            (6, Some(lease)) => self.ask(at, &Command::LeaseRevoke { id: lease }),
            _ => {
                let client = &mut self.clients[at];
                client.sequence += 1;
                let id = (at as i64 + 1) * 1_000_000 + client.sequence as i64;
                client.leases.push(id);
                let ttl = self.chance.between(1, self.plan.lease_secs_max) as i64;
                self.ask(at, &Command::LeaseGrant { id, ttl });
            }
        }
    }

    fn some_auth_change(&mut self) -> AuthChange {
        let role = (*self.chance.pick(&ROLES)).to_owned();
        let user = (*self.chance.pick(&HOLDERS)).to_owned();
        let keys = self.chance.pick(&areas(self.plan.keys)).clone();
        match self.chance.below(12) {
            0..=2 => AuthChange::RoleRevokePermission { role, keys },
            3..=5 => AuthChange::RoleGrantPermission {
                role,
                permission: Some(Permission {
                    keys,
                    kind: *self.chance.pick(&[
                        PermissionKind::Read,
                        PermissionKind::Write,
                        PermissionKind::ReadWrite,
                    ]),
                }),
            },
            6..=7 => AuthChange::UserRevokeRole { user, role },
            8..=9 => AuthChange::UserGrantRole { user, role },
            10 => AuthChange::UserChangePassword {
                name: user,
                password: None,
            },
            _ if self.chance.percent(50) => AuthChange::UserDelete { name: user },
            _ => AuthChange::UserAdd {
                name: user,
                password: None,
            },
        }
    }
}
