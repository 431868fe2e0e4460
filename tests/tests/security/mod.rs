//! What the security tests share: a CA with a server under its certificates, clients that show any certificate, forged tokens,
//! the records of an audit file, the metrics page.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

pub(crate) mod audit;
pub(crate) mod dial;
pub(crate) mod jwt;
pub(crate) mod search;
pub(crate) mod site;

pub(crate) use audit::AuditFile;
pub(crate) use dial::{Answer, Dial, ask, get, sample};
pub(crate) use jwt::{TokenKey, dies};
pub(crate) use search::{holds, snapshot};
pub(crate) use site::{Secured, Site};
