//! Leases and the permissions on the keys attached to them (behaviour §3.13, §3.8), and who owns a lease in profile `strict`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite, Write},
    Raw, ServerOptions, denied, eventually, holdfast_only, refused, soon, unidentified,
    wire::{IntoOp, always, everything, get, keys, put, put_leased},
};
use std::time::Duration;
use tokio_stream::{StreamExt, iter};
use tonic::{Code, Status};

async fn lease(by: &Raw, id: i64) {
    let request = pb::LeaseGrantRequest { ttl: 600, id };
    by.grant(request).await.unwrap();
}

/// Keeps a lease alive once, on a stream of its own: its TTL.
async fn keep_alive(by: &Raw, id: i64) -> Result<i64, Status> {
    let requests = iter([pb::LeaseKeepAliveRequest { id }]);
    let one = async {
        let answers = by.lease.clone().lease_keep_alive(requests).await?;
        let first = answers.into_inner().next().await;
        Ok(first.expect("an answer")?.ttl)
    };
    soon("a keep-alive", one).await
}

async fn time_to_live(by: &Raw, id: i64, keys: bool) -> Result<Vec<String>, Status> {
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let answer = by.time_to_live(request).await?;
    let text = |key: &bytes::Bytes| String::from_utf8(key.to_vec()).unwrap();
    let mut keys: Vec<_> = answer.keys.iter().map(text).collect();
    keys.sort();
    Ok(keys)
}

/// A server in profile `strict` with auth on.
async fn strict() -> Guarded {
    let options = ServerOptions::new()
        .flag("--profile=strict")
        .flag("--initial-auth=false");
    Guarded::start_with(options).await
}

#[tokio::test]
async fn a_lease_without_keys_is_everybodys_as_in_etcd() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let nobody = guarded.anonymous();
    lease(&user, 10).await;
    lease(root, 11).await;
    for id in [10, 11] {
        assert_eq!(keep_alive(&user, id).await.unwrap(), 600);
        assert!(time_to_live(&user, id, true).await.unwrap().is_empty());
    }
    assert_eq!(user.leases().await.unwrap().len(), 2);

    unidentified(keep_alive(&nobody, 10).await);
    unidentified(time_to_live(&nobody, 10, false).await);
    unidentified(nobody.leases().await);
    unidentified(nobody.revoke(10).await);
    let request = pb::LeaseGrantRequest { ttl: 600, id: 12 };
    unidentified(nobody.grant(request).await);

    user.revoke(10).await.unwrap();
    user.revoke(11).await.unwrap();
    assert!(root.leases().await.unwrap().is_empty());
    refused(
        user.revoke(10).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    assert_eq!(keep_alive(&user, 10).await.unwrap(), 0);
}

#[tokio::test]
async fn revoking_and_keeping_alive_need_write_on_all_attached_keys() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    lease(root, 10).await;
    for key in ["a", "b", "c"] {
        root.put(put_leased(key, "1", 10)).await.unwrap();
    }
    let user = guarded.user("u", &[]).await;
    let too_little: [&[holdfast_tests::Permission<'_>]; 4] = [
        &[],
        &[(Read, "a", "d")],
        &[(Write, "a", ""), (Write, "b", "")],
        &[(Readwrite, "a", "c"), (Read, "c", "")],
    ];
    for grants in too_little {
        root.role_set("u", grants).await;
        denied(user.revoke(10).await);
        denied(keep_alive(&user, 10).await);
    }
    assert_eq!(keys(&root.range(everything()).await.unwrap()).len(), 3);
    root.role_set(
        "u",
        &[(Write, "a", ""), (Write, "b", "c"), (Write, "c", "")],
    )
    .await;
    assert_eq!(keep_alive(&user, 10).await.unwrap(), 600);
    user.revoke(10).await.unwrap();
    assert!(root.range(everything()).await.unwrap().kvs.is_empty());
}

#[tokio::test]
async fn root_may_do_anything_with_any_lease() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Readwrite, "u", "")]).await;
    lease(&user, 10).await;
    user.put(put_leased("u", "1", 10)).await.unwrap();
    assert_eq!(keep_alive(root, 10).await.unwrap(), 600);
    assert_eq!(time_to_live(root, 10, true).await.unwrap(), ["u"]);
    root.put(put_leased("v", "1", 10)).await.unwrap();
    // Now the user's own lease holds a key that the user may not write.
    denied(user.revoke(10).await);
    denied(keep_alive(&user, 10).await);
    root.revoke(10).await.unwrap();
    assert!(root.range(everything()).await.unwrap().kvs.is_empty());
}

