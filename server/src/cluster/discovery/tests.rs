//! Discovery against a DNS server on loopback.

use super::*;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use responder::{Answer, Responder, Zone, srv};
use std::time::Instant;

mod responder;

const TLS: &str = "_etcd-server-ssl._tcp.example.com";
const PLAIN: &str = "_etcd-server._tcp.example.com";

/// Longer than any answer of the responder takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

const THREE: [(&str, u16); 3] = [
    ("c.example.com", 2380),
    ("a.example.com", 2380),
    ("b.example.com", 2381),
];

/// The member `name` which advertises these URLs.
fn config(name: &str, advertised: &str, more: &[&str]) -> Config {
    let mut flags = vec![
        "--profile=etcd".to_owned(),
        format!("--name={name}"),
        format!("--initial-advertise-peer-urls={advertised}"),
        "--discovery-srv=example.com".to_owned(),
    ];
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    match holdfast_config::load(flags, [], |_| unreachable!("no file")) {
        Ok(holdfast_config::Outcome::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

async fn ask(responder: &Responder, config: &Config, within: Duration) -> Result<String, String> {
    let discovery = config.discovery_srv.as_ref().expect("given");
    let found = responder.dns(within).members(config, discovery).await;
    let members = found.map_err(|error| error.to_string())?;
    let pairs = members.iter().flat_map(|member| {
        let urls = member.peer_urls.iter();
        urls.map(|url| format!("{}={url}", member.name))
    });
    Ok(pairs.collect::<Vec<_>>().join(","))
}

/// What the member `a`, which advertises `advertised`, makes of a zone: the cluster as `--initial-cluster` would have it.
async fn seen(zone: Zone, advertised: &str) -> Result<String, String> {
    let responder = Responder::start(zone).await;
    ask(&responder, &config("a", advertised, &[]), LONG).await
}

#[track_caller]
fn refused(found: Result<String, String>, expected: &[&str]) {
    let error = found.expect_err("refused");
    for part in expected {
        assert!(error.contains(part), "{error:?} has no {part:?}");
    }
}

#[tokio::test]
async fn each_member_finds_itself_among_the_same_urls() {
    for (service, scheme) in [(TLS, "https"), (PLAIN, "http")] {
        let responder = Responder::start(Zone::default().srv(service, &THREE)).await;
        for (name, host, expected) in [
            (
                "one",
                "a.example.com:2380",
                "one=S://a.example.com:2380,b.example.com:2381=S://b.example.com:2381,c.example.com:2380=S://c.example.com:2380",
            ),
            // A name that looks like a place in a list belongs to nobody else.
            (
                "1",
                "b.example.com:2381",
                "a.example.com:2380=S://a.example.com:2380,1=S://b.example.com:2381,c.example.com:2380=S://c.example.com:2380",
            ),
            (
                "0",
                "C.Example.com:2380",
                "a.example.com:2380=S://a.example.com:2380,b.example.com:2381=S://b.example.com:2381,0=S://c.example.com:2380",
            ),
        ] {
            let config = config(name, &format!("{scheme}://{host}"), &[]);
            let found = ask(&responder, &config, LONG).await;
            assert_eq!(found, Ok(expected.replace('S', scheme)));
        }
        assert_eq!(responder.queries_over_tcp(), 0);
    }
}

#[tokio::test]
async fn what_both_services_name_is_one_cluster() {
    let zone = || {
        Zone::default()
            .srv(TLS, &[("b.example.com", 2380)])
            .srv(PLAIN, &[("a.example.com", 2380), ("b.example.com", 2381)])
    };
    assert_eq!(
        seen(zone(), "https://b.example.com:2380").await.as_deref(),
        Ok(
            "a.example.com:2380=http://a.example.com:2380,b.example.com:2381=http://b.example.com:2381,a=https://b.example.com:2380"
        )
    );
    let twice = zone().srv(TLS, &[("A.example.com", 2380)]);
    refused(
        seen(twice, "http://a.example.com:2380").await,
        &[TLS, PLAIN, "both name a.example.com:2380"],
    );
}

#[tokio::test]
async fn a_suffix_and_an_alias_lead_to_other_records() {
    let zone = Zone::default()
        .srv(PLAIN, &[("other.example.com", 2380)])
        .srv(
            "_etcd-server-prod._tcp.example.com",
            &[("a.example.com", 1)],
        )
        .alias(
            "_etcd-server-test._tcp.example.com",
            "members.example.com",
            true,
        )
        .alias(
            "_etcd-server-next._tcp.example.com",
            "members.example.com",
            false,
        )
        .alias(
            "_etcd-server-loop._tcp.example.com",
            "_etcd-server-loop._tcp.example.com",
            false,
        )
        .srv("members.example.com", &[("a.example.com", 2)]);
    let responder = Responder::start(zone).await;
    for (suffix, port) in [("prod", 1), ("test", 2), ("next", 2)] {
        let url = format!("http://a.example.com:{port}");
        let config = config("a", &url, &[&format!("--discovery-srv-name={suffix}")]);
        assert_eq!(ask(&responder, &config, LONG).await, Ok(format!("a={url}")));
    }
    let config = config(
        "a",
        "http://a.example.com:2",
        &["--discovery-srv-name=loop"],
    );
    refused(
        ask(&responder, &config, LONG).await,
        &["_etcd-server-loop._tcp.example.com: "],
    );
    let asked = responder.asked();
    for service in [
        "_etcd-server-prod",
        "_etcd-server-ssl-prod",
        "_etcd-server-ssl-test",
    ] {
        let name = format!("{service}._tcp.example.com.");
        assert!(asked.contains(&name), "{asked:?}");
    }
}

#[tokio::test]
async fn nobody_is_found() {
    let own = "http://a.example.com:2380";
    refused(
        seen(Zone::default(), own).await,
        &[&format!(
            "{TLS}: DNS has no such name; {PLAIN}: DNS has no such name"
        )],
    );
    let empty = Zone::default()
        .with(TLS, RecordType::SRV, Answer::Data(Vec::new()))
        .with(PLAIN, RecordType::SRV, Answer::Code(ResponseCode::ServFail));
    refused(
        seen(empty, own).await,
        &[
            &format!("{TLS}: DNS has no such record"),
            &format!("{PLAIN}: the DNS server answers Server Failure"),
        ],
    );
    // RFC 2782: there is decidedly no such service.
    let none = Zone::default().srv(TLS, &[("", 0)]);
    refused(
        seen(none, own).await,
        &[&format!("{TLS}: DNS has no member there")],
    );
    let plain_only = Zone::default()
        .srv(TLS, &[("", 0)])
        .srv(PLAIN, &THREE[1..2]);
    assert_eq!(seen(plain_only, own).await, Ok(format!("a={own}")));
}

#[tokio::test]
async fn one_service_is_enough_if_this_member_is_there() {
    let zone = || {
        let zone = Zone::default().srv(PLAIN, &THREE[1..2]);
        zone.with(TLS, RecordType::SRV, Answer::Code(ResponseCode::Refused))
    };
    let own = "http://a.example.com:2380";
    assert_eq!(seen(zone(), own).await, Ok(format!("a={own}")));
    // Plaintext that DNS names is no way out for a member that speaks TLS.
    refused(
        seen(zone(), "https://a.example.com:2380").await,
        &[
            "no record is this member",
            "http://a.example.com:2380 has the wrong scheme",
        ],
    );
}

#[tokio::test]
async fn a_member_that_advertises_an_address_finds_its_name() {
    let zone = || {
        Zone::default()
            .srv(PLAIN, &THREE)
            .address("a.example.com", [10, 0, 0, 1])
            .address("b.example.com", [10, 0, 0, 2])
            .address("alias.example.net", [10, 0, 0, 1])
    };
    let expected = "a=http://a.example.com:2380,b.example.com:2381=http://b.example.com:2381,c.example.com:2380=http://c.example.com:2380";
    // That one name has no address does not matter: its URL is known.
    for own in [
        "http://10.0.0.1:2380",
        "http://[::ffff:10.0.0.1]:2380",
        "http://alias.example.net:2380",
    ] {
        assert_eq!(seen(zone(), own).await.as_deref(), Ok(expected), "{own}");
    }
    for own in [
        "http://10.0.0.1:2381",
        "http://10.0.0.3:2380",
        "https://10.0.0.1:2380",
    ] {
        refused(
            seen(zone(), own).await,
            &[
                "no record is this member",
                own,
                "http://a.example.com:2380, http://b.example.com:2381, http://c.example.com:2380",
            ],
        );
    }
    refused(
        seen(zone(), "http://10.0.0.3:2380").await,
        &["c.example.com: DNS has no such name"],
    );
    let same = zone().address("c.example.com", [10, 0, 0, 1]);
    refused(
        seen(same, "http://10.0.0.1:2380").await,
        &["http://a.example.com:2380, http://c.example.com:2380 are all this member"],
    );
}

#[tokio::test]
async fn a_new_member_has_one_record_and_a_name_of_its_own() {
    let own = "http://a.example.com:2380,http://b.example.com:2381";
    let responder = Responder::start(Zone::default().srv(PLAIN, &THREE)).await;
    let founder = config("a", own, &[]);
    refused(
        ask(&responder, &founder, LONG).await,
        &["are all this member"],
    );
    // Added by `member add`, which tells all the others.
    let joiner = config("a", own, &["--initial-cluster-state=existing"]);
    let found = ask(&responder, &joiner, LONG).await.expect("found");
    assert!(
        found.starts_with("a=http://a.example.com:2380,a=http://b.example.com:2381,"),
        "{found}"
    );

    let misleading = config("b.example.com:2381", "http://a.example.com:2380", &[]);
    refused(
        ask(&responder, &misleading, LONG).await,
        &["choose another --name"],
    );
}

#[tokio::test]
async fn targets_are_hosts() {
    let own = "http://a.example.com:2380";
    let with = |labels: &[&[u8]], port| {
        let target = Name::from_labels(labels.iter().copied()).expect("a name");
        let own = srv(Name::from_ascii("a.example.com.").expect("a name"), 2380);
        Zone::default().with(
            PLAIN,
            RecordType::SRV,
            Answer::Data(vec![own, srv(target, port)]),
        )
    };
    for (labels, port, expected) in [
        (
            &[b"a/b".as_slice(), b"com"][..],
            1,
            "makes no URL of a member",
        ),
        (&[b"me@b"], 1, "makes no URL of a member"),
        (&[b"b:1"], 1, "makes no URL of a member"),
        (&[b"::1"], 1, "makes no URL of a member"),
        (&[b"b.example", b"com"], 1, "makes no URL of a member"),
        (&[b"b,c=http://d"], 1, "makes no URL of a member"),
        (&[b"*", b"com"], 1, "makes no URL of a member"),
        (&[b"b\0", b"com"], 1, "makes no URL of a member"),
        (&[b"b\n\x1b[31m", b"com"], 1, "makes no URL of a member"),
        (&[b"b\xc3\xbc", b"com"], 1, "makes no URL of a member"),
        (&[b"256", b"0", b"0", b"1"], 1, "makes no URL of a member"),
        (&[b"0", b"0", b"0", b"0"], 1, "where nobody can connect to"),
        (&[b"b", b"com"], 0, "has port 0 for \"b.com\""),
        (&[[b'b'; 60].as_slice(); 4], 1, "more than 240 bytes"),
    ] {
        let found = seen(with(labels, port), own).await;
        let error = found.expect_err(expected);
        assert!(
            error.starts_with(&format!("a record of {PLAIN} ")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
        assert!(
            !error.contains(char::is_control) && error.is_ascii(),
            "{error:?}"
        );
    }
    for (labels, port, url) in [
        (
            &[b"xn--bcher-kva".as_slice(), b"example"][..],
            65535,
            "xn--bcher-kva.example:65535",
        ),
        (&[b"B_1", b"example"], 1, "b_1.example:1"),
        (&[b"10", b"0", b"0", b"2"], 2380, "10.0.0.2:2380"),
        (&[b"node"], 2380, "node:2380"),
    ] {
        let found = seen(with(labels, port), own).await.expect(url);
        assert!(found.contains(&format!("{url}=http://{url}")), "{found}");
    }
    // Records that differ in priority or weight alone are one member.
    let name = || Name::from_ascii("a.example.com.").expect("a name");
    let twice = [
        RData::SRV(SRV::new(1, 0, 2380, name())),
        RData::SRV(SRV::new(2, 5, 2380, name())),
    ];
    let zone = Zone::default().with(PLAIN, RecordType::SRV, Answer::Data(twice.into()));
    assert_eq!(seen(zone, own).await, Ok(format!("a={own}")));
}

#[tokio::test]
async fn as_many_members_as_a_cluster_can_have_come_over_tcp() {
    let hosts: Vec<String> = (0..65).map(|n| format!("member-{n}.example.com")).collect();
    let targets: Vec<(&str, u16)> = hosts.iter().map(|host| (host.as_str(), 2380)).collect();
    let own = "http://member-7.example.com:2380";

    let responder = Responder::start(Zone::default().srv(PLAIN, &targets[..64])).await;
    let found = ask(&responder, &config("a", own, &[]), LONG).await;
    assert_eq!(found.expect("found").split(',').count(), 64);
    assert_eq!(responder.queries_over_tcp(), 1);

    refused(
        seen(Zone::default().srv(PLAIN, &targets), own).await,
        &["65 records are too many: a cluster has at most 64 members"],
    );
    // An error does not repeat everything that DNS said.
    let short = seen(Zone::default().srv(PLAIN, &targets[..64]), "http://x:1").await;
    refused(short, &["member-0.example.com:2380", "and 56 more"]);
}

/// SRV records of different targets, each with a pointer to the question for owner and domain, as many as a message can have.
fn flood() -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..10_000 {
        bytes.extend([
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 13, 0, 0, 0, 0, 9, 76, 4,
        ]);
        bytes.extend(format!("{n:04}").into_bytes());
        bytes.extend([0xc0, 12]);
    }
    bytes
}

#[tokio::test]
async fn hostile_answers_are_refused() {
    let own = "http://a.example.com:2380";
    let record = |target: &[u8]| {
        let length = u8::try_from(6 + target.len()).expect("short");
        let head = [
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, length, 0, 0, 0, 0, 9, 76,
        ];
        [&head, target].concat()
    };
    // Over TCP the resolver waits on for an answer that can be read.
    let short = Duration::from_secs(2);
    for (count, bytes, within, expected) in [
        (10_000, flood(), short, "no answer within 2s"),
        (
            2_000,
            flood()[..50_000].to_vec(),
            LONG,
            "2000 records are too many",
        ),
        // One record that says it is 10,000.
        (10_000, record(b"\x01a\0"), LONG, "unexpected end"),
        // A name that points at itself, one that points beyond the message, and a label that goes on there.
        (1, record(&[0xc0, 65]), LONG, "protocol error"),
        (1, record(b"\x01a\xff\xff"), LONG, "protocol error"),
        (1, record(&[0x3f, b'a']), LONG, "protocol error"),
        (1, vec![0xff; 400], LONG, "protocol error"),
        (0, Vec::new(), LONG, "DNS has no such record"),
    ] {
        let zone = Zone::default().with(PLAIN, RecordType::SRV, Answer::Bytes(count, bytes));
        let responder = Responder::start(zone).await;
        let before = Instant::now();
        let found = ask(&responder, &config("a", own, &[]), within).await;
        let error = found.expect_err(expected);
        assert!(
            error.len() < 500 && error.contains(expected),
            "{expected}: {error}"
        );
        assert!(before.elapsed() < LONG, "{expected}");
    }
}

#[tokio::test]
async fn silence_ends() {
    let own = "http://10.0.0.1:2380";
    let short = Duration::from_millis(300);
    let silent = || Zone::default().with(TLS, RecordType::SRV, Answer::Silence);

    let responder = Responder::start(silent().with(PLAIN, RecordType::SRV, Answer::Silence)).await;
    let before = Instant::now();
    let found = ask(&responder, &config("a", own, &[]), short).await;
    refused(
        found,
        &[&format!(
            "{TLS}: no answer within 300ms; {PLAIN}: no answer within 300ms"
        )],
    );
    assert!(before.elapsed() < LONG);

    // The other service, and a name without an answer among its records.
    let zone = silent()
        .srv(PLAIN, &THREE)
        .address("a.example.com", [10, 0, 0, 1])
        .with("b.example.com", RecordType::A, Answer::Silence);
    let responder = Responder::start(zone).await;
    let found = ask(&responder, &config("a", own, &[]), short).await;
    assert!(
        found
            .expect("found")
            .starts_with("a=http://a.example.com:2380,")
    );
    refused(
        ask(&responder, &config("a", "http://10.0.0.9:2381", &[]), short).await,
        &[
            "no record is this member",
            "b.example.com: no answer within 300ms",
        ],
    );
}
