//! The development CA and the automatic certificate.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use holdfast_certs::{
    ClientTls, ClientTlsSettings, DevCa, Invalid, IssueError, LeafRequest, ServerTls,
    ServerTlsSettings, TlsError, Warning, self_signed,
};
use rcgen::ExtendedKeyUsagePurpose as Eku;
use support::{Ca, handshake, identity_of, leaf_params, refusal, valid_between, write_private};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn listener(ca: &DevCa) -> ServerTlsSettings {
    let files = ca.files();
    ServerTlsSettings::new(files.server_cert, files.server_key).with_client_ca(files.ca_cert)
}

fn client(ca: &DevCa) -> ClientTlsSettings {
    let files = ca.files();
    ClientTlsSettings {
        ca_file: Some(files.ca_cert),
        cert_file: Some(files.client_cert),
        key_file: Some(files.client_key),
        ..ClientTlsSettings::default()
    }
}

fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn the_quick_start_works_under_every_local_name_and_with_tight_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data").join("dev-ca");
    let ca = DevCa::open_or_create(&dir).unwrap();
    assert_eq!(ca.warnings(), []);
    let names: Vec<_> = snapshot(&dir).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "ca.crt",
            "ca.key",
            "client-anyone.crt",
            "client-anyone.key",
            "client-root.crt",
            "client-root.key",
            "server.crt",
            "server.key"
        ]
    );
    assert_eq!(mode(&dir), 0o700);
    for key in [
        "ca.key",
        "client-anyone.key",
        "client-root.key",
        "server.key",
    ] {
        assert_eq!(mode(&dir.join(key)), 0o600);
    }
    let tls = ServerTls::load(listener(&ca)).unwrap();
    assert_eq!(tls.report().warnings, []);
    for name in ["localhost", "127.0.0.1", "::1"] {
        let client = ClientTls::load(&ClientTlsSettings {
            server_name: Some(name.to_owned()),
            ..client(&ca)
        })
        .unwrap();
        assert_eq!(client.warnings(), []);
        let peer = identity_of(&tls, &client).await;
        assert_eq!(peer.common_name.as_deref(), Some("root"));
    }
}

#[test]
fn opening_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    DevCa::open_or_create(dir.path()).unwrap();
    let before = snapshot(dir.path());
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    assert_eq!(snapshot(dir.path()), before);
    assert_eq!(ca.renew().unwrap(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn leaves_near_their_end_are_renewed_and_the_ca_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    let files = ca.files();
    let leaf = |validity| {
        ca.issue(&LeafRequest {
            validity,
            ..LeafRequest::server(["localhost"])
        })
        .unwrap()
    };
    leaf(31 * DAY).write(dir.path(), "server").unwrap();
    let kept = snapshot(dir.path());
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    assert_eq!(snapshot(dir.path()), kept, "31 days are enough");

    for short in [29 * DAY, Duration::from_secs(1)] {
        ca.issue(&LeafRequest {
            validity: short,
            ..LeafRequest::server(["localhost"])
        })
        .unwrap()
        .write(dir.path(), "server")
        .unwrap();
        assert_eq!(
            ca.renew().unwrap(),
            std::slice::from_ref(&files.server_cert)
        );
    }
    let ca_before = fs::read(&files.ca_cert).unwrap();
    DevCa::open_or_create(dir.path()).unwrap();
    assert_eq!(fs::read(&files.ca_cert).unwrap(), ca_before);
    let report = ServerTls::load(listener(&ca)).unwrap().report();
    assert!(report.remaining(SystemTime::now()).unwrap() > 300 * DAY);
}

#[test]
fn every_state_a_crash_can_leave_is_repaired() {
    let made = tempfile::tempdir().unwrap();
    DevCa::open_or_create(made.path()).unwrap();
    // In the order of writing; a crash keeps a prefix.
    let order = [
        "ca.key",
        "ca.crt",
        "server.key",
        "server.crt",
        "client-root.key",
        "client-root.crt",
        "client-anyone.key",
        "client-anyone.crt",
    ];
    for kept in 0..=order.len() {
        let dir = tempfile::tempdir().unwrap();
        for name in &order[..kept] {
            fs::copy(made.path().join(name), dir.path().join(name)).unwrap();
        }
        if let Some(next) = order.get(kept) {
            fs::write(dir.path().join(format!(".{next}.tmp")), "half a ke").unwrap();
        }
        let ca = DevCa::open_or_create(dir.path()).unwrap();
        assert_eq!(snapshot(dir.path()).len(), order.len(), "{kept}");
        ServerTls::load(listener(&ca)).unwrap();
        ClientTls::load(&client(&ca)).unwrap();
        if kept > 0 {
            let key = fs::read(made.path().join("ca.key")).unwrap();
            assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), key);
        }
    }
    // A renewal that got only as far as the key.
    let fresh = DevCa::open_or_create(made.path())
        .unwrap()
        .issue_server(&["localhost"])
        .unwrap();
    write_private(&made.path().join("server.key"), fresh.key_pem.as_bytes());
    let ca = DevCa::open_or_create(made.path()).unwrap();
    ServerTls::load(listener(&ca)).unwrap();
}

