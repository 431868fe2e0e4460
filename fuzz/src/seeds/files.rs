//! What is read back from disk.

use super::{long, short};
use bytes::Bytes;
use holdfast_auth::{
    AuthChange, AuthState, Caller, KeyRange, PasswordHash, Permission, PermissionKind, TokenEpochs,
    UserId,
};
use holdfast_storage::TenantId;
use holdfast_storage::disk::MemDisk;
use holdfast_storage::log::{Entry, HardState, LogBatch, LogOptions, RaftLog};
use holdfast_tenant::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, RevisionFilter, SortTarget, Txn,
};
use holdfast_tenant::{Alarm, AlarmKind, Command, MemberVersion, TokenKeyRecord};

const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";
const BCRYPT: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

fn key_range(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange::from_pair(key.into(), end.into())
}

fn txn() -> Txn {
    let range = Range {
        keys: key_range("a", "c"),
        limit: 10,
        revision: 3,
        order: Order::Sorted {
            target: SortTarget::Mod,
            descending: true,
        },
        keys_only: true,
        count_only: false,
        filter: RevisionFilter {
            min_mod: 2,
            max_mod: 9,
            min_create: 1,
            max_create: 8,
        },
    };
    let inner = Txn {
        compares: Vec::new(),
        success: vec![Op::DeleteRange(DeleteRange {
            keys: key_range("b", "\0"),
            previous: true,
        })],
        failure: Vec::new(),
    };
    Txn {
        compares: vec![
            Compare {
                keys: key_range("a", ""),
                relation: Relation::Equal,
                operand: Operand::Value("v".into()),
            },
            Compare {
                keys: key_range("\0", "\0"),
                relation: Relation::Greater,
                operand: Operand::Lease(-1),
            },
        ],
        success: vec![Op::Range(range), Op::Txn(inner)],
        failure: vec![Op::Put(put())],
    }
}

fn put() -> Put {
    Put {
        key: "key".into(),
        value: "value".into(),
        lease: 7,
        previous: true,
        keep_value: false,
        keep_lease: false,
    }
}

/// Changes that make two users and two roles, and put them in force.
fn changes() -> Vec<AuthChange> {
    let text = str::to_owned;
    let hash = |text| PasswordHash::parse(text).expect("a hash");
    vec![
        AuthChange::UserAdd {
            name: text("root"),
            password: Some(hash(ARGON2)),
        },
        AuthChange::UserGrantRole {
            user: text("root"),
            role: text("root"),
        },
        AuthChange::RoleAdd { name: text("r") },
        AuthChange::RoleGrantPermission {
            role: text("r"),
            permission: Some(Permission {
                keys: key_range("a", "c"),
                kind: PermissionKind::ReadWrite,
            }),
        },
        AuthChange::RoleGrantPermission {
            role: text("r"),
            permission: Some(Permission {
                keys: key_range("k", ""),
                kind: PermissionKind::Read,
            }),
        },
        AuthChange::UserAdd {
            name: text("u"),
            password: Some(hash(BCRYPT)),
        },
        AuthChange::UserGrantRole {
            user: text("u"),
            role: text("r"),
        },
        AuthChange::Enable,
    ]
}

/// Changes on top of [`changes`], most of them possible.
fn later_changes() -> Vec<AuthChange> {
    let text = str::to_owned;
    vec![
        AuthChange::UpgradePassword {
            user: UserId(7),
            credential: 7,
            password: PasswordHash::parse(ARGON2).expect("a hash"),
        },
        AuthChange::UserChangePassword {
            name: text("u"),
            password: None,
        },
        AuthChange::UserRevokeRole {
            user: text("u"),
            role: text("r"),
        },
        AuthChange::RoleGrantPermission {
            role: text("r"),
            permission: None,
        },
        AuthChange::RoleRevokePermission {
            role: text("r"),
            keys: key_range("k", ""),
        },
        AuthChange::RoleDelete { name: text("r") },
        AuthChange::UserDelete { name: text("u") },
        AuthChange::Disable,
    ]
}

fn entry(commands: impl IntoIterator<Item = Command>, caller: &Caller) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        command.encode(TenantId(1), caller, &mut out);
    }
    out
}

