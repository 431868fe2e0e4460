//! The files of members' TLS: reload, two pairs, settings, those of a development cluster.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use holdfast_certs::{
    ConnectError, DevCa, DevPeerCa, Invalid, PeerConnector, PeerPolicy, PeerTls, PeerTlsSettings,
    Polled, Target, TlsError, accept,
};
use rcgen::ExtendedKeyUsagePurpose as Eku;
use support::{
    Ca, DEADLINE, Leaf, ca_params, leaf_params,
    peers::{
        Side, Site, claim, connection, member_params, refused_by_dialler, refused_by_listener,
        with_uri,
    },
    valid_between,
};
use tokio::net::TcpListener;
use tower_service::Service;

#[tokio::test]
async fn revocation_acts_in_both_directions_and_on_live_connections() {
    let site = Site::new();
    let leaf = site.ca.sign(&member_params("m1"));
    let m1 = PeerTls::load(site.strict("m1", &leaf)).unwrap();
    site.write("crl", site.ca.crl(&[]).pem().unwrap());
    let mut settings = site.strict("m2", &site.ca.sign(&member_params("m2")));
    settings.crl_file = Some(site.path("crl"));
    let m2 = PeerTls::load(settings).unwrap();
    let accepted = connection(&m1, &m2).await.1.unwrap().unwrap();
    let dialled = connection(&m2, &m1).await.0.unwrap().unwrap();
    site.write("crl", site.ca.crl(&[&leaf.serial]).pem().unwrap());
    let now = SystemTime::now();
    assert_eq!(m2.still_valid(&accepted, now), Ok(()));
    let polled = m2.listener().watch_poll();
    assert!(matches!(polled, Polled::Reloaded(_)), "{polled:?}");
    for live in [&accepted, &dialled] {
        assert_eq!(m2.still_valid(live, now), Err(Invalid::Revoked));
    }
    assert_eq!(refused_by_listener(&m1, &m2).await, Invalid::Revoked);
    assert_eq!(refused_by_dialler(&m2, &m1).await, Invalid::Revoked);
}

#[tokio::test]
async fn a_reload_is_of_both_directions_and_a_bad_file_changes_neither() {
    let site = Site::new();
    let m2 = site.member("m2");
    let [serving, calling] = ["serving", "calling"].map(|name| {
        let leaf = site.ca.sign(&member_params("m1"));
        site.write_pair(name, &leaf);
        leaf
    });
    let mut settings = site.strict("m1", &serving);
    settings.client_cert_file = Some(site.path("calling.crt"));
    settings.client_key_file = Some(site.path("calling.key"));
    let m1 = PeerTls::load(settings).unwrap();
    let seen = async |m1: &PeerTls| {
        let accepted = connection(m1, &m2).await.1.unwrap().unwrap();
        let dialled = connection(&m2, m1).await.0.unwrap().unwrap();
        [accepted, dialled].map(|peer| peer.serial_hex)
    };
    let hex = |leaf: &Leaf| {
        let digits: String = leaf
            .serial
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        digits.trim_start_matches('0').to_owned()
    };
    assert_eq!(seen(&m1).await, [hex(&calling), hex(&serving)]);
    // The pair for outgoing connections is watched, too.
    let next = site.ca.sign(&member_params("m1"));
    site.write("calling.key", next.key.serialize_pem());
    let polled = m1.listener().watch_poll();
    assert!(
        matches!(polled, Polled::Failed(TlsError::KeyMismatch { .. })),
        "{polled:?}"
    );
    assert_eq!(seen(&m1).await, [hex(&calling), hex(&serving)]);
    site.write("calling.crt", &next.pem);
    let polled = m1.listener().watch_poll();
    assert!(matches!(polled, Polled::Reloaded(_)), "{polled:?}");
    assert_eq!(seen(&m1).await, [hex(&next), hex(&serving)]);
    // So is the CA, for what we dial as for whom we accept.
    site.write("peer-ca.crt", &Ca::new("next CA").pem);
    assert!(matches!(m1.listener().watch_poll(), Polled::Reloaded(_)));
    assert_eq!(refused_by_listener(&m2, &m1).await, Invalid::UnknownIssuer);
    assert_eq!(refused_by_dialler(&m1, &m2).await, Invalid::UnknownIssuer);
}

