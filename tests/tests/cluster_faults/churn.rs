//! Users, roles and permissions that change all the time.

use holdfast_tests::{Kind, Raw, cluster::Cluster, wire::put};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(2);
/// What `guest` may write to, or may not.
const GUEST: (Kind, &str, &str) = (Kind::Readwrite, "guest/", "guest0");

/// Something that was done to the permission of `guest`, or by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    called: Instant,
    returned: Instant,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// `false`: it was taken away. With whether that was acknowledged.
    May(bool, bool),
    /// A write that could have had no effect was tried as `guest`; whether it was permitted.
    Tried(bool),
}

/// Tasks of `root` and of `guest`.
pub(crate) struct Churn {
    done: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Guest>>>,
}

impl Churn {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stubs = |user| -> Vec<Raw> {
            let all = cluster.all().into_iter();
            all.map(|index| cluster.raw_as(index, user)).collect()
        };
        let tasks = vec![
            tokio::spawn(change(stubs("root"), done.clone())),
            tokio::spawn(attempt(stubs("guest"), done.clone())),
        ];
        Self { done, tasks }
    }

    pub(crate) async fn stop(self) -> Vec<Guest> {
        self.done.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for task in self.tasks {
            seen.extend(task.await.unwrap());
        }
        seen
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(LIMIT, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

/// Adds users and roles, and takes the permission of `guest` and gives it back.
async fn change(stubs: Vec<Raw>, done: Arc<AtomicBool>) -> Vec<Guest> {
    let mut seen = Vec::new();
    for round in 0_usize.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let raw = &stubs[round % stubs.len()];
        let name = format!("u{round}");
        // Whether they are done does not matter, only that all members agree about it in the end.
        let _ = limited(raw.user_add_without_password(&name)).await;
        let _ = limited(raw.role_add(&name)).await;
        let _ = limited(raw.role_grant(&name, (Kind::Read, &name, ""))).await;
        let _ = limited(raw.user_grant_role(&name, &name)).await;
        if round % 3 == 0 {
            let _ = limited(raw.user_delete(&name)).await;
        }
        let may = round % 2 == 1;
        let called = Instant::now();
        let changed = if may {
            limited(raw.role_grant("guest", GUEST)).await.map(drop)
        } else {
            let request = holdfast_proto::etcdserverpb::AuthRoleRevokePermissionRequest {
                role: "guest".to_owned(),
                key: GUEST.1.into(),
                range_end: GUEST.2.into(),
            };
            limited(raw.role_revoke_call(request)).await.map(drop)
        };
        seen.push(Guest {
            called,
            returned: Instant::now(),
            what: What::May(may, changed.is_ok()),
        });
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    seen
}

/// Tries to write as `guest`, in a way that is judged as any write is and leaves no trace.
async fn attempt(stubs: Vec<Raw>, done: Arc<AtomicBool>) -> Vec<Guest> {
    use holdfast_tests::wire::{Against, IntoOp, cmp, txn};
    let mut seen = Vec::new();
    for round in 0_usize.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let raw = &stubs[round % stubs.len()];
        let compare = cmp(
            "guest/k",
            holdfast_proto::etcdserverpb::compare::CompareResult::Greater,
            Against::Version(0),
        );
        let never = txn(vec![compare], vec![put("guest/k", "v").op()], vec![]);
        let called = Instant::now();
        let answer = limited(raw.txn(never)).await;
        let permitted = match &answer {
            Ok(_) => Some(true),
            Err(status) if status.code() == Code::PermissionDenied => Some(false),
            Err(_) => None,
        };
        if let Some(permitted) = permitted {
            seen.push(Guest {
                called,
                returned: Instant::now(),
                what: What::Tried(permitted),
            });
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    seen
}

/// After a change was acknowledged, and before the next was asked for, `guest` is judged by it.
pub(crate) fn check_guests(seen: &[Guest]) -> Vec<String> {
    let mut changes: Vec<_> = seen
        .iter()
        .filter(|guest| matches!(guest.what, What::May(..)))
        .collect();
    changes.sort_by_key(|guest| guest.called);
    let mut wrongs = Vec::new();
    for tried in seen {
        let What::Tried(permitted) = tried.what else {
            continue;
        };
        // Of a change without an answer it is unknown whether and when it is done: that says nothing until the next one, and
        // the one that follows must have been acknowledged after it.
        let before = changes.partition_point(|change| change.called < tried.called);
        let next = changes.get(before);
        let Some(last) = before.checked_sub(1).map(|index| changes[index]) else {
            continue;
        };
        let quiet =
            last.returned < tried.called && next.is_none_or(|next| tried.returned < next.called);
        let certain = changes[..before]
            .iter()
            .rev()
            .take(3)
            .all(|change| matches!(change.what, What::May(_, true)));
        if let What::May(may, true) = last.what
            && quiet
            && certain
            && may != permitted
        {
            wrongs.push(format!(
                "guest was judged otherwise than by {last:?}: {tried:?}"
            ));
        }
    }
    wrongs
}
