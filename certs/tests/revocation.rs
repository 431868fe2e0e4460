//! Revocation lists (CVE-2026-59818: a list that one listener ignored).

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use holdfast_certs::{
    CrlExpiry, CrlUnknown, HandshakeError, Invalid, Polled, ServerTls, ServerTlsSettings, TlsError,
    TlsVersion, Warning,
};
use rustls::{
    HandshakeKind,
    client::{ClientSessionMemoryCache, Resumption},
    version::{TLS12, TLS13},
};
use support::{Ca, HOUR, Pki, identity_of, raw_client, raw_handshake, refusal};

fn with_crl(pki: &Pki, change: impl FnOnce(&mut ServerTlsSettings)) -> ServerTls {
    let mut settings = pki.settings();
    settings.crl_file = Some(pki.path("crl"));
    change(&mut settings);
    ServerTls::load(settings).unwrap()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    let pki = Pki::new();
    let (good, bad) = (
        pki.client_ca.client("alice"),
        pki.client_ca.client("mallory"),
    );
    let list = pki.client_ca.crl(&[&bad.serial]);
    for content in [list.pem().unwrap().into_bytes(), list.der().to_vec()] {
        pki.write("crl", content);
        let tls = with_crl(&pki, |_| {});
        assert_eq!(tls.report().warnings, []);
        identity_of(&tls, &pki.client_with(&good)).await;
        assert_eq!(
            refusal(&tls, &pki.client_with(&bad)).await,
            Invalid::Revoked
        );
    }
}

#[tokio::test]
async fn each_of_several_issuers_has_its_list() {
    let pki = Pki::new();
    let other = Ca::new("other CA");
    pki.write(
        "client-ca.crt",
        format!("{}{}", pki.client_ca.pem, other.pem),
    );
    let revoked = [pki.client_ca.client("a"), other.client("b")];
    let lists = [
        pki.client_ca.crl(&[&revoked[0].serial]),
        other.crl(&[&revoked[1].serial]),
    ];
    let in_pem = lists.each_ref().map(|list| list.pem().unwrap()).concat();
    let in_der = lists.each_ref().map(|list| list.der().to_vec()).concat();
    for content in [in_pem.into_bytes(), in_der] {
        pki.write("crl", content);
        let tls = with_crl(&pki, |_| {});
        for leaf in &revoked {
            assert_eq!(
                refusal(&tls, &pki.client_with(leaf)).await,
                Invalid::Revoked
            );
        }
        identity_of(&tls, &pki.client_with(&other.client("c"))).await;
    }
}

#[tokio::test]
async fn of_two_lists_of_one_issuer_the_newer_counts() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("mallory");
    let old = pki.client_ca.crl_between(&[], -7200, 3600).pem().unwrap();
    let new = pki
        .client_ca
        .crl_between(&[&leaf.serial], -60, 3600)
        .pem()
        .unwrap();
    for content in [format!("{old}{new}"), format!("{new}{old}")] {
        pki.write("crl", content);
        assert_eq!(
            refusal(&with_crl(&pki, |_| {}), &pki.client_with(&leaf)).await,
            Invalid::Revoked
        );
    }
}

#[tokio::test]
async fn a_revoked_intermediate_takes_its_leaves_with_it() {
    let pki = Pki::new();
    let intermediate = pki.client_ca.intermediate("intermediate", 4711);
    let mut leaf = intermediate.client("alice");
    leaf.pem.push_str(&intermediate.pem);
    let client = pki.client_with(&leaf);
    let own = intermediate.crl(&[]).pem().unwrap();
    let write = |above: &rcgen::CertificateRevocationList| {
        pki.write("crl", format!("{own}{}", above.pem().unwrap()))
    };
    write(&pki.client_ca.crl(&[]));
    identity_of(&with_crl(&pki, |_| {}), &client).await;
    write(&pki.client_ca.crl(&[&4711.into()]));
    assert_eq!(
        refusal(&with_crl(&pki, |_| {}), &client).await,
        Invalid::Revoked
    );
}

#[tokio::test]
async fn a_list_of_another_issuer_proves_nothing() {
    let pki = Pki::new();
    pki.write("crl", Ca::new("other CA").crl(&[]).pem().unwrap());
    let client = pki.good_client();
    let strict = with_crl(&pki, |_| {});
    assert!(matches!(
        strict.report().warnings[..],
        [Warning::CaWithoutCrl { .. }]
    ));
    assert_eq!(refusal(&strict, &client).await, Invalid::RevocationUnknown);
    let lenient = with_crl(&pki, |s| s.crl_unknown = CrlUnknown::Accept);
    identity_of(&lenient, &client).await;
}

#[tokio::test]
async fn a_forged_list_proves_nothing() {
    let pki = Pki::new();
    // The right name, signed with another key: it must not un-revoke anybody.
    pki.write("crl", Ca::new("client CA").crl(&[]).pem().unwrap());
    for unknown in [CrlUnknown::Refuse, CrlUnknown::Accept] {
        let tls = with_crl(&pki, |s| s.crl_unknown = unknown);
        assert_eq!(
            refusal(&tls, &pki.good_client()).await,
            Invalid::CrlNotTrusted
        );
    }
}

