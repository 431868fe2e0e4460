//! What a stolen key of a member can do on the stream of messages. The member itself is down, and whoever has its key keeps no rule.

use crate::attacker::{Talk, Target, frame, framed};
use crate::wire::{Entry, Raft, configuration, forward, origin, refused};
use bytes::Bytes;
use holdfast_proto::peer as pb;
use holdfast_tests::{PATIENCE, eventually, holdfast_only, peak_rss_bytes, wire::put};

const APPEND: u8 = 0;
const APPENDED: u8 = 1;
const VOTE: u8 = 2;
const SNAPSHOT: u8 = 4;
const HEARTBEAT: u8 = 5;
const HEARTBEAT_ANSWER: u8 = 6;
const READ_INDEX: u8 = 8;
const READ_INDEX_ANSWER: u8 = 9;
const PRE_VOTE_ANSWER: u8 = 11;

/// The member whose key was stolen.
const STOLEN: usize = 2;

fn batch(messages: Vec<Vec<u8>>) -> pb::MessageBatch {
    pb::MessageBatch {
        messages: messages.into_iter().map(Bytes::from).collect(),
        ..pb::MessageBatch::default()
    }
}

/// What the members are at.
struct At {
    term: u64,
    applied: u64,
    leader: usize,
}

async fn at(target: &Target) -> At {
    let leader = target.cluster.leader().await;
    let status = target.raw(leader).status().await.unwrap();
    At {
        term: status.raft_term,
        applied: status.raft_applied_index,
        leader,
    }
}

impl Target {
    /// A message to a member, from the one whose key was stolen.
    fn raft(&self, to: usize, kind: u8, term: u64) -> Raft {
        Raft {
            kind,
            to: self.ids[to],
            from: self.ids[STOLEN],
            term,
            ..Raft::default()
        }
    }
}

/// Sends messages to both others on new streams, and waits until each has looked at them.
async fn send(target: &Target, make: impl Fn(usize) -> Vec<Vec<u8>>) {
    for to in [0, 1] {
        let mut talk = target.welcomed(STOLEN, to).await;
        let _ = talk.tell(&batch(make(to))).await;
        // Its answer comes when what was sent before has been handed over.
        let probe = pb::MessageBatch {
            probe: 7,
            ..pb::MessageBatch::default()
        };
        if talk.tell(&probe).await.is_ok() {
            let _ = tokio::time::timeout(PATIENCE, talk.hear()).await;
        }
    }
}

/// Sends, and finds all of it refused, counted and logged by both, who go on.
async fn refused_by_both(target: &mut Target, what: &str, make: impl Fn(usize) -> Vec<Vec<u8>>) {
    let before = [
        target.refused_messages(0).await,
        target.refused_messages(1).await,
    ];
    let count = make(0).len() as f64;
    send(target, &make).await;
    target.serves(what).await;
    for (index, before) in before.into_iter().enumerate() {
        let counted = target.refused_messages(index).await - before;
        assert!(counted >= count, "{what}: m{index} counted {counted}");
        // Of many in a short time only some are written.
        let log = target.cluster.member(index).log();
        let said = log.contains("a message of another member was refused");
        assert!(said, "{what}: m{index} says nothing of it");
    }
}

