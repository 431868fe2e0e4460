//! The decision: a request states its demands, and all of them are granted or none.

use crate::permission::Role;
use crate::{
    AuthState, Caller, Demands, Grants, KeyRange, Policy, ROOT, Standing, User, Verb, bounds,
};
use std::cell::OnceCell;
use std::sync::Arc;

/// A refused request. The texts are etcd's, so that clients recognise them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The RPC has no policy row.
    #[error("etcdserver: permission denied")]
    NoPolicy,
    /// The caller is not identified, and has to be.
    #[error("etcdserver: user name is empty")]
    Unidentified,
    /// The token is not valid, or not any more.
    #[error("etcdserver: invalid auth token")]
    InvalidToken,
    /// The caller's roles do not grant it.
    #[error("etcdserver: permission denied")]
    NotPermitted,
    /// Certificate and token name different users.
    #[error("etcdserver: permission denied")]
    Disagree,
}

/// A request that may be carried out, and for whom. Only [`AuthState::authorize`] makes one of a client's request.
#[derive(Clone, Debug)]
pub struct Authorized<T> {
    request: T,
    caller: Caller,
}

impl<T> Authorized<T> {
    /// A command of the server's own: expiry, checkpoints, alarms, compaction by the clock. Never for what a client asked.
    pub fn by_server(request: T) -> Authorized<T> {
        Authorized {
            request,
            caller: Caller::Server,
        }
    }

    /// The request.
    pub fn request(&self) -> &T {
        &self.request
    }

    /// The request, taken out.
    pub fn into_request(self) -> T {
        self.request
    }

    /// Who made it.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// What an identified caller may do in one state. Borrowed from the state, so that it cannot outlive it.
#[derive(Debug)]
pub struct Access<'a> {
    by: By<'a>,
}

#[derive(Debug)]
enum By<'a> {
    /// Authentication is off, or it is the server.
    Everything,
    User(&'a Arc<User>),
    External {
        /// The roles that exist, by name.
        roles: Vec<(&'a str, &'a Role)>,
        together: OnceCell<Grants>,
    },
}

/// How fresh a token must be.
#[derive(Clone, Copy)]
enum Freshness {
    /// Nothing about the user changed since: requests.
    Request,
    /// The password is still the same: streams, whose permissions are looked at again on each change.
    Stream,
}

impl AuthState {
    /// What this caller may do now.
    ///
    /// # Errors
    /// [`Denied`] while authentication is on and the caller is nobody, unknown, or has a token from before a change of its user.
    pub fn access(&self, caller: &Caller) -> Result<Access<'_>, Denied> {
        self.resolve(caller, Freshness::Request)
    }

    /// As [`AuthState::access`], for a stream that `caller` opened earlier: other roles than then do not end it (what they grant is
    /// for the caller of this function to check), another password or no such user does.
    ///
    /// # Errors
    /// [`Denied`] as above.
    pub fn stream_access(&self, caller: &Caller) -> Result<Access<'_>, Denied> {
        self.resolve(caller, Freshness::Stream)
    }

    fn resolve(&self, caller: &Caller, freshness: Freshness) -> Result<Access<'_>, Denied> {
        if !self.is_enabled() {
            return Ok(Access { by: By::Everything });
        }
        let by = match caller {
            Caller::Server => By::Everything,
            Caller::Anonymous => return Err(Denied::Unidentified),
            Caller::User { id, token } => {
                let user = self.user_by_id(*id).ok_or(Denied::NotPermitted)?;
                let stale = token.is_some_and(|token| {
                    let now = self.epochs(user);
                    token.credential != now.credential
                        || (matches!(freshness, Freshness::Request) && token.epoch != now.epoch)
                });
                if stale {
                    return Err(Denied::InvalidToken);
                }
                By::User(user)
            }
            Caller::External { subject, .. } if subject.is_empty() => {
                return Err(Denied::Unidentified);
            }
            Caller::External { roles, .. } if roles.len() > bounds::ROLES_PER_USER => {
                return Err(Denied::NotPermitted);
            }
            Caller::External { roles, .. } => By::External {
                roles: roles
                    .iter()
                    // Another issuer's word makes nobody an administrator here.
                    .filter(|name| ***name != *ROOT)
                    .filter_map(|name| self.role_entry(name))
                    .collect(),
                together: OnceCell::new(),
            },
        };
        Ok(Access { by })
    }

    /// Grants all that `request` asks for, or refuses it whole: the RPC's policy, the caller's standing and every demand.
    ///
    /// While authentication is off, whatever has a policy is granted. While it is on, a public request that asks for nothing is
    /// granted to anybody.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authorize<T: Demands>(
        &self,
        caller: &Caller,
        policy: Option<Policy>,
        request: T,
    ) -> Result<Authorized<T>, Denied> {
        let policy = policy.ok_or(Denied::NoPolicy)?;
        if policy != Policy::Public || asks_for_something(&request) {
            self.access(caller)?.permits(policy, &request)?;
        }
        Ok(Authorized {
            request,
            caller: caller.clone(),
        })
    }
}

fn asks_for_something(request: &impl Demands) -> bool {
    let mut asks = request.standing() != Standing::Any;
    request.demands(&mut |_, _| asks = true);
    asks
}

impl Access<'_> {
    /// Whether this is an administrator of the tenant.
    pub fn is_admin(&self) -> bool {
        match &self.by {
            By::Everything => true,
            By::User(user) => user.is_root(),
            By::External { .. } => false,
        }
    }

    /// The user, if there is one and authentication is on.
    pub fn user(&self) -> Option<&Arc<User>> {
        match &self.by {
            By::User(user) => Some(user),
            By::Everything | By::External { .. } => None,
        }
    }

    /// Whether `verb` is granted on every key of `keys`. An empty span has no keys.
    pub fn allows(&self, verb: Verb, keys: &KeyRange) -> bool {
        match &self.by {
            By::Everything => true,
            By::User(user) => user.grants().allows(verb, keys),
            By::External { roles, together } => {
                // One role is enough for most requests, and uniting them costs; so that is done only when none is.
                keys.is_empty()
                    || roles
                        .iter()
                        .any(|(_, role)| role.grants().allows(verb, keys))
                    || (roles.len() > 1
                        && together
                            .get_or_init(|| {
                                Grants::union(roles.iter().map(|(_, role)| role.grants()))
                            })
                            .allows(verb, keys))
            }
        }
    }

    /// Whether policy, standing and every demand are met.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`].
    pub fn permits(&self, policy: Policy, request: &(impl Demands + ?Sized)) -> Result<(), Denied> {
        let admitted = match policy {
            // Who is nobody has no `Access`.
            Policy::Public | Policy::Authenticated | Policy::KeyScoped => true,
            Policy::TenantAdmin | Policy::PlatformAdmin => self.is_admin(),
        };
        if !admitted || !self.has_standing(request.standing()) {
            return Err(Denied::NotPermitted);
        }
        let mut granted = true;
        request.demands(&mut |verb, keys| granted = granted && self.allows(verb, keys));
        if granted {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    fn has_standing(&self, standing: Standing<'_>) -> bool {
        let otherwise = match (standing, &self.by) {
            (Standing::Any, _) => true,
            (Standing::AdminOrUser(name), By::User(user)) => *user.name == *name,
            (Standing::AdminOrHolder(role), By::User(user)) => user.roles.contains(role),
            (Standing::AdminOrHolder(role), By::External { roles, .. }) => {
                roles.iter().any(|(held, _)| *held == role)
            }
            _ => false,
        };
        otherwise || self.is_admin()
    }
}
