//! Passwords and tokens, against a server that counts them.

#![expect(
    clippy::expect_used,
    reason = "a helper that cannot do its part fails the test"
)]

mod server;
mod terminal;
mod tokens;