async fn ended_with(mut talk: Talk, code: u32, what: &str) {
    let answer = tokio::time::timeout(PATIENCE, talk.end()).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what}: the stream goes on"));
    let answer = answer.unwrap();
    assert_eq!(answer.code, code, "{what}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_out_of_bounds_end_their_stream() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let second = pb::MessageBatch {
        hello: Some(target.hello(STOLEN, 0)),
        ..pb::MessageBatch::default()
    };
    let bodies = [
        ("oversized", framed(&vec![0; (16 << 20) + 1]), 8),
        ("claimed", vec![0, 0xff, 0xff, 0xff, 0xff], 8),
        ("too many", frame(&batch(vec![vec![0]; 4_097])), 3),
        ("millions of nothing", framed(&[0x12, 0].repeat(4 << 20)), 3),
        ("an empty one", frame(&batch(vec![vec![]])), 3),
        ("garbage", framed(b"\xff\xff\xff\xff"), 3),
        ("compressed", vec![1, 0, 0, 0, 0], 3),
        ("a second Hello", frame(&second), 9),
    ];
    for (what, body, code) in bodies {
        let mut talk = target.welcomed(STOLEN, 0).await;
        let _ = talk.say(body).await;
        ended_with(talk, code, what).await;
        target.serves(what).await;
    }
    // A newer stream takes the place of an older one.
    let older = target.welcomed(STOLEN, 0).await;
    let _newer = target.welcomed(STOLEN, 0).await;
    ended_with(older, 10, "an older stream").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_are_refused() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let now = at(&target).await;
    let garbage = |_: usize| {
        vec![
            b"garbage".to_vec(),
            vec![1],
            vec![1, 1],
            vec![2, 1, 5, 0],
            vec![1, 4],
            [&[1, 2][..], &[0; 16], &u32::MAX.to_le_bytes()].concat(),
            [&[1, 3][..], &[0; 8], &[2], &[0; 4]].concat(),
        ]
    };
    refused_by_both(&mut target, "garbage", garbage).await;
    let ids = target.ids.clone();
    let whole = |to: usize| Raft {
        kind: HEARTBEAT,
        to: ids[to],
        from: ids[STOLEN],
        term: now.term,
        ..Raft::default()
    };
    // Types that belong to a member itself (MsgHup and others), cut off, too long, misdirected, without a term.
    let forged = |to: usize| {
        let right = whole(to).encode();
        let others = |from: u64, to: u64| {
            Raft {
                from,
                to,
                ..whole(0)
            }
            .encode()
        };
        vec![
            Raft {
                kind: 12,
                ..whole(to)
            }
            .encode(),
            right[..right.len() - 1].to_vec(),
            [&right[..], &[0]].concat(),
            others(ids[1 - to], ids[to]),
            others(ids[to], ids[to]),
            others(0, ids[to]),
            others(ids[STOLEN], ids[1 - to]),
            Raft {
                term: 0,
                ..whole(to)
            }
            .encode(),
        ]
    };
    refused_by_both(&mut target, "forged messages", forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_would_panic_a_trusting_raft_are_refused() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let base = [0, 1].map(|to| target.raft(to, HEARTBEAT, 0));
    let now = at(&target).await;
    let (term, applied) = (now.term, now.applied);
    let raft = |to: usize, kind: u8, term: u64| Raft {
        kind,
        term,
        to: base[to].to,
        from: base[to].from,
        ..Raft::default()
    };
    let entry = |index: u64, term: u64| Entry {
        kind: 0,
        term,
        index,
        context: Vec::new(),
        data: Vec::new(),
    };
    let impossible = |to: usize| {
        let append = |index: u64, log_term: u64, entries: Vec<Entry>| Raft {
            index,
            log_term,
            entries,
            commit: index,
            ..raft(to, APPEND, term + 1)
        };
        let snapshot = |voters: &[u64]| Raft {
            snapshot: Some((applied + 9, term, configuration(&[voters, &[], &[], &[]]))),
            ..raft(to, SNAPSHOT, term + 1)
        };
        [
            // It replaces what is committed.
            append(applied - 1, term, vec![entry(applied, term + 1)]),
            // Gaps, terms that fall, terms and indexes without end.
            append(applied, term, vec![entry(applied + 2, term)]),
            append(applied, term, vec![entry(applied + 1, term - 1)]),
            append(applied, term, vec![entry(applied + 1, u64::MAX)]),
            append(u64::MAX, term, vec![entry(0, term)]),
            append(
                1 << 62,
                term,
                vec![entry((1 << 62) + 1, term), entry(7, term)],
            ),
            // Behind the log there is no term that could be right.
            append(applied + 1_000, 0, Vec::new()),
            append(applied + 1_000, 0, vec![entry(applied + 1_001, term)]),
            append(applied, term + 2, Vec::new()),
            raft(to, READ_INDEX_ANSWER, term),
            // Not without its content, and not with what nobody could work with.
            snapshot(&[]),
            snapshot(&[1, 1]),
            Raft {
                snapshot: Some((applied + 9, term, Vec::new())),
                ..raft(to, SNAPSHOT, term + 1)
            },
            raft(to, SNAPSHOT, term + 1),
            Raft {
                context: vec![1; 65],
                ..raft(to, HEARTBEAT, term)
            },
            Raft {
                context: b"CampaignTransfers".to_vec(),
                ..raft(to, VOTE, term)
            },
            raft(to, HEARTBEAT, u64::MAX),
            Raft {
                commit: u64::MAX,
                ..raft(to, HEARTBEAT, term)
            },
        ]
        .iter()
        .map(Raft::encode)
        .collect()
    };
    refused_by_both(&mut target, "impossible messages", impossible).await;
    // To the leader alone: what it has not sent cannot be acknowledged, nobody leads beside it, and a read has one context, of bounded
    // length, that begins with who asks.
    let now = at(&target).await;
    let to = now.leader;
    let before = target.refused_messages(to).await;
    let mut talk = target.welcomed(STOLEN, to).await;
    let reading = |contexts: &[&[u8]]| {
        let entries = contexts.iter().map(|context| Entry {
            data: context.to_vec(),
            ..entry(0, 0)
        });
        Raft {
            entries: entries.collect(),
            ..target.raft(to, READ_INDEX, 0)
        }
    };
    let own = target.ids[STOLEN].to_le_bytes();
    let others = target.ids[to].to_le_bytes();
    let long = [&own[..], &[1; 57]].concat();
    let messages = [
        reading(&[]),
        reading(&[&own, &own]),
        reading(&[&long]),
        reading(&[&others]),
        Raft {
            index: now.applied + 1_000,
            ..target.raft(to, APPENDED, now.term)
        },
        Raft {
            commit: 1,
            ..target.raft(to, HEARTBEAT, now.term)
        },
        Raft {
            index: now.applied,
            log_term: now.term,
            ..target.raft(to, APPEND, now.term)
        },
    ];
    talk.tell(&batch(messages.iter().map(Raft::encode).collect()))
        .await
        .unwrap();
    eventually(PATIENCE, "they are counted", async || {
        (target.refused_messages(to).await >= before + messages.len() as f64).then_some(())
    })
    .await;
    drop(talk);
    target.serves("messages to the leader").await;
    assert_eq!(at(&target).await.term, now.term, "no election was needed");
}

