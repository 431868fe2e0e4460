//! Who a request is made by.

use crate::UserId;
use bytes::Bytes;
use std::sync::Arc;

/// Who a request is made by, as resolved where it arrived and as the log carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The server itself; never a client.
    Server,
    /// Nobody identified: enough only while authentication is off, and for what is public.
    Anonymous,
    /// A user with a record.
    User {
        /// Which one.
        id: UserId,
        /// `None`: identified by a certificate.
        token: Option<TokenEpochs>,
    },
    /// Somebody whom another issuer's token vouches for and who has no user record.
    External {
        /// Who, in the words of the issuer.
        subject: Arc<str>,
        /// Roles by claim. Only their names: what they grant is as it is when asked.
        roles: Arc<[Arc<str>]>,
    },
}

/// What a token says of its user's state when it was minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEpochs {
    /// [`User::epoch`](crate::User::epoch).
    pub epoch: u64,
    /// [`User::credential`](crate::User::credential).
    pub credential: u64,
}

impl Caller {
    /// Whom a thing made by this caller belongs to, the same for all of its tokens and certificates. `None` for the server and for
    /// nobody.
    pub fn owner(&self) -> Option<Bytes> {
        let (kind, who): (u8, &[u8]) = match self {
            Caller::Server | Caller::Anonymous => return None,
            Caller::User { id, .. } => (b'u', &id.0.to_le_bytes()),
            Caller::External { subject, .. } => (b'x', subject.as_bytes()),
        };
        let mut owner = Vec::with_capacity(1 + who.len());
        owner.push(kind);
        owner.extend_from_slice(who);
        Some(Bytes::from(owner))
    }
}
