//! Three members of one server on loopback: started, struck, restarted, asked how they are.

use super::{
    ClusterError,
    certificates::Certificates,
    probe::{self, Probe, Status},
};
use crate::{
    compare::QUOTA_BYTES,
    process::{Memory, Process},
    server_process::{Kind, ServerError, ServerProcess, failed},
    tls::{Dialer, TlsFiles},
};
use rand::Rng;
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

pub(crate) const MEMBERS: usize = 3;

/// An election takes seconds, a restart over a million writes some more; nothing sound takes this long.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(20);

/// Where ports are looked for: below what Linux gives to outgoing connections (from 32768 on, ip(7)). A member's port must not become
/// somebody's local port while the member is down, and dialling a free port in that range can even reach oneself.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// What a cluster is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    /// Where data and logs go.
    pub(crate) directory: PathBuf,
    /// Mutual TLS everywhere, if given.
    pub(crate) certificates: Option<Certificates>,
}

/// The member that leads, as all members agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its place among the members.
    pub(crate) index: usize,
    pub(crate) term: u64,
}

struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
}

struct Member {
    name: String,
    ports: Ports,
    process: ServerProcess,
    dialer: Dialer,
}

/// Three members at work. Dropping it kills them.
pub(crate) struct Cluster {
    plan: Plan,
    members: Vec<Member>,
    probe: Probe,
}

impl Cluster {
    /// Starts it on fresh data, and returns when all members serve and agree.
    pub(crate) fn start(plan: Plan) -> Result<Self, ClusterError> {
        let directory = &plan.directory;
        fs::create_dir_all(directory).map_err(failed(format!("create {}", directory.display())))?;
        let mut members = Vec::new();
        for (number, ports) in free_ports()?.into_iter().enumerate() {
            let name = member_name(number);
            let process = ServerProcess::new(plan.kind, directory.join(format!("{name}.log")));
            let files = plan.certificates.as_ref().map(|certificates| TlsFiles {
                ca: Some(certificates.client.ca_cert.clone()),
                cert: Some(certificates.client.client_cert.clone()),
                key: Some(certificates.client.client_key.clone()),
                ..TlsFiles::default()
            });
            let dialer = Dialer::new(
                &format!("{}://127.0.0.1:{}", scheme(&plan), ports.client),
                &files.unwrap_or_default(),
            )?;
            members.push(Member {
                name,
                ports,
                process,
                dialer,
            });
        }
        let dialers = members.iter().map(|member| member.dialer.clone()).collect();
        let mut cluster = Self {
            plan,
            members,
            probe: Probe::new(dialers)?,
        };
        // No member serves before most of them are there.
        let begins = (0..MEMBERS)
            .map(|member| cluster.launch(member))
            .collect::<Result<Vec<_>, _>>()?;
        for (member, begin) in cluster.members.iter_mut().zip(begins) {
            member.process.await_readiness(begin)?;
        }
        cluster.await_health()?;
        Ok(cluster)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.plan.kind
    }

    pub(crate) fn dialers(&self) -> Vec<Dialer> {
        let dialers = self.members.iter().map(|member| member.dialer.clone());
        dialers.collect()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let pids = self.members.iter().map(|member| member.process.pid());
        pids.flatten().collect()
    }

    /// CPU time of all members so far.
    pub(crate) fn cpu(&self) -> Result<Duration, ClusterError> {
        self.pids().iter().try_fold(Duration::ZERO, |sum, pid| {
            let cpu = Process::of(*pid).cpu().map_err(usage(*pid))?;
            Ok(sum + cpu)
        })
    }

    /// Memory of a member that runs.
    pub(crate) fn memory(&self, member: usize) -> Result<Memory, ClusterError> {
        let pid = self.pid(member)?;
        Ok(Process::of(pid).memory().map_err(usage(pid))?)
    }

    /// Lets the peak memory of a member begin anew.
    pub(crate) fn reset_peak(&self, member: usize) -> Result<(), ClusterError> {
        let pid = self.pid(member)?;
        Ok(Process::of(pid).reset_peak().map_err(usage(pid))?)
    }

    fn pid(&self, member: usize) -> Result<u32, ClusterError> {
        let pid = self
            .members
            .get(member)
            .and_then(|found| found.process.pid());
        pid.ok_or_else(|| self.unhealthy(format!("{} does not run", member_name(member))))
    }

    /// Ends a member without a warning, or asks it to stop and does not wait.
    pub(crate) fn strike(&mut self, member: usize, graceful: bool) {
        if let Some(member) = self.members.get_mut(member) {
            if graceful {
                member.process.terminate();
            } else {
                member.process.kill();
            }
        }
    }

    /// Stops a member in order, waiting for its end.
    pub(crate) fn stop(&mut self, member: usize) {
        if let Some(member) = self.members.get_mut(member) {
            member.process.stop();
        }
    }

    /// Starts a member that was struck on its data again, when it has ended; returns when it serves.
    pub(crate) fn restart(&mut self, member: usize) -> Result<Duration, ClusterError> {
        if let Some(member) = self.members.get_mut(member) {
            member.process.await_end();
        }
        let begin = self.launch(member)?;
        match self.members.get_mut(member) {
            Some(member) => Ok(member.process.await_readiness(begin)?),
            None => Ok(Duration::ZERO),
        }
    }

    /// Starts a member and does not wait; gives the moment.
    pub(crate) fn launch(&mut self, member: usize) -> Result<Instant, ServerError> {
        let command = self.command(member);
        match self.members.get_mut(member) {
            Some(member) => member.process.launch(command),
            None => Ok(Instant::now()),
        }
    }

