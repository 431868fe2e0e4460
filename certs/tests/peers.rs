//! Who may speak as a member, by its certificate, in both directions.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use holdfast_certs::{
    ConnectError, Invalid, MemberClaim, MemberRefused, PeerPolicy, PeerTls, PeerTlsSettings,
    Warning, self_signed,
};
use rcgen::{ExtendedKeyUsagePurpose as Eku, IsCa, SanType};
use support::{
    Ca, leaf_params,
    peers::{
        BOTH, Site, claim, connection, member_params, raw_connection, refused_by_dialler,
        refused_by_listener, with_uri,
    },
    valid_between,
};

#[tokio::test]
async fn members_see_each_other_by_name() {
    let site = Site::new();
    let (m1, m2) = (site.member("m1"), site.member("m2"));
    assert!(m1.listener().report().warnings.is_empty());
    let (dialled, accepted) = connection(&m1, &m2).await;
    let (dialled, accepted) = (dialled.unwrap().unwrap(), accepted.unwrap().unwrap());
    assert_eq!(dialled.named_member(None), Ok(Some("m2".to_owned())));
    assert_eq!(accepted.named_member(None), Ok(Some("m1".to_owned())));
    let now = SystemTime::now();
    assert_eq!(m1.still_valid(&dialled, now), Ok(()));
    assert_eq!(m2.still_valid(&accepted, now), Ok(()));
    assert!(matches!(
        m1.still_valid(&dialled, dialled.not_after + Duration::from_secs(1)),
        Err(Invalid::Expired { .. })
    ));
}

#[tokio::test]
async fn in_strict_a_certificate_speaks_for_its_own_member_alone() {
    let site = Site::new();
    let (m1, m2) = (site.member("m1"), site.member("m2"));
    let (_, accepted) = connection(&m1, &m2).await;
    let peer = accepted.unwrap();
    let check = |claim: &MemberClaim<'_>| m2.check_member(peer.as_ref(), claim);
    assert_eq!(check(&claim("m1", Some("m1"))), Ok(()));
    assert_eq!(check(&claim("m1", None)), Ok(()));
    assert_eq!(check(&claim("m1", Some(""))), Ok(()));
    let another = |expected: &str| {
        Err(MemberRefused::NamesAnother {
            certificate: "m1".to_owned(),
            expected: expected.to_owned(),
        })
    };
    assert_eq!(check(&claim("m2", Some("m2"))), another("m2"));
    assert_eq!(check(&claim("m2", None)), another("m2"));
    assert_eq!(check(&claim("m1", Some("m2"))), another("m2"));
    assert_eq!(check(&claim("", None)), another(""));
    let taken = MemberClaim {
        named_elsewhere: true,
        ..claim("m1", None)
    };
    assert_eq!(
        check(&taken),
        Err(MemberRefused::NameTaken("m1".to_owned()))
    );
    // Names need not be unique: what is known of this id decides.
    let twins = MemberClaim {
        known: Some("m1"),
        ..taken
    };
    assert_eq!(check(&twins), Ok(()));
    assert_eq!(
        m2.check_member(None, &claim("m1", None)),
        Err(MemberRefused::NoCertificate)
    );
}

