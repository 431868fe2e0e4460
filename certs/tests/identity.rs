//! Which user a certificate names, through real handshakes (docs: `named_user`).

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::fs;

use holdfast_certs::{
    ClientTls, CrlExpiry, CrlUnknown, EkuPolicy, IdentityError, Invalid, NameSource, NamedUser,
    ServerTls, ServerTlsSettings,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, SanType};
use support::{Ca, Pki, identity_of, leaf_params, refusal, write_private};

/// A client with this common name and nothing but these URIs for alternative names.
fn client(pki: &Pki, common_name: &str, uris: &[&str]) -> ClientTls {
    let mut params = leaf_params(common_name, &[Eku::ClientAuth]);
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    pki.client_with(&pki.client_ca.sign(&params))
}

async fn named(
    pki: &Pki,
    common_name: &str,
    uris: &[&str],
) -> Result<Option<NamedUser>, IdentityError> {
    let peer = identity_of(&pki.server(), &client(pki, common_name, uris)).await;
    peer.named_user(Some("example.org"))
}

/// As the server sets listeners up for each profile.
fn profiles(pki: &Pki) -> [ServerTls; 2] {
    let lenient = ServerTlsSettings {
        client_eku: EkuPolicy::IfPresent,
        crl_unknown: CrlUnknown::Accept,
        crl_expiry: CrlExpiry::Ignore,
        ..pki.settings()
    };
    [pki.settings(), lenient].map(|settings| ServerTls::load(settings).unwrap())
}

#[tokio::test]
async fn two_uri_sans_are_refused_in_every_profile() {
    let pki = Pki::new();
    let uri = "spiffe://example.org/tenant/a/user/b";
    for tls in profiles(&pki) {
        for others in [
            &[uri, "spiffe://example.org/tenant/a/user/root"][..],
            &[uri, uri],
            &["https://example.org/", uri],
            &["urn:a", "urn:b", "urn:c"],
        ] {
            let invalid = refusal(&tls, &client(&pki, "alice", others)).await;
            assert_eq!(invalid, Invalid::SeveralUris, "{others:?}");
        }
        identity_of(&tls, &client(&pki, "alice", &[uri])).await;
    }
}

#[tokio::test]
async fn the_common_name_of_another_user_beside_a_uri_counts_for_nothing() {
    let pki = Pki::new();
    let uri = "spiffe://example.org/tenant/a/user/b";
    let user = named(&pki, "root", &[uri]).await.unwrap().unwrap();
    assert_eq!((user.tenant.as_deref(), &*user.user), (Some("a"), "b"));
    assert_eq!(user.by, NameSource::Uri);
    // Nor does it when the URI is of no use.
    for (uri, label) in [
        ("spiffe://example.com/tenant/a/user/b", "other_trust_domain"),
        ("https://example.org/tenant/a/user/b", "not_spiffe"),
        ("spiffe://example.org/tenant/a/user/", "not_spiffe"),
        ("spiffe://example.org/tenant/a/user/%72oot", "not_spiffe"),
    ] {
        let error = named(&pki, "root", &[uri]).await.unwrap_err();
        assert_eq!(error.label(), label, "{uri}");
        assert!(error.to_string().contains("example"), "{error}");
    }
    let error = named(&pki, uri, &[]).await.unwrap_err();
    assert_eq!(error.label(), "uri_as_common_name");
}

#[tokio::test]
async fn a_certificate_without_alternative_names_is_its_common_name() {
    let pki = Pki::new();
    let user = named(&pki, "alice", &[]).await.unwrap().unwrap();
    assert_eq!(
        (user.tenant, &*user.user, user.by),
        (None, "alice", NameSource::CommonName)
    );
}

#[tokio::test]
async fn a_certificate_without_any_name_opens_the_connection_and_is_nobody() {
    let pki = Pki::new();
    assert_eq!(named(&pki, "", &[]).await, Ok(None));
    // Host names name a machine, not a user.
    let mut params = CertificateParams::new(vec!["root".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.extended_key_usages = vec![Eku::ClientAuth];
    params.serial_number = Some(77.into());
    let machine = pki.client_with(&pki.client_ca.sign(&params));
    let peer = identity_of(&pki.server(), &machine).await;
    assert_eq!(peer.dns_sans, ["root"]);
    assert_eq!(peer.named_user(None), Ok(None));
}

/// Listeners for clients and for members differ in nothing but their CA, and that is enough.
#[tokio::test]
async fn a_peer_certificate_is_no_client_and_a_client_certificate_no_peer() {
    let pki = Pki::new();
    let peer_ca = Ca::new("peer CA");
    write_private(&pki.path("peer-ca.crt"), peer_ca.pem.as_bytes());
    let for_clients = pki.server();
    let for_peers = ServerTls::load(
        ServerTlsSettings::new(pki.path("server.crt"), pki.path("server.key"))
            .with_client_ca(pki.path("peer-ca.crt")),
    )
    .unwrap();
    let usages = [Eku::ServerAuth, Eku::ClientAuth];
    let member = pki.client_with(&peer_ca.sign(&leaf_params("member-1", &usages)));
    let user = pki.good_client();
    identity_of(&for_peers, &member).await;
    identity_of(&for_clients, &user).await;
    assert_eq!(refusal(&for_clients, &member).await, Invalid::UnknownIssuer);
    assert_eq!(refusal(&for_peers, &user).await, Invalid::UnknownIssuer);
}

#[tokio::test]
async fn the_quick_start_has_a_certificate_for_nobody_in_particular() {
    let dir = tempfile::tempdir().unwrap();
    let ca = holdfast_certs::DevCa::open_or_create(dir.path()).unwrap();
    let files = ca.files();
    let settings = || {
        ServerTlsSettings::new(&files.server_cert, &files.server_key).with_client_ca(&files.ca_cert)
    };
    let tls = ServerTls::load(settings()).unwrap();
    let client = |cert: &std::path::Path, key: &std::path::Path| {
        ClientTls::load(&holdfast_certs::ClientTlsSettings {
            ca_file: Some(files.ca_cert.clone()),
            cert_file: Some(cert.to_owned()),
            key_file: Some(key.to_owned()),
            ..Default::default()
        })
        .unwrap()
    };
    let root = identity_of(&tls, &client(&files.client_cert, &files.client_key)).await;
    assert_eq!(root.named_user(None).unwrap().unwrap().user, "root");
    let anyone = client(&files.anyone_cert, &files.anyone_key);
    assert_eq!(identity_of(&tls, &anyone).await.named_user(None), Ok(None));
    // It is renewed like the others.
    fs::remove_file(&files.anyone_cert).unwrap();
    assert_eq!(
        ca.renew().unwrap(),
        std::slice::from_ref(&files.anyone_cert)
    );
    let anyone = client(&files.anyone_cert, &files.anyone_key);
    identity_of(&tls, &anyone).await;
}
