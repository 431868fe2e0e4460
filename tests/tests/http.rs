//! HTTP on the client port and on `--listen-metrics-urls` (behaviour §1.13, §5.1).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    RawWatch, Server, ServerOptions, eventually, free_port, http_get, http_request, watch_key,
    wire::{get, put},
};
use std::{collections::BTreeMap, time::Duration};

#[tokio::test]
async fn health_and_version() {
    let server = Server::start();
    let port = server.port();
    for path in [
        "/health",
        "/health?serializable=true",
        "/health?exclude=NOSPACE",
    ] {
        let answer = http_get(port, path).await;
        assert_eq!(
            (answer.status, answer.body.trim()),
            (200, r#"{"health":"true","reason":""}"#)
        );
    }
    let version = http_get(port, "/version").await;
    assert_eq!(version.status, 200);
    assert_eq!(version.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(&version.body).unwrap();
    assert_eq!(json["etcdserver"], "3.7.1");
    assert_eq!(json["etcdcluster"], "3.7.0");
    assert_eq!(json["storage"], "3.7.0");
}

#[tokio::test]
async fn liveness_and_readiness() {
    let server = Server::start();
    let port = server.port();
    for path in [
        "/livez",
        "/readyz",
        "/livez/serializable_read",
        "/readyz/data_corruption",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/non_learner",
        "/readyz?exclude=linearizable_read",
    ] {
        let answer = http_get(port, path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "ok\n"),
            "{path}"
        );
    }
    let verbose = http_get(port, "/readyz?verbose").await;
    assert_eq!(verbose.status, 200);
    for check in [
        "data_corruption",
        "serializable_read",
        "linearizable_read",
        "non_learner",
    ] {
        assert!(
            verbose.body.contains(&format!("[+]{check} ok\n")),
            "{}",
            verbose.body
        );
    }
    assert!(verbose.body.ends_with("ok\n"));
    let verbose = http_get(port, "/livez?verbose").await;
    assert!(
        verbose.body.starts_with("[+]serializable_read ok\n"),
        "{}",
        verbose.body
    );
}

#[tokio::test]
async fn what_there_is_not() {
    let server = Server::start();
    let port = server.port();
    for path in [
        "/",
        "/nothing",
        "/v2/keys",
        "/v2/members",
        "/config/local/log",
        "/livez/nothing",
        "/debug/pprof/",
    ] {
        assert_eq!(http_get(port, path).await.status, 404, "{path}");
    }
    for path in ["/health", "/livez", "/readyz", "/version"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = http_request(port, method, path, "{}").await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET")),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn corruption_shows_in_readiness() {
    let server = Server::start();
    let raw = server.raw().await;
    let me = raw.status().await.unwrap().leader;
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: me,
        alarm: pb::AlarmType::Corrupt.into(),
    };
    raw.alarm(request).await.unwrap();
    let ready = http_get(server.port(), "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("[-]data_corruption failed: "),
        "{}",
        ready.body
    );
    let excluded = http_get(server.port(), "/readyz?exclude=data_corruption").await;
    assert_eq!(excluded.status, 200, "{}", excluded.body);
    assert_eq!(http_get(server.port(), "/livez").await.status, 200);
}

/// The samples of a Prometheus text: name with labels, and value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn types(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// The metrics of the official dashboard and alerts that a single node can fill.
const MIXIN: &[(&str, &str)] = &[
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("grpc_server_handled_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
];

#[tokio::test]
async fn the_metrics_that_dashboards_use() {
    let server = Server::start();
    let text = http_get(server.port(), "/metrics").await;
    assert_eq!(text.status, 200);
    assert!(
        text.header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let types = types(&text.body);
    for (name, kind) in MIXIN {
        assert_eq!(types.get(*name).map(String::as_str), Some(*kind), "{name}");
    }
    let first = samples(&text.body);
    assert_eq!(first["etcd_server_has_leader"], 1.0);
    assert_eq!(
        first["etcd_server_quota_backend_bytes"],
        f64::from(1 << 30) * 2.0
    );
    assert!(first["etcd_server_leader_changes_seen_total"] >= 1.0);
    for buckets in [
        "etcd_disk_wal_fsync_duration_seconds",
        "etcd_disk_backend_commit_duration_seconds",
    ] {
        let bounds: Vec<_> = first
            .keys()
            .filter_map(|name| name.strip_prefix(&format!("{buckets}_bucket{{le=\"")))
            .map(|rest| rest.trim_end_matches("\"}").to_owned())
            .collect();
        assert_eq!(bounds.len(), 15, "14 buckets and +Inf: {bounds:?}");
        for bound in ["0.001", "0.002", "0.512", "8.192", "+Inf"] {
            assert!(
                bounds.iter().any(|given| given == bound),
                "{bound} of {bounds:?}"
            );
        }
    }
    // Every method is there from the start.
    for (kind, service, method) in [
        ("unary", "etcdserverpb.KV", "Range"),
        ("unary", "etcdserverpb.KV", "Txn"),
        ("unary", "etcdserverpb.Maintenance", "Status"),
        ("bidi_stream", "etcdserverpb.Watch", "Watch"),
        ("bidi_stream", "etcdserverpb.Lease", "LeaseKeepAlive"),
        ("server_stream", "etcdserverpb.Maintenance", "Snapshot"),
    ] {
        let name = format!(
            "grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}}"
        );
        assert_eq!(first.get(&name), Some(&0.0), "{name}");
    }
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::start();
    let raw = server.raw().await;
    let started = |method: &str| {
        format!(
            "grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    let handled = |code: &str, method: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    let watches = |what: &str, code: &str| {
        format!(
            "grpc_server_{what}_total{{{code}grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}}"
        )
    };
    let before = samples(&http_get(server.port(), "/metrics").await.body);
    for _ in 0..10 {
        raw.put(put("a", &"v".repeat(10_000))).await.unwrap();
    }
    raw.range(get("a")).await.unwrap();
    raw.range(get("")).await.unwrap_err();
    let (watch, _) = RawWatch::on(&raw, watch_key("a")).await;
    let after = eventually(Duration::from_secs(10), "the counts", || async {
        let after = samples(&http_get(server.port(), "/metrics").await.body);
        let grew =
            after["etcd_mvcc_db_total_size_in_bytes"] > before["etcd_mvcc_db_total_size_in_bytes"];
        (after.get(&handled("OK", "Range")) == Some(&1.0) && grew).then_some(after)
    })
    .await;
    assert_eq!(after[&started("Put")], 10.0);
    assert_eq!(after[&handled("OK", "Put")], 10.0);
    assert_eq!(after[&started("Range")], 2.0);
    assert_eq!(after[&handled("InvalidArgument", "Range")], 1.0);
    assert_eq!(after[&watches("started", "")], 1.0);
    assert_eq!(
        after[&watches("handled", "grpc_code=\"OK\",")],
        0.0,
        "it goes on"
    );
    for rising in [
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
    ] {
        assert!(
            after[rising] >= before[rising] + 10.0,
            "{rising}: {} then {}",
            before[rising],
            after[rising]
        );
    }
    let received = "etcd_network_client_grpc_received_bytes_total";
    assert!(after[received] >= before[received] + 100_000.0);
    assert!(after["process_resident_memory_bytes"] > 1e6);
    drop(watch);
}

#[tokio::test]
async fn a_listener_of_its_own_for_metrics() {
    let port = free_port();
    let flag = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
    let server = Server::start_with(ServerOptions::new().flag(flag));
    for path in ["/metrics", "/health", "/livez", "/readyz"] {
        assert_eq!(http_get(port, path).await.status, 200, "{path}");
    }
    assert_eq!(http_get(server.port(), "/health").await.status, 200);
    assert_eq!(http_get(port, "/nothing").await.status, 404);
}
