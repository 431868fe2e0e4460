//! The checksum of one revision, which members compare to find out whether they agree, while each goes on at its own pace.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod group;

use group::{Group, founder};
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::TenantId;
use holdfast_tenant::request::{DeleteRange, Put};
use holdfast_tenant::{Command, KvHash, Refusal};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHECKED: i64 = 300;

/// Thousands of changes, with compactions before and behind the revision that is compared.
fn history() -> Vec<Command> {
    let mut commands = Vec::new();
    for n in 0..3_000i64 {
        commands.push(match n {
            _ if n % 13 == 5 => Command::DeleteRange(DeleteRange {
                keys: KeyRange::Point(format!("k{}", n % 40).into()),
                previous: false,
            }),
            _ => Command::Put(Put {
                key: format!("k{}", n % 40).into(),
                value: format!("v{n}").into(),
                lease: 0,
                previous: false,
                keep_value: false,
                keep_lease: false,
            }),
        });
        let compacted = match n {
            200 => 100,
            1_500 => 200,
            2_000 => CHECKED - 1,
            _ => continue,
        };
        commands.push(Command::Compact {
            revision: compacted,
        });
    }
    commands
}

#[test]
fn a_revision_has_one_hash_on_all_members_while_they_go_on() {
    let mut leader = Group::found(&[founder(1)]);
    let mut expected: BTreeMap<i64, KvHash> = BTreeMap::new();
    for command in history() {
        leader
            .apply(&command)
            .unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        let tenants = leader.machine().tenants();
        let tenant = tenants.get(TenantId::DEFAULT).unwrap();
        if tenant.revision() >= CHECKED && !expected.contains_key(&tenant.compacted()) {
            let hash = tenants.hash_kv(&tenant, CHECKED).unwrap();
            expected.insert(hash.compact_revision, hash);
        }
    }
    assert_eq!(expected.len(), 3, "{expected:?}");

    let mut follower = Group::found(&[founder(1)]);
    let tenants = follower.machine().tenants().clone();
    let tenant = tenants.get(TenantId::DEFAULT).unwrap();
    assert_eq!(
        tenants.hash_kv(&tenant, CHECKED),
        Err(Refusal::FutureRevision)
    );
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (n, command) in history().iter().enumerate() {
                let outcome = follower.apply_by(TenantId::DEFAULT, &Caller::Server, command);
                assert!(outcome.is_ok());
                if n % 50 == 0 {
                    let (dropped, _) = tenant.prune(8);
                    follower.machine().drop_rows(&tenant, dropped, 0);
                    tenants.store().persist().unwrap();
                }
            }
            finished.store(true, Ordering::Release);
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut last = false;
        while !last {
            last = finished.load(Ordering::Acquire);
            match tenants.hash_kv(&tenant, CHECKED) {
                Ok(found) => {
                    let expected = expected[&found.compact_revision];
                    assert_eq!((found.hash, found.hash_revision), (expected.hash, CHECKED));
                }
                Err(refusal) => assert_eq!(refusal, Refusal::FutureRevision),
            }
            assert!(Instant::now() < deadline, "the follower does not get on");
        }
    });
}
