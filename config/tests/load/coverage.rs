//! Every flag of etcd is there, and in the help text.

use holdfast_config::{ConfigError, Outcome};

use crate::{Input, check_args, run};

/// Every flag of behaviour §4.2 and of the older releases it names, with a value that must be accepted as flag, and as variable.
#[test]
fn every_flag_of_etcd_is_known() {
    let with_values = "name=a data-dir=/d wal-dir=/w snapshot-count=1 snapshot-catchup-entries=1 heartbeat-interval=1 election-timeout=1000 \
        initial-election-tick-advance=true listen-peer-urls=http://localhost:1 listen-client-urls=http://localhost:1 \
        listen-client-http-urls=http://localhost:1 listen-metrics-urls=http://localhost:1 max-wals=1 max-snapshots=1 quota-backend-bytes=53248 \
        backend-batch-interval=1s backend-batch-limit=1 backend-bbolt-freelist-type=array max-txn-ops=1 max-request-bytes=1 \
        max-concurrent-streams=1 grpc-keepalive-min-time=1s grpc-keepalive-interval=1s grpc-keepalive-timeout=1s socket-reuse-port=true \
        socket-reuse-address=true raft-read-timeout=1s raft-write-timeout=1s memory-mlock=true unsafe-no-fsync=true \
        initial-advertise-peer-urls=http://h:1 initial-cluster=a=http://h:1 initial-cluster-state=new initial-cluster-token=t \
        advertise-client-urls=http://h:1 discovery-srv= discovery-srv-name=n discovery-token= discovery-endpoints= discovery-dial-timeout=1s \
        discovery-request-timeout=1s discovery-keepalive-time=1s discovery-keepalive-timeout=1s discovery-insecure-transport=true \
        discovery-insecure-skip-tls-verify=true discovery-cert=c discovery-key=k discovery-cacert=c discovery-user=u discovery-password=p \
        discovery-fallback=exit strict-reconfig-check=true pre-vote=true max-learners=1 force-new-cluster=true auto-compaction-retention=1 \
        auto-compaction-mode=periodic cert-file=c key-file=k client-cert-file=c client-key-file=k client-cert-auth=true trusted-ca-file=c \
        client-crl-file=c client-cert-allowed-hostname=h auto-tls=true peer-auto-tls=true self-signed-cert-validity=1 peer-cert-file=c \
        peer-key-file=k peer-client-cert-file=c peer-client-key-file=k peer-client-cert-auth=true peer-trusted-ca-file=c peer-crl-file=c \
        peer-cert-allowed-cn=c peer-cert-allowed-hostname=h peer-skip-client-san-verification=true \
        cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 tls-min-version=TLS1.2 tls-max-version=TLS1.3 cors=http://a host-whitelist=a \
        auth-token=simple auth-token-ttl=1 bcrypt-cost=4 logger=zap log-outputs=stderr log-level=info log-format=console \
        enable-log-rotation=false log-rotation-config-json={} warning-apply-duration=1s warning-unary-request-duration=1s enable-pprof=true \
        metrics=basic enable-distributed-tracing=true distributed-tracing-address=a distributed-tracing-service-name=s \
        distributed-tracing-instance-id=i distributed-tracing-sampling-rate=1 corrupt-check-time=1s compact-hash-check-time=1s \
        compaction-batch-limit=1 compaction-sleep-interval=1s watch-progress-notify-interval=1s downgrade-check-time=1s \
        bootstrap-defrag-threshold-megabytes=1 enable-grpc-gateway=true feature-gates=AllAlpha=false discovery= discovery-proxy= proxy=off \
        proxy-dial-timeout=1 proxy-failure-wait=1 proxy-read-timeout=1 proxy-refresh-interval=1 proxy-write-timeout=1 enable-v2=true \
        v2-deprecation=gone cluster-active-size=1 cluster-remove-delay=1 cluster-sync-interval=1 config=1 force=1 max-result-buffer=1 \
        max-retry-attempts=1 peer-heartbeat-interval=1 peer-election-timeout=1 retry-interval=1 snapshot=1 v=1 vv=1 debug=true \
        log-package-levels=a=DEBUG";
    let experimental = "bootstrap-defrag-threshold-megabytes=1 compact-hash-check-enabled=true compact-hash-check-time=1s compaction-batch-limit=1 \
        compaction-sleep-interval=1s corrupt-check-time=1s distributed-tracing-address=a distributed-tracing-instance-id=i \
        distributed-tracing-sampling-rate=1 distributed-tracing-service-name=s downgrade-check-time=1s enable-distributed-tracing=true \
        enable-lease-checkpoint=true enable-lease-checkpoint-persist=false enable-v2v3=/v2 initial-corrupt-check=true memory-mlock=true \
        peer-skip-client-san-verification=true snapshot-catchup-entries=1 stop-grpc-service-on-defrag=true \
        txn-mode-write-with-shared-buffer=true warning-apply-duration=1s warning-unary-request-duration=1s watch-progress-notify-interval=1s \
        backend-bbolt-freelist-type=map";
    let experimental = experimental
        .split_whitespace()
        .map(|flag| format!("experimental-{flag}"));
    for flag in with_values
        .split_whitespace()
        .map(str::to_owned)
        .chain(experimental)
    {
        let (name, value) = flag.split_once('=').expect("name=value");
        // Some need each other; that is not what is asked here.
        let accepted = |result: Result<Outcome, ConfigError>| match result {
            Ok(Outcome::Serve(_)) | Err(ConfigError::Conflict(_)) => true,
            Ok(_) | Err(_) => false,
        };
        let args = format!("--{flag}");
        assert!(
            accepted(run(Input {
                args: &args,
                ..Input::default()
            })),
            "{args}"
        );
        let variable = format!("ETCD_{}={value}", name.to_uppercase().replace('-', "_"));
        let result = run(Input {
            env: &[&variable],
            ..Input::default()
        });
        if let Ok(Outcome::Serve(config)) = &result {
            assert!(
                !config
                    .notices
                    .iter()
                    .any(|notice| notice.contains("not a setting")),
                "{variable}"
            );
        }
        assert!(accepted(result), "{variable}");
        assert!(
            Input {
                args: "--help",
                ..Input::default()
            }
            .help()
            .contains(&format!("--{name}")),
            "--help does not name {name}"
        );
    }
}

impl Input<'_> {
    fn help(self) -> String {
        match run(self) {
            Ok(Outcome::Help(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn help_is_grouped_and_says_what_has_no_effect() {
    check_args(
        "--help",
        &[
            "\nMember:\n--name 'default'\n",
            "\nHoldfast:\n--profile 'etcd'\n",
            "One of strict, etcd.",
            "\n--heartbeat-interval '100'\nTime between heartbeats of a leader. In milliseconds.\n",
            "Accepted, without effect: log segments are recycled",
            "Not supported: members are found by --initial-cluster",
            "Also --experimental-watch-progress-notify-interval.",
        ],
    );
}
