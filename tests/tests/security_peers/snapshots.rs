//! Snapshots that a stolen key of a member sends: old ones, those of another cluster, damaged and forged ones.

use crate::attacker::{Answer, Target, frame};
use crate::security::snapshot;
use crate::wire::{Raft, configuration};
use holdfast_proto::peer as pb;
use holdfast_tests::{
    PATIENCE, holdfast_only,
    wire::{get, put},
};

/// The member whose key was stolen.
const STOLEN: usize = 2;
const PIECE_BYTES: usize = 256 << 10;
/// Where the stream's head is: behind its magic and version, and the first block's length and checksum.
const HEAD: usize = 16;

/// A snapshot as members send it: what clients get, without what is behind its end.
struct Stream(Vec<u8>);

impl Stream {
    async fn of(target: &Target, index: usize) -> Stream {
        let bytes = snapshot(&target.raw(index)).await;
        let mut end = 8;
        while let Some(length) = bytes[end..].first_chunk::<4>() {
            match u32::from_be_bytes(*length) as usize {
                0 => break,
                length if end + 8 + length > bytes.len() - 32 => break,
                length => end += 8 + length,
            }
        }
        Stream(bytes[..end].to_vec())
    }

    fn number(&self, place: usize) -> u64 {
        let bytes = self.0[HEAD + 8 * place..].first_chunk::<8>();
        u64::from_be_bytes(*bytes.unwrap())
    }

    fn index(&self) -> u64 {
        self.number(0)
    }

    /// The same with another number in its head, and right checksums: 0 is the index, 1 the term, 2 the cluster.
    fn with(&self, place: usize, number: u64) -> Stream {
        let mut bytes = self.0.clone();
        let at = HEAD + 8 * place;
        bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        let (mut at, mut crc) = (8, 0);
        while at < bytes.len() {
            let head: [u8; 4] = *bytes[at..].first_chunk().unwrap();
            let length = u32::from_be_bytes(head) as usize;
            crc = crc32c::crc32c_append(crc, &head);
            crc = crc32c::crc32c_append(crc, &bytes[at + 8..at + 8 + length]);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
            at += 8 + length;
        }
        Stream(bytes)
    }
}

/// Sends a snapshot to a member under a message, from the member whose key was stolen.
async fn send(target: &Target, to: usize, message: &Raft, stream: &[u8]) -> Result<Answer, String> {
    let certificate = target.member_certificate(STOLEN);
    let mut line = target.line(to, &certificate).await.unwrap();
    let body = body(target, to, message, stream);
    line.call("InstallSnapshot", body).await
}

/// All that a call has to say.
fn body(target: &Target, to: usize, message: &Raft, stream: &[u8]) -> Vec<u8> {
    let mut body = frame(&pb::SnapshotPiece {
        hello: Some(target.hello(STOLEN, to)),
        message: message.encode().into(),
        ..pb::SnapshotPiece::default()
    });
    for chunk in stream.chunks(PIECE_BYTES) {
        body.extend(frame(&pb::SnapshotPiece {
            chunk: chunk.to_vec().into(),
            ..pb::SnapshotPiece::default()
        }));
    }
    body.extend(frame(&pb::SnapshotPiece {
        last: true,
        ..pb::SnapshotPiece::default()
    }));
    body
}

/// The message of a snapshot of all members.
fn message(target: &Target, to: usize, term: u64, index: u64, of: u64) -> Raft {
    let mut voters = target.ids.clone();
    voters.sort_unstable();
    Raft {
        kind: 4,
        to: target.ids[to],
        from: target.ids[STOLEN],
        term,
        snapshot: Some((index, of, configuration(&[&voters, &[], &[], &[]]))),
        ..Raft::default()
    }
}

async fn term(target: &Target, index: usize) -> u64 {
    target.raw(index).status().await.unwrap().raft_term
}

/// Snapshots of the member whose key was stolen that a member has not taken.
async fn failures(target: &Target, to: usize) -> f64 {
    let series = format!(
        "etcd_network_snapshot_receive_failures{{From=\"{:x}\"}}",
        target.ids[STOLEN]
    );
    target.sample(to, &series).await
}

