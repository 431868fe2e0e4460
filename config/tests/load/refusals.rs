//! Configurations that are refused or warned about, and the words for it.

use crate::{Input, check, check_args, check_file};

#[test]
fn unknown_names_are_told_the_nearest_known_one() {
    check_args(
        "--listen-client-url=http://127.0.0.1:1",
        &[
            "error: flag provided but not defined: --listen-client-url; the nearest known one is --listen-client-urls",
        ],
    );
    check_args(
        "--quota-backend-byte 5",
        &["the nearest known one is --quota-backend-bytes"],
    );
    check_args(
        "--feature-gates=LeaseCheckpont=true",
        &[
            "error",
            "unknown feature gate \"LeaseCheckpont\"; the nearest known one is LeaseCheckpoint",
        ],
    );
    check_args(
        "--tls-min-version=TLS1.2 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA",
        &[
            "error",
            "the nearest known one is TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ],
    );
    check_file(
        "nmae: a",
        &[
            "error: configuration file /etc/etcd.yml: unknown key \"nmae\"; the nearest known one is \"name\"",
        ],
    );
    check_file(
        "client-transport-security: {cert-fil: a}",
        &[
            "unknown key \"client-transport-security/cert-fil\"; the nearest known one is \"client-transport-security/cert-file\"",
        ],
    );
    check(
        Input {
            env: &[
                "ETCD_LISTEN_CLIENT_URL=x",
                "HOLDFAST_NAME=x",
                "ETCD_WORKERS=9",
                "ETCD_UNSUPPORTED_ARCH=arm",
                "ETCD_LOG_X=1",
            ],
            ..Input::default()
        },
        &[
            "# notice: the environment variable ETCD_LISTEN_CLIENT_URL is not a setting and was ignored; the nearest known one is ETCD_LISTEN_CLIENT_URLS\n",
            "HOLDFAST_NAME is not a setting and was ignored; the nearest known one is ETCD_NAME\n",
            "ETCD_WORKERS is not a setting and was ignored; the nearest known one is HOLDFAST_WORKERS\n",
            "!ETCD_UNSUPPORTED_ARCH",
            "!ETCD_LOG_X",
            "\nworkers 0 # default",
        ],
    );
}

#[test]
fn refusals_say_what_to_change() {
    let tls = "--cert-file /c --key-file /k";
    for (args, expected) in [
        (
            "--listen-client-urls=http://127.0.0.1:1",
            "error: --advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--listen-client-urls= --advertise-client-urls=http://a:1",
            "invalid value \"\" for --listen-client-urls (flag --listen-client-urls): at least one URL",
        ),
        (
            "--listen-client-urls=http://node1:2379 --advertise-client-urls=http://a:1",
            "expected an IP address or localhost",
        ),
        ("--listen-peer-urls=http://127.0.0.1", "the port is missing"),
        (
            "--listen-peer-urls=tcp://127.0.0.1:1",
            "the scheme must be http, https, unix or unixs",
        ),
        (
            "--listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://a:1",
            "error: --listen-client-urls (flag --listen-client-urls): http://0.0.0.0:2379 would serve plaintext to other machines; use https:// with --cert-file, --key-file, or permit it with --allow-plaintext",
        ),
        (
            "--profile strict --listen-peer-urls=http://[::]:2380",
            "would serve plaintext to other machines; use https:// with --peer-cert-file",
        ),
        (
            "--listen-metrics-urls=http://10.0.0.1:2381",
            "permit it with --allow-plaintext",
        ),
        (
            "--allow-plaintext --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://10.0.0.1:2379",
            "\nallow-plaintext true # flag",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1",
            "error: --listen-client-urls: https://127.0.0.1:1 needs a certificate: give --cert-file, --key-file",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1",
            "error: --listen-peer-urls: https://127.0.0.1:1 needs a certificate: give --peer-cert-file, --peer-key-file",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls",
            "\npeer-auto-tls true # flag",
        ),
        (
            "--listen-metrics-urls=https://127.0.0.1:1",
            "error: client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        ("--cert-file=/c", "error: --cert-file needs --key-file too"),
        (
            "--peer-client-key-file=/c",
            "error: --peer-client-key-file needs --peer-client-cert-file too",
        ),
        (
            &format!("{tls} --client-cert-auth"),
            "error: --client-cert-auth (flag --client-cert-auth) needs --trusted-ca-file",
        ),
        (
            "--client-crl-file=/crl",
            "error: --client-crl-file (flag --client-crl-file) needs --trusted-ca-file",
        ),
        ("--peer-cert-allowed-cn=a", "needs --peer-trusted-ca-file"),
        (
            "--peer-trusted-ca-file=/ca --peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b",
            "exclude each other",
        ),
        (
            "--profile strict --peer-skip-client-san-verification",
            "contradicts --profile=strict",
        ),
        (
            "--tls-min-version=TLS1.1",
            "expected one of \"\", TLS1.2, TLS1.3",
        ),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "error: --tls-min-version is above --tls-max-version",
        ),
        (
            "--tls-max-version=TLS1.2",
            "\ntls-min-version TLS1.2 # flag --tls-max-version\n",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "error: --cipher-suites cannot be chosen",
        ),
        (
            "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "# notice: --cipher-suites has no effect: only TLS 1.3",
        ),
        (
            "--tls-max-version=TLS1.2 --cipher-suites=TLS_RSA_WITH_RC4_128_SHA",
            "no suite that will be offered is left",
        ),
        (
            "--election-timeout=400",
            "error: --election-timeout (400 ms) must be at least 5 times --heartbeat-interval (100 ms)",
        ),
        (
            "--election-timeout=50001",
            "the number must be from 5 to 50000",
        ),
        (
            "--heartbeat-interval=0",
            "the number must be from 1 to 10000",
        ),
        ("--heartbeat-interval=100ms", "expected a whole number"),
        (
            "--max-request-bytes=-1",
            "the number must be from 1 to 268435456",
        ),
        (
            "--max-request-bytes=20000000",
            "# notice: --max-request-bytes (20000000) is above 10 MiB",
        ),
        (
            "--max-concurrent-streams=4294967296",
            "the number must be from 1 to 4294967295",
        ),
        (
            "--snapshot-count=99999999999999999999",
            "does not fit in 64 bits",
        ),
        ("--bcrypt-cost=32", "the number must be from 4 to 31"),
        (
            "--compact-hash-check-time=0s",
            "the duration must be from 1ms to ",
        ),
        (
            "--tls-handshake-timeout=1h",
            "the duration must be from 100ms to 600s",
        ),
        (
            "--grpc-keepalive-timeout=-1s",
            "a duration cannot be negative",
        ),
        (
            "--auto-compaction-retention=-1",
            "error: invalid value \"-1\" for --auto-compaction-retention",
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=5m",
            "in mode revision this is a number of revisions",
        ),
        (
            "--auto-compaction-mode=weekly",
            "expected one of periodic, revision",
        ),
        ("--initial-cluster=a", "\"a\": expected name=url"),
        (
            "--initial-cluster=a=http://h:1,b=http://h:1",
            "http://h:1 is given twice, for a and b",
        ),
        (
            "--initial-cluster-state=old",
            "expected one of new, existing",
        ),
        ("--name= ", "a member needs a name"),
        ("--name=a=b", "--initial-cluster could not hold it"),
        (
            "--auth-token=basic",
            "expected simple, or jwt with its options",
        ),
        ("--log-level=loud", "expected one of debug, info"),
        (
            "--enable-log-rotation",
            "error: --enable-log-rotation needs exactly one file in --log-outputs, not 0",
        ),
        (
            "--enable-log-rotation --log-outputs=/l --log-rotation-config-json={\"maxsise\":1}",
            "unknown field `maxsise`",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "error: the feature gate LeaseCheckpointPersist needs LeaseCheckpoint",
        ),
        (
            "--feature-gates=LeaseCheckpoint",
            "expected Name=true or Name=false",
        ),
        (
            "--discovery-endpoints=http://h:1",
            "error: --discovery-endpoints (flag --discovery-endpoints) is not supported: members are found by --initial-cluster",
        ),
        ("--discovery= --discovery-srv= --name a", "!error"),
        (
            "--proxy=on",
            "error: --proxy (flag --proxy) is not supported",
        ),
        ("--logger=logrus", "expected one of zap, capnslog"),
        (
            "--unsafe-no-fsync",
            "# notice: --unsafe-no-fsync: a power cut loses",
        ),
        (
            "--max-wals=5 --max-wals=6",
            "# notice: --max-wals (flag --max-wals) is accepted and has no effect",
        ),
    ] {
        check_args(args, &[expected]);
    }
}
