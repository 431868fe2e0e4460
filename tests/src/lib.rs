//! The harness of the black-box tests: it runs the real server binary and talks to it as any client would.
//!
//! This crate must not know anything of the server but its binary, its flags, its wire protocol and, for the tests that damage
//! files, the names of the folders in its data directory. The same tests run against a real etcd when `HOLDFAST_TEST_SERVER`
//! names its binary: that is how the tests themselves are checked. Tests of what only Holdfast does start with
//! [`holdfast_only`].

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod anything;
mod binary;
mod calls;
mod disk;
mod errors;
mod http;
mod log;
mod memory;
mod options;
mod ports;
mod process;
mod raw;
mod server;
mod users;
mod watching;

pub mod cluster;
pub mod history;
pub mod observed;
pub mod wire;

pub use anything::all_methods;
pub use binary::{is_reference, reference_etcd, server_binary};
pub use calls::{Call, reason, watch_range, watch_refusal};
pub use disk::{SmallDisk, copy_folder};
pub use errors::{bad_token, denied, refused, refused_by, turned_away, unidentified};
pub use http::{HttpAnswer, http_get, http_request};
pub use log::Log;
pub use memory::{peak_rss_bytes, rss_bytes};
pub use options::ServerOptions;
pub use ports::free_port;
pub use process::Exit;
pub use raw::{Carrier, Metadata, Raw};
pub use server::Server;
pub use users::{Guarded, Kind, Permission, ROOT_PASSWORD, password_of};
pub use watching::{RawWatch, event_text, watch_key, watch_prefix};

use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test calls it missing. Generous, since debug binaries share two cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns from the calling test, with a note, when the server under test is a real etcd.
#[macro_export]
macro_rules! holdfast_only {
    () => {
        if $crate::is_reference() {
            eprintln!("skipped: only Holdfast does this");
            return;
        }
    };
}

/// Says that a test is skipped for want of a program of others; where `CI` is `true`, that is a failure.
#[track_caller]
pub fn skip_without(program: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "this needs {program}, which CI must have"
    );
    eprintln!("skipped: there is no {program}");
}

/// Waits for `future`, at most [`PATIENCE`]; `what` names it in the failure.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    within(PATIENCE, what, future).await
}

/// Waits for `future`, at most `limit`; `what` names it in the failure.
pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Asks again until `probe` answers `Some`, at most `limit`; for conditions that the server does not announce.
pub async fn eventually<T, F, Fut>(limit: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the long, full-size variants of the tests were asked for (`HOLDFAST_FULL=1`).
pub fn full_size() -> bool {
    std::env::var("HOLDFAST_FULL").is_ok_and(|value| value != "0" && !value.is_empty())
}
