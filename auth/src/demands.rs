//! What a request asks for.

use crate::KeyRange;

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

/// Who may make a request, whatever keys it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Whoever the RPC's policy admits.
    Any,
    /// Holders of role `root`.
    Admin,
    /// Those, and the user of this name.
    AdminOrUser(&'a str),
    /// Those, and holders of this role.
    AdminOrHolder(&'a str),
}

/// A request that can say what it will touch, flattened through all nesting.
pub trait Demands {
    /// What the caller has to be.
    fn standing(&self) -> Standing<'_> {
        Standing::Any
    }

    /// Calls `demand` for everything that must be granted, both arms of transactions included.
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange));
}