/// It is refused and counted, and all go on with what they had.
async fn is_refused(
    target: &mut Target,
    to: usize,
    message: &Raft,
    stream: &[u8],
    codes: &[u32],
    what: &str,
) {
    let before = failures(target, to).await;
    let sent = tokio::time::timeout(PATIENCE, send(target, to, message, stream)).await;
    match sent {
        Ok(Ok(answer)) => assert!(codes.contains(&answer.code), "{what}: {answer:?}"),
        Ok(Err(error)) => panic!("{what}: {error}"),
        Err(_) => panic!("{what}: no answer"),
    }
    target.serves(what).await;
    assert_eq!(failures(target, to).await, before + 1.0, "{what}");
    let found = target.raw(to).range(get("kept")).await.unwrap();
    assert_eq!(found.kvs[0].value, "kept", "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_foreign_and_damaged_snapshots_are_refused() {
    holdfast_only!();
    let mut target = Target::start().await;
    let old = Stream::of(&target, 0).await;
    target.raw(0).put(put("kept", "kept")).await.unwrap();
    let new = Stream::of(&target, 0).await;
    let foreign = {
        let other = Target::start().await;
        other.raw(0).put(put("foreign", "foreign")).await.unwrap();
        Stream::of(&other, 0).await
    };
    target.cluster.kill(STOLEN);
    let to = target.cluster.follower().await;
    let term = term(&target, to).await;
    let ahead = new.index() + 1_000;
    // Of a leader of the next term: in this one there is another.
    let of = new.number(1);
    let announced = |index: u64| message(&target, to, term + 1, index, of);
    let usurped = message(&target, to, term, old.index(), of);
    let right = announced(old.index());
    let far = announced(ahead);
    let what = "a replayed one of another leader";
    is_refused(&mut target, to, &usurped, &old.0, &[3], what).await;
    // As it was, at its own place: it is not ahead.
    is_refused(&mut target, to, &right, &old.0, &[9], "a replayed one").await;
    // Under a message that says that it is.
    is_refused(
        &mut target,
        to,
        &far,
        &old.0,
        &[3],
        "one that is announced as newer",
    )
    .await;
    is_refused(&mut target, to, &far, &foreign.0, &[3], "another cluster's").await;
    let renamed = foreign.with(2, target.cluster_id).with(0, ahead);
    is_refused(
        &mut target,
        to,
        &far,
        &renamed.0,
        &[3],
        "another cluster's members",
    )
    .await;
    let moved = new.with(0, ahead);
    // Damage: cut off, a byte here and there, something behind the end, nothing.
    for cut in [0, 1, 8, 20, moved.0.len() / 2, moved.0.len() - 1] {
        let what = format!("one cut at {cut}");
        is_refused(&mut target, to, &far, &moved.0[..cut], &[3], &what).await;
    }
    for at in [0, 7, 9, 13, 17, 40, moved.0.len() / 2, moved.0.len() - 1] {
        let mut flipped = moved.0.clone();
        flipped[at] ^= 0x10;
        let what = format!("one with a flipped bit at {at}");
        is_refused(&mut target, to, &far, &flipped, &[3], &what).await;
    }
    let longer = [&moved.0[..], &[0; 9]].concat();
    is_refused(&mut target, to, &far, &longer, &[3], "one that is longer").await;
    // Streams that break off.
    let certificate = target.member_certificate(STOLEN);
    for pieces in [0, 1] {
        let mut line = target.line(to, &certificate).await.unwrap();
        let mut talk = line.begin("InstallSnapshot").await.unwrap();
        talk.tell(&pb::SnapshotPiece {
            hello: Some(target.hello(STOLEN, to)),
            message: far.encode().into(),
            ..pb::SnapshotPiece::default()
        })
        .await
        .unwrap();
        for _ in 0..pieces {
            let chunk = moved.0[..100].to_vec().into();
            let piece = pb::SnapshotPiece {
                chunk,
                ..pb::SnapshotPiece::default()
            };
            talk.tell(&piece).await.unwrap();
        }
    }
    target.serves("broken streams").await;
    target.cluster.restart(STOLEN);
    target.serves("the return of the right one").await;
}

/// Who sends snapshots without pause that are not taken fills no log with that. Each is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_snapshots_fills_no_log() {
    const ROUNDS: usize = 150;
    holdfast_only!();
    let mut target = Target::start().await;
    let new = Stream::of(&target, 0).await;
    target.cluster.kill(STOLEN);
    let to = target.cluster.follower().await;
    let term = term(&target, to).await;
    let (ahead, of) = (new.index() + 1_000, new.number(1));
    let moved = new.with(0, ahead);
    let far = message(&target, to, term + 1, ahead, of);
    let elsewhere = message(&target, to, term + 1, ahead + 1, of);
    let usurped = message(&target, to, term, ahead, of);
    let damaged = &moved.0[..moved.0.len() - 1];
    // Refused at the first look, in the midst, and after all was read.
    let kinds = [(&usurped, damaged), (&far, damaged), (&elsewhere, &moved.0)];
    let bodies = kinds.map(|(message, stream)| body(&target, to, message, stream));
    let before = failures(&target, to).await;
    let log = target.cluster.member(to).log().clone();
    let mark = log.len();
    let began = std::time::Instant::now();
    let certificate = target.member_certificate(STOLEN);
    let mut line = target.line(to, &certificate).await.unwrap();
    for _ in 0..ROUNDS {
        for body in &bodies {
            let call = line.call("InstallSnapshot", body.clone());
            let answer = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
            assert_eq!(answer.code, 3, "{answer:?}");
        }
    }
    let sent = (ROUNDS * bodies.len()) as f64;
    assert_eq!(failures(&target, to).await - before, sent);
    let lines = log.len() - mark;
    let most = 50 + 10 * (began.elapsed().as_secs() as usize + 1);
    assert!(lines < most, "{lines} lines in {:?}", began.elapsed());
    let look = move || log.wait_after(mark, "did not take a snapshot", PATIENCE);
    let said = tokio::task::spawn_blocking(look).await.unwrap();
    assert!(said.is_some(), "not a word in the log");
    target.serves("a flood").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_its_messages_stops_nobody() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.raw(0).put(put("kept", "kept")).await.unwrap();
    let new = Stream::of(&target, 0).await;
    target.cluster.kill(STOLEN);
    let to = target.cluster.follower().await;
    let term = term(&target, to).await;
    let ahead = new.index() + 1_000;
    let moved = new.with(0, ahead);
    let of = new.number(1);
    let mut ids = target.ids.clone();
    ids.sort_unstable();
    let with = |lists: &[&[u64]; 4]| Raft {
        snapshot: Some((ahead, of, configuration(lists))),
        ..message(&target, to, term + 1, ahead, of)
    };
    let reversed: Vec<u64> = ids.iter().rev().copied().collect();
    let wrong = [
        ("other members", with(&[&[ids[0], ids[1]], &[], &[], &[]])),
        (
            "one more",
            with(&[&[&ids[..], &[77]].concat(), &[], &[], &[]]),
        ),
        ("a learner", with(&[&ids[..2], &ids[2..], &[], &[]])),
        ("another order", with(&[&reversed, &[], &[], &[]])),
        ("only itself", with(&[&[target.ids[to]], &[], &[], &[]])),
        ("without itself", with(&[&[77], &[], &[], &[]])),
        ("nobody", with(&[&[], &[], &[], &[]])),
        ("twice", with(&[&[ids[0], ids[0]], &[], &[], &[]])),
        ("two configurations", with(&[&ids, &[], &ids, &[]])),
        (
            "another place",
            message(&target, to, term + 1, ahead + 1, of),
        ),
        (
            "another term",
            message(&target, to, term + 1, ahead, of + 1),
        ),
        (
            "the end of numbers",
            message(&target, to, term + 1, u64::MAX, of),
        ),
    ];
    for (what, message) in &wrong {
        is_refused(&mut target, to, message, &moved.0, &[3, 9], what).await;
    }
    target.cluster.restart(STOLEN);
    target.serves("the return of the right one").await;
}
