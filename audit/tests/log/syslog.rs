//! Records as syslog messages.

use crate::{LONG, Log, Node, until};
use holdfast_audit::{Auditor, SinkConfig, SyslogTarget};
use std::{
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

fn assert_message(message: &[u8]) {
    let text = std::str::from_utf8(message).unwrap();
    let (header, line) = text.split_once(" audit - {").unwrap();
    let parts: Vec<&str> = header.split(' ').collect();
    assert_eq!(parts.len(), 5, "{text}");
    assert_eq!(parts[0], "<86>1", "{text}");
    assert!(parts[1].ends_with('Z'), "{text}");
    assert_eq!(&parts[2..4], ["node-1", "holdfast"], "{text}");
    assert!(line.ends_with('}'), "{text}");
}

fn receive(mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = receive(&mut buffer).unwrap();
        assert_message(&buffer[..length]);
        if String::from_utf8_lossy(&buffer[..length]).contains(r#""type":"rpc""#) {
            return;
        }
    }
}

#[test]
fn a_unix_socket_gets_a_message_for_each_line() {
    let log = Log::new();
    let path = log.folder.path().join("log.sock");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let mut config = log.config();
    config.sinks = vec![SinkConfig::Syslog(SyslogTarget::Socket(path))];
    let (auditor, _) = Auditor::start(config).unwrap();
    Node::new(&auditor).put(1);
    receive(|buffer| server.recv(buffer));
    auditor.stop(LONG);
    assert_eq!(auditor.stats().sinks[0].written, 1);
}

#[test]
fn a_udp_port_gets_a_message_for_each_line() {
    let log = Log::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let mut config = log.config();
    config.sinks = vec![SinkConfig::Syslog(SyslogTarget::Udp {
        host: "127.0.0.1".to_owned(),
        port: server.local_addr().unwrap().port(),
    })];
    let (auditor, _) = Auditor::start(config).unwrap();
    Node::new(&auditor).put(1);
    receive(|buffer| server.recv(buffer));
    auditor.stop(LONG);
}

#[test]
fn a_daemon_that_does_not_read_holds_up_nobody_and_one_that_comes_back_is_found() {
    let log = Log::new();
    let path = log.folder.path().join("log.sock");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let mut config = log.config();
    config.deadline = Duration::from_millis(50);
    config
        .sinks
        .push(SinkConfig::Syslog(SyslogTarget::Socket(path.clone())));
    let (auditor, _) = Auditor::start(config).unwrap();
    let node = Node::new(&auditor);
    let mut id = 0;
    let (mut rounds, mut slow) = (0, 0);
    until("the socket is full", || {
        let start = Instant::now();
        for _ in 0..100 {
            node.put(id);
            id += 1;
        }
        // A hundred records that do not wait take microseconds – but for when another process has the processor.
        rounds += 1;
        slow += u32::from(start.elapsed() > Duration::from_millis(25));
        let stats = auditor.stats();
        stats.sinks[1].lost > 0 && stats.sinks[1].errors > 0
    });
    assert!(slow <= rounds / 2, "{slow} of {rounds}");
    // The file has them all.
    assert!(auditor.flush(LONG));
    let stats = auditor.stats();
    assert_eq!(
        (stats.sinks[0].written, stats.sinks[0].lost),
        (id, 0),
        "{stats:?}"
    );

    drop(server);
    std::fs::remove_file(&path).unwrap();
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = vec![0; 64 << 10];
    // The first message says what was lost, though nothing more is recorded.
    let length = server.recv(&mut buffer).unwrap();
    assert_message(&buffer[..length]);
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(text.contains(r#""type":"lost""#), "{text}");
    auditor.stop(LONG);
}
