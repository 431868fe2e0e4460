use super::*;
use holdfast_consensus::Observer;
use holdfast_tenant::{Answer, PutAnswer, Refusal, StepAnswer, TxnAnswer};
use std::collections::HashMap;

/// Names and types as etcd 3.7 exports them (behaviour §5), of what this member can fill, and ours.
const EXPORTED: &[(&str, &str)] = &[
    ("etcd_cluster_version", "gauge"),
    ("etcd_debugging_auth_revision", "gauge"),
    ("etcd_debugging_lease_granted_total", "counter"),
    ("etcd_debugging_lease_renewed_total", "counter"),
    ("etcd_debugging_lease_revoked_total", "counter"),
    ("etcd_debugging_lease_ttl_total", "histogram"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_pending_events_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_server_alarms", "gauge"),
    ("etcd_debugging_server_lease_expired_total", "counter"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_disk_backend_defrag_duration_seconds", "histogram"),
    ("etcd_disk_backend_snapshot_duration_seconds", "histogram"),
    ("etcd_disk_defrag_inflight", "gauge"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_wal_write_bytes_total", "gauge"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_hash_rev_duration_seconds", "histogram"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_server_apply_duration_seconds", "histogram"),
    ("etcd_server_client_requests_total", "counter"),
    ("etcd_server_feature_enabled", "gauge"),
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_health_failures", "counter"),
    ("etcd_server_health_success", "counter"),
    ("etcd_server_healthcheck", "gauge"),
    ("etcd_server_healthchecks_total", "counter"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_learner_promote_failures", "counter"),
    ("etcd_server_learner_promote_successes", "counter"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_range_duration_seconds", "histogram"),
    ("etcd_server_read_indexes_failed_total", "counter"),
    ("etcd_server_slow_apply_total", "counter"),
    ("etcd_server_slow_read_indexes_total", "counter"),
    ("etcd_server_snapshot_apply_in_progress_total", "gauge"),
    ("etcd_server_version", "gauge"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_handling_seconds", "histogram"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("holdfast_audit_lost_total", "counter"),
    ("holdfast_audit_queue_bytes", "gauge"),
    ("holdfast_audit_records_total", "counter"),
    ("holdfast_audit_refused_requests_total", "counter"),
    ("holdfast_auth_enabled", "gauge"),
    ("holdfast_build_info", "gauge"),
    ("holdfast_certificate_not_after_seconds", "gauge"),
    ("holdfast_certificate_reloads_total", "counter"),
    ("holdfast_connections_open", "gauge"),
    ("holdfast_connections_refused_total", "counter"),
    ("holdfast_handshakes_failed_total", "counter"),
    ("holdfast_handshakes_pending", "gauge"),
    ("holdfast_logins_total", "counter"),
    ("holdfast_password_hashing_bytes", "gauge"),
    ("holdfast_password_hashing_seconds", "histogram"),
    ("holdfast_password_waiting_seconds", "histogram"),
    ("holdfast_passwords_hashed_total", "counter"),
    ("holdfast_passwords_waiting", "gauge"),
    ("holdfast_peer_certificate_not_after_seconds", "gauge"),
    ("holdfast_peer_connections_open", "gauge"),
    ("holdfast_raft_messages_refused_total", "counter"),
    ("holdfast_raft_read_rounds_total", "counter"),
    ("holdfast_raft_snapshots_installed_total", "counter"),
    ("holdfast_staged_bytes", "gauge"),
    ("os_fd_limit", "gauge"),
    ("os_fd_used", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];

fn gauges() -> Gauges {
    Gauges {
        server_version: "3.7.1".to_owned(),
        cluster_version: Some("3.7".to_owned()),
        member_id: 0xcafe,
        has_leader: true,
        leader_changes: 2,
        quota_bytes: Some(1 << 31),
        alarms: vec![(0xcafe, "NOSPACE")],
        ..Gauges::default()
    }
}

/// Series and their values.
fn series(text: &str) -> HashMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("series and value");
            (name.to_owned(), value.parse().expect("number"))
        })
        .collect()
}

#[test]
fn names_and_types_are_etcds() {
    let metrics = Metrics::new(true);
    // What has series only when it happens.
    metrics.client_request(Rpc::Put, Some(b"3.7"));
    metrics.ranged(Duration::ZERO, true);
    metrics.health_check("livez", "serializable_read", true);
    metrics.features(&FeatureGates::default());
    metrics.certificates_reloaded(true);
    let ends = SystemTime::now();
    metrics.peers().certificates_expire(ends, None, None);
    metrics.connection_refused("too_many");
    metrics.handshake_failed("timeout");
    metrics.promoted(Some("member not found"));
    let text = metrics.render(&gauges());
    let mut types: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').expect("name and type"))
        .collect();
    types.sort_unstable();
    assert_eq!(types, EXPORTED);
}

#[test]
fn calls_have_all_series_from_the_start() {
    let text = Metrics::new(false).render(&gauges());
    let found = series(&text);
    let labels = r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream""#;
    assert_eq!(
        found[&format!("grpc_server_started_total{{{labels}}}")],
        0.0
    );
    for code in ["OK", "Unavailable", "Unauthenticated"] {
        let name = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}}");
        assert_eq!(found[&name], 0.0);
    }
    let handled = found
        .keys()
        .filter(|name| name.starts_with("grpc_server_handled_total"));
    assert_eq!(handled.count(), Rpc::ALL.len() * 17);
    assert!(!text.contains("grpc_server_handling_seconds"));
    // Nothing is said of peers, of which there are none, and of what has not happened.
    for absent in [
        "etcd_network_peer",
        "etcd_server_client_requests_total",
        "_go_",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[test]
fn buckets_are_etcds() {
    let metrics = Metrics::new(true);
    metrics.synced(Duration::from_micros(1500));
    metrics.appended(100);
    metrics.appended(28);
    metrics.persisted(Duration::from_millis(3));
    metrics.handled(Rpc::Put, Code::Unavailable, Duration::from_millis(7));
    let found = series(&metrics.render(&gauges()));
    let fsync = "etcd_disk_wal_fsync_duration_seconds";
    for (bound, count) in [
        ("0.001", 0.0),
        ("0.002", 1.0),
        ("8.192", 1.0),
        ("+Inf", 1.0),
    ] {
        assert_eq!(found[&format!("{fsync}_bucket{{le=\"{bound}\"}}")], count);
    }
    let buckets = |name: &str| {
        let prefix = format!("{name}_bucket{{");
        found
            .keys()
            .filter(|series| series.starts_with(&prefix))
            .count()
    };
    assert_eq!(buckets(fsync), 14 + 1);
    assert_eq!(buckets("etcd_disk_backend_commit_duration_seconds"), 14 + 1);
    assert_eq!(found["etcd_disk_wal_write_bytes_total"], 128.0);
    let put = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    assert_eq!(
        found[&format!("grpc_server_handled_total{{grpc_code=\"Unavailable\",{put}}}")],
        1.0
    );
    for (bound, count) in [("0.005", 0.0), ("0.01", 1.0), ("10", 1.0)] {
        let name = format!("grpc_server_handling_seconds_bucket{{{put},le=\"{bound}\"}}");
        assert_eq!(found[&name], count);
    }
}

#[test]
fn applied_commands_are_counted_by_kind() {
    let metrics = Metrics::new(false);
    let put = || PutAnswer {
        revision: 2,
        previous: None,
    };
    let txn = |steps| {
        Ok(Answer::Txn(TxnAnswer {
            revision: 2,
            succeeded: true,
            steps,
        }))
    };
    let nested = TxnAnswer {
        revision: 2,
        succeeded: true,
        steps: vec![
            StepAnswer::Put(put()),
            StepAnswer::Range(Default::default()),
        ],
    };
    let outcomes = [
        Ok(Answer::Put(put())),
        txn(vec![StepAnswer::Put(put())]),
        txn(vec![StepAnswer::Put(put()), StepAnswer::Txn(nested)]),
        Ok(Answer::LeaseGranted {
            id: 1,
            ttl: 60,
            revision: 2,
        }),
        Err(Refusal::NoSpace),
    ];
    metrics.applied(Duration::from_millis(5), &outcomes);
    metrics.applied(Duration::from_millis(5), &[]);
    let found = series(&metrics.render(&gauges()));
    for (name, value) in [
        ("etcd_mvcc_put_total", 4.0),
        ("etcd_mvcc_range_total", 1.0),
        ("etcd_mvcc_delete_total", 0.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        (r#"etcd_debugging_lease_ttl_total_bucket{le="32"}"#, 0.0),
        (r#"etcd_debugging_lease_ttl_total_bucket{le="64"}"#, 1.0),
        (
            r#"etcd_server_apply_duration_seconds_count{op="Txn",success="true",version="v3"}"#,
            2.0,
        ),
        (
            r#"etcd_server_apply_duration_seconds_count{op="Any",success="false",version="v3"}"#,
            1.0,
        ),
        (
            r#"etcd_server_apply_duration_seconds_bucket{op="Put",success="true",version="v3",le="0.0016"}"#,
            1.0,
        ),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
}

#[test]
fn reads_proposals_and_promotions_are_counted_by_what_they_came_to() {
    use crate::node::ProposeError;
    use holdfast_consensus::Failure;
    let metrics = Metrics::new(false);
    let long = Duration::from_secs(1);
    metrics.read_index(Duration::ZERO, &Ok(()));
    metrics.read_index(long, &Ok(()));
    metrics.read_index(long, &Err(ProposeError::TimedOut));
    metrics.read_index(
        Duration::ZERO,
        &Err(ProposeError::Failure(Failure::LeaderChanged)),
    );
    metrics.proposed(&Ok(()));
    metrics.proposed::<()>(&Err(ProposeError::Refused(Refusal::NoSpace)));
    metrics.proposed::<()>(&Err(ProposeError::TooLarge));
    metrics.proposed::<()>(&Err(ProposeError::Failure(Failure::NoLeader)));
    metrics.promoted(None);
    metrics.promoted(Some("not in sync"));
    metrics.installing(true);
    let found = series(&metrics.render(&Gauges {
        messages_refused: 4,
        read_rounds: 5,
        snapshots_installed: 6,
        ..gauges()
    }));
    for (name, value) in [
        ("etcd_server_slow_read_indexes_total", 2.0),
        ("etcd_server_read_indexes_failed_total", 2.0),
        ("etcd_server_proposals_failed_total", 1.0),
        ("etcd_server_learner_promote_successes", 1.0),
        (
            r#"etcd_server_learner_promote_failures{Reason="not in sync"}"#,
            1.0,
        ),
        ("etcd_server_snapshot_apply_in_progress_total", 1.0),
        ("holdfast_raft_messages_refused_total", 4.0),
        ("holdfast_raft_read_rounds_total", 5.0),
        ("holdfast_raft_snapshots_installed_total", 6.0),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
}

#[test]
fn scraped_values_follow_the_node() {
    let metrics = Metrics::new(false);
    metrics.render(&gauges());
    let mut later = gauges();
    later.leader_changes = 3;
    later.alarms.clear();
    later.cluster_version = Some("3.8".to_owned());
    let text = metrics.render(&later);
    let found = series(&text);
    assert_eq!(found["etcd_server_leader_changes_seen_total"], 3.0);
    assert_eq!(found[r#"etcd_server_id{server_id="cafe"}"#], 1.0);
    assert_eq!(found[r#"etcd_cluster_version{cluster_version="3.8"}"#], 1.0);
    assert!(!text.contains("\"3.7\"") && !text.contains("NOSPACE"));
    assert_eq!(
        found["etcd_server_quota_backend_bytes"],
        f64::from(1u32 << 31)
    );
    assert!(found["process_resident_memory_bytes"] > 0.0);
    // A look at an older state does not make the counter go back.
    let found = series(&metrics.render(&gauges()));
    assert_eq!(found["etcd_server_leader_changes_seen_total"], 3.0);
}
