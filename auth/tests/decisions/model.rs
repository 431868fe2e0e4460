//! Users, roles and decisions written down plainly: sets of names, pairs as they came, and every key asked for by itself.

use crate::{Request, Stand, WhoIsAffected};
use holdfast_auth::{
    AuthChange, AuthError, AuthState, Caller, Denied, KeyRange, PermissionKind, Policy, Verb,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Letters of the keys in ranges. The least and the greatest byte are among them.
pub(crate) const ALPHABET: [u8; 4] = [0, b'a', b'b', 0xff];
/// Letters of such a key.
pub(crate) const LONGEST: usize = 3;

type Pair = (Vec<u8>, Vec<u8>);
type Permissions = BTreeMap<Pair, PermissionKind>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelUser {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) credential: u64,
    pub(crate) password: Option<String>,
    pub(crate) roles: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    disabled_at: u64,
    pub(crate) users: BTreeMap<String, ModelUser>,
    pub(crate) roles: BTreeMap<String, Permissions>,
}

/// The keys that are asked for: every word, the key right after each, and one beyond all. Where a range begins or ends is one of
/// these, so a stretch between two of them is granted or demanded as its first key is, and asking for these is asking for all.
pub(crate) struct Universe {
    keys: Vec<Vec<u8>>,
    /// For each role what its permissions were, and which keys they let one read and write.
    tables: HashMap<String, (Permissions, Table)>,
}

#[derive(Clone)]
struct Table {
    read: Vec<bool>,
    write: Vec<bool>,
}

impl Universe {
    pub(crate) fn new() -> Universe {
        let mut words = vec![Vec::new()];
        let mut last = words.clone();
        for _ in 0..LONGEST {
            last = last
                .iter()
                .flat_map(|word: &Vec<u8>| ALPHABET.map(|letter| [&word[..], &[letter]].concat()))
                .collect();
            words.extend(last.iter().cloned());
        }
        let after = words.iter().map(|word| [&word[..], &[0]].concat());
        let mut keys: BTreeSet<Vec<u8>> = after.collect();
        keys.extend(words);
        keys.insert(vec![0xff; 12]);
        Universe {
            keys: keys.into_iter().collect(),
            tables: HashMap::new(),
        }
    }

    fn table(&mut self, role: &str, permissions: &Permissions) -> &Table {
        let stale = self
            .tables
            .get(role)
            .is_none_or(|(known, _)| known != permissions);
        if stale {
            let column = |wanted: PermissionKind| {
                let grants = |key: &Vec<u8>| {
                    permissions.iter().any(|(pair, kind)| {
                        (*kind == wanted || *kind == PermissionKind::ReadWrite)
                            && pair_holds(pair, key)
                    })
                };
                self.keys.iter().map(grants).collect()
            };
            let table = Table {
                read: column(PermissionKind::Read),
                write: column(PermissionKind::Write),
            };
            self.tables
                .insert(role.to_owned(), (permissions.clone(), table));
        }
        &self.tables[role].1
    }

    /// The places of the keys that a demand touches. No key is empty, so a demand for every key does not ask for that one.
    fn touched(&self, keys: &KeyRange) -> Vec<usize> {
        let touches = |key: &[u8]| match keys {
            KeyRange::Point(point) => *point == *key,
            KeyRange::Span { start, end } => *start <= *key && *key < **end,
            KeyRange::From(start) => *start <= *key,
            KeyRange::All => !key.is_empty(),
        };
        (0..self.keys.len())
            .filter(|&at| touches(&self.keys[at]))
            .collect()
    }
}

/// Whether a permission's pair holds a key. That of every key holds the empty one too, which no other range from there can.
fn pair_holds((start, end): &Pair, key: &[u8]) -> bool {
    match &end[..] {
        [] => key == start,
        [0] => key >= &start[..] || *start == [0],
        end => key >= &start[..] && key < end,
    }
}

fn to_pair(keys: &KeyRange) -> Pair {
    let (start, end) = keys.to_pair();
    (start.to_vec(), end.to_vec())
}

