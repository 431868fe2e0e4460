//! What a member sends that keeps no rule, and one that does.

/// Fields of a message that are as the receiver has them, and 0.
const SAME: u8 = 100;
const NEXT: u8 = 101;
const ZERO: u8 = 200;

/// The receiver: the leader or a follower.
const LEADER: u8 = 0;
const FOLLOWER: u8 = 1 << 4;
/// Steps.
const CARRY: u8 = 15;
const TICK: u8 = 13;
const PROPOSE: u8 = 11;
const SNAPSHOT: u8 = 10;
const BYTES: u8 = 9;
const FORWARD: u8 = 7;

/// Term, term before, index, commit, term of the commit, hint.
fn raft(to: u8, kind: u8, flags: u8, fields: [u8; 6], rest: &[u8]) -> Vec<u8> {
    [&[to, kind, flags][..], &fields, rest].concat()
}

pub(super) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let heartbeat = raft(FOLLOWER, 5, 0, [NEXT, ZERO, ZERO, SAME, ZERO, ZERO], &[]);
    let append = raft(
        FOLLOWER,
        0,
        // Two entries: a command without origin, one with.
        2 << 5,
        [NEXT, SAME, SAME, NEXT, ZERO, ZERO],
        &[0, 0, 5, 16, 0, 6],
    );
    let acknowledged = raft(LEADER, 1, 0, [SAME, ZERO, NEXT, SAME, ZERO, ZERO], &[]);
    let rejected = raft(LEADER, 1, 1, [SAME, SAME, SAME, SAME, ZERO, SAME - 2], &[]);
    let vote = raft(LEADER, 2, 8, [NEXT, SAME, NEXT, SAME, SAME, ZERO], &[0]);
    let pre_vote = raft(FOLLOWER, 10, 0, [NEXT, SAME, NEXT, ZERO, ZERO, ZERO], &[]);
    let timeout_now = raft(FOLLOWER, 7, 0, [SAME, ZERO, ZERO, ZERO, ZERO, ZERO], &[]);
    // The context is an entry's data, and begins with the member.
    let read = raft(
        LEADER,
        8,
        1 << 5,
        [ZERO; 6],
        &[64, 9, 3, 0, 0, 0, 0, 0, 0, 0, 7],
    );
    let far = raft(FOLLOWER, 5, 0, [208, ZERO, ZERO, ZERO, ZERO, ZERO], &[]);
    let beyond = raft(FOLLOWER, 0, 0, [NEXT, ZERO, 199, 206, ZERO, ZERO], &[]);
    let change = raft(
        FOLLOWER,
        0,
        1 << 5,
        [NEXT, SAME, SAME, NEXT, ZERO, ZERO],
        // A learner, its command in the context.
        &[1 | 2 << 4, 2, 4],
    );
    // Index and term of the snapshot, configuration 0; its contents fit.
    let snapshot = raft(
        SNAPSHOT | FOLLOWER,
        4,
        16,
        [NEXT, ZERO, ZERO, ZERO, ZERO, ZERO],
        &[NEXT + 5, SAME, 0, 0],
    );
    // Two commands, in the leader's term.
    let forward = [FORWARD, 2 << 5, SAME, 0, 5, 0, 6].to_vec();
    let refused = [FORWARD | FOLLOWER, 1 | 1 << 5, 1].to_vec();
    let bytes = [vec![BYTES], super::long(b"\x01\x02garbage")].concat();
    let story = [
        vec![0b1000],
        acknowledged.clone(),
        vec![CARRY, 20],
        forward.clone(),
        vec![CARRY, 20, PROPOSE, 3],
        heartbeat.clone(),
        vec![TICK | FOLLOWER, 25, CARRY, 60],
        vote.clone(),
    ];
    let one = |situation: u8, message: Vec<u8>| [vec![situation], message].concat();
    vec![
        ("heartbeat", one(0, heartbeat)),
        ("append", one(0b10, append)),
        ("acknowledged", one(1, acknowledged)),
        ("rejected", one(0b11, rejected)),
        ("vote", one(0, vote)),
        ("pre_vote", one(0b100, pre_vote)),
        ("timeout_now", one(0, timeout_now)),
        ("read", one(0b1000, read)),
        ("far_future", one(0, far)),
        ("beyond_the_log", one(0, beyond)),
        ("change", one(0b10_0000, change)),
        ("snapshot", one(0, snapshot)),
        ("forward", one(0, forward)),
        ("refused", one(0b1_0000, refused)),
        ("bytes", one(0, bytes)),
        ("story", story.concat()),
    ]
}
