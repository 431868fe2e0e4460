//! Versions, cipher suites, application protocols, and that no session is ever resumed.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::sync::Arc;

use holdfast_certs::{ClientTls, ClientTlsSettings, HandshakeError, ServerTls, TlsVersion};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion,
    client::{ClientSessionMemoryCache, Resumption},
    version::{TLS12, TLS13},
};
use support::{Pki, handshake, identity_of, raw_client, raw_handshake};

fn with_tls12(pki: &Pki, cipher_suites: &[&str]) -> ServerTls {
    let mut settings = pki.settings();
    settings.min_version = TlsVersion::Tls12;
    settings.cipher_suites = cipher_suites.iter().map(|&name| name.to_owned()).collect();
    ServerTls::load(settings).unwrap()
}

#[tokio::test]
async fn a_tls12_client_is_refused_unless_allowed() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("alice");
    let client = Arc::new(raw_client(&pki, &leaf, &[&TLS12]));
    let (accepted, seen) = raw_handshake(&pki.server(), client.clone()).await;
    assert!(seen.is_err());
    assert!(
        matches!(&accepted, Err(HandshakeError::Incompatible(why)) if why.contains("version")),
        "{accepted:?}"
    );
    let (accepted, seen) = raw_handshake(&with_tls12(&pki, &[]), client).await;
    assert_eq!(seen.unwrap().version, ProtocolVersion::TLSv1_2);
    let peer = accepted.unwrap().unwrap();
    assert_eq!(peer.common_name.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_client_that_knows_both_gets_tls13() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("alice");
    let client = Arc::new(raw_client(&pki, &leaf, &[&TLS13, &TLS12]));
    let (_, seen) = raw_handshake(&with_tls12(&pki, &[]), client).await;
    assert_eq!(seen.unwrap().version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_tls12_only_listener_refuses_tls13_clients() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.min_version = TlsVersion::Tls12;
    settings.max_version = TlsVersion::Tls12;
    let tls = ServerTls::load(settings).unwrap();
    let (accepted, _) = handshake(&tls, &pki.good_client()).await;
    assert!(matches!(accepted, Err(HandshakeError::Incompatible(_))));
}

#[tokio::test]
async fn the_cipher_suite_list_decides_for_tls12() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("alice");
    let client = Arc::new(raw_client(&pki, &leaf, &[&TLS12]));
    let tls = with_tls12(&pki, &["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]);
    let (_, seen) = raw_handshake(&tls, client.clone()).await;
    assert_eq!(
        seen.unwrap().suite,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
    // The server's key is ECDSA: with RSA suites only there is nothing to agree on.
    let tls = with_tls12(&pki, &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    let (accepted, _) = raw_handshake(&tls, client).await;
    assert!(matches!(accepted, Err(HandshakeError::Incompatible(_))));
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("alice");
    for (version, tls) in [(&TLS13, pki.server()), (&TLS12, with_tls12(&pki, &[]))] {
        let mut config = raw_client(&pki, &leaf, &[version]);
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)));
        config.enable_early_data = true;
        let client = Arc::new(config);
        for round in 0..3 {
            let (accepted, seen) = raw_handshake(&tls, client.clone()).await;
            let seen = seen.unwrap();
            assert_eq!(seen.kind, HandshakeKind::Full, "round {round}");
            assert_eq!(seen.tickets, 0);
            assert!(accepted.unwrap().is_some());
        }
    }
}

/// The counterpart of the test above: the same client does resume where it is allowed to.
#[tokio::test]
async fn the_resumption_test_can_fail() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("alice");
    let mut config = raw_client(&pki, &leaf, &[&TLS13]);
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)));
    let client = Arc::new(config);
    let server_leaf = pki.server_ca.server();
    let server_key =
        rustls_pki_types::PrivateKeyDer::try_from(server_leaf.key.serialize_der()).unwrap();
    let lax = Arc::new(
        rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server_leaf.der.clone()], server_key)
        .unwrap(),
    );
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (client_io, server_io) = tokio::io::duplex(1 << 16);
        let serve = async {
            use tokio::io::AsyncWriteExt;
            let acceptor = tokio_rustls::TlsAcceptor::from(lax.clone());
            let mut stream = acceptor.accept(server_io).await.unwrap();
            stream.write_all(b"x").await.unwrap();
        };
        let dial = async {
            use tokio::io::AsyncReadExt;
            let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
            let mut stream = tokio_rustls::TlsConnector::from(client.clone())
                .connect(name, client_io)
                .await
                .unwrap();
            stream.read_exact(&mut [0; 1]).await.unwrap();
            stream.get_ref().1.handshake_kind().unwrap()
        };
        let ((), kind) = tokio::join!(serve, dial);
        kinds.push(kind);
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn application_protocols_are_agreed_on() {
    let pki = Pki::new();
    pki.write_pair("alice", &pki.client_ca.client("alice"));
    let client = |alpn: &[&str]| {
        ClientTls::load(&ClientTlsSettings {
            cert_file: Some(pki.path("alice.crt")),
            key_file: Some(pki.path("alice.key")),
            alpn: alpn.iter().map(|&name| name.to_owned()).collect(),
            ..pki.client_settings()
        })
        .unwrap()
    };
    let tls = pki.server();
    for alpn in [&["h2"][..], &["http/1.1"], &[]] {
        identity_of(&tls, &client(alpn)).await;
    }
    let (accepted, _) = handshake(&tls, &client(&["smtp"])).await;
    assert!(matches!(accepted, Err(HandshakeError::Incompatible(_))));

    let mut settings = pki.settings();
    settings.alpn = Vec::new();
    let silent = ServerTls::load(settings).unwrap();
    let (_, seen) = handshake(&silent, &client(&["h2"])).await;
    assert!(seen.unwrap_err().contains("HTTP/2"));
}
