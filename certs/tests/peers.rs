//! TLS between members, in both directions.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use holdfast_certs::{
    ConnectError, DevCa, DevPeerCa, HandshakeError, Invalid, MemberClaim, MemberRefused,
    PeerConnector, PeerIdentity, PeerPolicy, PeerTls, PeerTlsSettings, Polled, Target, TlsError,
    Warning, accept, self_signed,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa, SanType};
use support::{Ca, DEADLINE, Leaf, leaf_params, valid_between, write_private};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_service::Service;

const BOTH: [Eku; 2] = [Eku::ServerAuth, Eku::ClientAuth];

/// A directory with the CA of members.
struct Site {
    dir: TempDir,
    ca: Ca,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            ca: Ca::new("peer CA"),
        };
        site.write("peer-ca.crt", &site.ca.pem);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write_private(&self.path(name), content.as_ref());
    }

    fn write_pair(&self, name: &str, leaf: &Leaf) {
        self.write(&format!("{name}.crt"), &leaf.pem);
        self.write(&format!("{name}.key"), leaf.key.serialize_pem());
    }

    fn strict(&self, name: &str, leaf: &Leaf) -> PeerTlsSettings {
        self.write_pair(name, leaf);
        let [cert, key] = ["crt", "key"].map(|end| self.path(&format!("{name}.{end}")));
        PeerTlsSettings::named(cert, key, self.path("peer-ca.crt"), name)
    }

    fn etcd(&self, name: &str, leaf: &Leaf) -> PeerTlsSettings {
        let strict = self.strict(name, leaf);
        PeerTlsSettings::any_of_ca(strict.cert_file, strict.key_file, self.path("peer-ca.crt"))
    }

    /// A member of profile `strict` with a sound certificate.
    fn member(&self, name: &str) -> PeerTls {
        let leaf = self.ca.sign(&member_params(name));
        PeerTls::load(self.strict(name, &leaf)).unwrap()
    }

    /// The same of profile `etcd`.
    fn lenient(&self, name: &str) -> PeerTls {
        let leaf = self.ca.sign(&member_params(name));
        PeerTls::load(self.etcd(name, &leaf)).unwrap()
    }
}

fn with_uri(mut params: CertificateParams, uri: &str) -> CertificateParams {
    let uri = SanType::URI(uri.try_into().unwrap());
    params.subject_alt_names.push(uri);
    params
}

fn member_params(name: &str) -> CertificateParams {
    with_uri(
        leaf_params(name, &BOTH),
        &format!("spiffe://holdfast/member/{name}"),
    )
}

type Side = Result<Option<PeerIdentity>, String>;

/// One connection, `dialler` to `listener`. Each side says whom it sees; the handshake is complete on both when it says so.
async fn connection(dialler: &PeerTls, listener: &PeerTls) -> (Side, Side) {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    (
        dialled.map_err(|error| error.to_string()),
        accepted.map_err(|error| error.to_string()),
    )
}

async fn raw_connection(
    dialler: &PeerTls,
    listener: &PeerTls,
) -> (
    Result<Option<PeerIdentity>, HandshakeError>,
    Result<Option<PeerIdentity>, ConnectError>,
) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = socket.accept().await.unwrap();
        let (mut stream, identity) = accept(listener.listener(), tcp).await?;
        let _ = stream.write_all(b"ok").await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 1]).await;
        Ok(identity)
    };
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, identity) = dialler.connect(tcp, "127.0.0.1").await?;
        // A server that refuses our certificate says so only now.
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        read.map_err(|source| ConnectError::Io {
            target: "member".to_owned(),
            source,
        })?;
        assert_eq!(answer, b"ok");
        Ok(identity)
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(serve, dial) })
        .await
        .unwrap()
}

/// What a listener says of the dialler's certificate, which it has to refuse.
async fn refused_by_listener(dialler: &PeerTls, listener: &PeerTls) -> Invalid {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    assert!(
        dialled.is_err(),
        "the dialler believes that it is connected"
    );
    match accepted {
        Err(HandshakeError::Certificate(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

/// What a dialler says of the listener's certificate, which it has to refuse.
async fn refused_by_dialler(dialler: &PeerTls, listener: &PeerTls) -> Invalid {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    assert!(
        accepted.is_err(),
        "the listener believes that it is connected"
    );
    match dialled {
        Err(ConnectError::Certificate { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn claim<'a>(name: &'a str, known: Option<&'a str>) -> MemberClaim<'a> {
    MemberClaim {
        name,
        known,
        named_elsewhere: false,
    }
}

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
    // One who verifies does not take it.
    let m1 = site.member("m1");
    let (accepted, dialled) = raw_connection(&m1, &a).await;
    assert!(accepted.is_err());
    assert!(
        matches!(dialled, Err(ConnectError::Certificate { .. })),
        "{dialled:?}"
    );
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