#[tokio::test]
async fn attaching_needs_write_on_all_keys_that_are_attached_already() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    lease(root, 10).await;
    let user = guarded.user("u", &[(Write, "u", "v")]).await;
    user.put(put_leased("u1", "1", 10)).await.unwrap();
    user.put(put_leased("u2", "1", 10)).await.unwrap();
    root.put(put_leased("foreign", "1", 10)).await.unwrap();
    let before = root.revision().await;
    denied(user.put(put_leased("u3", "1", 10)).await);
    denied(user.put(put_leased("u1", "2", 10)).await);
    let within = always(vec![always(vec![put_leased("u3", "1", 10).op()]).op()]);
    denied(user.txn(within).await);
    assert_eq!(root.revision().await, before);
    // Letting the key go needs nothing of the lease, and READ on the foreign key does not help.
    user.put(put("u1", "3")).await.unwrap();
    root.role_grant("u", (Read, "foreign", "")).await.unwrap();
    denied(user.put(put_leased("u1", "4", 10)).await);
    root.role_grant("u", (Write, "foreign", "")).await.unwrap();
    user.put(put_leased("u1", "5", 10)).await.unwrap();
}

#[tokio::test]
async fn a_missing_lease_is_not_told_to_who_may_not_put() {
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[(Write, "u", "")]).await;
    denied(user.put(put_leased("a", "1", 404)).await);
    refused(
        user.put(put_leased("u", "1", 404)).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
}

#[tokio::test]
async fn cve_2023_32082_time_to_live_does_not_tell_keys_without_read() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    lease(root, 10).await;
    for key in ["open", "secret"] {
        root.put(put_leased(key, "1", 10)).await.unwrap();
    }
    let user = guarded.user("u", &[(Read, "open", "")]).await;
    denied(time_to_live(&user, 10, true).await);
    assert!(time_to_live(&user, 10, false).await.unwrap().is_empty());
    root.role_grant("u", (Write, "secret", "")).await.unwrap();
    denied(time_to_live(&user, 10, true).await);
    root.role_grant("u", (Read, "secret", "")).await.unwrap();
    assert_eq!(
        time_to_live(&user, 10, true).await.unwrap(),
        ["open", "secret"]
    );
    // What is gone is not told, and not asked for.
    root.delete(holdfast_tests::wire::del("secret"))
        .await
        .unwrap();
    root.role_revoke("u", "secret", "").await.unwrap();
    assert_eq!(time_to_live(&user, 10, true).await.unwrap(), ["open"]);
}

#[tokio::test]
async fn the_list_of_leases_needs_read_on_every_attached_key() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for id in [10, 11, 12] {
        lease(root, id).await;
    }
    let user = guarded.user("u", &[(Read, "a", "")]).await;
    assert_eq!(user.leases().await.unwrap().len(), 3);
    root.put(put_leased("a", "1", 10)).await.unwrap();
    assert_eq!(user.leases().await.unwrap().len(), 3);
    root.put(put_leased("b", "1", 11)).await.unwrap();
    denied(user.leases().await);
    root.role_grant("u", (Write, "b", "")).await.unwrap();
    denied(user.leases().await);
    root.role_grant("u", (Read, "b", "")).await.unwrap();
    assert_eq!(user.leases().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_lease_ends_by_itself_whatever_its_creator_may() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Write, "u", "")]).await;
    let request = pb::LeaseGrantRequest { ttl: 2, id: 10 };
    user.grant(request).await.unwrap();
    user.put(put_leased("u", "1", 10)).await.unwrap();
    root.put(put_leased("foreign", "1", 10)).await.unwrap();
    root.user_delete("u").await.unwrap();
    eventually(Duration::from_secs(15), "the lease ends", || async {
        let left = root.range(everything()).await.unwrap();
        left.kvs.is_empty().then_some(())
    })
    .await;
    assert!(root.leases().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_of_keep_alives_checks_each_lease_by_itself() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Write, "u", "")]).await;
    for (id, key) in [(10, "u"), (11, "foreign")] {
        lease(root, id).await;
        root.put(put_leased(key, "1", id)).await.unwrap();
    }
    let requests = iter([10, 10, 11].map(|id| pb::LeaseKeepAliveRequest { id }));
    let answers = user.lease.clone().lease_keep_alive(requests).await.unwrap();
    let mut answers = answers.into_inner();
    for _ in 0..2 {
        let answer = soon("a keep-alive", answers.message()).await.unwrap();
        assert_eq!(answer.unwrap().ttl, 600);
    }
    denied(soon("a refusal", answers.message()).await);
}