#[test]
fn what_somebody_else_put_there_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    let other = Ca::new("own CA").server();
    write_private(&ca.files().server_cert, other.pem.as_bytes());
    write_private(&ca.files().server_key, other.key.serialize_pem().as_bytes());
    let before = snapshot(dir.path());
    let error = DevCa::open_or_create(dir.path()).unwrap_err();
    assert!(matches!(&error, IssueError::Request(why) if why.contains("server.crt")));
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_ca_without_its_key_serves_until_something_must_be_issued() {
    let dir = tempfile::tempdir().unwrap();
    let files = DevCa::open_or_create(dir.path()).unwrap().files();
    fs::remove_file(&files.ca_key).unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    assert!(matches!(
        ca.issue_client("x"),
        Err(IssueError::NoCaKey { path }) if path == files.ca_key
    ));
    fs::remove_file(&files.server_cert).unwrap();
    assert!(matches!(
        DevCa::open_or_create(dir.path()),
        Err(IssueError::NoCaKey { .. })
    ));
    fs::remove_file(&files.ca_cert).unwrap();
    assert!(matches!(
        DevCa::open_or_create(dir.path()),
        Err(IssueError::Request(_))
    ));
}

#[test]
fn a_damaged_or_expired_ca_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = DevCa::open_or_create(dir.path()).unwrap().files();
    let other = Ca::new("another CA");
    write_private(&files.ca_key, other.key.serialize_pem().as_bytes());
    let error = DevCa::open_or_create(dir.path()).unwrap_err();
    assert!(matches!(
        error,
        IssueError::Material(TlsError::KeyMismatch { .. })
    ));
    let expired = Ca::from_params(valid_between(support::ca_params("old"), -7200, -3600));
    write_private(&files.ca_key, expired.key.serialize_pem().as_bytes());
    write_private(&files.ca_cert, expired.pem.as_bytes());
    assert!(matches!(
        DevCa::open_or_create(dir.path()),
        Err(IssueError::CaExpired { path, .. }) if path == files.ca_cert
    ));
    write_private(&files.ca_cert, b"-----BEGIN CERTIFICATE-----\nMII");
    let error = DevCa::open_or_create(dir.path()).unwrap_err();
    assert!(error.to_string().contains("ca.crt"), "{error}");
}

#[test]
fn permissions_that_are_too_wide_are_narrowed_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let files = DevCa::open_or_create(dir.path()).unwrap().files();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&files.ca_key, fs::Permissions::from_mode(0o644)).unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    assert_eq!(
        ca.warnings(),
        [
            Warning::PermissionsRepaired {
                path: dir.path().to_owned(),
                found: 0o755
            },
            Warning::PermissionsRepaired {
                path: files.ca_key.clone(),
                found: 0o644
            },
        ]
    );
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&files.ca_key), 0o600);
}

