//! Clusters of several members: how they are named, found and reached, and what they must have.

use std::time::Duration;

use holdfast_config::{
    ClusterState, Config, DiscoverySrv, Feature, InitialMember, ListenUrl, Profile, Scheme,
};

use crate::{Input, check, check_args, check_file, config};

const THREE: &str =
    "--initial-cluster=a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,c=https://10.0.0.3:2380";
const URLS_OF_A: &str =
    "--listen-peer-urls=https://10.0.0.1:2380 --initial-advertise-peer-urls=https://10.0.0.1:2380";
const FILES: &str = "--peer-cert-file=/c --peer-key-file=/k";
const CA: &str = "--peer-client-cert-auth --peer-trusted-ca-file=/ca";

fn args(args: &str) -> Config {
    config(Input {
        args,
        ..Input::default()
    })
}

fn shown(urls: &[ListenUrl]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// What a start with an empty data directory says: the own URLs, or the error.
fn bootstrap(given: &str) -> String {
    let config = args(given);
    match config.check_bootstrap(&config.initial_cluster) {
        Ok(own) => shown(&own.peer_urls).join(","),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check_bootstrap(given: &str, expected: &str) {
    let text = bootstrap(given);
    let (found, is_error) = (text.contains(expected), text.starts_with("error: "));
    assert!(
        found && is_error != expected.starts_with("http"),
        "{given}: no {expected:?} in {text}"
    );
}

#[test]
fn settings_of_a_cluster_apply() {
    let given = format!(
        "--name a {THREE} {URLS_OF_A} {FILES} {CA} --initial-cluster-state=existing --initial-cluster-token=t --strict-reconfig-check=false \
         --max-learners=3 --force-new-cluster --heartbeat-interval=50 --election-timeout=250 --initial-election-tick-advance=false \
         --snapshot-count=7 --snapshot-catchup-entries=8 --raft-read-timeout=2s --raft-write-timeout=3s --corrupt-check-time=1h \
         --compact-hash-check-time=2m --feature-gates=InitialCorruptCheck=true,CompactHashCheck=true --peer-client-cert-file=/oc \
         --peer-client-key-file=/ok --peer-crl-file=/crl --peer-cert-allowed-cn=a,b --peer-skip-client-san-verification --peer-auto-tls"
    );
    let config = args(&given);
    assert_eq!(
        (
            config.initial_cluster_state,
            config.initial_cluster_token.as_str(),
            config.max_learners
        ),
        (ClusterState::Existing, "t", 3)
    );
    assert!(
        !config.strict_reconfig_check
            && !config.initial_election_tick_advance
            && config.force_new_cluster
            && config.pre_vote
    );
    assert_eq!(
        [
            config.heartbeat_interval,
            config.election_timeout,
            config.raft_read_timeout,
            config.raft_write_timeout
        ],
        [50, 250, 2000, 3000].map(Duration::from_millis)
    );
    assert_eq!(
        (config.snapshot_count, config.snapshot_catchup_entries),
        (7, 8)
    );
    assert_eq!(config.corrupt_check_time, Some(Duration::from_secs(3600)));
    assert_eq!(config.compact_hash_check_time, Duration::from_secs(120));
    assert!(
        config.feature_gates.enabled(Feature::InitialCorruptCheck)
            && config.feature_gates.enabled(Feature::CompactHashCheck)
    );
    let tls = &config.peer_tls;
    assert!(
        tls.certificate.is_some()
            && tls.outgoing_certificate.is_some()
            && tls.crl_file.is_some()
            && tls.requires_client_certificate()
            && tls.skip_client_san_verification
            && tls.auto_tls
    );
    assert_eq!(tls.allowed_cn, ["a", "b"]);
    assert_eq!(
        config.notices,
        ["--force-new-cluster: all other members are forgotten"]
    );
    assert!(args("--pre-vote=false").notices[0].starts_with("--pre-vote=false: "));
    check_file(
        "peer-transport-security: {trusted-ca-file: /ca, allowed-hostnames: [a, b]}",
        &[
            "\npeer-cert-allowed-hostname a,b # file /etc/etcd.yml, peer-transport-security/allowed-hostnames\n",
        ],
    );
}

#[test]
fn connections_outlive_a_late_heartbeat() {
    for (given, expected_ms, is_told) in [
        ("--name a", 5000, false),
        ("--raft-read-timeout=0", 5000, false),
        ("--raft-read-timeout=100ms", 200, true),
        (
            "--heartbeat-interval=9000 --election-timeout=50000",
            18_000,
            false,
        ),
    ] {
        let config = args(given);
        let told = |notice: &String| notice.contains("is raised to 2 heartbeat intervals");
        assert_eq!(
            (config.raft_read_timeout, config.notices.iter().any(told)),
            (Duration::from_millis(expected_ms), is_told),
            "{given}"
        );
    }
}

#[test]
fn peer_listeners_are_opened_when_they_are_meant() {
    for (given, expected) in [
        ("", &[] as &[&str]),
        ("--workers=2", &[]),
        ("--profile=strict --name a", &[]),
        ("--name a", &["http://localhost:2380"]),
        ("--name a --listen-peer-urls=", &[]),
        (
            "--profile=strict --listen-peer-urls=http://127.0.0.1:7,http://[::1]:7",
            &["http://127.0.0.1:7", "http://[::1]:7"],
        ),
    ] {
        let config = args(given);
        let listeners = &config.for_profile(config.profile).listen_peer_urls;
        assert_eq!(shown(listeners), expected, "{given}");
    }
    // The profile of the data directory counts, whatever this start says.
    let config = args("--name a");
    assert!(
        config
            .for_profile(Profile::Strict)
            .listen_peer_urls
            .is_empty()
    );
    check_args(
        "",
        &["\nlisten-peer-urls \"\" # default of profile strict\n"],
    );
    for (given, expected) in [
        ("--listen-peer-urls=unix:///x", "http:// or https:// only"),
        (
            "--initial-advertise-peer-urls=unixs://x",
            "http:// or https:// only",
        ),
        ("--initial-cluster=a=unix://x", "http:// or https:// only"),
        (
            "--listen-peer-urls=http://node1:2380",
            "expected an IP address or localhost to listen on",
        ),
        (
            "--listen-peer-urls=http://10.0.0.1:2380",
            "would serve plaintext to other machines; use https:// with --peer-cert-file, --peer-key-file, or permit it with --allow-plaintext",
        ),
        (
            "--initial-advertise-peer-urls=http://h",
            "the port is missing",
        ),
        (
            "--initial-cluster=a=http://h:1/x",
            "without user, path or query",
        ),
    ] {
        check_args(given, &["\nerror: ", expected]);
    }
}

#[test]
fn members_are_named_and_bounded() {
    let config = args("--initial-cluster=b=http://H1.:1,a=http://h2:1,b=http://h3:1");
    let members: Vec<_> = config
        .initial_cluster
        .iter()
        .map(|member| (member.name.as_str(), shown(&member.peer_urls).join(",")))
        .collect();
    assert_eq!(
        members,
        [
            ("b", "http://h1:1,http://h3:1".to_owned()),
            ("a", "http://h2:1".to_owned())
        ]
    );
    let long = "n".repeat(256);
    let cluster = |names: usize, urls: usize| {
        let item = |n| format!("m{}=http://h:{}", n % names, n + 1);
        let items: Vec<_> = (0..names * urls).map(item).collect();
        format!("--initial-cluster={}", items.join(","))
    };
    assert_eq!(args(&cluster(64, 32)).initial_cluster.len(), 64);
    assert_eq!(args(&format!("--name={}", &long[1..])).name.len(), 255);
    for (given, expected) in [
        (cluster(65, 1), "there are more than 64 members"),
        (cluster(1, 33), "m0 has more than 32 URLs"),
        (format!("--name={long}"), "a name has at most 255 bytes"),
        (
            format!("--initial-cluster={long}=http://h:1"),
            "a name has at most 255 bytes",
        ),
        (
            "--initial-cluster=a\tb=http://h:1".to_owned(),
            "no control characters",
        ),
        (
            "--initial-cluster=a=http://h:1,a=http://H:1".to_owned(),
            "http://h:1 is given twice, for a and a",
        ),
        ("--initial-cluster=,".to_owned(), "at least one member"),
        (
            format!(
                "--advertise-client-urls={}",
                (1..34)
                    .map(|n| format!("http://h:{n}"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
            "there are more than 32 URLs",
        ),
    ] {
        check_args(&given, &["\nerror: invalid value", expected]);
    }
}

#[test]
fn dns_names_the_members_instead() {
    let config = args("--name a --discovery-srv=Example.com. --discovery-srv-name=prod");
    assert!(config.initial_cluster.is_empty() && config.notices.is_empty());
    let discovery = config.discovery_srv.clone().expect("given");
    assert_eq!(
        discovery.records(),
        [
            (
                Scheme::Https,
                "_etcd-server-ssl-prod._tcp.Example.com".to_owned()
            ),
            (
                Scheme::Http,
                "_etcd-server-prod._tcp.Example.com".to_owned()
            )
        ]
    );
    let plain = args("--discovery-srv=example.com --initial-cluster=");
    assert_eq!(
        plain.discovery_srv,
        Some(DiscoverySrv {
            domain: "example.com".to_owned(),
            service_suffix: None
        })
    );
    assert_eq!(
        plain.discovery_srv.expect("given").records()[1].1,
        "_etcd-server._tcp.example.com"
    );
    assert_eq!(args("--name a").discovery_srv, None);

    // Names in DNS may differ from those that are advertised, if they mean the same address.
    let url = |text| ListenUrl::parse_peer(text).expect("valid");
    let pair = |name: &str, text| (name.to_owned(), url(text));
    let found = InitialMember::group([
        pair("0", "https://one.example.com.:2380"),
        pair("a", "https://two.example.com:2380"),
    ])
    .expect("valid");
    let given = format!("--name a --discovery-srv=example.com {URLS_OF_A} {FILES}");
    let own = args(&given);
    let own = own.check_bootstrap(&found).expect("named");
    assert_eq!(shown(&own.peer_urls), ["https://two.example.com:2380"]);
    let error = args(&format!("{given} --name b"))
        .check_bootstrap(&found)
        .expect_err("not named");
    assert!(
        error
            .to_string()
            .starts_with("--discovery-srv (flag --discovery-srv) has no member called \"b\""),
        "{error}"
    );

    for (given, expected) in [
        (
            "--discovery-srv=example.com --initial-cluster=a=http://h:1",
            "\nerror: --initial-cluster (flag --initial-cluster) and --discovery-srv (flag --discovery-srv) both name the members: choose one\n",
        ),
        ("--discovery-srv=http://x", "expected a domain such as"),
        ("--discovery-srv=1.2.3.4", "expected a domain such as"),
        (
            "--discovery-srv=a.b --discovery-srv-name=x.y",
            "expected at most 46 letters",
        ),
        (
            "--discovery-srv-name=x",
            "# notice: --discovery-srv-name has no effect: --discovery-srv is not given\n",
        ),
    ] {
        check_args(given, &[expected]);
    }
    check(
        Input {
            env: &["ETCD_DISCOVERY_SRV=example.com"],
            file: "initial-cluster: a=http://h:1\n",
            args: "--config-file=/etc/etcd.yml",
        },
        &["both name the members"],
    );
}

#[test]
fn the_two_lists_of_own_urls_agree() {
    let local = "--name a --listen-peer-urls=http://127.0.0.1:7 --initial-cluster";
    for (given, expected) in [
        ("", "http://localhost:2380"),
        ("--name a", "http://localhost:2380"),
        (
            "--name a --initial-advertise-peer-urls=http://H:7",
            "http://h:7",
        ),
        (
            &format!(
                "{local} a=http://localhost:7 --initial-advertise-peer-urls=http://127.0.0.1:7"
            ),
            "http://localhost:7",
        ),
        (
            &format!(
                "{local} a=http://127.0.0.1:7,a=http://[::1]:7 --initial-advertise-peer-urls=http://[0:0::1]:7,http://127.0.0.1:7"
            ),
            "http://127.0.0.1:7,http://[::1]:7",
        ),
        (
            "--name b --initial-cluster=a=http://localhost:2380",
            "--initial-cluster (flag --initial-cluster) has no member called \"b\", as --name (flag --name) calls this one",
        ),
        (
            "--initial-cluster=a=http://localhost:2380",
            "has no member called \"default\", as --name (default)",
        ),
        (
            &format!("{local} a=http://127.0.0.1:7"),
            "--initial-cluster (flag --initial-cluster) has http://127.0.0.1:7 for a, and --initial-advertise-peer-urls (default) has not",
        ),
        (
            &format!(
                "{local} a=https://127.0.0.1:7 --initial-advertise-peer-urls=http://127.0.0.1:7"
            ),
            "has https://127.0.0.1:7 for a",
        ),
        (
            &format!(
                "{local} a=http://127.0.0.1:7 --initial-advertise-peer-urls=http://127.0.0.1:7,http://127.0.0.1:8"
            ),
            "--initial-advertise-peer-urls (flag --initial-advertise-peer-urls) has http://127.0.0.1:8 for a, and --initial-cluster",
        ),
        // Who joins was announced with its URLs, so that the list alone counts.
        (
            &format!(
                "{local} a=http://127.0.0.1:7,b=http://127.0.0.1:8 --initial-cluster-state existing"
            ),
            "http://127.0.0.1:7",
        ),
        (
            &format!("{local} a=http://127.0.0.1:7 --initial-cluster-state existing"),
            "names no other member, so that there is no cluster to join",
        ),
        (
            "--name a --listen-peer-urls= --initial-cluster a=http://localhost:2380,b=http://127.0.0.1:8",
            "--listen-peer-urls is needed",
        ),
        (
            &format!(
                "{local} a=http://127.0.0.1:7,b=http://127.0.0.1:0 --initial-advertise-peer-urls=http://127.0.0.1:7"
            ),
            "nobody can connect to port 0 of http://127.0.0.1:0",
        ),
    ] {
        check_bootstrap(given, expected);
    }
}

#[test]
fn members_prove_who_they_are() {
    let https = format!("--name a {THREE} {URLS_OF_A}");
    let http = "--name a --initial-advertise-peer-urls=http://127.0.0.1:7 --listen-peer-urls=http://127.0.0.1:7 \
                --initial-cluster=a=http://127.0.0.1:7,b=http";
    let files = "give --peer-cert-file, --peer-key-file, --peer-client-cert-auth and --peer-trusted-ca-file";
    for (given, expected) in [
        (format!("{https} {FILES} {CA}"), "https://10.0.0.1:2380"),
        (format!("{https} {FILES}"), "https://10.0.0.1:2380"),
        (format!("{https} --peer-auto-tls"), "https://10.0.0.1:2380"),
        (format!("{http}://127.0.0.1:8"), "http://127.0.0.1:7"),
        (
            format!("{http}://10.0.0.2:8"),
            "peer URL http://10.0.0.2:8: members would send plaintext to other machines; use https://, or permit it with --allow-plaintext",
        ),
        (
            format!("{http}://10.0.0.2:8 --allow-plaintext"),
            "http://127.0.0.1:7",
        ),
        (
            format!("--profile strict {https} {FILES} {CA}"),
            "https://10.0.0.1:2380",
        ),
        (format!("--profile strict {https} {FILES}"), files),
        (format!("--profile strict {https} --peer-auto-tls"), files),
        (
            format!("--profile strict {http}s://127.0.0.1:8 {FILES} {CA}"),
            "peer URL http://127.0.0.1:7: in profile strict members know each other by certificates: use https://",
        ),
        (
            format!("--profile strict {http}://127.0.0.1:8"),
            "plaintext is possible only on loopback, with --allow-plaintext",
        ),
        (
            format!("--profile strict {http}://127.0.0.1:8 --allow-plaintext"),
            "http://127.0.0.1:7",
        ),
        (
            format!("--profile strict {http}://10.0.0.2:8 --allow-plaintext"),
            "peer URL http://10.0.0.2:8: in profile strict",
        ),
        (
            format!(
                "--profile strict --name a {THREE} --initial-advertise-peer-urls=https://10.0.0.1:2380 {FILES} {CA}"
            ),
            "--listen-peer-urls is needed: --initial-cluster (flag --initial-cluster) names other members",
        ),
    ] {
        check_bootstrap(&given, expected);
    }
    // The profile of the data directory counts, and URLs that came through the log.
    let config = args(&format!("{https} {FILES}"));
    let url = ListenUrl::parse_peer("http://10.0.0.9:1").expect("valid");
    assert!(config.check_peer_security(Profile::Etcd, []).is_ok());
    assert!(config.check_peer_security(Profile::Etcd, [&url]).is_err());
    assert!(config.check_peer_security(Profile::Strict, []).is_err());
}
