//! Errors and warnings about files: each names the file and the reason.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use holdfast_certs::{ClientTls, ClientTlsSettings, ServerTls, TlsError, Warning};
use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyPair};
use support::{Leaf, Pki, leaf_params, valid_between};

fn error(pki: &Pki) -> String {
    ServerTls::load(pki.settings()).unwrap_err().to_string()
}

#[test]
fn every_file_that_cannot_be_used_is_named_with_the_reason() {
    let pki = Pki::new();
    for (name, wanted) in [
        ("server.crt", "contains no PEM certificate"),
        ("server.key", "contains no PEM private key"),
        ("client-ca.crt", "contains no PEM CA certificate"),
    ] {
        let path = pki.path(name);
        let good = fs::read(&path).unwrap();
        let check = |content: &[u8], reason: &str| {
            pki.write(name, content);
            let message = error(&pki);
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.contains(reason), "{name}: {message}");
        };
        check(b"", wanted);
        check(b"hello\n", wanted);
        check(&vec![0x55; 60_000], wanted);
        check(&good[..good.len() - 30], "cut off");
        check(&good[..good.len() / 2], "cut off");
        let broken = String::from_utf8(good.clone()).unwrap().replace('M', "*");
        check(broken.as_bytes(), "not base64");
        fs::remove_file(&path).unwrap();
        assert!(error(&pki).contains("cannot read"));
        fs::create_dir(&path).unwrap();
        assert!(error(&pki).contains("not a regular file"));
        fs::remove_dir(&path).unwrap();
        pki.write(name, &good);
        ServerTls::load(pki.settings()).unwrap();
    }
}

#[test]
fn a_megabyte_of_garbage_is_refused_everywhere() {
    let pki = Pki::new();
    let garbage = vec![0xa5; 1 << 20];
    // Text that looks like PEM but never ends.
    let mut endless = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    endless.extend(b"QUFB\n".repeat(200_000));
    for name in ["server.crt", "server.key", "client-ca.crt"] {
        let good = fs::read(pki.path(name)).unwrap();
        for bad in [&garbage, &endless] {
            pki.write(name, bad);
            assert!(error(&pki).contains(name));
        }
        pki.write(name, good);
    }
}

#[test]
fn der_in_pem_clothes_is_refused() {
    let pki = Pki::new();
    for name in ["server.crt", "client-ca.crt"] {
        let good = fs::read(pki.path(name)).unwrap();
        pki.write(
            name,
            "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n",
        );
        let message = error(&pki);
        assert!(message.contains(name), "{message}");
        assert!(message.contains("certificate 1"), "{message}");
        pki.write(name, good);
    }
    pki.write(
        "server.key",
        "-----BEGIN PRIVATE KEY-----\nMAMCAQE=\n-----END PRIVATE KEY-----\n",
    );
    assert!(error(&pki).contains("unusable private key"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pki = Pki::new();
    pki.write("server.key", KeyPair::generate().unwrap().serialize_pem());
    let error = ServerTls::load(pki.settings()).unwrap_err();
    assert!(
        matches!(&error, TlsError::KeyMismatch { cert, key }
            if *cert == pki.path("server.crt") && *key == pki.path("server.key")),
        "{error}"
    );
}

#[test]
fn an_encrypted_key_is_called_so() {
    let pki = Pki::new();
    for content in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAMCAQE=\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAMCAQE=\n-----END EC PRIVATE KEY-----\n",
    ] {
        pki.write("server.key", content);
        assert!(error(&pki).contains("encrypted private key"));
    }
}

#[test]
fn a_message_never_quotes_the_private_key() {
    let pki = Pki::new();
    let good = fs::read_to_string(pki.path("server.key")).unwrap();
    let secret = good.lines().nth(1).unwrap().to_owned();
    for bad in [
        good[..good.len() - 30].to_owned(),
        good.replace(&secret, &format!("{secret}*")),
        good.replace(
            "-----BEGIN PRIVATE KEY-----",
            &format!("-----BEGIN {secret}"),
        ),
    ] {
        pki.write("server.key", bad);
        let error = ServerTls::load(pki.settings()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..20]));
    }
    pki.write("server.key", good);
    let tls = ServerTls::load(pki.settings()).unwrap();
    assert!(!format!("{tls:?}").contains(&secret[..20]));
}

#[test]
fn what_works_but_should_not_be_is_a_warning() {
    let pki = Pki::new();
    let warnings = || ServerTls::load(pki.settings()).unwrap().report().warnings;
    assert_eq!(warnings(), []);
    let server = |from, until| {
        let params = valid_between(leaf_params("server", &[Eku::ServerAuth]), from, until);
        pki.server_ca.sign(&params)
    };

    pki.write_pair("server", &server(-7200, -3600));
    assert!(matches!(warnings()[..], [Warning::Expired { .. }]));

    pki.write_pair("server", &server(3600, 7200));
    assert!(matches!(warnings()[..], [Warning::NotYetValid { .. }]));

    pki.write_pair("server", &pki.server_ca.client("server"));
    assert!(matches!(
        warnings()[..],
        [Warning::WrongPurpose {
            missing: "serverAuth",
            ..
        }]
    ));

    let ca = pki
        .server_ca
        .params
        .self_signed(&pki.server_ca.key)
        .unwrap();
    pki.write_pair(
        "server",
        &Leaf {
            key: KeyPair::from_pem(&pki.server_ca.key.serialize_pem()).unwrap(),
            pem: ca.pem(),
            der: ca.der().clone(),
            serial: 1.into(),
        },
    );
    assert!(matches!(warnings()[..], [Warning::CaAsLeaf { .. }]));

    let mut leaf = pki.server_ca.server();
    leaf.pem.push_str(&pki.client_ca.pem);
    pki.write_pair("server", &leaf);
    assert!(matches!(
        warnings()[..],
        [Warning::ChainOrder { number: 2, .. }]
    ));

    pki.write_pair("server", &pki.server_ca.server());
    let key = pki.path("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        warnings(),
        [Warning::KeyWorldReadable {
            path: key.clone(),
            mode: 0o644
        }]
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(warnings(), []);

    pki.write("client-ca.crt", &pki.client_ca.client("x").pem);
    assert!(matches!(warnings()[..], [Warning::NotACa { .. }]));
}

#[test]
fn a_client_needs_certificate_and_key_together() {
    let pki = Pki::new();
    pki.write_pair("alice", &pki.client_ca.client("alice"));
    for (cert, key) in [(true, false), (false, true)] {
        let settings = ClientTlsSettings {
            cert_file: cert.then(|| pki.path("alice.crt")),
            key_file: key.then(|| pki.path("alice.key")),
            ..pki.client_settings()
        };
        assert!(matches!(
            ClientTls::load(&settings),
            Err(TlsError::Settings(_))
        ));
    }
}
