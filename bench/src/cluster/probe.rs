//! Asks members how they are, over connections that are kept.

use super::ClusterError;
use crate::{
    grpc::{CallError, Connection},
    server_process::{ServerError, failed},
    tls::Dialer,
};
use holdfast_proto::etcdserverpb as pb;
use prost::Message;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};
use tokio::runtime::Runtime;

/// A member that answers at all answers within this, even while it is behind.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// More than any page of metrics has.
const PAGE_BYTES: u64 = 16 << 20;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) member: u64,
    /// Whom it takes for the leader; 0 for nobody.
    pub(crate) leader: u64,
    pub(crate) term: u64,
    /// What it has applied.
    pub(crate) revision: i64,
}

/// One connection to each member, made when it is needed.
pub(crate) struct Probe {
    runtime: Runtime,
    members: Vec<(Dialer, Option<Connection>)>,
}

impl Probe {
    pub(crate) fn new(dialers: Vec<Dialer>) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("start a runtime"))?;
        let members = dialers.into_iter().map(|dialer| (dialer, None)).collect();
        Ok(Self { runtime, members })
    }

    /// Nothing if the member does not answer.
    pub(crate) fn status(&mut self, member: usize) -> Option<Status> {
        let (dialer, slot) = self.members.get_mut(member)?;
        self.runtime.block_on(async {
            // The connection may be one to a process that has ended since.
            for _ in 0..2 {
                let answer = tokio::time::timeout(ANSWER_WITHIN, ask(dialer, slot)).await;
                if let Ok(Ok(status)) = answer {
                    return Some(status);
                }
                slot.take()?;
            }
            None
        })
    }
}

/// The sum of a counter over its labels; nothing if the page does not have it. `port` is that of a metrics listener in clear.
pub(crate) fn counter(port: u16, name: &str) -> Result<Option<f64>, ServerError> {
    let page = fetch(port).map_err(failed(format!("read the metrics on port {port}")))?;
    Ok(sum(&page, name))
}

async fn ask(dialer: &Dialer, slot: &mut Option<Connection>) -> Result<Status, CallError> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Connection::open(dialer).await?),
    };
    let rpc = connection.rpc("/etcdserverpb.Maintenance/Status")?;
    let answer = connection
        .call(&rpc, &pb::StatusRequest {}, |message| {
            Ok(pb::StatusResponse::decode(message)?)
        })
        .await?;
    let header = answer.header.unwrap_or_default();
    Ok(Status {
        member: header.member_id,
        leader: answer.leader,
        term: answer.raft_term,
        revision: header.revision,
    })
}

/// HTTP/1.0, so that the answer is neither chunked nor followed by another.
fn fetch(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Adds up `name value` and `name{labels} value`.
fn sum(page: &str, name: &str) -> Option<f64> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit_once(' ')?.1.trim().parse::<f64>().ok()
        })
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_over_their_labels_and_no_others() {
        let page = "# HELP sent x\n# TYPE sent counter\nsent{To=\"a b\"} 2\r\nsent{To=\"c\"} 1\nsent_bytes 700\nother 4\n";
        assert_eq!(sum(page, "sent"), Some(3.0));
        assert_eq!(sum(page, "other"), Some(4.0));
        assert_eq!(sum(page, "absent"), None);
    }
}
