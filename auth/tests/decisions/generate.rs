//! Random changes, callers and requests, all from one seed.

use crate::model::{ALPHABET, LONGEST, Model};
use crate::{Request, Stand};
use holdfast_auth::{
    AuthChange, Caller, KeyRange, PasswordHash, Permission, PermissionKind, Policy, TokenEpochs,
    UserId, Verb,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

const USERS: [&str; 5] = ["root", "ada", "bob", "cleo", "dan"];
const ROLES: [&str; 6] = ["root", "r1", "r2", "r3", "r4", "r5"];
const HASHES: [&str; 2] = [
    "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI",
];

pub(crate) struct Generator {
    random: StdRng,
}

/// A change that may need to know the state that it is made for.
pub(crate) enum Step {
    Change(AuthChange),
    /// To an existing permission, by the place of its role and of it.
    Revoke(usize, usize),
    /// For an existing user, by its place, with its credential or another.
    Upgrade(usize, bool, PasswordHash),
}

impl Step {
    pub(crate) fn make(self, model: &Model) -> AuthChange {
        match self {
            Step::Change(change) => change,
            Step::Revoke(role, permission) => {
                let roles: Vec<_> = model
                    .roles
                    .iter()
                    .filter(|(_, held)| !held.is_empty())
                    .collect();
                let Some((name, held)) = roles.get(role % roles.len().max(1)) else {
                    return AuthChange::Disable;
                };
                let (start, end) = held.keys().nth(permission % held.len()).unwrap().clone();
                AuthChange::RoleRevokePermission {
                    role: name.to_string(),
                    keys: KeyRange::from_pair(start.into(), end.into()),
                }
            }
            Step::Upgrade(user, now, password) => {
                let user = model.users.values().nth(user);
                let (id, credential) = user.map_or((7, 7), |user| (user.id, user.credential));
                AuthChange::UpgradePassword {
                    user: UserId(id),
                    credential: if now { credential } else { credential + 1 },
                    password,
                }
            }
        }
    }
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        Generator {
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.random_range(0..list.len())]
    }

    /// Users and roles to begin with, so that a history is not mostly about names that are not there; mostly in force.
    pub(crate) fn opening(&mut self) -> Vec<Step> {
        let mut changes = Vec::new();
        for name in USERS {
            changes.push(AuthChange::UserAdd {
                name: name.to_owned(),
                password: self.password(),
            });
        }
        for name in &ROLES[1..] {
            changes.push(AuthChange::RoleAdd {
                name: name.to_string(),
            });
            for _ in 0..self.random.random_range(0..16) {
                changes.push(AuthChange::RoleGrantPermission {
                    role: name.to_string(),
                    permission: Some(self.permission()),
                });
            }
        }
        for user in &USERS[1..] {
            for _ in 0..self.random.random_range(1..5) {
                changes.push(AuthChange::UserGrantRole {
                    user: user.to_string(),
                    role: self.one_of(&ROLES[1..]).to_owned(),
                });
            }
        }
        changes.push(AuthChange::UserGrantRole {
            user: "root".to_owned(),
            role: "root".to_owned(),
        });
        if self.chance(90) {
            changes.push(AuthChange::Enable);
        }
        changes.into_iter().map(Step::Change).collect()
    }

    pub(crate) fn change_later(&mut self) -> Step {
        let change = match self.random.random_range(0..100) {
            0..2 => AuthChange::Disable,
            2..20 => AuthChange::Enable,
            20..27 => AuthChange::UserAdd {
                name: self.user(),
                password: self.password(),
            },
            27..30 => AuthChange::UserDelete { name: self.user() },
            30..34 => AuthChange::UserChangePassword {
                name: self.user(),
                password: self.password(),
            },
            // So that it can be enabled again.
            34..37 => AuthChange::UserGrantRole {
                user: "root".to_owned(),
                role: "root".to_owned(),
            },
            37..46 => AuthChange::UserGrantRole {
                user: self.user(),
                role: self.role(),
            },
            46..51 => AuthChange::UserRevokeRole {
                user: self.user(),
                role: self.role(),
            },
            51..57 => AuthChange::RoleAdd { name: self.role() },
            57..59 => AuthChange::RoleDelete { name: self.role() },
            59..84 => AuthChange::RoleGrantPermission {
                role: self.role(),
                permission: self.chance(98).then(|| self.permission()),
            },
            84..87 => AuthChange::RoleRevokePermission {
                role: self.role(),
                keys: self.keys(),
            },
            87..97 => {
                let mut place = || self.random.random_range(0..1000);
                return Step::Revoke(place(), place());
            }
            _ => {
                let user = self.random.random_range(0..USERS.len());
                let now = self.chance(70);
                let password = PasswordHash::parse(HASHES[1]).unwrap();
                return Step::Upgrade(user, now, password);
            }
        };
        Step::Change(change)
    }

    fn user(&mut self) -> String {
        match self.random.random_range(0..100) {
            0 => String::new(),
            1 => "x".repeat(257),
            2 => "two\nlines".to_owned(),
            _ => self.one_of(&USERS).to_owned(),
        }
    }

    fn role(&mut self) -> String {
        match self.random.random_range(0..100) {
            0 => String::new(),
            1 => "x".repeat(257),
            2 => "\u{7f}".to_owned(),
            // Now and then `root`; often enough the rest.
            3..6 => "root".to_owned(),
            _ => self.one_of(&ROLES[1..]).to_owned(),
        }
    }

    fn password(&mut self) -> Option<PasswordHash> {
        let text = HASHES[self.random.random_range(0..HASHES.len())];
        self.chance(80).then(|| PasswordHash::parse(text).unwrap())
    }

    fn permission(&mut self) -> Permission {
        let kind = match self.random.random_range(0..3) {
            0 => PermissionKind::Read,
            1 => PermissionKind::Write,
            _ => PermissionKind::ReadWrite,
        };
        // Small tiles beside each other grant together what none of them does; the other shapes make sure of the rest.
        let keys = if self.chance(60) {
            let start = self.word();
            let end = successor(&start);
            KeyRange::from_pair(start.into(), end.into())
        } else {
            self.keys()
        };
        Permission { keys, kind }
    }

    /// Short words are the most frequent ones: their ranges meet.
    fn word(&mut self) -> Vec<u8> {
        let length = match self.random.random_range(0..100) {
            0..3 => 0,
            3..45 => 1,
            45..80 => 2,
            _ => LONGEST,
        };
        let mut letter = || ALPHABET[self.random.random_range(0..ALPHABET.len())];
        (0..length).map(|_| letter()).collect()
    }

    fn keys(&mut self) -> KeyRange {
        let start = self.word();
        let end = match self.random.random_range(0..100) {
            0..30 => Vec::new(),
            30..36 => vec![0],
            // The next key, and the next word of the same length: the gaps and seams of one key.
            36..44 => [&start[..], &[0]].concat(),
            44..56 => successor(&start),
            56..70 => successor(&successor(&start)),
            _ => self.word(),
        };
        match self.random.random_range(0..100) {
            0..2 => KeyRange::All,
            2..10 => KeyRange::from_pair(start.into(), end.into()),
            // Most spans the right way round.
            _ if !end.is_empty() && end != [0] && end < start => {
                KeyRange::from_pair(end.into(), start.into())
            }
            _ => KeyRange::from_pair(start.into(), end.into()),
        }
    }

    pub(crate) fn policy(&mut self) -> Option<Policy> {
        Some(match self.random.random_range(0..100) {
            0..2 => return None,
            2..7 => Policy::Public,
            7..12 => Policy::Authenticated,
            12..15 => Policy::TenantAdmin,
            15..17 => Policy::PlatformAdmin,
            _ => Policy::KeyScoped,
        })
    }

    /// Mostly one of the users, by certificate or with a token that is mostly fresh; ids of deleted users too.
    pub(crate) fn caller(&mut self, model: &Model) -> Caller {
        match self.random.random_range(0..100) {
            0..2 => Caller::Server,
            2..5 => Caller::Anonymous,
            5..25 => {
                let count = self.random.random_range(0..4);
                let roles: Vec<Arc<str>> = (0..count).map(|_| self.role().into()).collect();
                Caller::External {
                    subject: if self.chance(97) { "guest" } else { "" }.into(),
                    roles: roles.into(),
                }
            }
            _ => {
                let place = self.random.random_range(0..USERS.len());
                let known = model.users.values().nth(place);
                let id = match known {
                    Some(user) if self.chance(97) => user.id,
                    _ => self.random.random_range(0..model.revision + 2),
                };
                let (epoch, credential) = known.map_or((2, 2), |user| model.epochs(user));
                let token = self.chance(60).then(|| TokenEpochs {
                    epoch: epoch - u64::from(self.chance(4)),
                    credential: credential - u64::from(self.chance(4)),
                });
                Caller::User {
                    id: UserId(id),
                    token,
                }
            }
        }
    }

    pub(crate) fn request(&mut self, depth: u32) -> Request {
        let standing =
            (depth == 0 && self.chance(6)).then(|| match self.random.random_range(0..3) {
                0 => Stand::Admin,
                1 => Stand::User(self.user()),
                _ => Stand::Holder(self.role()),
            });
        let count = match self.random.random_range(0..100) {
            0..5 => 0,
            5..80 => 1,
            80..95 => 2,
            _ => 3,
        };
        let own = (0..count).map(|_| self.demand()).collect();
        let arms = if depth < 4 && self.chance(12) {
            let count = self.random.random_range(1..3);
            (0..count).map(|_| self.request(depth + 1)).collect()
        } else {
            Vec::new()
        };
        Request {
            standing,
            own,
            arms,
        }
    }

    fn demand(&mut self) -> (Verb, KeyRange) {
        let verb = if self.chance(50) {
            Verb::Read
        } else {
            Verb::Write
        };
        let keys = if self.chance(40) {
            // From tile to tile.
            let start = self.word();
            let mut end = successor(&start);
            for _ in 0..self.random.random_range(0..3) {
                end = successor(&end);
            }
            KeyRange::from_pair(start.into(), end.into())
        } else {
            self.keys()
        };
        (verb, keys)
    }
}

/// The word of the same length with the last letter raised; a greatest letter makes it shorter.
fn successor(word: &[u8]) -> Vec<u8> {
    let mut next = word.to_vec();
    while let Some(last) = next.pop() {
        let place = ALPHABET.iter().position(|&letter| letter == last);
        if let Some(&raised) = place.and_then(|at| ALPHABET.get(at + 1)) {
            next.push(raised);
            return next;
        }
    }
    // Nothing of that length is greater.
    vec![0xff; LONGEST]
}
