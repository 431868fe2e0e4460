//! Whom a certificate names: nobody, one user, and no other; and certificates beside tokens.

mod security;

use holdfast_certs::testing::{TestCrl, TestLeaf};
use holdfast_tests::{
    PATIENCE, bad_token, denied, eventually, holdfast_only, unidentified,
    wire::{get, put},
};
use security::{Site, jwt};

const ALICE: &str = "spiffe://holdfast.example/tenant/default/user/alice";

#[tokio::test]
async fn a_certificate_without_any_name_is_nobody() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&[]);
    let root = secured.root().await;
    root.put(put("a", "1")).await.unwrap();
    let nobody = secured.raw(&site.nobody()).await;
    unidentified(nobody.range(get("a")).await);
    unidentified(nobody.put(put("a", "2")).await);
    unidentified(nobody.user_list().await);
    unidentified(nobody.status().await);
    // Such a certificate is what one logs in over.
    root.user_add("alice", "a long password").await.unwrap();
    let alice = nobody.login("alice", "a long password").await.unwrap();
    denied(alice.range(get("a")).await);
}

#[tokio::test]
async fn the_certificate_of_one_user_is_no_other() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&[]);
    let root = secured.root().await;
    secured.add_user(&root, "alice", "a", "").await;
    secured.add_user(&root, "bob", "b", "").await;
    let alice = secured.raw(&site.client("alice")).await;
    alice.put(put("a", "1")).await.unwrap();
    denied(alice.put(put("b", "1")).await);
    denied(alice.range(get("b")).await);
    denied(alice.user_list().await);
    denied(alice.user_get("bob").await);
    // Names are compared as they are.
    for name in ["Alice", "alice ", "alic", "mallory", "admin", "Root"] {
        let raw = secured.raw(&site.client(name)).await;
        denied(raw.range(get("a")).await);
        denied(raw.status().await);
    }
}

#[tokio::test]
async fn a_certificate_and_the_token_of_another_user_are_refused() {
    holdfast_only!();
    let site = Site::new();
    for profile in ["--profile=strict", "--profile=etcd"] {
        let secured = site.start(&[profile, "--initial-auth=true"]);
        let root = secured.root().await;
        secured.add_user(&root, "alice", "a", "").await;
        secured.add_user(&root, "bob", "b", "").await;
        for user in ["alice", "bob"] {
            root.change_password(user, "a long password").await.unwrap();
        }
        let nobody = secured.raw(&site.nobody()).await;
        let token = nobody.authenticate("bob", "a long password").await.unwrap();
        nobody.with_token(&token).put(put("b", "1")).await.unwrap();
        let alice = secured.raw(&site.client("alice")).await;
        let both = alice.with_token(&token);
        for key in ["a", "b", "c"] {
            denied(both.put(put(key, "2")).await);
            denied(both.range(get(key)).await);
        }
        denied(root.with_token(&token).put(put("b", "2")).await);
        denied(root.with_token(&token).user_list().await);
        // One's own token fits.
        let own = alice.login("alice", "a long password").await.unwrap();
        own.put(put("a", "1")).await.unwrap();
        // A certificate whose name is no user: in etcd's set-ups it is everybody's, beside a password for each.
        let gateway = secured.raw(&site.client("gateway")).await;
        let gateway = gateway.with_token(&token);
        if profile.ends_with("etcd") {
            gateway.put(put("b", "3")).await.unwrap();
        } else {
            denied(gateway.put(put("b", "3")).await);
        }
        // A bad token is not made good by a certificate.
        bad_token(root.with_token("garbage").range(get("a")).await);
    }
}

#[tokio::test]
async fn a_spiffe_id_is_its_user_and_of_its_tenant_only() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&["--client-cert-uri-trust-domain=holdfast.example"]);
    let root = secured.root().await;
    secured.add_user(&root, "alice", "a", "").await;
    let with_uri = |uri: &str| {
        site.issue(&TestLeaf {
            uris: vec![uri.to_owned()],
            // What stands beside a URI counts for nothing.
            ..TestLeaf::client("root")
        })
    };
    let alice = secured.raw(&with_uri(ALICE)).await;
    alice.put(put("a", "1")).await.unwrap();
    denied(alice.put(put("b", "1")).await);
    denied(alice.user_list().await);
    for uri in [
        "spiffe://holdfast.example/tenant/other/user/alice",
        "spiffe://holdfast.example/tenant/other/user/root",
        "spiffe://evil.example/tenant/default/user/alice",
        "spiffe://evil.example/tenant/default/user/root",
        "spiffe://holdfast.example.evil.example/tenant/default/user/root",
        "spiffe://holdfast.example/tenant/default/user/alice/",
        "spiffe://holdfast.example/tenant/default/user/../user/root",
        "spiffe://holdfast.example/tenant/default/user/mallory",
        "spiffe://holdfast.example/tenant/default/user/root%00",
        "spiffe://holdfast.example:443/tenant/default/user/root",
        "https://holdfast.example/tenant/default/user/root",
        "root",
    ] {
        let shown = with_uri(uri);
        let Ok(raw) = secured.try_raw(Some(&shown)).await else {
            continue;
        };
        for key in ["a", "b"] {
            raw.range(get(key)).await.expect_err(uri);
            raw.put(put(key, uri)).await.expect_err(uri);
        }
        raw.user_list().await.expect_err(uri);
    }
    let value = root.range(get("a")).await.unwrap().kvs[0].value.clone();
    assert_eq!(value, "1");
}

#[tokio::test]
async fn a_token_is_good_over_any_connection_and_only_as_long_as_the_connection_may_be() {
    holdfast_only!();
    let site = Site::new();
    site.revoke(&TestCrl::of(&[]));
    let list = format!("--client-crl-file={}", site.path("list.crl").display());
    let secured = site.strict(&[&list]);
    let root = secured.root().await;
    secured.add_user(&root, "alice", "a", "").await;
    root.change_password("alice", "a long password")
        .await
        .unwrap();
    let (first, second) = (site.nobody(), site.nobody());
    let raw = secured.raw(&first).await;
    let token = raw.authenticate("alice", "a long password").await.unwrap();
    assert!(jwt::take_apart(&token).1["exp"].as_u64().is_some());
    raw.with_token(&token).put(put("a", "1")).await.unwrap();
    site.revoke(&TestCrl::of(&[&first]));
    let refused = || async { secured.page(Some(&first), "/version").await.err() };
    eventually(PATIENCE, "the revocation is in force", refused).await;
    raw.with_token(&token).put(put("a", "2")).await.unwrap_err();
    // The token belongs to alice, and not to the connection that it was given on.
    let raw = secured.raw(&second).await;
    raw.with_token(&token).put(put("a", "3")).await.unwrap();
}