fn member_changes() -> Vec<Command> {
    let url = |port: u16| vec![format!("https://127.0.0.1:{port}")];
    vec![
        Command::MemberAdd {
            id: 300,
            peer_urls: url(2380),
            is_learner: true,
            max_learners: 1,
        },
        Command::MemberPromote { id: 300 },
        Command::MemberUpdate {
            id: 300,
            peer_urls: [url(2381), url(2382)].concat(),
        },
        Command::MemberRemove { id: 300 },
    ]
}

fn published_member() -> Command {
    Command::MemberPublish {
        id: 300,
        name: "m3".to_owned(),
        client_urls: vec!["https://127.0.0.1:2379".to_owned()],
        instance: 7,
        version: MemberVersion {
            level: 1,
            text: "3.7.1".to_owned(),
        },
    }
}

pub(super) fn commands() -> Vec<(&'static str, Vec<u8>)> {
    let user = Caller::User {
        id: UserId(5),
        token: Some(TokenEpochs {
            epoch: 300,
            credential: 5,
        }),
    };
    let certified = Caller::User {
        id: UserId(5),
        token: None,
    };
    let external = Caller::External {
        subject: "somebody".into(),
        roles: ["r".into(), "s".into()].into(),
    };
    let alarm = Alarm {
        member: 1,
        kind: AlarmKind::NoSpace,
    };
    let key = TokenKeyRecord {
        kid: "kid".to_owned(),
        public_key: [9; 32],
        made_at: 1_800_000_000,
        member: 1,
        retires_at: Some(1_800_000_300),
    };
    vec![
        (
            "puts",
            entry([Command::Put(put()), Command::Put(put())], &user),
        ),
        ("txn", entry([Command::Txn(txn())], &external)),
        (
            "delete",
            entry(
                [Command::DeleteRange(DeleteRange {
                    keys: key_range("a", "\0"),
                    previous: false,
                })],
                &certified,
            ),
        ),
        (
            "leases",
            entry(
                [
                    Command::LeaseGrant { id: 300, ttl: 60 },
                    Command::LeaseRevoke { id: -1 },
                    Command::LeaseCheckpoint(vec![(300, 30), (1, 0)]),
                ],
                &Caller::Server,
            ),
        ),
        (
            "housekeeping",
            entry(
                [
                    Command::Compact { revision: 100 },
                    Command::RaiseAlarm(alarm),
                    Command::ClearAlarm(alarm),
                    Command::PublishTokenKey {
                        key,
                        retire_older_at: None,
                    },
                ],
                &Caller::Anonymous,
            ),
        ),
        (
            "members",
            [
                entry(member_changes(), &user),
                entry([published_member()], &Caller::Server),
            ]
            .concat(),
        ),
        (
            "users",
            entry(changes().into_iter().map(Command::Auth), &user),
        ),
        (
            "later_users",
            entry(
                later_changes().into_iter().map(Command::Auth),
                &Caller::Server,
            ),
        ),
    ]
}

pub(super) fn auth_records() -> Vec<(&'static str, Vec<u8>)> {
    let later = entry(
        later_changes().into_iter().map(Command::Auth),
        &Caller::Server,
    );
    let mut state = AuthState::new();
    let mut seeds = vec![(
        "from_nothing",
        [
            vec![0],
            entry(changes().into_iter().map(Command::Auth), &Caller::Server),
        ]
        .concat(),
    )];
    for change in changes() {
        state.apply(&change).expect("a possible change");
    }
    let mut records = vec![u8::try_from(state.records().count()).expect("few records")];
    for (key, value) in state.records() {
        records.extend([short(&key), long(&value)].concat());
    }
    seeds.push(("two_users", records.clone()));
    seeds.push(("two_users_and_changes", [records, later].concat()));
    seeds
}

