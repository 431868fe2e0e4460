//! Free loopback ports.

use rand::RngExt;
use std::net::{Ipv4Addr, TcpListener};

/// Ports below the range from which the kernel takes ports for outgoing connections (32768 and up), so that a stopped server
/// can have its port back even while a test makes thousands of connections.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// A loopback port on which nothing listens at this moment. Another process may take it before the caller does: whoever starts
/// a server on it must try again then.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    for _ in 0..1_000 {
        let port = random.random_range(FIRST..LAST);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free loopback port");
}