#[tokio::test]
async fn an_outdated_list_refuses_unless_told_otherwise() {
    let pki = Pki::new();
    let bad = pki.client_ca.client("mallory");
    let list = pki.client_ca.crl_between(&[&bad.serial], -7200, -3600);
    pki.write("crl", list.pem().unwrap());
    let client = pki.good_client();
    let strict = with_crl(&pki, |_| {});
    assert!(matches!(
        strict.report().warnings[..],
        [Warning::CrlExpired { .. }]
    ));
    assert!(strict.report().crl_next_update.unwrap() < SystemTime::now());
    assert!(matches!(
        refusal(&strict, &client).await,
        Invalid::CrlExpired { .. }
    ));
    let lenient = with_crl(&pki, |s| s.crl_expiry = CrlExpiry::Ignore);
    identity_of(&lenient, &client).await;
    assert_eq!(
        refusal(&lenient, &pki.client_with(&bad)).await,
        Invalid::Revoked
    );
}

#[tokio::test]
async fn a_list_that_runs_out_ends_live_connections() {
    let pki = Pki::new();
    pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
    let tls = with_crl(&pki, |_| {});
    let peer = identity_of(&tls, &pki.good_client()).await;
    assert_eq!(tls.still_valid(&peer, SystemTime::now()), Ok(()));
    assert!(matches!(
        tls.still_valid(&peer, support::in_future(2 * HOUR)),
        Err(Invalid::CrlExpired { .. })
    ));
}

/// A session from before must not carry a revoked certificate past the check; `the_resumption_test_can_fail` shows that such a
/// client does resume where it may.
#[tokio::test]
async fn a_session_from_before_the_revocation_is_of_no_use() {
    for (version, min_version) in [(&TLS13, TlsVersion::Tls13), (&TLS12, TlsVersion::Tls12)] {
        let pki = Pki::new();
        let leaf = pki.client_ca.client("mallory");
        pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
        let tls = with_crl(&pki, |settings| settings.min_version = min_version);
        let mut config = raw_client(&pki, &leaf, &[version]);
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)));
        let client = Arc::new(config);
        let (accepted, seen) = raw_handshake(&tls, client.clone()).await;
        assert_eq!(seen.unwrap().kind, HandshakeKind::Full);
        accepted.unwrap();
        pki.write("crl", pki.client_ca.crl(&[&leaf.serial]).pem().unwrap());
        assert!(matches!(tls.watch_poll(), Polled::Reloaded(_)));
        for _ in 0..2 {
            let (accepted, seen) = raw_handshake(&tls, client.clone()).await;
            assert!(seen.is_err());
            assert!(matches!(
                accepted,
                Err(HandshakeError::Certificate(Invalid::Revoked))
            ));
        }
    }
}

#[tokio::test]
async fn a_bad_list_or_none_does_not_let_the_revoked_back_in() {
    let pki = Pki::new();
    let leaf = pki.client_ca.client("mallory");
    let (bad, good) = (pki.client_with(&leaf), pki.good_client());
    pki.write("crl", pki.client_ca.crl(&[&leaf.serial]).pem().unwrap());
    let tls = with_crl(&pki, |_| {});
    let garbage = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
    for content in ["", garbage] {
        pki.write("crl", content);
        assert!(matches!(tls.watch_poll(), Polled::Failed(_)));
        assert_eq!(refusal(&tls, &bad).await, Invalid::Revoked);
        identity_of(&tls, &good).await;
    }
    std::fs::remove_file(pki.path("crl")).unwrap();
    assert!(matches!(tls.watch_poll(), Polled::Failed(_)));
    assert_eq!(refusal(&tls, &bad).await, Invalid::Revoked);
}

#[tokio::test]
async fn a_reload_brings_an_outdated_list_and_the_next_one_in() {
    let pki = Pki::new();
    let tls = {
        pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
        with_crl(&pki, |_| {})
    };
    let client = pki.good_client();
    let live = identity_of(&tls, &client).await;
    let outdated = pki.client_ca.crl_between(&[], -7200, -3600);
    pki.write("crl", outdated.pem().unwrap());
    let Polled::Reloaded(report) = tls.watch_poll() else {
        panic!("not reloaded");
    };
    assert!(matches!(report.warnings[..], [Warning::CrlExpired { .. }]));
    assert!(matches!(
        tls.still_valid(&live, SystemTime::now()),
        Err(Invalid::CrlExpired { .. })
    ));
    assert!(matches!(
        refusal(&tls, &client).await,
        Invalid::CrlExpired { .. }
    ));
    pki.write("crl", pki.client_ca.crl(&[]).pem().unwrap());
    assert!(matches!(tls.watch_poll(), Polled::Reloaded(_)));
    assert_eq!(tls.still_valid(&live, SystemTime::now()), Ok(()));
    identity_of(&tls, &client).await;
}

#[test]
fn files_that_hold_no_usable_list_are_named() {
    let pki = Pki::new();
    let list = pki.client_ca.crl(&[]);
    let pem = list.pem().unwrap();
    let mut two = list.der().to_vec();
    two.extend_from_slice(&list.der()[..50]);
    let cases: [(&str, Vec<u8>); 5] = [
        ("contains no revocation list", vec![0x55; 1 << 20]),
        ("contains no revocation list", Vec::new()),
        ("cut off", pem.as_bytes()[..pem.len() / 2].to_vec()),
        ("revocation list 2", two),
        (
            "revocation list 1",
            b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n".to_vec(),
        ),
    ];
    for (expected, content) in cases {
        let path: PathBuf = pki.write("crl", content);
        let mut settings = pki.settings();
        settings.crl_file = Some(path.clone());
        let error: TlsError = ServerTls::load(settings).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}