#[test]
fn the_outgoing_pair_is_watched_when_all_files_are_long_settled() {
    let site = Site::new();
    let leaf = site.ca.sign(&member_params("m1"));
    site.write_pair("calling", &leaf);
    let mut settings = site.strict("m1", &leaf);
    settings.client_cert_file = Some(site.path("calling.crt"));
    settings.client_key_file = Some(site.path("calling.key"));
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for entry in fs::read_dir(site.dir.path()).unwrap() {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let m1 = PeerTls::load(settings).unwrap();
    assert!(matches!(m1.listener().watch_poll(), Polled::Unchanged));
    site.write_pair("calling", &site.ca.sign(&member_params("m1")));
    let polled = m1.listener().watch_poll();
    assert!(matches!(polled, Polled::Reloaded(_)), "{polled:?}");
}

#[test]
fn the_report_says_when_each_certificate_ends() {
    const HOUR: i64 = 3600;
    let site = Site::new();
    let ends = |until: i64| valid_between(member_params("m1"), -HOUR, until * HOUR);
    let ca = |until: i64| {
        Ca::from_params(valid_between(ca_params("another CA"), -HOUR, until * HOUR)).pem
    };
    // In whole hours from now; certificates count in seconds.
    let now = SystemTime::now();
    let hours = |at: SystemTime| (at.duration_since(now).unwrap().as_secs() + 60) / 3600;
    site.write_pair("calling", &site.ca.sign(&ends(3)));
    let mut settings = site.strict("m1", &site.ca.sign(&ends(7)));
    let one = PeerTls::load(settings.clone()).unwrap();
    let report = one.listener().report();
    let outgoing = report.outgoing_not_after.map(hours);
    assert_eq!((hours(report.not_after), outgoing), (7, Some(7)));
    settings.client_cert_file = Some(site.path("calling.crt"));
    settings.client_key_file = Some(site.path("calling.key"));
    let two = PeerTls::load(settings).unwrap();
    site.write(
        "peer-ca.crt",
        [ca(20), site.ca.pem.clone(), ca(10), ca(30)].concat(),
    );
    let Polled::Reloaded(report) = two.listener().watch_poll() else {
        panic!("no reload");
    };
    let [outgoing, ca] = [report.outgoing_not_after, report.ca_not_after].map(|at| at.map(hours));
    assert_eq!(
        (hours(report.not_after), outgoing, ca),
        (7, Some(3), Some(10))
    );
}

#[tokio::test]
async fn a_separate_client_certificate_may_be_for_clients_only() {
    let site = Site::new();
    let uri = "spiffe://holdfast/member/m1";
    let calling = site
        .ca
        .sign(&with_uri(leaf_params("m1", &[Eku::ClientAuth]), uri));
    let serving = site
        .ca
        .sign(&with_uri(leaf_params("m1", &[Eku::ServerAuth]), uri));
    site.write_pair("calling", &calling);
    let mut settings = site.strict("m1", &serving);
    settings.client_cert_file = Some(site.path("calling.crt"));
    assert!(matches!(
        PeerTls::load(settings.clone()),
        Err(TlsError::Settings(_))
    ));
    settings.client_key_file = Some(site.path("calling.key"));
    let m1 = PeerTls::load(settings.clone()).unwrap();
    let PeerTlsSettings { policy, .. } = &mut settings;
    *policy = PeerPolicy::Named {
        own_name: "m1".to_owned(),
        trust_domain: Some("holdfast".to_owned()),
    };
    let also = PeerTls::load(settings).unwrap();
    let (dialled, accepted) = connection(&m1, &also).await;
    // Each is judged again for the use that it was presented for.
    for live in [dialled.unwrap().unwrap(), accepted.unwrap().unwrap()] {
        assert_eq!(m1.still_valid(&live, SystemTime::now()), Ok(()));
    }
}

#[test]
fn settings_of_which_a_part_would_have_no_effect_are_refused() {
    let site = Site::new();
    let good = site.strict("m1", &site.ca.sign(&member_params("m1")));
    PeerTls::load(good.clone()).unwrap();
    let change: [fn(&mut PeerTlsSettings); 4] = [
        |s| s.ca_files.clear(),
        |s| s.policy = PeerPolicy::Unverified,
        |s| s.client_key_file = Some(s.key_file.clone()),
        |s| {
            s.policy = PeerPolicy::Named {
                own_name: String::new(),
                trust_domain: None,
            };
        },
    ];
    for change in change {
        let mut settings = good.clone();
        change(&mut settings);
        let refused = PeerTls::load(settings);
        assert!(matches!(refused, Err(TlsError::Settings(_))), "{refused:?}");
    }
    let debug = format!("{:?}", PeerTls::load(good).unwrap());
    assert!(!debug.contains("BEGIN"), "{debug}");
}

#[tokio::test]
async fn the_connector_remembers_who_answered() {
    let site = Site::new();
    let (m1, m2) = (Arc::new(site.member("m1")), site.member("m2"));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target =
        Target::parse(&format!("https://{}", socket.local_addr().unwrap()), false).unwrap();
    let connector = PeerConnector::new(Some(m1.clone()), target.clone());
    assert_eq!(connector.identity(), None);
    assert_eq!(connector.still_valid(SystemTime::now()), Ok(()));
    let serve = async {
        accept(m2.listener(), socket.accept().await.unwrap().0)
            .await
            .unwrap()
    };
    let dial = connector.clone().call("http://anything/".parse().unwrap());
    let (_, _io) = tokio::time::timeout(DEADLINE, async { tokio::join!(serve, dial) })
        .await
        .unwrap();
    let peer = connector.identity().unwrap();
    assert_eq!(m1.check_member(Some(&peer), &claim("m2", None)), Ok(()));
    assert_eq!(connector.still_valid(SystemTime::now()), Ok(()));
    site.write("peer-ca.crt", &Ca::new("next CA").pem);
    m1.listener().reload().unwrap();
    assert_eq!(
        connector.still_valid(SystemTime::now()),
        Err(Invalid::UnknownIssuer)
    );
    let mut plain = PeerConnector::new(None, target);
    let refused = plain
        .call("http://anything/".parse().unwrap())
        .await
        .map(drop);
    assert!(matches!(refused, Err(ConnectError::NoTls(_))));
}

#[tokio::test]
async fn a_development_cluster_and_its_clients_have_nothing_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let clients = DevCa::open_or_create(dir.path()).unwrap().files();
    let ca = DevPeerCa::open_or_create(dir.path()).unwrap();
    let load = |name: &str| {
        let files = ca.member(name, &[]).unwrap();
        PeerTls::load(PeerTlsSettings::named(
            files.cert,
            files.key,
            ca.ca_cert(),
            name,
        ))
        .unwrap()
    };
    let (m1, m2) = (load("m1"), load("ca"));
    assert_eq!(m1.listener().report().warnings, []);
    let (dialled, accepted) = connection(&m1, &m2).await;
    let name = |side: Side| side.unwrap().unwrap().named_member(Some("holdfast"));
    assert_eq!(name(dialled), Ok(Some("ca".to_owned())));
    assert_eq!(name(accepted), Ok(Some("m1".to_owned())));
    let intruder = PeerTls::load(PeerTlsSettings::named(
        clients.client_cert,
        clients.client_key,
        ca.ca_cert(),
        "m1",
    ));
    let refused = refused_by_listener(&intruder.unwrap(), &m2).await;
    assert_eq!(refused, Invalid::UnknownIssuer);
}