    /// How a member sees things; nothing if it does not answer.
    pub(crate) fn status(&mut self, member: usize) -> Option<Status> {
        self.probe.status(member)
    }

    /// Waits until all members answer, have the same leader and the same revision. Nobody may be writing.
    pub(crate) fn await_health(&mut self) -> Result<Leader, ClusterError> {
        let begin = Instant::now();
        loop {
            let statuses: Vec<_> = (0..MEMBERS).map(|member| self.status(member)).collect();
            if let Some(leader) = agreement(&statuses) {
                return Ok(leader);
            }
            if begin.elapsed() > HEALTHY_WITHIN {
                return Err(self.unhealthy(format!("members do not agree: {statuses:?}")));
            }
            thread::sleep(POLL);
        }
    }

    /// The sum of a counter over its labels on one member; nothing if it has no such metric.
    pub(crate) fn counter(&self, member: usize, name: &str) -> Result<Option<f64>, ClusterError> {
        match self.members.get(member) {
            Some(member) => Ok(probe::counter(member.ports.metrics, name)?),
            None => Ok(None),
        }
    }

    /// Ends it and removes its data.
    pub(crate) fn discard(self) {
        let directory = self.plan.directory.clone();
        drop(self);
        // What stays behind goes with the scratch directory.
        let _ = fs::remove_dir_all(directory);
    }

    fn unhealthy(&self, what: String) -> ClusterError {
        ClusterError::Unhealthy {
            name: self.plan.kind.name(),
            what,
        }
    }

    fn command(&self, member: usize) -> Command {
        let mut command = Command::new(&self.plan.binary);
        let Some(own) = self.members.get(member) else {
            return command;
        };
        let scheme = scheme(&self.plan);
        let client = format!("{scheme}://127.0.0.1:{}", own.ports.client);
        let peer = |member: &Member| format!("{scheme}://127.0.0.1:{}", member.ports.peer);
        let all: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, peer(member)))
            .collect();
        command
            .args(["--name", &own.name, "--data-dir"])
            .arg(self.plan.directory.join(&own.name))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(own)])
            .args(["--initial-advertise-peer-urls", &peer(own)])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--initial-cluster-state", "new"])
            .args(["--initial-cluster-token", "bench"])
            .arg("--listen-metrics-urls")
            .arg(format!("http://127.0.0.1:{}", own.ports.metrics))
            .args(["--quota-backend-bytes", QUOTA_BYTES]);
        if let Some(certificates) = &self.plan.certificates {
            certificates.add_to(&mut command, member);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The data is thrown away, so nobody is asked to stop.
        for member in &mut self.members {
            member.process.kill();
        }
    }
}

/// The name of a member, which its peer certificate bears, too.
pub(crate) fn member_name(number: usize) -> String {
    format!("bench-{}", number + 1)
}

fn scheme(plan: &Plan) -> &'static str {
    if plan.certificates.is_some() {
        "https"
    } else {
        "http"
    }
}

fn usage(pid: u32) -> impl FnOnce(std::io::Error) -> ServerError {
    failed(format!("read what process {pid} uses"))
}

/// The leader on whom all members agree, at the same revision.
fn agreement(statuses: &[Option<Status>]) -> Option<Leader> {
    let first = statuses.first().copied().flatten()?;
    let same = statuses.iter().all(|status| {
        status.is_some_and(|status| {
            (status.leader, status.term, status.revision)
                == (first.leader, first.term, first.revision)
        })
    });
    let index = statuses
        .iter()
        .position(|status| status.is_some_and(|status| status.member == first.leader))?;
    (same && first.leader != 0).then_some(Leader {
        index,
        term: first.term,
    })
}

/// Ports that are free now, for all members.
fn free_ports() -> Result<Vec<Ports>, ServerError> {
    let mut random = rand::rng();
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == MEMBERS * 3 {
            break;
        }
        let width = u64::from(PORTS.end - PORTS.start);
        let offset = u16::try_from(random.next_u64() % width).unwrap_or(0);
        let port = PORTS.start + offset;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    let ports: Vec<_> = held.iter().map(|(port, _)| *port).collect();
    let sets: Vec<_> = ports
        .chunks_exact(3)
        .filter_map(|ports| match ports {
            [client, peer, metrics] => Some(Ports {
                client: *client,
                peer: *peer,
                metrics: *metrics,
            }),
            _ => None,
        })
        .collect();
    if sets.len() == MEMBERS {
        Ok(sets)
    } else {
        Err(failed("find free ports")(
            std::io::ErrorKind::AddrInUse.into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member: u64, leader: u64, revision: i64) -> Option<Status> {
        Some(Status {
            member,
            leader,
            term: 5,
            revision,
        })
    }

    #[test]
    fn members_agree_on_a_leader_that_is_one_of_them_and_on_the_revision() {
        let all = [status(1, 2, 9), status(2, 2, 9), status(3, 2, 9)];
        assert_eq!(agreement(&all), Some(Leader { index: 1, term: 5 }));
        for third in [None, status(3, 1, 9), status(3, 2, 8), status(3, 0, 9)] {
            assert_eq!(agreement(&[all[0], all[1], third]), None);
        }
        assert_eq!(agreement(&[status(1, 0, 9); 3]), None);
        assert_eq!(agreement(&[status(1, 7, 9); 3]), None);
        assert_eq!(agreement(&[]), None);
    }
}