#[tokio::test]
async fn in_etcds_profile_any_certificate_of_the_ca_serves() {
    let site = Site::new();
    let (m1, m2) = (site.lenient("m1"), site.lenient("m2"));
    let nameless = {
        let mut params = leaf_params("", &[]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        PeerTls::load(site.etcd("nameless", &site.ca.sign(&params))).unwrap()
    };
    for dialler in [&m1, &nameless] {
        let (dialled, accepted) = connection(dialler, &m2).await;
        let peer = accepted.unwrap();
        assert_eq!(
            m2.check_member(peer.as_ref(), &claim("x", Some("y"))),
            Ok(())
        );
        assert_eq!(
            dialler.check_member(dialled.unwrap().as_ref(), &claim("z", None)),
            Ok(())
        );
        let (dialled, _) = connection(&m2, dialler).await;
        dialled.unwrap();
    }
    let none = m2.check_member(None, &claim("m1", None));
    assert_eq!(none, Err(MemberRefused::NoCertificate));
    // The strict ones have no place for it.
    let refused = refused_by_listener(&nameless, &site.member("m3")).await;
    assert!(matches!(refused, Invalid::WrongPurpose), "{refused}");
}

/// Both profiles, although clients and members have the same CA here.
#[tokio::test]
async fn certificates_of_clients_open_nothing() {
    let site = Site::new();
    let user = "spiffe://holdfast/tenant/a/user/m1";
    for (params, why) in [
        (leaf_params("m1", &[Eku::ClientAuth]), "clientAuth alone"),
        (
            with_uri(leaf_params("m1", &[Eku::ClientAuth]), user),
            "clientAuth alone",
        ),
        (with_uri(leaf_params("m1", &BOTH), user), "names a user"),
        (with_uri(member_params("m1"), user), "several URI names"),
    ] {
        let leaf = site.ca.sign(&params);
        // As a member with this certificate would dial.
        let intruder = PeerTls::load(site.etcd("m1", &leaf)).unwrap();
        for listener in [site.member("m2"), site.lenient("m2")] {
            let refused = refused_by_listener(&intruder, &listener).await.to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
    // What a server presents is judged the same way.
    let leaf = site.ca.sign(&with_uri(leaf_params("m1", &BOTH), user));
    let pretender = PeerTls::load(site.etcd("m1", &leaf)).unwrap();
    for dialler in [site.member("m2"), site.lenient("m2")] {
        let refused = refused_by_dialler(&dialler, &pretender).await;
        assert_eq!(refused, Invalid::ForClients("its URI names a user"));
    }
}

#[tokio::test]
async fn in_strict_a_certificate_has_to_name_a_member() {
    let site = Site::new();
    let m2 = site.member("m2");
    let mut nameless = leaf_params("", &BOTH);
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    for params in [
        nameless,
        with_uri(leaf_params("m1", &BOTH), "spiffe://holdfast/ns/x/sa/etcd"),
        with_uri(leaf_params("m1", &BOTH), "https://m1.example/"),
        leaf_params("spiffe://holdfast/member/m1", &BOTH),
    ] {
        let odd = PeerTls::load(site.etcd("m1", &site.ca.sign(&params))).unwrap();
        let refused = refused_by_listener(&odd, &m2).await;
        assert!(matches!(refused, Invalid::NamesNoMember(_)), "{refused}");
        let refused = refused_by_dialler(&m2, &odd).await;
        assert!(matches!(refused, Invalid::NamesNoMember(_)), "{refused}");
    }
    // Without a URI the common name is enough; of another trust domain a URI is not.
    let plain = PeerTls::load(site.strict("m1", &site.ca.sign(&leaf_params("m1", &BOTH)))).unwrap();
    let (_, accepted) = connection(&plain, &m2).await;
    assert_eq!(
        accepted.unwrap().unwrap().named_member(None),
        Ok(Some("m1".to_owned()))
    );
    let mut settings = site.strict("m3", &site.ca.sign(&member_params("m3")));
    settings.policy = PeerPolicy::Named {
        own_name: "m3".to_owned(),
        trust_domain: Some("example.org".to_owned()),
    };
    let elsewhere = PeerTls::load(settings).unwrap();
    assert!(matches!(
        elsewhere.listener().report().warnings[..],
        [Warning::NamesAnotherMember { .. }]
    ));
    let refused = refused_by_listener(&m2, &elsewhere).await.to_string();
    assert!(refused.contains("trust domain"), "{refused}");
}

#[tokio::test]
async fn bad_certificates_are_bad_for_their_reason_in_both_directions() {
    let site = Site::new();
    let m2 = site.member("m2");
    let mut as_ca = member_params("m1");
    as_ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let other_ca = Ca::new("another CA");
    let false_ca = Ca::new("peer CA");
    let cases = [
        (other_ca.sign(&member_params("m1")), "unknown_issuer"),
        (false_ca.sign(&member_params("m1")), "bad_signature"),
        (
            site.ca
                .sign(&valid_between(member_params("m1"), -7200, -3600)),
            "expired",
        ),
        (
            site.ca
                .sign(&valid_between(member_params("m1"), 3600, 7200)),
            "not_yet_valid",
        ),
        (site.ca.sign(&as_ca), "ca_as_leaf"),
    ];
    for (leaf, label) in cases {
        let bad = PeerTls::load(site.strict("m1", &leaf)).unwrap();
        assert_eq!(refused_by_listener(&bad, &m2).await.label(), label);
        assert_eq!(refused_by_dialler(&m2, &bad).await.label(), label);
    }
    // For one direction only.
    let server_only = site.ca.sign(&with_uri(
        leaf_params("m1", &[Eku::ServerAuth]),
        "spiffe://holdfast/member/m1",
    ));
    let server_only = PeerTls::load(site.strict("m1", &server_only)).unwrap();
    assert!(matches!(
        server_only.listener().report().warnings[..],
        [Warning::WrongPurpose {
            missing: "clientAuth",
            ..
        }]
    ));
    assert_eq!(
        refused_by_listener(&server_only, &m2).await,
        Invalid::WrongPurpose
    );
    let client_only = site.ca.sign(&with_uri(
        leaf_params("m1", &[Eku::ClientAuth]),
        "spiffe://holdfast/member/m1",
    ));
    let client_only = PeerTls::load(site.strict("m1", &client_only)).unwrap();
    assert_eq!(
        refused_by_dialler(&m2, &client_only).await,
        Invalid::NotForServers
    );
    // For another host.
    let mut elsewhere = member_params("m1");
    elsewhere
        .subject_alt_names
        .retain(|name| matches!(name, SanType::URI(_)));
    elsewhere
        .subject_alt_names
        .push(SanType::IpAddress("10.0.0.1".parse().unwrap()));
    let elsewhere = PeerTls::load(site.strict("m1", &site.ca.sign(&elsewhere))).unwrap();
    let refused = refused_by_dialler(&m2, &elsewhere).await;
    assert_eq!(refused, Invalid::WrongHost("127.0.0.1".to_owned()));
}

#[tokio::test]
async fn the_lists_of_allowed_names_hold_in_both_directions() {
    let site = Site::new();
    let m1 = site.lenient("m1");
    for (names, hosts, good) in [
        (vec!["m1", "m2"], vec![], true),
        (vec!["m2"], vec![], false),
        (vec![], vec!["other.example", "localhost"], true),
        (vec![], vec!["127.0.0.1"], true),
        (vec![], vec!["other.example"], false),
    ] {
        let mut settings = site.etcd("m2", &site.ca.sign(&member_params("m2")));
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        settings.policy = PeerPolicy::AnyOfCa {
            allowed_common_names: list(&names),
            allowed_hostnames: list(&hosts),
            skip_address_check: false,
        };
        let m2 = PeerTls::load(settings).unwrap();
        if good {
            connection(&m1, &m2).await.1.unwrap();
            connection(&m2, &m1).await.0.unwrap();
        } else {
            let refused = refused_by_listener(&m1, &m2).await;
            assert!(matches!(refused, Invalid::NotAllowed(_)), "{refused}");
            let refused = refused_by_dialler(&m2, &m1).await;
            assert!(matches!(refused, Invalid::NotAllowed(_)), "{refused}");
        }
    }
}

#[tokio::test]
async fn etcds_address_rule() {
    let site = Site::new();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let sans = |names: Vec<SanType>| {
        let mut params = leaf_params("m1", &BOTH);
        params.subject_alt_names = names;
        // The listener of the other direction is of no interest here.
        PeerTls::load(site.etcd("m1", &site.ca.sign(&params))).unwrap()
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let ip = |text: &str| SanType::IpAddress(address(text));
    let m2 = site.lenient("m2");
    let members = ["localhost".to_owned(), "10.0.0.1".to_owned()];
    for (names, remote, good) in [
        (vec![], "10.0.0.1", true),
        (vec![ip("10.0.0.1")], "10.0.0.1", true),
        (vec![ip("10.0.0.1")], "::ffff:10.0.0.1", true),
        (vec![ip("10.0.0.1")], "10.0.0.2", false),
        (vec![ip("10.0.0.1"), dns("localhost")], "127.0.0.1", true),
        (vec![dns("localhost")], "127.0.0.1", true),
        (vec![dns("localhost")], "10.0.0.1", false),
        (vec![dns("*.example")], "127.0.0.1", false),
    ] {
        let peer = connection(&sans(names.clone()), &m2)
            .await
            .1
            .unwrap()
            .unwrap();
        let found = m2.check_address(&peer, address(remote), &members).await;
        assert_eq!(found.is_ok(), good, "{names:?} {remote}: {found:?}");
        if let Err(refused) = found {
            assert_eq!(refused.label(), "address");
        }
    }
    let peer = connection(&sans(vec![ip("10.0.0.1")]), &m2)
        .await
        .1
        .unwrap()
        .unwrap();
    let mut settings = site.etcd("m3", &site.ca.sign(&member_params("m3")));
    settings.policy = PeerPolicy::AnyOfCa {
        allowed_common_names: Vec::new(),
        allowed_hostnames: Vec::new(),
        skip_address_check: true,
    };
    let skips = PeerTls::load(settings).unwrap();
    assert_eq!(
        skips.check_address(&peer, address("10.0.0.2"), &[]).await,
        Ok(())
    );
    // By name, not by address.
    let strict = site.member("m4");
    assert_eq!(
        strict.check_address(&peer, address("10.0.0.2"), &[]).await,
        Ok(())
    );
}

#[tokio::test]
async fn automatic_certificates_encrypt_and_verify_nobody() {
    let site = Site::new();
    let auto = |name: &str| {
        let made = self_signed(&["127.0.0.1".to_owned()], 1, &site.path(name)).unwrap();
        PeerTls::load(PeerTlsSettings::unverified(made.cert_file, made.key_file)).unwrap()
    };
    let (a, b) = (auto("a"), auto("b"));
    let (dialled, accepted) = connection(&a, &b).await;
    assert_eq!((dialled, accepted), (Ok(None), Ok(None)));
    assert_eq!(a.check_member(None, &claim("any", Some("other"))), Ok(()));
    let report = a.listener().report();
    assert_eq!(report.outgoing_not_after, Some(report.not_after));
    assert_eq!(report.ca_not_after, None);
    // One who verifies does not take it.
    let m1 = site.member("m1");
    let (accepted, dialled) = raw_connection(&m1, &a).await;
    assert!(accepted.is_err());
    assert!(
        matches!(dialled, Err(ConnectError::Certificate { .. })),
        "{dialled:?}"
    );
}