#[tokio::test]
async fn issued_certificates_work_and_can_be_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    let tls_for = |name: &str| {
        ClientTls::load(&ClientTlsSettings {
            cert_file: Some(dir.path().join(format!("{name}.crt"))),
            key_file: Some(dir.path().join(format!("{name}.key"))),
            ..client(&ca)
        })
        .unwrap()
    };
    let alice = ca.issue_client("alice").unwrap();
    alice.write(dir.path(), "alice").unwrap();
    assert_eq!(mode(&dir.path().join("alice.key")), 0o600);
    let crl = dir.path().join("crl.pem");
    fs::write(&crl, ca.revocation_list(&[], 1, DAY).unwrap()).unwrap();
    let mut settings = listener(&ca);
    settings.crl_file = Some(crl.clone());
    let tls = ServerTls::load(settings).unwrap();
    let peer = identity_of(&tls, &tls_for("alice")).await;
    assert_eq!(peer.common_name.as_deref(), Some("alice"));
    assert_eq!(peer.serial_hex, alice.serial_hex);
    let list = ca.revocation_list(&[&alice.serial_hex], 2, DAY).unwrap();
    fs::write(&crl, list).unwrap();
    tls.reload().unwrap();
    assert_eq!(refusal(&tls, &tls_for("alice")).await, Invalid::Revoked);
    let spiffe = ca
        .issue(&LeafRequest {
            uris: vec!["spiffe://td/tenant/a/user/b".to_owned()],
            ..LeafRequest::client("")
        })
        .unwrap();
    spiffe.write(dir.path(), "spiffe").unwrap();
    let peer = identity_of(&tls, &tls_for("spiffe")).await;
    assert_eq!(peer.common_name, None);
    assert_eq!(peer.uri_sans, ["spiffe://td/tenant/a/user/b"]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::open_or_create(dir.path()).unwrap();
    let refused = |result: Result<_, IssueError>| {
        assert!(matches!(result.map(drop), Err(IssueError::Request(_))));
    };
    refused(ca.issue_server(&[]));
    refused(ca.issue_server(&["naïve.example"]));
    refused(ca.issue(&LeafRequest {
        validity: Duration::ZERO,
        ..LeafRequest::client("x")
    }));
    refused(ca.issue(&LeafRequest {
        validity: Duration::MAX,
        ..LeafRequest::client("x")
    }));
    assert!(ca.revocation_list(&["xyz"], 1, DAY).is_err());
    assert!(ca.revocation_list(&[""], 1, DAY).is_err());
    assert!(ca.revocation_list(&["ää"], 1, DAY).is_err());
}

#[tokio::test]
async fn the_automatic_certificate_is_made_once_and_can_be_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = dir.path().join("fixtures").join("client");
    let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = self_signed(&hosts, 1, &fixtures).unwrap();
    assert!(made.created);
    assert_eq!(made.cert_file, fixtures.join("cert.pem"));
    assert_eq!(mode(&made.key_file), 0o600);
    let before = snapshot(&fixtures);
    assert!(!self_signed(&hosts, 1, &fixtures).unwrap().created);
    assert_eq!(snapshot(&fixtures), before);

    let settings = ServerTlsSettings::new(&made.cert_file, &made.key_file);
    let tls = ServerTls::load(settings).unwrap();
    let pinned = ClientTls::load(&ClientTlsSettings {
        ca_file: Some(made.cert_file.clone()),
        ..ClientTlsSettings::default()
    })
    .unwrap();
    assert_eq!(pinned.warnings(), []);
    let (accepted, seen) = handshake(&tls, &pinned).await;
    seen.unwrap();
    assert_eq!(accepted.unwrap(), None);
}

#[test]
fn an_automatic_certificate_that_is_of_no_use_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = ["localhost".to_owned()];
    let made = self_signed(&hosts, 1, dir.path()).unwrap();
    fs::remove_file(&made.cert_file).unwrap();
    assert!(self_signed(&hosts, 1, dir.path()).unwrap().created);
    let expired = Ca::new("x").sign(&valid_between(
        leaf_params("x", &[Eku::ServerAuth]),
        -7200,
        -3600,
    ));
    write_private(&made.cert_file, expired.pem.as_bytes());
    assert!(
        self_signed(&hosts, 1, dir.path()).unwrap().created,
        "mismatch"
    );
    write_private(&made.cert_file, expired.pem.as_bytes());
    write_private(&made.key_file, expired.key.serialize_pem().as_bytes());
    assert!(
        self_signed(&hosts, 1, dir.path()).unwrap().created,
        "expired"
    );
    write_private(&made.cert_file, b"damaged");
    let error = self_signed(&hosts, 1, dir.path()).unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");
    for (hosts, years) in [(&hosts[..], 0), (&hosts[..], 101), (&[], 1)] {
        let empty = tempfile::tempdir().unwrap();
        let result = self_signed(hosts, years, empty.path());
        assert!(matches!(result, Err(IssueError::Request(_))));
    }
}