pub(super) fn snapshots() -> Vec<(&'static str, Vec<u8>)> {
    // Head: position, cluster, two tenants. A state record, two rows, the end.
    let mut payload = Vec::new();
    for number in [42_u64, 3, 0xc1] {
        payload.extend_from_slice(&number.to_be_bytes());
    }
    for number in [2_u32, 1, 5] {
        payload.extend_from_slice(&number.to_be_bytes());
    }
    let head = payload.clone();
    payload.extend_from_slice(b"\x01\0\0\0\x03\0\0\0\x05keyvalue");
    payload.push(3);
    for number in [1_u64, 0] {
        payload.extend_from_slice(&number.to_be_bytes());
    }
    let mut row = head.clone();
    // Tenant, revision (main, sub), length, record: version, flags, create revision, version of the key, lease, lengths, key, value.
    row.extend_from_slice(b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x0f");
    row.extend_from_slice(b"\x01\0\x05\x02\x0e\x03\x05keyvalue");
    row.push(3);
    for number in [0_u64, 1] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    let stream = crate::targets::snapshot::in_blocks(&payload, 30);
    vec![
        ("stream", [vec![0, 7], stream].concat()),
        ("payload", [vec![1, 25], payload].concat()),
        ("row", [vec![1, 200], row].concat()),
        (
            "nothing_in_it",
            [vec![1, 200], head, vec![3], vec![0; 16]].concat(),
        ),
    ]
}

pub(super) fn raft_logs() -> Vec<(&'static str, Vec<u8>)> {
    let hard_state = [1_u64, 1, 2].map(u64::to_le_bytes).concat();
    let frame = |kind: u8, payload: &[u8]| [vec![kind], short(payload)].concat();
    let entry = |index: u64, data: &[u8]| {
        let fields = [index.to_le_bytes(), 1_u64.to_le_bytes()].concat();
        frame(
            2,
            &[fields, vec![0, 1, 0, 0, 0, b'c'], data.to_vec()].concat(),
        )
    };
    let mark = |index: u64| {
        let fields = [index.to_le_bytes(), 1_u64.to_le_bytes()].concat();
        frame(4, &[fields, b"members".to_vec()].concat())
    };
    let snapshot = {
        let fields = [9_u64, 2].map(u64::to_le_bytes).concat();
        frame(
            5,
            &[fields, hard_state.clone(), b"members".to_vec()].concat(),
        )
    };
    let state = frame(3, &hard_state);
    let (batch, segment) = (vec![0], vec![255]);
    let two_segments = [
        // Mode, first index, flags.
        vec![1, 1, 0],
        state.clone(),
        batch.clone(),
        entry(1, b"one"),
        entry(2, b"two"),
        batch.clone(),
        segment.clone(),
        vec![0],
        mark(1),
        state.clone(),
        batch.clone(),
        entry(3, b"three"),
        batch.clone(),
    ]
    .concat();
    let installed = [
        vec![1, 1, 32],
        state,
        batch.clone(),
        entry(1, b"one"),
        batch.clone(),
        snapshot,
        batch,
    ]
    .concat();
    // No damage; appends, a sync, a compaction, more, a power cut, a snapshot, a restart.
    let history = vec![
        2, 0, 0, 0x18, 40, 0, 0x38, 60, 3, 4, 128, 0, 0x19, 90, 0, 0x18, 200, 7, 1, 6, 1, 2, 3, 1,
        0, 2, 0, 0x18, 10, 3, 5, 4, 0, 0x38, 3, 7, 0, 0, 0x18, 255, 6, 0, 0x18, 255,
    ];
    // Two bytes changed.
    let damaged = vec![
        2, 2, 0, 80, 0, 1, 0, 200, 0, 4, 0, 0x18, 40, 0, 0x38, 60, 3, 0, 0x19, 90, 3, 0, 0x18, 200,
    ];
    vec![
        ("own_files", own_files()),
        ("two_segments", two_segments),
        ("installed", installed),
        ("history", history),
        ("damaged", damaged),
    ]
}

/// The files of a small log, without the zeros at their ends.
fn own_files() -> Vec<u8> {
    let disk = MemDisk::new();
    let options = LogOptions {
        segment_bytes: 4096,
        recycle: 1,
        sync: true,
        cache_bytes: 0,
        seed: Some(7),
    };
    let (mut log, _) = RaftLog::open(disk.clone(), options).expect("an empty directory");
    for index in 1..=3 {
        let entry = Entry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::from_static(b"data"),
            context: Bytes::new(),
        };
        log.append(LogBatch {
            entries: &[entry],
            hard_state: Some(HardState {
                term: 1,
                vote: 1,
                commit: index - 1,
            }),
        })
        .and_then(|()| log.sync())
        .expect("appending");
    }
    log.close().expect("closing");
    let mut seed = vec![0];
    for (which, filled, name) in [(4, 1, "0000000000000001.log"), (0, 0, "synced")] {
        let mut bytes = disk.contents(name).expect("a file of the log");
        if filled == 1 {
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
        }
        seed.extend([vec![which, filled], long(&bytes)].concat());
    }
    seed
}