#[test]
fn members_of_a_development_cluster_keep_their_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevPeerCa::open_or_create(dir.path()).unwrap();
    let files = ca.member("m1", &[]).unwrap();
    let made = fs::read(&files.cert).unwrap();
    let again = DevPeerCa::open_or_create(dir.path()).unwrap();
    assert_eq!(again.member("m1", &["127.0.0.1"]).unwrap(), files);
    assert_eq!(fs::read(&files.cert).unwrap(), made);
    // Another host is another certificate.
    again.member("m1", &["m1.example"]).unwrap();
    assert_ne!(fs::read(&files.cert).unwrap(), made);
    for bad in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(201)] {
        assert!(ca.member(bad, &[]).is_err(), "{bad:?}");
        assert!(ca.issue_member(bad, &[]).is_err(), "{bad:?}");
    }
    assert!(ca.member("m2", &["höst"]).is_err());
    // A certificate of somebody else is not overwritten.
    let stranger = Ca::new("another CA").sign(&member_params("m1"));
    fs::write(&files.cert, &stranger.pem).unwrap();
    fs::write(&files.key, stranger.key.serialize_pem()).unwrap();
    assert!(ca.member("m1", &[]).is_err());
    // The CA is not made anew below certificates that belong to the old one.
    fs::remove_file(ca.ca_cert()).unwrap();
    fs::remove_file(dir.path().join("peer-ca.key")).unwrap();
    assert!(DevPeerCa::open_or_create(dir.path()).is_err());
}
