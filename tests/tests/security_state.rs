//! What the two audits of etcd and its issues found besides the ways in: directories that others can read, absurd values in messages, and a
//! state that came out differently when authentication was switched.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite, Write},
    PATIENCE, ROOT_PASSWORD, Raw, RawWatch, Server, eventually, holdfast_only, password_of,
    watch_key,
    wire::{IntoOp, always, exists, get, put, range, txn},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tonic::{Code, Status};

/// Everything of users and roles that can be asked for, and the hash of all keys.
async fn state(root: &Raw) -> String {
    let mut text = format!("revision {}\n", root.auth_revision().await);
    for user in root.user_list().await.unwrap() {
        text += &format!("{user}: {:?}\n", root.user_get(&user).await.unwrap());
    }
    for role in root.role_list().await.unwrap() {
        if role != "root" {
            text += &format!("{role}: {:?}\n", root.role_get(&role).await.unwrap());
        }
    }
    let hash = root.hash_kv(0).await.unwrap();
    text + &format!(
        "hash {}: {:?}",
        hash.hash,
        root.range(range("\0", "\0")).await.unwrap().kvs
    )
}

/// With one member, "everywhere" is: as applied, as replayed from the log after a kill, and as read from the store after a stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_14571_switching_auth_under_load_leaves_one_state_everywhere() {
    holdfast_only!();
    let mut guarded = Guarded::start().await;
    let token = |raw: Raw| async move { raw.login("root", ROOT_PASSWORD).await.unwrap() };
    for round in 0..3 {
        let name = format!("u{round}");
        let root = guarded.root.clone();
        guarded.add_user(&name, &[(Readwrite, "k", "l")]).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..6 {
            let (anonymous, stop, name) = (guarded.anonymous(), stop.clone(), name.clone());
            writers.spawn(async move {
                let mut last: Option<String> = None;
                let mut done = 0_usize;
                while !stop.load(Relaxed) {
                    let key = format!("k{writer}");
                    // Half as nobody, which is right while authentication is off; half as a user, which is while it is on.
                    let answer = match (&last, writer % 2) {
                        (Some(token), 1) => anonymous.with_token(token).put(put(&key, "v")).await,
                        _ => anonymous.put(put(&key, "v")).await,
                    };
                    done += usize::from(answer.is_ok());
                    if answer.is_err() && writer % 2 == 1 {
                        last = anonymous
                            .authenticate(&name, &password_of(&name))
                            .await
                            .ok();
                    }
                }
                done
            });
        }
        root.disable_auth().await.unwrap();
        root.role_grant(&name, (Write, "x", "y")).await.unwrap();
        root.user_add(&format!("other{round}"), "a long password")
            .await
            .unwrap();
        root.enable_auth().await.unwrap();
        let root = token(root).await;
        root.role_revoke(&name, "k", "l").await.unwrap();
        root.role_grant(&name, (Read, "k", "")).await.unwrap();
        root.role_grant(&name, (Readwrite, "k", "l")).await.unwrap();
        root.user_delete(&format!("other{round}")).await.unwrap();
        stop.store(true, Relaxed);
        let done: usize = writers.join_all().await.into_iter().sum();
        assert!(done > 0, "some of the puts went well");

        let before = state(&root).await;
        guarded.server.kill();
        guarded.server.restart();
        let root = token(guarded.server.raw().await).await;
        assert_eq!(state(&root).await, before, "replayed from the log");
        // A request that is answered: signals are heeded by now.
        root.status().await.unwrap();
        guarded.server.terminate();
        guarded.server.restart();
        let root = token(guarded.server.raw().await).await;
        assert_eq!(state(&root).await, before, "read from the store");
        guarded.root = root;
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn audit_2020_directories_that_others_can_read_are_repaired_with_a_warning() {
    holdfast_only!();
    let mut server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let data = server.data_dir();
    let folders = ["", "log", "store", "snap"].map(|name| data.join(name));
    for folder in &folders {
        assert_eq!(mode(folder), 0o700, "{folder:?}");
    }
    server.kill();
    for open in [0o777, 0o755, 0o750] {
        fs::set_permissions(&data, fs::Permissions::from_mode(open)).unwrap();
        let mark = server.log().len();
        server.restart();
        assert_eq!(mode(&data), 0o700, "was {open:o}");
        let lines = server.log().lines();
        let warned = |line: &String| line.contains("\"warn\"") && line.contains("data");
        assert!(lines[mark..].iter().any(warned), "{:#?}", &lines[mark..]);
        server.kill();
    }
    server.restart();
    let answer = server.raw().await.range(get("a")).await.unwrap();
    assert_eq!(answer.kvs[0].value, "1");
}

#[tokio::test]
async fn fuzzing_2022_unknown_enum_values_and_missing_oneofs_are_invalid_arguments() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let raw = &guarded.root;
    raw.put(put("a", "1")).await.unwrap();
    let mut wrong: Vec<String> = Vec::new();
    let mut check = |what: String, answer: Result<(), Status>| match answer {
        Err(status) if status.code() == Code::InvalidArgument => {}
        other => wrong.push(format!("{what}: {other:?}")),
    };
    for number in [-1, 7, 99, i32::MIN, i32::MAX] {
        let sorted = |sort_order, sort_target| pb::RangeRequest {
            sort_order,
            sort_target,
            ..get("a")
        };
        for request in [sorted(number, 0), sorted(1, number)] {
            check(
                format!("sort {number}"),
                raw.range(request.clone()).await.map(drop),
            );
            let op = always(vec![request.op()]);
            check(
                format!("sort {number} in a txn"),
                raw.txn(op).await.map(drop),
            );
        }
        for compare in [
            pb::Compare {
                result: number,
                ..exists("a")
            },
            pb::Compare {
                target: number,
                ..exists("a")
            },
        ] {
            let request = txn(vec![compare], vec![put("a", "2").op()], vec![]);
            check(
                format!("compare {number}"),
                raw.txn(request).await.map(drop),
            );
        }
        let alarm = pb::AlarmRequest {
            action: number,
            ..Default::default()
        };
        check(
            format!("alarm action {number}"),
            raw.alarm(alarm).await.map(drop),
        );
        let alarm = pb::AlarmRequest {
            action: 1,
            alarm: number,
            ..Default::default()
        };
        check(format!("alarm {number}"), raw.alarm(alarm).await.map(drop));
        let request = pb::AuthRoleGrantPermissionRequest {
            name: "r".to_owned(),
            perm: Some(authpb::Permission {
                perm_type: number,
                key: "a".into(),
                ..Default::default()
            }),
        };
        check(
            format!("permission {number}"),
            raw.role_grant_call(request).await.map(drop),
        );
    }
    let none = pb::RequestOp { request: None };
    check(
        "no operation".to_owned(),
        raw.txn(always(vec![none.clone()])).await.map(drop),
    );
    let nested = always(vec![always(vec![none]).op()]);
    check(
        "no operation, nested".to_owned(),
        raw.txn(nested).await.map(drop),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    // On a stream such a message is passed over or refused; what comes after it is answered, and nothing was changed.
    let mut watch = RawWatch::open(raw);
    watch.empty_frame().await;
    let odd = pb::WatchCreateRequest {
        filters: vec![99, -1],
        ..watch_key("a")
    };
    watch.request(odd).await;
    let answered = watch.message().await;
    assert!(matches!(answered, Ok(Some(_)) | Err(_)), "{answered:?}");
    let value = raw.range(get("a")).await.unwrap().kvs[0].value.clone();
    assert_eq!(value, "1");
    let alive = || async { raw.status().await.ok() };
    eventually(PATIENCE, "the server is there", alive).await;
}
