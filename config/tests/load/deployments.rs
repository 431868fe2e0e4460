//! Configurations as real installations have them, down to the typed values.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_config::{
    Allowed, AutoCompaction, CertificateFiles, ClusterState, Feature, ListenUrl, LogLevel,
    LogOutput, LogRotation, MetricsDetail, Profile, TlsVersion,
};

use crate::{Input, check, config};

const FULL: &str = include_str!("../data/full.conf.yml");

#[test]
fn a_full_file() {
    let config = config(Input {
        args: "--config-file=/etc/etcd.yml",
        file: FULL,
        ..Input::default()
    });
    let urls = |urls: &[ListenUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let file = |cert: &str, key: &str| {
        Some(CertificateFiles {
            cert_file: cert.into(),
            key_file: key.into(),
        })
    };

    assert_eq!(
        (config.name.as_str(), config.data_dir.to_str()),
        ("member-1", Some("member-1.etcd"))
    );
    assert_eq!(config.wal_dir, Some(PathBuf::from("/var/lib/etcd/wal")));
    assert_eq!(config.quota_backend_bytes, Some(8 << 30));
    assert_eq!(
        urls(&config.listen_client_urls),
        ["https://10.0.0.1:2379", "http://127.0.0.1:2379"]
    );
    assert_eq!(urls(&config.listen_metrics_urls), ["http://127.0.0.1:2381"]);
    assert_eq!(
        (config.max_txn_ops, config.max_concurrent_streams),
        (256, 1000)
    );
    assert_eq!(
        config.grpc_keepalive.interval,
        Some(Duration::from_secs(7200))
    );
    assert_eq!(config.grpc_keepalive.timeout, Some(Duration::from_secs(20)));
    let members: Vec<_> = config
        .initial_cluster
        .iter()
        .map(|member| (member.name.as_str(), urls(&member.peer_urls)))
        .collect();
    assert_eq!(
        members,
        [
            ("member-1", vec!["https://10.0.0.1:2380".to_owned()]),
            (
                "member-2",
                vec![
                    "https://10.0.0.2:2380".to_owned(),
                    "https://10.1.0.2:2380".to_owned()
                ]
            )
        ]
    );
    assert_eq!(
        (
            config.initial_cluster_state,
            config.initial_cluster_token.as_str()
        ),
        (ClusterState::Existing, "etcd-cluster-7")
    );
    assert!(
        !config.strict_reconfig_check
            && config.enable_pprof
            && !config.enable_grpc_gateway
            && config.socket_reuse_port
    );

    let tls = &config.client_tls;
    assert_eq!(
        tls.certificate,
        file("/etc/etcd/server.crt", "/etc/etcd/server.key")
    );
    assert!(tls.client_cert_auth && tls.requires_client_certificate() && !tls.auto_tls);
    assert_eq!(
        (tls.allowed_cn.as_slice(), tls.allowed_hostname.len()),
        (
            ["root".to_owned(), "kube-apiserver".to_owned()].as_slice(),
            0
        )
    );
    assert_eq!(
        (tls.min_version, tls.max_version),
        (TlsVersion::Tls12, TlsVersion::Tls13)
    );
    assert_eq!(
        tls.cipher_suites,
        [
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
        ]
    );
    assert_eq!(config.peer_tls.allowed_cn, ["etcd-peer"]);
    assert!(config.peer_tls.skip_client_san_verification && config.peer_tls.client_cert_auth);
    assert_eq!(
        config.peer_tls.certificate,
        file("/etc/etcd/peer.crt", "/etc/etcd/peer.key")
    );
    assert_eq!(
        config.peer_tls.trusted_ca_file,
        Some(PathBuf::from("/etc/etcd/peer-ca.crt"))
    );
    assert_eq!(
        urls(&config.for_profile(Profile::Etcd).listen_peer_urls),
        ["https://10.0.0.1:2380"]
    );

    assert_eq!(
        config.log.outputs,
        [
            LogOutput::Stderr,
            LogOutput::File("/var/log/etcd.log".into())
        ]
    );
    assert_eq!(config.log.level, LogLevel::Debug);
    let rotation = LogRotation {
        max_size_megabytes: 50,
        max_age_days: 7,
        compress: true,
        ..LogRotation::default()
    };
    assert_eq!(config.log.rotation, Some(rotation));
    assert_eq!(
        config.auto_compaction,
        AutoCompaction::Periodic(Duration::from_secs(3600))
    );
    assert_eq!(
        config.auth_token,
        "jwt,pub-key=/etc/etcd/jwt.pub,sign-method=EdDSA"
    );
    assert_eq!(
        (config.auth_token_ttl, config.bcrypt_cost),
        (Duration::from_secs(600), 12)
    );
    assert_eq!(
        (config.metrics, config.max_learners),
        (MetricsDetail::Extensive, 2)
    );
    assert_eq!(config.corrupt_check_time, Some(Duration::from_secs(3600)));
    assert_eq!(
        (
            config.compaction_batch_limit,
            config.compaction_sleep_interval
        ),
        (500, Duration::from_millis(20))
    );
    assert_eq!(
        config.watch_progress_notify_interval,
        Duration::from_secs(5)
    );
    assert_eq!(config.warning_apply_duration, Duration::from_millis(200));
    assert_eq!(
        config.warning_unary_request_duration,
        Duration::from_millis(500)
    );
    let on: Vec<_> = config
        .feature_gates
        .iter()
        .filter(|(.., on)| *on)
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(
        on,
        [
            "CompactHashCheck",
            "FastLeaseKeepAlive",
            "InitialCorruptCheck",
            "LeaseCheckpoint",
            "TxnModeWriteWithSharedBuffer"
        ]
    );
    assert_eq!(
        (config.cors, config.host_whitelist),
        (Allowed::Any, Allowed::Any)
    );

    for told in [
        "--max-wals",
        "--max-snapshots",
        "--backend-batch-limit",
        "--enable-v2",
        "--bcrypt-cost",
        "TLS_RSA_WITH_AES_128_CBC_SHA is unsound",
    ] {
        assert_eq!(
            config
                .notices
                .iter()
                .filter(|notice| notice.contains(told))
                .count(),
            1,
            "{told}: {:#?}",
            config.notices
        );
    }
    for silent in [
        "--pre-vote",
        "--logger",
        "--proxy (",
        "--discovery",
        "--bootstrap-defrag",
        "peer",
        "--snapshot-c",
        "--initial-election-tick-advance",
        "--strict-reconfig-check",
        "--max-learners",
        "--force-new-cluster",
        "--corrupt-check-time",
        "--compact-hash-check-time",
    ] {
        assert!(
            !config.notices.iter().any(|notice| notice.contains(silent)),
            "{silent}"
        );
    }
}

#[test]
fn kubeadm_manifests() {
    let common = "--advertise-client-urls=https://10.0.0.1:2379 --cert-file=/etc/kubernetes/pki/etcd/server.crt --client-cert-auth=true \
        --data-dir=/var/lib/etcd --initial-advertise-peer-urls=https://10.0.0.1:2380 --initial-cluster=cp=https://10.0.0.1:2380 \
        --key-file=/etc/kubernetes/pki/etcd/server.key --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379 \
        --listen-metrics-urls=http://127.0.0.1:2381 --listen-peer-urls=https://10.0.0.1:2380 --name=cp \
        --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt --peer-client-cert-auth=true --peer-key-file=/etc/kubernetes/pki/etcd/peer.key \
        --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt --snapshot-count=10000 --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt";
    let old = format!(
        "{common} --experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s"
    );
    let new = format!(
        "{common} --feature-gates=InitialCorruptCheck=true --watch-progress-notify-interval=5s"
    );
    for (args, notices) in [(&old, 2), (&new, 0)] {
        let args = args.split_whitespace().collect::<Vec<_>>().join(" ");
        let config = config(Input {
            args: &args,
            ..Input::default()
        });
        assert!(config.feature_gates.enabled(Feature::InitialCorruptCheck));
        assert_eq!(
            config.watch_progress_notify_interval,
            Duration::from_secs(5)
        );
        assert!(
            config.client_tls.client_cert_auth
                && config.peer_tls.client_cert_auth
                && !config.quick_start
        );
        assert_eq!(config.client_tls.min_version, TlsVersion::Tls13);
        assert_eq!(config.notices.len(), notices, "{:#?}", config.notices);
    }
}

#[test]
fn unit_file_with_an_environment_file() {
    let env = [
        "ETCD_NAME=node1",
        "ETCD_DATA_DIR=/var/lib/etcd/default.etcd",
        "ETCD_LISTEN_PEER_URLS=https://192.0.2.1:2380",
        "ETCD_LISTEN_CLIENT_URLS=https://192.0.2.1:2379,unix:///run/etcd.sock,http://localhost:2379",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS=https://node1.example.com:2380",
        "ETCD_ADVERTISE_CLIENT_URLS=https://node1.example.com:2379",
        "ETCD_INITIAL_CLUSTER=node1=https://node1.example.com:2380,node2=https://node2.example.com:2380",
        "ETCD_INITIAL_CLUSTER_STATE=new",
        "ETCD_CERT_FILE=/s.crt",
        "ETCD_KEY_FILE=/s.key",
        "ETCD_TRUSTED_CA_FILE=/ca.crt",
        "ETCD_CLIENT_CERT_AUTH=true",
        "ETCD_PEER_CERT_FILE=/p.crt",
        "ETCD_PEER_KEY_FILE=/p.key",
        "ETCD_PEER_TRUSTED_CA_FILE=/ca.crt",
        "ETCD_ENABLE_V2=true",
        "ETCD_MAX_WALS=0",
        "ETCD_HEARTBEAT_INTERVAL=200",
        "ETCD_ELECTION_TIMEOUT=2000",
        "ETCD_QUOTA_BACKEND_BYTES=-1",
        "ETCD_GRPC_KEEPALIVE_MIN_TIME=100ms",
        "ETCD_AUTO_COMPACTION_MODE=revision",
        "ETCD_AUTO_COMPACTION_RETENTION=1000",
        "ETCD_VERSION=v3.5.9",
        "PATH=/usr/bin",
    ];
    let config = config(Input {
        env: &env,
        ..Input::default()
    });
    assert_eq!(
        (
            config.name.as_str(),
            config.profile,
            config.quota_backend_bytes
        ),
        ("node1", Profile::Etcd, None)
    );
    assert_eq!(config.election_timeout, Duration::from_secs(2));
    assert_eq!(config.auto_compaction, AutoCompaction::Revision(1000));
    assert_eq!(config.grpc_keepalive.min_time, Duration::from_millis(100));
    assert_eq!(
        config.listen_client_urls[1].socket_path(),
        Some(Path::new("/run/etcd.sock"))
    );
    // Naming a CA requires certificates even without --peer-client-cert-auth.
    assert!(config.peer_tls.requires_client_certificate() && !config.peer_tls.client_cert_auth);
    check(
        Input {
            env: &env,
            ..Input::default()
        },
        &[
            "# notice: --max-wals (environment ETCD_MAX_WALS) is accepted and has no effect: ",
            "# notice: --enable-v2 (environment ETCD_ENABLE_V2) is accepted and has no effect: ",
            "# notice: --listen-client-urls: http://localhost:2379 is served without TLS, although TLS is configured",
            "ETCD_VERSION is not a setting and was ignored",
        ],
    );
}

#[test]
fn zero_means_the_default_or_off_as_in_etcd() {
    let args = "--snapshot-count=0 --snapshot-catchup-entries=0 --auth-token-ttl=0 --compaction-batch-limit=0 --compaction-sleep-interval=0 \
        --watch-progress-notify-interval=0 --quota-backend-bytes=0 --grpc-keepalive-interval=0 --corrupt-check-time=0 --workers=0";
    let args = args.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = config(Input {
        args: &args,
        ..Input::default()
    });
    assert_eq!(
        (config.snapshot_count, config.snapshot_catchup_entries),
        (10_000, 5_000)
    );
    assert_eq!(
        (config.auth_token_ttl, config.compaction_batch_limit),
        (Duration::from_secs(300), 1000)
    );
    assert_eq!(config.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(
        config.watch_progress_notify_interval,
        Duration::from_secs(600)
    );
    assert_eq!(config.quota_backend_bytes, Some(2 << 30));
    assert_eq!(
        (
            config.grpc_keepalive.interval,
            config.corrupt_check_time,
            config.workers
        ),
        (None, None, None::<NonZeroUsize>)
    );
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
}