/// Who asks, after the questions of identity are answered.
enum Who {
    Admin,
    User(String, BTreeSet<String>),
    Stranger(BTreeSet<String>),
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            enabled: false,
            revision: 1,
            disabled_at: 0,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, change: &AuthChange) -> Result<(), AuthError> {
        let next = self.revision + 1;
        let (enabled, is_root) = (self.enabled, |name: &str| name == "root");
        match change {
            AuthChange::Enable => {
                let root = self.users.get("root").ok_or(AuthError::NoRootUser)?;
                if !root.roles.contains("root") {
                    return Err(AuthError::RootWithoutRootRole);
                }
                self.enabled = true;
                return Ok(());
            }
            AuthChange::Disable if !enabled => return Ok(()),
            AuthChange::Disable => (self.enabled, self.disabled_at) = (false, next),
            AuthChange::UserAdd { name, password } => {
                check_new(name, self.users.contains_key(name)).map_err(|wrong| match wrong {
                    Wrong::Empty => AuthError::UserNameEmpty,
                    Wrong::Taken => AuthError::UserExists,
                    Wrong::Long => AuthError::NameTooLong,
                    Wrong::Control => AuthError::BadName,
                })?;
                let user = ModelUser {
                    id: next,
                    epoch: next,
                    credential: next,
                    password: password.as_ref().map(|hash| hash.as_str().to_owned()),
                    roles: BTreeSet::new(),
                };
                self.users.insert(name.clone(), user);
            }
            AuthChange::UserDelete { name } if enabled && is_root(name) => {
                return Err(AuthError::InvalidManagement);
            }
            AuthChange::UserDelete { name } => {
                self.users.remove(name).ok_or(AuthError::UserNotFound)?;
            }
            AuthChange::UserChangePassword { name, password } => {
                let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
                user.password = password.as_ref().map(|hash| hash.as_str().to_owned());
                (user.epoch, user.credential) = (next, next);
            }
            AuthChange::UserGrantRole { user, role } => {
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if !is_root(role) && !self.roles.contains_key(role) {
                    return Err(AuthError::RoleNotFound);
                }
                if !user.roles.insert(role.clone()) {
                    return Ok(());
                }
                user.epoch = next;
            }
            AuthChange::UserRevokeRole { user, role } => {
                if enabled && is_root(user) && is_root(role) {
                    return Err(AuthError::InvalidManagement);
                }
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if !user.roles.remove(role) {
                    return Err(AuthError::RoleNotGranted);
                }
                user.epoch = next;
            }
            AuthChange::RoleAdd { name } => {
                check_new(name, self.roles.contains_key(name)).map_err(|wrong| match wrong {
                    Wrong::Empty => AuthError::RoleNameEmpty,
                    Wrong::Taken => AuthError::RoleExists,
                    Wrong::Long => AuthError::NameTooLong,
                    Wrong::Control => AuthError::BadName,
                })?;
                self.roles.insert(name.clone(), BTreeMap::new());
            }
            AuthChange::RoleDelete { name } if enabled && is_root(name) => {
                return Err(AuthError::InvalidManagement);
            }
            AuthChange::RoleDelete { name } => {
                self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
                for user in self.users.values_mut() {
                    if user.roles.remove(name) {
                        user.epoch = next;
                    }
                }
            }
            AuthChange::RoleGrantPermission { role, permission } => {
                let permission = permission.as_ref().ok_or(AuthError::PermissionNotGiven)?;
                let (start, end) = to_pair(&permission.keys);
                if start.is_empty() || (!end.is_empty() && end != [0] && end <= start) {
                    return Err(AuthError::InvalidManagement);
                }
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                role.insert((start, end), permission.kind);
            }
            AuthChange::RoleRevokePermission { role, keys } => {
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                role.remove(&to_pair(keys))
                    .ok_or(AuthError::PermissionNotGranted)?;
            }
            AuthChange::UpgradePassword {
                user,
                credential,
                password,
            } => {
                for known in self.users.values_mut() {
                    let same = known.id == user.0 && known.credential == *credential;
                    if same && known.password.is_some() {
                        known.password = Some(password.as_str().to_owned());
                    }
                }
                return Ok(());
            }
        }
        self.revision = next;
        Ok(())
    }

    /// That `state` says the same of everybody.
    pub(crate) fn compare(&self, state: &AuthState) {
        assert_eq!(state.is_enabled(), self.enabled);
        assert_eq!(state.revision(), self.revision);
        let users: BTreeMap<String, ModelUser> = state
            .users()
            .map(|user| {
                assert_eq!(state.user_by_id(user.id), Some(user));
                assert_eq!(state.user(&user.name), Some(user));
                let roles = user.roles.iter().map(|role| role.to_string());
                let said = ModelUser {
                    id: user.id.0,
                    epoch: user.epoch,
                    credential: user.credential,
                    password: user.password.as_ref().map(|hash| hash.as_str().to_owned()),
                    roles: roles.collect(),
                };
                (user.name.to_string(), said)
            })
            .collect();
        assert_eq!(users, self.users);
        let roles: BTreeMap<String, Permissions> = state
            .roles()
            .map(|(name, role)| {
                let permissions = role.permissions();
                let pairs = permissions.map(|held| (to_pair(&held.keys), held.kind));
                (name.to_owned(), pairs.collect())
            })
            .collect();
        assert_eq!(roles, self.roles);
    }

    /// Whose rights or tokens are not in `after` what they are here.
    pub(crate) fn affected_by_becoming(&self, after: &Model) -> WhoIsAffected {
        if self.enabled != after.enabled {
            return None;
        }
        let roles: Vec<String> = self
            .roles
            .iter()
            .filter(|(name, permissions)| match after.roles.get(*name) {
                None => true,
                // What stands in the record of `root` is nobody's right.
                Some(now) => now != *permissions && *name != "root",
            })
            .map(|(name, _)| name.clone())
            .collect();
        let mut users: Vec<(u64, bool)> = Vec::new();
        for user in self.users.values() {
            match after.users.values().find(|now| now.id == user.id) {
                None => users.push((user.id, false)),
                Some(now) => {
                    let other_role = now.roles.iter().any(|role| roles.contains(role));
                    if now.epoch != user.epoch || other_role {
                        users.push((user.id, true));
                    }
                }
            }
        }
        users.sort_unstable();
        Some((users, roles))
    }

    pub(crate) fn decide(
        &self,
        universe: &mut Universe,
        caller: &Caller,
        policy: Option<Policy>,
        request: &Request,
    ) -> Result<(), Denied> {
        let policy = policy.ok_or(Denied::NoPolicy)?;
        let demands = flat(request);
        if !self.enabled {
            return Ok(());
        }
        if policy == Policy::Public && request.standing.is_none() && demands.is_empty() {
            return Ok(());
        }
        let who = self.who(caller, true)?;
        let for_admins = matches!(policy, Policy::TenantAdmin | Policy::PlatformAdmin);
        if for_admins && !matches!(who, Who::Admin) {
            return Err(Denied::NotPermitted);
        }
        self.permits(universe, &who, request, &demands)
    }

    pub(crate) fn decide_stream(
        &self,
        universe: &mut Universe,
        caller: &Caller,
        request: &Request,
    ) -> Result<(), Denied> {
        if !self.enabled {
            return Ok(());
        }
        let who = self.who(caller, false)?;
        self.permits(universe, &who, request, &flat(request))
    }

    /// What a token of this user has to say: nothing from before the last time that authentication was switched off.
    pub(crate) fn epochs(&self, user: &ModelUser) -> (u64, u64) {
        let at_least = self.disabled_at;
        (user.epoch.max(at_least), user.credential.max(at_least))
    }

    fn who(&self, caller: &Caller, for_a_request: bool) -> Result<Who, Denied> {
        match caller {
            Caller::Server => Ok(Who::Admin),
            Caller::Anonymous => Err(Denied::Unidentified),
            Caller::User { id, token } => {
                let (name, user) = self
                    .users
                    .iter()
                    .find(|(_, user)| user.id == id.0)
                    .ok_or(Denied::NotPermitted)?;
                if let Some(token) = token {
                    let (epoch, credential) = self.epochs(user);
                    let fresh = token.epoch == epoch || !for_a_request;
                    if !fresh || token.credential != credential {
                        return Err(Denied::InvalidToken);
                    }
                }
                if user.roles.contains("root") {
                    return Ok(Who::Admin);
                }
                Ok(Who::User(name.clone(), user.roles.clone()))
            }
            Caller::External { subject, .. } if subject.is_empty() => Err(Denied::Unidentified),
            Caller::External { roles, .. } => {
                let known = roles.iter().map(|role| role.to_string());
                let known = known.filter(|role| role != "root" && self.roles.contains_key(role));
                Ok(Who::Stranger(known.collect()))
            }
        }
    }

    fn permits(
        &self,
        universe: &mut Universe,
        who: &Who,
        request: &Request,
        demands: &[(Verb, KeyRange)],
    ) -> Result<(), Denied> {
        let (name, roles) = match who {
            Who::Admin => return Ok(()),
            Who::User(name, roles) => (Some(name), roles),
            Who::Stranger(roles) => (None, roles),
        };
        let stands = match &request.standing {
            None => true,
            Some(Stand::Admin) => false,
            Some(Stand::User(user)) => name == Some(user),
            Some(Stand::Holder(role)) => roles.contains(role),
        };
        let granted = demands.iter().all(|(verb, keys)| {
            let mut left = universe.touched(keys);
            for role in roles {
                if let Some(permissions) = self.roles.get(role) {
                    let table = universe.table(role, permissions);
                    let column = match verb {
                        Verb::Read => &table.read,
                        Verb::Write => &table.write,
                    };
                    left.retain(|&at| !column[at]);
                }
            }
            left.is_empty()
        });
        if stands && granted {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    /// The roles by which a caller's demands are judged; `None` for those who may do everything or nothing.
    pub(crate) fn plain_roles_of(&self, caller: &Caller) -> Option<BTreeSet<String>> {
        match self.who(caller, true) {
            Ok(Who::User(_, roles) | Who::Stranger(roles)) if self.enabled => Some(roles),
            _ => None,
        }
    }

    pub(crate) fn one_permission_covers(
        &self,
        universe: &Universe,
        roles: &BTreeSet<String>,
        verb: Verb,
        keys: &KeyRange,
    ) -> bool {
        let touched = universe.touched(keys);
        let wanted = match verb {
            Verb::Read => PermissionKind::Read,
            Verb::Write => PermissionKind::Write,
        };
        let permissions = roles.iter().filter_map(|role| self.roles.get(role));
        let covers = |pair: &Pair| {
            touched
                .iter()
                .all(|&at| pair_holds(pair, &universe.keys[at]))
        };
        touched.is_empty()
            || permissions.flatten().any(|(pair, kind)| {
                (*kind == wanted || *kind == PermissionKind::ReadWrite) && covers(pair)
            })
    }
}

/// All demands of a request and its arms, gathered without the request's own way of telling them.
fn flat(request: &Request) -> Vec<(Verb, KeyRange)> {
    let mut demands = Vec::new();
    let mut open = vec![request];
    while let Some(next) = open.pop() {
        demands.extend(next.own.iter().cloned());
        open.extend(&next.arms);
    }
    demands
}

enum Wrong {
    Empty,
    Taken,
    Long,
    Control,
}

fn check_new(name: &str, taken: bool) -> Result<(), Wrong> {
    if name.is_empty() {
        Err(Wrong::Empty)
    } else if taken {
        Err(Wrong::Taken)
    } else if name.len() > 256 {
        Err(Wrong::Long)
    } else if name.contains(['\n', '\0', '\u{7f}']) {
        Err(Wrong::Control)
    } else {
        Ok(())
    }
}