/// A second leader in a term is none: nobody is stopped by its word (`LostData`), nor follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_follows_a_second_leader_of_a_term() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let now = at(&target).await;
    let base = [0, 1].map(|to| target.raft(to, HEARTBEAT, now.term));
    let usurping = |to: usize| {
        let as_leader = |kind: u8, commit: u64| Raft {
            kind,
            commit,
            index: now.applied,
            log_term: now.term,
            term: now.term,
            to: base[to].to,
            from: base[to].from,
            ..Raft::default()
        };
        let heartbeat = Raft {
            index: 0,
            log_term: 0,
            ..as_leader(HEARTBEAT, now.applied + 1_000)
        };
        vec![as_leader(APPEND, now.applied).encode(), heartbeat.encode()]
    };
    refused_by_both(&mut target, "a second leader", usurping).await;
    assert_eq!(at(&target).await.term, now.term, "no election was needed");
}

/// One message must not take the group so far into the future that there is none after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_moves_the_term_without_bounds() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let base = [0, 1].map(|to| target.raft(to, HEARTBEAT, 0));
    let far = |to: usize| {
        let raft = |kind: u8, context: &[u8], reject: u8| {
            Raft {
                kind,
                reject,
                context: context.to_vec(),
                term: 1 << 62,
                to: base[to].to,
                from: base[to].from,
                ..Raft::default()
            }
            .encode()
        };
        vec![
            raft(HEARTBEAT, b"", 0),
            raft(VOTE, b"CampaignTransfer", 0),
            raft(PRE_VOTE_ANSWER, b"", 1),
        ]
    };
    refused_by_both(&mut target, "a term of the far future", far).await;
    let now = at(&target).await;
    assert!(now.term < 1 << 48, "term {}", now.term);
}

/// What cannot be applied must not come into the log: every member would stop, and again after each start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_applied_is_not_taken_into_the_log() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let now = at(&target).await;
    // A command is length, kind, tenant, body: one that ends too early, one of an unknown kind, and one that changes members, which an
    // ordinary entry must not do.
    let removal = command(14, &varint(target.ids[1]));
    let adding = command(
        12,
        &[&varint(77)[..], &[1, 21], b"http://127.0.0.1:1234", &[0, 1]].concat(),
    );
    let poisons = [
        ("bytes", b"\xff\xff\xff\xffgarbage".to_vec()),
        ("a command that is cut off", removal[..8].to_vec()),
        ("an unknown command", command(99, b"body")),
        ("a removal", removal),
        ("an addition", adding),
    ];
    for (what, poison) in poisons {
        let leader = target.cluster.leader().await;
        let before = target.refused_messages(leader).await;
        let mut talk = target.welcomed(STOLEN, leader).await;
        let message = forward(9, now.term, &[(1, poison)]);
        talk.tell(&batch(vec![message])).await.unwrap();
        eventually(PATIENCE, "it is counted", async || {
            let ended = target.raw(leader).status().await.is_err();
            (ended || target.refused_messages(leader).await > before).then_some(())
        })
        .await;
        drop(talk);
        target.serves(what).await;
        assert_eq!(members(&target).await, 3, "{what}");
    }
    for index in [0, 1] {
        target.cluster.kill(index);
    }
    target.cluster.restart_all(&[0, 1, 2]);
    target.serves("a restart of all").await;
}

