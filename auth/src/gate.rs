//! The decision: a request states its demands, the gate grants all of them or none.

use crate::{KeyRange, Policy};

/// What is to be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// See keys, values or whether they exist.
    Read,
    /// Change keys.
    Write,
}

/// One thing a request needs to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Read or write.
    pub verb: Verb,
    /// Which keys.
    pub keys: KeyRange,
}

/// A request that can say what it will touch, flattened through all nesting.
pub trait Demands {
    /// Calls `demand` for everything that must be granted, both arms of transactions included.
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange));
}

/// The caller, as the connection knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// No identity was presented. Only listeners that do not require certificates accept such callers.
    Anonymous,
    /// The common name of a verified client certificate.
    Certificate(String),
}

/// A refused request. The text is etcd's, so that clients recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The RPC has no policy row.
    #[error("etcdserver: permission denied")]
    NoPolicy,
    /// The caller is not identified, and the RPC wants it to be.
    #[error("etcdserver: user name is empty")]
    Unidentified,
}

/// Decides for one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The listener's own rule is the whole rule: whoever may connect may call. Users and roles are not in force, as on an etcd
    /// whose authentication is off.
    ListenerOnly,
    /// As `ListenerOnly`, and every caller must have been identified by a client certificate.
    Identified,
}

/// A request that may be carried out. Only [`Gate::authorize`] makes one.
#[derive(Clone, Debug)]
pub struct Authorized<T> {
    request: T,
}

impl<T> Authorized<T> {
    /// The request.
    pub fn request(&self) -> &T {
        &self.request
    }

    /// The request, taken out.
    pub fn into_request(self) -> T {
        self.request
    }
}

impl Gate {
    /// Grants all demands of `request` or refuses it whole.
    ///
    /// # Errors
    /// [`Denied`] when the RPC is not served or the caller is not identified where that is needed.
    pub fn authorize<T: Demands>(
        self,
        principal: &Principal,
        policy: Option<Policy>,
        request: T,
    ) -> Result<Authorized<T>, Denied> {
        let policy = policy.ok_or(Denied::NoPolicy)?;
        match (self, policy, principal) {
            (_, Policy::Public, _) | (Gate::ListenerOnly, _, _) => Ok(Authorized { request }),
            (Gate::Identified, _, Principal::Certificate(name)) if !name.is_empty() => {
                Ok(Authorized { request })
            }
            (Gate::Identified, _, _) => Err(Denied::Unidentified),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Demands for Nothing {
        fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
    }

    #[test]
    fn an_rpc_without_a_policy_is_refused() {
        let root = Principal::Certificate("root".into());
        let refused = Gate::ListenerOnly.authorize(&root, None, Nothing);
        assert_eq!(refused.err(), Some(Denied::NoPolicy));
    }

    #[test]
    fn an_identified_gate_refuses_the_nameless() {
        let check = |principal: Principal, policy: Policy| {
            Gate::Identified
                .authorize(&principal, Some(policy), Nothing)
                .err()
        };
        let named = Principal::Certificate("root".into());
        let empty = Principal::Certificate(String::new());
        assert_eq!(check(named, Policy::KeyScoped), None);
        assert_eq!(check(empty, Policy::KeyScoped), Some(Denied::Unidentified));
        assert_eq!(
            check(Principal::Anonymous, Policy::Authenticated),
            Some(Denied::Unidentified)
        );
        assert_eq!(check(Principal::Anonymous, Policy::Public), None);
    }
}
