//! What goes wrong in a cluster, for a while.

use crate::traffic::Load;
use holdfast_tests::{
    SmallDisk,
    cluster::{Cluster, Link},
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use std::{env, time::Duration};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    StopLeader,
    StopFollower,
    PauseLeader,
    PauseFollower,
    IsolateLeader,
    IsolateFollower,
    MuteLeader,
    DeafenLeader,
    DeafenFollower,
    CutOnePair,
    ResetConnections,
    SlowLinks,
    NarrowLinks,
    FullDisk,
    Replace,
    MoveLeader,
}

impl Fault {
    pub(crate) const ALL: &'static [Self] = &[
        Self::KillLeader,
        Self::KillFollower,
        Self::KillAll,
        Self::StopLeader,
        Self::StopFollower,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::IsolateLeader,
        Self::IsolateFollower,
        Self::MuteLeader,
        Self::DeafenLeader,
        Self::DeafenFollower,
        Self::CutOnePair,
        Self::ResetConnections,
        Self::SlowLinks,
        Self::NarrowLinks,
        Self::FullDisk,
        Self::Replace,
        Self::MoveLeader,
    ];

    pub(crate) const OF_ONE: &'static [Self] =
        &[Self::KillLeader, Self::StopLeader, Self::PauseLeader];

    /// The one kind that was asked for.
    pub(crate) fn wanted() -> Option<Self> {
        let name = env::var("HOLDFAST_FAULT").ok()?;
        let found = Self::ALL.iter().find(|fault| format!("{fault:?}") == name);
        Some(*found.expect("a kind of fault"))
    }
}

/// Makes a fault, lets it last and ends it. All members run when it is over.
pub(crate) async fn inject(
    cluster: &mut Cluster,
    fault: Fault,
    disk: Option<&SmallDisk>,
    load: &Load,
    random: &mut StdRng,
) {
    let leader = cluster.leader().await;
    let followers: Vec<_> = cluster
        .all()
        .into_iter()
        .filter(|index| *index != leader)
        .collect();
    let follower = followers.choose(random).copied().unwrap_or(leader);
    let time = Duration::from_millis(random.random_range(300..3_500));
    let lasting = || tokio::time::sleep(time);
    match fault {
        Fault::KillLeader => kill(cluster, &[leader], time).await,
        Fault::KillFollower => kill(cluster, &[follower], time).await,
        Fault::KillAll => kill(cluster, &cluster.all(), time / 4).await,
        Fault::StopLeader => stop(cluster, leader, time).await,
        Fault::StopFollower => stop(cluster, follower, time).await,
        Fault::PauseLeader => pause(cluster, leader, time).await,
        Fault::PauseFollower => pause(cluster, follower, time).await,
        Fault::IsolateLeader => {
            cluster.network().isolate(leader);
            lasting().await;
        }
        Fault::IsolateFollower => {
            cluster.network().isolate(follower);
            lasting().await;
        }
        Fault::MuteLeader => {
            cluster.network().mute(leader);
            lasting().await;
        }
        Fault::DeafenLeader => {
            cluster.network().deafen(leader);
            lasting().await;
        }
        Fault::DeafenFollower => {
            cluster.network().deafen(follower);
            lasting().await;
        }
        Fault::CutOnePair => {
            let cut = Link {
                cut: true,
                ..Link::default()
            };
            cluster.network().set(leader, follower, cut);
            cluster.network().set(follower, leader, cut);
            lasting().await;
        }
        Fault::ResetConnections => {
            let refused = Link {
                refused: true,
                ..Link::default()
            };
            for _ in 0..3 {
                cluster.network().surround(leader, refused);
                tokio::time::sleep(time / 6).await;
                cluster.network().heal();
                tokio::time::sleep(time / 6).await;
            }
        }
        Fault::SlowLinks => {
            let slow = Link {
                delay: Duration::from_millis(random.random_range(20..250)),
                ..Link::default()
            };
            cluster.network().surround(leader, slow);
            lasting().await;
        }
        Fault::NarrowLinks => {
            let narrow = Link {
                bytes_per_second: Some(20_000),
                ..Link::default()
            };
            cluster.network().surround(follower, narrow);
            lasting().await;
        }
        Fault::FullDisk => match disk {
            Some(disk) => fill(cluster, disk, load).await,
            None => eprintln!("skipped: no permission to mount a small disk"),
        },
        Fault::Replace => {
            cluster.replace(follower).await;
        }
        Fault::MoveLeader => cluster.lead(follower).await,
    }
    if cluster.all().len() > 1 {
        cluster.network().heal();
    }
}

async fn kill(cluster: &mut Cluster, members: &[usize], time: Duration) {
    for index in members {
        cluster.kill(*index);
    }
    tokio::time::sleep(time).await;
    tokio::task::block_in_place(|| cluster.restart_all(members));
}

async fn stop(cluster: &mut Cluster, index: usize, time: Duration) {
    let exit = tokio::task::block_in_place(|| cluster.terminate(index));
    assert!(
        exit.status.is_some(),
        "m{index} did not stop when it was asked to"
    );
    tokio::time::sleep(time).await;
    tokio::task::block_in_place(|| cluster.restart(index));
}

async fn pause(cluster: &mut Cluster, index: usize, time: Duration) {
    cluster.pause(index);
    tokio::time::sleep(time).await;
    cluster.resume(index);
}

/// Fills the disk of the last member, with values that need room, until it refuses or ends.
async fn fill(cluster: &mut Cluster, disk: &SmallDisk, load: &Load) {
    let index = cluster.all().len() - 1;
    tokio::task::block_in_place(|| disk.fill());
    // Etcd and we have files in reserve, so that some of this is taken by a full disk.
    load.write_much(12 << 20).await;
    let ended = tokio::task::block_in_place(|| cluster.wait_exit(index, Duration::from_secs(1)));
    disk.relieve();
    eprintln!("m{index} ended by itself on a full disk: {ended}");
    if !ended {
        // What could not be written is not in doubt after a restart.
        cluster.kill(index);
    }
    tokio::task::block_in_place(|| cluster.restart(index));
}