/// Forwarded proposals of another process, refusals of what was never asked, and answers to reads of others come to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_what_nobody_asked_come_to_nothing() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let now = at(&target).await;
    let base = [0, 1].map(|to| target.raft(to, READ_INDEX_ANSWER, now.term));
    send(&target, |to| {
        let context = origin(base[to].to, 1, now.term);
        let answer = Raft {
            kind: READ_INDEX_ANSWER,
            term: now.term,
            index: 1 << 40,
            to: base[to].to,
            from: base[to].from,
            entries: vec![Entry {
                kind: 0,
                term: 0,
                index: 0,
                context: Vec::new(),
                data: context,
            }],
            ..Raft::default()
        };
        vec![
            refused(1, 0, &[0, 1, 2, u64::MAX]),
            refused(u64::MAX, 1, &[1]),
            forward(u64::MAX, now.term, &[(u64::MAX, Vec::new())]),
            forward(9, now.term + 5, &[(1, b"garbage".to_vec())]),
            forward(9, 0, &[]),
            answer.encode(),
        ]
    })
    .await;
    target.serves("answers to nothing").await;
}

/// Who sends nonsense without pause fills no log and keeps nobody from work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_nonsense_fills_no_log() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let before = target.refused_messages(0).await;
    let mark = target.cluster.member(0).log().len();
    let mut talk = target.welcomed(STOLEN, 0).await;
    let nonsense = Bytes::from(frame(&batch(vec![b"nonsense".to_vec(); 4_096])));
    let began = std::time::Instant::now();
    for round in 0..20 {
        talk.say(nonsense.clone()).await.unwrap();
        if round % 10 == 0 {
            let raw = target.raw(0);
            let written = async || raw.put(put("during", "the flood")).await.ok();
            eventually(PATIENCE, "a put during the flood", written).await;
        }
    }
    eventually(PATIENCE, "all is counted", async || {
        let counted = target.refused_messages(0).await - before;
        let lines = target.cluster.member(0).log().len() - mark;
        (counted >= 20.0 * 4_096.0 || lines > 10_000).then_some(())
    })
    .await;
    let lines = target.cluster.member(0).log().len() - mark;
    let most = 100 + 30 * (began.elapsed().as_secs() as usize + 1);
    assert!(lines < most, "{lines} lines in {:?}", began.elapsed());
    drop(talk);
    target.serves("a flood").await;
}

/// What a leader sends a member that lags is bounded, however often that one asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_asks_without_end_fills_no_memory() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.lead(0).await;
    target.cluster.kill(STOLEN);
    let value = "v".repeat(500 << 10);
    for number in 0..8 {
        let key = format!("large/{number}");
        target.raw(0).put(put(&key, &value)).await.unwrap();
    }
    let now = at(&target).await;
    assert_eq!(now.leader, 0);
    let pid = target.cluster.member(0).pid();
    let before = peak_rss_bytes(pid);
    let alive = target.raft(0, HEARTBEAT_ANSWER, now.term).encode();
    let rejection = |index: u64| Raft {
        reject: 1,
        index,
        reject_hint: index - 1,
        log_term: 1,
        ..target.raft(0, APPENDED, now.term)
    };
    let rejections = (2..now.applied)
        .rev()
        .map(|index| rejection(index).encode());
    let mut talk = target.welcomed(STOLEN, 0).await;
    for messages in [vec![alive; 4_096], rejections.take(4_096).collect()] {
        // Whoever reads nothing of what it asked for.
        let _ = talk.tell(&batch(messages)).await;
        target.serves("what a member asks for").await;
    }
    let grown = peak_rss_bytes(pid).saturating_sub(before) >> 20;
    assert!(grown < 400, "{grown} MiB more than before");
}

/// How many members there are.
async fn members(target: &Target) -> usize {
    target.raw(0).member_list().await.unwrap().len()
}

/// A command of the server itself, in tenant `default`.
pub(crate) fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    let rest = [&[kind], &1_u32.to_le_bytes()[..], body].concat();
    let length = u32::try_from(rest.len()).unwrap();
    [&length.to_le_bytes()[..], &rest].concat()
}

pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
