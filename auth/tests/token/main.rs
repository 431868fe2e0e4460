//! Tokens: what passes, and every forgery that must not (SECURITY-CASES.md, "Tokens").

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod attacks;
mod external;
mod flag;
mod forge;
mod keys;
mod random;