#[tokio::test]
async fn strict_a_lease_belongs_to_its_creator() {
    holdfast_only!();
    let guarded = strict().await;
    let root = &guarded.root;
    let owner = guarded.user("owner", &[(Readwrite, "o", "p")]).await;
    let other = guarded
        .user("other", &[(Readwrite, "o", "p"), (Readwrite, "x", "")])
        .await;
    lease(&owner, 10).await;
    // Without keys it is nobody else's.
    denied(other.revoke(10).await);
    denied(keep_alive(&other, 10).await);
    denied(other.put(put_leased("x", "1", 10)).await);
    let within = always(vec![put_leased("x", "1", 10).op()]);
    denied(other.txn(within).await);
    assert!(other.leases().await.unwrap().is_empty());
    assert_eq!(owner.leases().await.unwrap(), [10]);
    assert_eq!(root.leases().await.unwrap(), [10]);
    assert_eq!(keep_alive(&owner, 10).await.unwrap(), 600);

    // With keys it is shared with those who may write all of them.
    owner.put(put_leased("o1", "1", 10)).await.unwrap();
    assert_eq!(keep_alive(&other, 10).await.unwrap(), 600);
    assert_eq!(other.leases().await.unwrap(), [10]);
    root.put(put_leased("z", "1", 10)).await.unwrap();
    denied(keep_alive(&other, 10).await);
    denied(other.revoke(10).await);
    assert!(other.leases().await.unwrap().is_empty());

    // The creator keeps it, though not the names of foreign keys.
    assert_eq!(keep_alive(&owner, 10).await.unwrap(), 600);
    denied(time_to_live(&owner, 10, true).await);
    assert_eq!(owner.leases().await.unwrap(), [10]);
    owner.revoke(10).await.unwrap();
    assert!(root.range(everything()).await.unwrap().kvs.is_empty());
}

#[tokio::test]
async fn strict_a_creator_of_the_same_name_is_another_user() {
    holdfast_only!();
    let guarded = strict().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    lease(&user, 10).await;
    lease(root, 11).await;
    root.user_delete("u").await.unwrap();
    root.user_add("u", &holdfast_tests::password_of("u"))
        .await
        .unwrap();
    let user = guarded.login("u").await;
    denied(user.revoke(10).await);
    denied(keep_alive(&user, 10).await);
    assert!(user.leases().await.unwrap().is_empty());
    root.revoke(10).await.unwrap();
    assert_eq!(root.leases().await.unwrap(), [11]);
}

#[tokio::test]
async fn strict_ownership_outlives_a_restart() {
    holdfast_only!();
    let mut guarded = strict().await;
    guarded.add_user("u", &[]).await;
    guarded.add_user("v", &[]).await;
    lease(&guarded.login("u").await, 10).await;
    guarded.server.kill();
    guarded.server.restart();
    let raw = guarded.server.raw().await;
    let password = holdfast_tests::password_of;
    let user = raw.login("u", &password("u")).await.unwrap();
    let other = raw.login("v", &password("v")).await.unwrap();
    denied(other.revoke(10).await);
    assert_eq!(keep_alive(&user, 10).await.unwrap(), 600);
    user.revoke(10).await.unwrap();
}

#[tokio::test]
async fn reading_a_leased_key_needs_nothing_of_the_lease() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    lease(root, 10).await;
    root.put(put_leased("a", "1", 10)).await.unwrap();
    root.put(put_leased("b", "1", 10)).await.unwrap();
    let user = guarded.user("u", &[(Readwrite, "a", "")]).await;
    let answer = user.range(get("a")).await.unwrap();
    assert_eq!(answer.kvs[0].lease, 10);
    // Deleting a key, too, is a matter of the key.
    user.delete(holdfast_tests::wire::del("a")).await.unwrap();
}
