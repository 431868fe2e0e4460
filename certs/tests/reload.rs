//! Files that change under a running listener.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    sync::Arc,
    time::{Duration, SystemTime},
};

use holdfast_certs::{Invalid, Polled, ServerTls, TlsError, Warning};
use rcgen::ExtendedKeyUsagePurpose as Eku;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use support::{
    Ca, Leaf, Pki, handshake, identity_of, leaf_params, raw_client, raw_handshake, refusal,
    valid_between,
};

/// The certificate that a new connection is shown.
async fn shown(pki: &Pki, tls: &ServerTls, client: &Leaf) -> CertificateDer<'static> {
    let client = Arc::new(raw_client(pki, client, &[&TLS13]));
    raw_handshake(tls, client).await.1.unwrap().server_cert
}

fn reloaded(tls: &ServerTls) -> u64 {
    match tls.watch_poll() {
        Polled::Reloaded(report) => report.generation,
        other => panic!("{other:?}"),
    }
}

fn failed(tls: &ServerTls) -> TlsError {
    match tls.watch_poll() {
        Polled::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

fn unchanged(tls: &ServerTls) {
    let polled = tls.watch_poll();
    assert!(matches!(polled, Polled::Unchanged), "{polled:?}");
}

#[tokio::test]
async fn a_new_certificate_is_picked_up() {
    let pki = Pki::new();
    let client = pki.client_ca.client("alice");
    let tls = pki.server();
    let before = shown(&pki, &tls, &client).await;
    unchanged(&tls);
    let next = pki.server_ca.server();
    pki.write_pair("server", &next);
    assert_eq!(shown(&pki, &tls, &client).await, before);
    assert_eq!(reloaded(&tls), 2);
    assert_eq!(tls.generation(), 2);
    assert_eq!(shown(&pki, &tls, &client).await, next.der);
    unchanged(&tls);
}

#[tokio::test]
async fn files_rewritten_in_place_with_the_same_length_are_noticed() {
    let pki = Pki::new();
    let tls = pki.server();
    let old_ca = pki.client_ca.pem.clone();
    // Equal in length, and within the same tick of the file system's clock.
    let replaced = old_ca.replacen("-----BEGIN", "#####BEGIN", 1);
    assert_eq!(old_ca.len(), replaced.len());
    fs::write(pki.path("client-ca.crt"), replaced).unwrap();
    assert!(matches!(failed(&tls), TlsError::Missing { .. }));
    fs::write(pki.path("client-ca.crt"), old_ca).unwrap();
    reloaded(&tls);
}

#[test]
fn a_touched_file_is_not_a_reload() {
    let pki = Pki::new();
    let tls = pki.server();
    pki.write("client-ca.crt", &pki.client_ca.pem);
    unchanged(&tls);
    assert_eq!(tls.generation(), 1);
}

#[test]
fn files_that_are_long_settled_are_still_watched() {
    let pki = Pki::new();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for name in ["server.crt", "server.key", "client-ca.crt"] {
        let file = fs::File::open(pki.path(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let tls = pki.server();
    unchanged(&tls);
    pki.write("client-ca.crt", "not a certificate");
    failed(&tls);
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_configuration_and_is_reported_once() {
    let pki = Pki::new();
    let client = pki.client_ca.client("alice");
    let tls = pki.server();
    let before = shown(&pki, &tls, &client).await;
    let good = fs::read(pki.path("server.crt")).unwrap();
    let cut = &good[..good.len() / 2];
    let garbage = vec![0x55; 1 << 20];
    let too_large = vec![0x55; (1 << 20) + 1];
    for bad in [cut, &garbage, b"", &too_large] {
        pki.write("server.crt", bad);
        let error = failed(&tls);
        assert!(error.to_string().contains("server.crt"), "{error}");
        unchanged(&tls);
        assert!(tls.reload().is_err());
        unchanged(&tls);
        assert_eq!(tls.generation(), 1);
        assert_eq!(shown(&pki, &tls, &client).await, before);
    }
    pki.write("server.crt", &good);
    assert_eq!(reloaded(&tls), 2);
}

#[tokio::test]
async fn a_pair_that_is_half_replaced_waits_for_the_other_half() {
    let pki = Pki::new();
    let client = pki.good_client();
    let tls = pki.server();
    let next = pki.server_ca.server();
    pki.write("server.key", next.key.serialize_pem());
    assert!(matches!(failed(&tls), TlsError::KeyMismatch { .. }));
    identity_of(&tls, &client).await;
    pki.write("server.crt", &next.pem);
    assert_eq!(reloaded(&tls), 2);
}

#[test]
fn a_missing_file_is_reported_once_and_so_is_its_return() {
    let pki = Pki::new();
    let tls = pki.server();
    fs::rename(pki.path("server.key"), pki.path("away")).unwrap();
    let error = failed(&tls);
    assert!(matches!(&error, TlsError::Read { path, .. } if *path == pki.path("server.key")));
    unchanged(&tls);
    unchanged(&tls);
    fs::rename(pki.path("away"), pki.path("server.key")).unwrap();
    assert_eq!(reloaded(&tls), 2);
    unchanged(&tls);
}

#[tokio::test]
async fn a_swapped_kubernetes_secret_is_picked_up_whole() {
    let pki = Pki::new();
    let client = pki.client_ca.client("alice");
    let secret = pki.path("secret");
    let publish = |version: &str, leaf: &Leaf| {
        let dir = secret.join(version);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tls.crt"), &leaf.pem).unwrap();
        fs::write(dir.join("tls.key"), leaf.key.serialize_pem()).unwrap();
        symlink(version, secret.join("..next")).unwrap();
        fs::rename(secret.join("..next"), secret.join("..data")).unwrap();
    };
    publish("v1", &pki.server_ca.server());
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), secret.join(name)).unwrap();
    }
    let mut settings = pki.settings();
    settings.cert_file = secret.join("tls.crt");
    settings.key_file = secret.join("tls.key");
    let tls = ServerTls::load(settings).unwrap();
    assert!(matches!(
        tls.report().warnings[..],
        [Warning::KeyWorldReadable { .. }]
    ));
    let next = pki.server_ca.server();
    publish("v2", &next);
    assert_eq!(reloaded(&tls), 2);
    assert_eq!(shown(&pki, &tls, &client).await, next.der);
}

#[tokio::test]
async fn a_new_revocation_list_acts_on_new_and_live_connections() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("mallory");
    let client = pki.client_with(&leaf);
    pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
    let mut settings = pki.settings();
    settings.crl_file = Some(pki.path("crl"));
    let listeners = [(); 2].map(|()| ServerTls::load(settings.clone()).unwrap());
    for tls in &listeners {
        let live = identity_of(tls, &client).await;
        let other = identity_of(tls, &pki.good_client()).await;
        pki.write("crl", pki.client_ca.crl(&[&leaf.serial]).pem().unwrap());
        assert_eq!(tls.still_valid(&live, SystemTime::now()), Ok(()));
        assert_eq!(reloaded(tls), 2);
        assert_eq!(
            tls.still_valid(&live, SystemTime::now()),
            Err(Invalid::Revoked)
        );
        assert_eq!(tls.still_valid(&other, SystemTime::now()), Ok(()));
        assert_eq!(refusal(tls, &client).await, Invalid::Revoked);
        pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
    }
}

#[tokio::test]
async fn a_ca_that_is_taken_away_ends_live_connections() {
    let pki = Pki::new();
    let tls = pki.server();
    let client = pki.good_client();
    let live = identity_of(&tls, &client).await;
    pki.write("client-ca.crt", &Ca::new("next CA").pem);
    reloaded(&tls);
    assert_eq!(
        tls.still_valid(&live, SystemTime::now()),
        Err(Invalid::UnknownIssuer)
    );
    assert_eq!(refusal(&tls, &client).await, Invalid::UnknownIssuer);
}

#[tokio::test]
async fn an_identity_ends_at_its_not_after() {
    let pki = Pki::new();
    let params = valid_between(leaf_params("alice", &[Eku::ClientAuth]), -60, 3600);
    let tls = pki.server();
    let live = identity_of(&tls, &pki.client_with(&pki.client_ca.sign(&params))).await;
    assert_eq!(tls.still_valid(&live, live.not_after), Ok(()));
    assert!(matches!(
        tls.still_valid(&live, live.not_after + Duration::from_secs(1)),
        Err(Invalid::Expired { not_after }) if not_after == live.not_after
    ));
}

#[tokio::test]
async fn reloading_while_connections_are_made_never_mixes_two_states() {
    let pki = Pki::new();
    let tls = Arc::new(pki.server());
    let client = pki.good_client();
    for round in 0..20 {
        pki.write_pair("server", &pki.server_ca.server());
        let reloading = std::thread::spawn({
            let tls = tls.clone();
            move || tls.reload().unwrap().generation
        });
        let (accepted, seen) = handshake(&tls, &client).await;
        seen.unwrap();
        assert!(accepted.unwrap().is_some());
        assert_eq!(reloading.join().unwrap(), round + 2);
    }
}
