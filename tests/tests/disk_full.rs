//! A full disk in mid-write: writes are refused with an error, nothing acknowledged is lost, and a restart with space goes on.
//!
//! The disk is a tmpfs of 160 MiB, which only root can mount; others skip the test.

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Server, ServerOptions, SmallDisk,
    history::History,
    wire::{b, put, revision},
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("160m") else {
        eprintln!("skipped: no permission to mount a small disk");
        return;
    };
    let mut server = Server::start_with(ServerOptions::new().data(disk.data()));
    let raw = server.raw().await;
    let value = "v".repeat(200_000);
    let mut acknowledged = 1;
    let mut refused = None;
    for index in 0..2_000 {
        let write = raw.put(put(&format!("k/{index:04}"), &value));
        match tokio::time::timeout(Duration::from_secs(20), write).await {
            Ok(Ok(answer)) => acknowledged = revision(&answer.header),
            Ok(Err(status)) => {
                refused = Some(status.to_string());
                break;
            }
            Err(_) => {
                refused = Some("no answer".to_owned());
                break;
            }
        }
    }
    let refused = refused.expect("400 MB went onto a disk of 160");
    eprintln!("after revision {acknowledged}: {refused}");
    assert!(acknowledged > 1);
    assert!(
        !server.log().contains("panicked"),
        "a full disk is no reason to panic"
    );
    // It may have ended by itself; if it serves, it does not acknowledge what it can not keep.
    if server.wait_exit(Duration::from_millis(500)).is_none() {
        let local = pb::RangeRequest {
            serializable: true,
            ..holdfast_tests::wire::get("k/0000")
        };
        let _ = raw.range(local).await;
        server.kill();
    }
    disk.grow("640m");
    server.restart();
    let raw = server.raw().await;
    let current = raw.revision().await;
    assert!(
        current >= acknowledged,
        "{current} after {acknowledged} was acknowledged"
    );
    let request = pb::RangeRequest {
        range_end: b("k0"),
        keys_only: true,
        ..holdfast_tests::wire::get("k/")
    };
    let all = raw.range(request).await.unwrap();
    assert_eq!(all.count, current - 1);
    raw.put(put("after", "v")).await.unwrap();
    let hash = raw.hash_kv(0).await.unwrap();
    assert_ne!(hash.hash, History::default().hash_kv(1, -1));
}
