//! Whether there is a leader, over time.

use crate::node::Node;
use std::time::{Duration, Instant};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Election time-outs without a leader after which streams that asked for one are told (etcd's).
const PATIENCE: u32 = 3;

/// Notes when there is no leader. Never ends.
pub(crate) async fn watch_leader(node: &Node) {
    let mut interval = tokio::time::interval(LOOK);
    let mut since: Option<Instant> = None;
    loop {
        interval.tick().await;
        if node.status.leader() != 0 {
            since = None;
            node.cluster
                .without_leader
                .send_if_modified(|without| std::mem::replace(without, false));
            continue;
        }
        let now = Instant::now();
        *node.cluster.leaderless.lock() = Some(now);
        let begun = *since.get_or_insert(now);
        if now.duration_since(begun) > node.config.election_timeout * PATIENCE {
            node.cluster
                .without_leader
                .send_if_modified(|without| !std::mem::replace(without, true));
        }
    }
}
