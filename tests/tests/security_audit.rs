//! The audit log from outside: what it tells and what it never does.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_certs::testing::TestLeaf;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Kind::Readwrite,
    RawWatch, denied, holdfast_only, password_of, unidentified, watch_key,
    wire::{IntoOp, always, b, get, put, range},
};
use security::{
    AuditFile, Site,
    audit::{Audited, LeaseCall},
};
use serde_json::{Value, json};

#[tokio::test]
async fn every_call_is_told_with_who_from_where_and_what_came_of_it() {
    holdfast_only!();
    let audited = Audited::start("", &[]).await;
    let guarded = &audited.guarded;
    let file = &audited.file;
    let user = guarded.user("alice", &[(Readwrite, "a", "")]).await;
    user.put(put("a", "a value that nobody writes down"))
        .await
        .unwrap();
    let done = file.end_of("KV/Put", "alice").await;
    assert_eq!(done["outcome"], "OK");
    assert_eq!(
        (&done["class"], &done["auth"]),
        (&json!("ok"), &json!("token"))
    );
    assert_eq!(
        (&done["tenant"], &done["revision"]),
        (&json!("default"), &json!(2))
    );
    assert!(done["source"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(done["request_bytes"].as_u64().unwrap() > 30);
    assert!(done["time"].as_str().unwrap().ends_with('Z'));
    user.range(get("a")).await.unwrap();
    assert_eq!(file.end_of("KV/Range", "alice").await["class"], "ok");
    denied(user.delete(holdfast_tests::wire::del("b")).await);
    let refused = file.end_of("KV/DeleteRange", "alice").await;
    assert_eq!(refused["class"], "denied");
    assert_eq!(refused["outcome"], "PermissionDenied");
    unidentified(guarded.anonymous().compact(1).await);
    let refused = file
        .record("a call of nobody", |record| record["rpc"] == "KV/Compact")
        .await;
    assert_eq!(
        (&refused["class"], &refused["principal"]),
        (&json!("denied"), &Value::Null)
    );
    guarded
        .anonymous()
        .authenticate("alice", "wrong, and secret")
        .await
        .unwrap_err();
    let login = |class: &'static str, name: &'static str| {
        move |record: &Value| {
            record["rpc"] == "Auth/Authenticate"
                && record["class"] == class
                && record["object"] == name
        }
    };
    file.record("the failed login", login("denied", "alice"))
        .await;
    file.record("the good login", login("ok", "alice")).await;
    guarded
        .anonymous()
        .authenticate("nobody", "x")
        .await
        .unwrap_err();
    file.record("the login of nobody", login("denied", "nobody"))
        .await;
    file.end_of("Auth/UserAdd", "root").await;
    file.end_of("Auth/RoleGrantPermission", "root").await;
    let watching = RawWatch::open(&user).create(watch_key("b")).await;
    assert!(watching.canceled);
    file.record("the refused watch", |record| {
        record["rpc"] == "Watch/Watch" && record["class"] == "denied"
    })
    .await;
    let text = String::from_utf8(file.bytes()).unwrap();
    for secret in [
        "a value",
        "wrong, and secret",
        &password_of("alice"),
        "$argon2id",
    ] {
        assert!(!text.contains(secret), "{secret:?} in the audit log");
    }
    // By default keys are not told.
    assert!(
        file.records()
            .iter()
            .all(|record| record.get("keys").is_none())
    );
}

const LEVELS: &str = r"
rules:
- key_prefix: plain/
  level: keys
- key_prefix: hashed/
  level: keys_hashed
- rpc: KV/Range
  outcome: ok
  level: none
- level: metadata
";

#[tokio::test]
async fn keys_are_told_as_the_rules_say_and_values_never() {
    holdfast_only!();
    let audited = Audited::start(LEVELS, &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    let value = "value-of-the-test";
    for key in ["plain/1", "hashed/1", "hashed/2", "hashed/1", "silent/1"] {
        root.put(put(key, value)).await.unwrap();
    }
    let txn = always(vec![
        put("plain/in a txn", value).op(),
        put("x", value).op(),
    ]);
    root.txn(txn).await.unwrap();
    root.range(get("silent/1")).await.unwrap();
    root.range(range("plain/", "plain0")).await.unwrap();
    root.range(range("a", "z")).await.unwrap();
    root.lease_call("the last of all").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    let puts: Vec<_> = file
        .records()
        .into_iter()
        .filter(|record| record["rpc"] == "KV/Put")
        .collect();
    assert_eq!(puts.len(), 5);
    assert_eq!(puts[0]["keys"], json!([["plain/1"]]));
    assert_eq!(puts[0].get("keys_hashed"), None);
    for hashed in &puts[1..4] {
        assert_eq!(hashed.get("keys"), None);
        assert!(hashed["keys_hashed"][0][0].as_str().unwrap().len() >= 16);
    }
    assert_eq!(
        puts[1]["keys_hashed"], puts[3]["keys_hashed"],
        "the same key is recognised"
    );
    assert_ne!(puts[1]["keys_hashed"], puts[2]["keys_hashed"]);
    assert_eq!(
        (puts[4].get("keys"), puts[4].get("keys_hashed")),
        (None, None)
    );
    let txn = file.end_of("KV/Txn", "root").await;
    assert_eq!(txn["keys"][0], json!(["plain/in a txn"]));
    let ranges: Vec<_> = file
        .records()
        .into_iter()
        .filter(|record| record["rpc"] == "KV/Range")
        .collect();
    assert!(
        ranges.iter().all(|record| record.get("keys").is_some()),
        "{ranges:?}"
    );
    assert_eq!(ranges.len(), 2, "that of silent/1 is not told: {ranges:?}");
    let text = String::from_utf8(file.bytes()).unwrap();
    for never in [value, "hashed/1", "hashed/2", "silent/1"] {
        assert!(!text.contains(never), "{never:?} in the audit log");
    }
}

#[tokio::test]
async fn no_byte_of_a_client_breaks_a_line() {
    holdfast_only!();
    let audited = Audited::start("rules:\n- level: keys\n", &[]).await;
    let (guarded, file) = (&audited.guarded, &audited.file);
    let forged = "x\"}\n{\"type\":\"rpc\",\"principal\":\"root\",\"forged\":true}\n";
    let rows: [&[u8]; 7] = [
        forged.as_bytes(),
        b"\xff\xfe\x00\x80",
        b"\r\n\t\x1b[2J\x7f",
        "\u{202e}txet\u{2066}".as_bytes(),
        "\u{feff}\u{2028}".as_bytes(),
        b"\\\"\\u0000",
        &[b'k'; 5_000],
    ];
    for key in rows {
        let key = bytes::Bytes::copy_from_slice(key);
        guarded
            .root
            .put(pb::PutRequest {
                key: key.clone(),
                ..put("", "v")
            })
            .await
            .unwrap();
        guarded
            .root
            .range(pb::RangeRequest {
                key,
                range_end: b("\0"),
                ..Default::default()
            })
            .await
            .unwrap();
    }
    for name in [
        forged,
        "a\u{0}b",
        "\u{202e}toor",
        "x\r\ny",
        &"n".repeat(3_000),
    ] {
        guarded
            .anonymous()
            .authenticate(name, name)
            .await
            .unwrap_err();
        let _ = guarded.root.user_add(name, "a long password").await;
        let _ = guarded.root.user_get(name).await;
        let _ = guarded
            .root
            .with_token(&name.escape_debug().to_string())
            .range(get("a"))
            .await;
    }
    guarded.root.lease_call("the last").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    check_lines(file);
    assert!(file.verify(&[]).is_intact());
}

#[track_caller]
fn check_lines(file: &AuditFile) {
    for line in file.lines() {
        assert_eq!(line.get("forged"), None, "{line}");
        assert!(line["type"].is_string(), "{line}");
    }
    let bytes = file.bytes();
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\n') || *byte == 0x7f;
    assert!(!bytes.iter().any(control), "control characters");
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}']));
}

#[tokio::test]
async fn no_name_in_a_certificate_breaks_a_line() {
    holdfast_only!();
    let site = Site::new();
    let file = AuditFile(site.path("audit.log"));
    let secured = site.strict(&[&file.flag()]);
    for name in [
        "x\"}\n{\"type\":\"rpc\",\"forged\":true}\n",
        "\u{202e}toor",
        "a\u{7f}\u{1b}[2J",
        "\\",
    ] {
        let shown = site.issue(&TestLeaf::client(name));
        if let Ok(raw) = secured.try_raw(Some(&shown)).await {
            raw.range(get("a")).await.unwrap_err();
        }
    }
    secured.root().await.lease_call("the last").await;
    let last = file.end_of("Lease/LeaseGrant", "root").await;
    assert_eq!(last["auth"], "certificate");
    check_lines(&file);
}

#[tokio::test]
async fn rules_are_reloaded_by_sighup_and_a_bad_file_changes_nothing() {
    holdfast_only!();
    let audited = Audited::start("rules:\n- level: metadata\n", &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    root.put(put("before", "v")).await.unwrap();
    let first = file.end_of("KV/Put", "root").await;
    assert_eq!(first.get("keys"), None);
    for bad in [
        "rules:\n- level: everything\n",
        "rules:\n- level: keys\n  unknown: 1\n",
        "rules: 1\n",
        "\u{0}\u{1}",
        "",
    ] {
        audited.reload(bad, "those in use stay").await;
    }
    root.put(put("between", "v")).await.unwrap();
    root.lease_call("a mark").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    assert!(
        file.records()
            .iter()
            .all(|record| record.get("keys").is_none())
    );
    audited
        .reload(
            "rules:\n- rpc: KV/Put\n  level: keys\n- level: none\n",
            "reloaded the audit log",
        )
        .await;
    root.put(put("after", "v")).await.unwrap();
    let told = file
        .record("the put after", |record| record["keys"][0][0] == "after")
        .await;
    assert_eq!(told["rpc"], "KV/Put");
    // The change of the rules is in the log itself.
    let rules = |line: &&Value| line.get("generation").is_some();
    assert!(
        file.lines().iter().filter(rules).count() >= 2,
        "{:?}",
        file.lines()
    );
}
