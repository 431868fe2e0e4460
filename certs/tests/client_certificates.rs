//! Who gets in and who does not.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::sync::Arc;

use holdfast_certs::{
    ClientAuth, ClientTls, ClientTlsSettings, EkuPolicy, HandshakeError, Invalid, ServerTls,
    ServerTlsSettings, TlsError, Warning, accept,
};
use rcgen::{DnType, ExtendedKeyUsagePurpose as Eku, KeyPair, SanType};
use support::{Ca, HOUR, Leaf, Pki, handshake, identity_of, leaf_params, refusal, valid_between};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_good_client_is_let_in_with_its_identity() {
    let pki = Pki::new();
    let mut params = leaf_params("alice", &[Eku::ClientAuth]);
    params.serial_number = Some(vec![0, 0xab, 0xcd].into());
    params.subject_alt_names = vec![
        SanType::URI("spiffe://td/tenant/a/user/b".try_into().unwrap()),
        SanType::DnsName("host.example".try_into().unwrap()),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
    ];
    let params = valid_between(params, -60, 3600);
    let leaf = pki.client_ca.sign(&params);
    let peer = identity_of(&pki.server(), &pki.client_with(&leaf)).await;
    assert_eq!(peer.common_name.as_deref(), Some("alice"));
    assert_eq!(peer.uri_sans, ["spiffe://td/tenant/a/user/b"]);
    assert_eq!(peer.dns_sans, ["host.example"]);
    assert_eq!(
        peer.ip_sans,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(peer.serial_hex, "abcd");
    assert_eq!(peer.fingerprint_sha256.len(), 64);
    let left = peer
        .not_after
        .duration_since(std::time::SystemTime::now())
        .unwrap();
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
}

#[tokio::test]
async fn the_issuing_ca_tells_equal_common_names_apart() {
    let pki = Pki::new();
    let other = Ca::new("tenant CA");
    pki.write("tenant-ca.crt", &other.pem);
    let mut settings = pki.settings();
    settings.client_auth = ClientAuth::Required {
        ca_files: vec![pki.path("client-ca.crt"), pki.path("tenant-ca.crt")],
    };
    let tls = ServerTls::load(settings).unwrap();
    let one = identity_of(&tls, &pki.good_client()).await;
    let two = identity_of(&tls, &pki.client_with(&other.client("alice"))).await;
    assert_eq!(one.common_name, two.common_name);
    assert_ne!(one.ca_key_sha256, two.ca_key_sha256);
}

#[tokio::test]
async fn without_client_auth_there_is_no_identity() {
    let pki = Pki::new();
    let settings = ServerTlsSettings::new(pki.path("server.crt"), pki.path("server.key"));
    let tls = ServerTls::load(settings).unwrap();
    for client in [pki.anonymous(), pki.good_client()] {
        let (accepted, seen) = handshake(&tls, &client).await;
        seen.unwrap();
        assert_eq!(accepted.unwrap(), None);
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let pki = Pki::new();
    let (accepted, seen) = handshake(&pki.server(), &pki.anonymous()).await;
    assert!(seen.is_err());
    assert!(matches!(accepted, Err(HandshakeError::NoCertificate)));
}

#[tokio::test]
async fn a_certificate_of_a_wrong_ca_is_refused() {
    let pki = Pki::new();
    let stranger = Ca::new("another CA").client("alice");
    let tls = pki.server();
    assert_eq!(
        refusal(&tls, &pki.client_with(&stranger)).await,
        Invalid::UnknownIssuer
    );
    // The same name, another key.
    let impostor = Ca::new("client CA").client("alice");
    assert_eq!(
        refusal(&tls, &pki.client_with(&impostor)).await,
        Invalid::BadSignature
    );
}

#[tokio::test]
async fn the_server_ca_does_not_vouch_for_clients() {
    let pki = Pki::new();
    let leaf = pki.server_ca.client("alice");
    assert_eq!(
        refusal(&pki.server(), &pki.client_with(&leaf)).await,
        Invalid::UnknownIssuer
    );
}

#[tokio::test]
async fn expired_and_not_yet_valid_certificates_are_refused() {
    let pki = Pki::new();
    let tls = pki.server();
    let client = |from, until| {
        let params = valid_between(leaf_params("alice", &[Eku::ClientAuth]), from, until);
        pki.client_with(&pki.client_ca.sign(&params))
    };
    assert!(matches!(
        refusal(&tls, &client(-7200, -3600)).await,
        Invalid::Expired { .. }
    ));
    assert!(matches!(
        refusal(&tls, &client(3600, 7200)).await,
        Invalid::NotYetValid { .. }
    ));
}

#[tokio::test]
async fn an_expired_ca_vouches_for_nobody_until_it_is_renewed() {
    let pki = Pki::new();
    let old = Ca::from_params(valid_between(support::ca_params("old CA"), -7200, -3600));
    let leaf = old.client("alice");
    pki.write("client-ca.crt", &old.pem);
    let tls = pki.server();
    assert!(matches!(
        tls.report().warnings[..],
        [Warning::Expired { .. }]
    ));
    assert!(matches!(
        refusal(&tls, &pki.client_with(&leaf)).await,
        Invalid::Expired { .. }
    ));
    // Renewed with the same key, beside the old one.
    let key = KeyPair::from_pem(&old.key.serialize_pem()).unwrap();
    let renewed = Ca::with_key(support::ca_params("old CA"), key);
    pki.write("client-ca.crt", format!("{}{}", old.pem, renewed.pem));
    tls.reload().unwrap();
    identity_of(&tls, &pki.client_with(&leaf)).await;
}

#[tokio::test]
async fn certificates_for_other_purposes_are_refused() {
    let pki = Pki::new();
    let tls = pki.server();
    for usage in [&[Eku::ServerAuth][..], &[], &[Eku::Any]] {
        let leaf = pki.client_ca.sign(&leaf_params("alice", usage));
        assert_eq!(
            refusal(&tls, &pki.client_with(&leaf)).await,
            Invalid::WrongPurpose,
            "{usage:?}"
        );
    }
    let mut settings = pki.settings();
    settings.client_eku = EkuPolicy::IfPresent;
    let lenient = ServerTls::load(settings).unwrap();
    let unrestricted = pki.client_ca.sign(&leaf_params("alice", &[]));
    identity_of(&lenient, &pki.client_with(&unrestricted)).await;
    let server_only = pki
        .client_ca
        .sign(&leaf_params("alice", &[Eku::ServerAuth]));
    assert_eq!(
        refusal(&lenient, &pki.client_with(&server_only)).await,
        Invalid::WrongPurpose
    );
}

#[tokio::test]
async fn a_ca_certificate_is_no_client() {
    let pki = Pki::new();
    let tls = pki.server();
    let mut params = support::ca_params("alice");
    params.extended_key_usages = vec![Eku::ClientAuth];
    params.serial_number = Some(7.into());
    let sub_ca = pki.client_ca.sign(&params);
    assert_eq!(
        refusal(&tls, &pki.client_with(&sub_ca)).await,
        Invalid::CaAsLeaf
    );
    // The CA itself.
    let der = pki
        .client_ca
        .params
        .self_signed(&pki.client_ca.key)
        .unwrap();
    let itself = Leaf {
        key: KeyPair::from_pem(&pki.client_ca.key.serialize_pem()).unwrap(),
        pem: der.pem(),
        der: der.der().clone(),
        serial: 1.into(),
    };
    assert_eq!(
        refusal(&tls, &pki.client_with(&itself)).await,
        Invalid::CaAsLeaf
    );
}

#[tokio::test]
async fn a_chain_through_an_intermediate_is_accepted_and_ends_with_it() {
    let pki = Pki::new();
    let key = KeyPair::generate().unwrap();
    let params = valid_between(support::ca_params("short CA"), -60, 3600);
    let intermediate = Ca {
        pem: params
            .signed_by(&key, &pki.client_ca.issuer())
            .unwrap()
            .pem(),
        key,
        params,
    };
    let mut leaf = intermediate.client("alice");
    let tls = pki.server();
    assert_eq!(
        refusal(&tls, &pki.client_with(&leaf)).await,
        Invalid::UnknownIssuer,
        "without the intermediate there is no path"
    );
    leaf.pem.push_str(&intermediate.pem);
    let peer = identity_of(&tls, &pki.client_with(&leaf)).await;
    let left = peer
        .not_after
        .duration_since(std::time::SystemTime::now())
        .unwrap();
    assert!(left <= HOUR, "the leaf lives longer than its issuer");
}

#[tokio::test]
async fn a_chain_of_too_many_certificates_is_refused() {
    let pki = Pki::new();
    let mut leaf = pki.client_ca.client("alice");
    for number in 0..8 {
        leaf.pem
            .push_str(&pki.client_ca.intermediate("padding", number + 1).pem);
    }
    assert!(matches!(
        refusal(&pki.server(), &pki.client_with(&leaf)).await,
        Invalid::Path(_)
    ));
}

#[tokio::test]
async fn a_name_with_a_nul_is_refused() {
    let pki = Pki::new();
    let mut params = leaf_params("x", &[Eku::ClientAuth]);
    params
        .distinguished_name
        .push(DnType::CommonName, "root\0.evil.example");
    let leaf = pki.client_ca.sign(&params);
    assert!(matches!(
        refusal(&pki.server(), &pki.client_with(&leaf)).await,
        Invalid::Malformed(_)
    ));
}

#[tokio::test]
async fn only_listed_common_names_get_in() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.allowed_common_names = vec!["alice".to_owned(), "bob".to_owned()];
    let tls = ServerTls::load(settings).unwrap();
    for name in ["alice", "bob"] {
        identity_of(&tls, &pki.client_with(&pki.client_ca.client(name))).await;
    }
    for name in ["Alice", "alice2", ""] {
        let client = pki.client_with(&pki.client_ca.client(name));
        assert!(
            matches!(refusal(&tls, &client).await, Invalid::NotAllowed(_)),
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn only_listed_hosts_get_in() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.allowed_hostnames = vec!["a.hosts.example".to_owned(), "10.0.0.1".to_owned()];
    let tls = ServerTls::load(settings).unwrap();
    let client = |san: SanType| {
        // The common name is not a host name, whatever it says.
        let mut params = leaf_params("a.hosts.example", &[Eku::ClientAuth]);
        params.subject_alt_names = vec![san];
        pki.client_with(&pki.client_ca.sign(&params))
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for san in [
        dns("a.hosts.example"),
        dns("*.hosts.example"),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
    ] {
        identity_of(&tls, &client(san)).await;
    }
    for san in [
        dns("b.hosts.example"),
        dns("*.a.hosts.example"),
        dns("10.0.0.1"),
        SanType::IpAddress("10.0.0.2".parse().unwrap()),
    ] {
        assert!(
            matches!(
                refusal(&tls, &client(san.clone())).await,
                Invalid::NotAllowed(_)
            ),
            "{san:?}"
        );
    }
}

#[test]
fn settings_without_effect_or_in_conflict_are_refused() {
    type Change = fn(&mut ServerTlsSettings, Vec<String>);
    let pki = Pki::new();
    let names = || vec!["alice".to_owned()];
    let cases: [(&str, Change); 6] = [
        ("both lists", |s, names| {
            s.allowed_common_names = names.clone();
            s.allowed_hostnames = names;
        }),
        ("a list without client certificates", |s, names| {
            s.client_auth = ClientAuth::None;
            s.allowed_common_names = names;
        }),
        ("a CRL without client certificates", |s, _| {
            s.client_auth = ClientAuth::None;
            s.crl_file = Some(s.cert_file.clone());
        }),
        ("no CA", |s, _| {
            s.client_auth = ClientAuth::Required {
                ca_files: Vec::new(),
            };
        }),
        ("versions the wrong way round", |s, _| {
            s.max_version = holdfast_certs::TlsVersion::Tls12;
        }),
        ("a host name that is none", |s, _| {
            s.allowed_hostnames = vec!["not a name".to_owned()];
        }),
    ];
    for (what, change) in cases {
        let mut settings = pki.settings();
        change(&mut settings, names());
        assert!(
            matches!(ServerTls::load(settings), Err(TlsError::Settings(_))),
            "{what}"
        );
    }
}

#[tokio::test]
async fn what_is_not_tls_is_named() {
    let pki = Pki::new();
    let tls = Arc::new(pki.server());
    let garbage = vec![0x55; 1 << 20];
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls"),
        (&garbage, "not_tls"),
        (b"", "closed"),
        // A record header that announces more than any record may hold.
        (&[0x16, 0x03, 0x01, 0xff, 0xff, 0x01], "protocol"),
    ];
    for (bytes, label) in cases {
        let (mut client, server) = tokio::io::duplex(4096);
        let accepting = tokio::spawn({
            let tls = tls.clone();
            async move { accept(&tls, server).await.map(|_| ()) }
        });
        // The server may be gone before all is written.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let outcome = tokio::time::timeout(support::DEADLINE, accepting).await;
        let error = outcome.unwrap().unwrap().unwrap_err();
        assert_eq!(error.label(), label, "{error}");
    }
}

#[tokio::test]
async fn a_silent_client_costs_no_more_than_its_deadline() {
    let pki = Pki::new();
    let tls = pki.server();
    let (_client, server) = tokio::io::duplex(64);
    let outcome =
        tokio::time::timeout(std::time::Duration::from_millis(50), accept(&tls, server)).await;
    assert!(outcome.is_err(), "there was nothing to accept");
}

#[tokio::test]
async fn a_client_checks_the_server_too() {
    let pki = Pki::new();
    let tls = pki.server();
    let leaf = pki.client_ca.client("alice");
    pki.write_pair("alice", &leaf);
    let settings = |change: fn(&mut ClientTlsSettings, &Pki)| {
        let mut settings = ClientTlsSettings {
            cert_file: Some(pki.path("alice.crt")),
            key_file: Some(pki.path("alice.key")),
            ..pki.client_settings()
        };
        change(&mut settings, &pki);
        ClientTls::load(&settings).unwrap()
    };
    let wrong_ca = settings(|s, pki| s.ca_file = Some(pki.path("client-ca.crt")));
    let (accepted, seen) = handshake(&tls, &wrong_ca).await;
    assert!(seen.unwrap_err().contains("not issued by a trusted CA"));
    assert!(matches!(accepted, Err(HandshakeError::Alert(_))));

    let wrong_name = settings(|s, _| s.server_name = Some("other.example".to_owned()));
    let (_, seen) = handshake(&tls, &wrong_name).await;
    let message = seen.unwrap_err();
    assert!(message.contains("other.example"), "{message}");

    let right_address = settings(|s, _| s.server_name = Some("127.0.0.1".to_owned()));
    identity_of(&tls, &right_address).await;

    let careless = settings(|s, _| {
        s.insecure_skip_verify = true;
        s.server_name = Some("other.example".to_owned());
    });
    assert_eq!(careless.warnings(), [Warning::VerificationOff]);
    identity_of(&tls, &careless).await;
}
