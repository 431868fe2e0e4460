//! Clusters of server processes under test.

mod certificates;
mod dialer;
mod failover;
mod member;
mod membership;
mod network;
mod options;

pub use certificates::Certificates;
pub use failover::{Gap, Stop, failover_gap};
pub use member::{Member, State};
pub use network::{Link, Network};
pub use options::ClusterOptions;

use crate::{Exit, PATIENCE, Raw, eventually, process::Started, wire};
use holdfast_proto::etcdserverpb as pb;
use member::Bootstrap;
use rustix::process::Signal;
use std::time::Duration;
use tempfile::TempDir;
use tonic::Status;

/// How long a member may take to serve after it was started.
const START: Duration = Duration::from_secs(60);

/// Members on loopback with data directories of their own; killed and removed on drop. When the test fails, the ends of their
/// logs are part of the report. A member keeps its index for good.
pub struct Cluster {
    // Before the folder: they end before their files go.
    members: Vec<Member>,
    network: Option<Network>,
    certificates: Option<Certificates>,
    options: ClusterOptions,
    /// What members are told at their start: the same as at their first.
    bootstraps: Vec<Bootstrap>,
    folder: TempDir,
}

impl Cluster {
    /// Starts a new cluster of `size` members and waits until all serve.
    pub fn start(size: usize, options: ClusterOptions) -> Self {
        for _ in 0..5 {
            match Self::try_start(size, options.clone()) {
                Ok(cluster) => return cluster,
                Err((_, exit)) if exit.lacked_port() => {}
                Err((why, _)) => panic!("the cluster did not start: {why}"),
            }
        }
        panic!("no free ports");
    }

    fn try_start(size: usize, options: ClusterOptions) -> Result<Self, (String, Exit)> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self {
            members: Vec::new(),
            network: options.links.then(Network::new),
            certificates: options.tls.then(|| Certificates::new(folder.path())),
            options,
            bootstraps: Vec::new(),
            folder,
        };
        for _ in 0..size {
            cluster.enlist();
        }
        let all: Vec<_> = (0..size).collect();
        let bootstrap = Bootstrap {
            cluster: cluster.urls(&all),
            state: "new",
        };
        cluster.bootstraps = vec![bootstrap; size];
        cluster.try_launch(&all)?;
        Ok(cluster)
    }

    /// One more member, which has no process yet.
    fn enlist(&mut self) -> usize {
        let index = self.members.len();
        let data = self.options.data.get(index).cloned().flatten();
        let data = data.unwrap_or_else(|| self.folder.path().join(format!("data-{index}")));
        let mut member = Member::new(format!("m{index}"), data, self.options.tls);
        if let Some(network) = &self.network {
            member.advertised_port = network.add(member.peer_port);
        }
        self.members.push(member);
        index
    }

    /// The value of `--initial-cluster` for these members.
    fn urls(&self, members: &[usize]) -> String {
        let of = |index: &usize| {
            let member = &self.members[*index];
            format!("{}={}", member.name, member.peer_url())
        };
        members.iter().map(of).collect::<Vec<_>>().join(",")
    }

    fn spawn(&mut self, index: usize) -> Started {
        let member = &mut self.members[index];
        let started = member.spawn(
            self.folder.path(),
            &self.options.server,
            self.certificates.as_ref(),
            &self.bootstraps[index],
        );
        if let Some(network) = &self.network {
            network.is_process(index, Some(member.pid()));
        }
        started
    }

    /// Starts these at the same moment and waits until all serve.
    fn try_launch(&mut self, members: &[usize]) -> Result<(), (String, Exit)> {
        let started: Vec<_> = members.iter().map(|index| self.spawn(*index)).collect();
        for (index, started) in members.iter().zip(&started) {
            if let Err(exit) = self.members[*index].process.wait_ready(started, START) {
                self.is_down(*index);
                return Err((self.members[*index].explain(&exit), exit));
            }
        }
        Ok(())
    }

    fn is_down(&mut self, index: usize) {
        self.members[index].state = State::Down;
        if let Some(network) = &self.network {
            network.is_process(index, None);
        }
    }

    /// A member.
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// The indexes of the members that run and are not paused.
    pub fn running(&self) -> Vec<usize> {
        self.with(|state| state == State::Running)
    }

    /// The indexes of all that were not removed.
    pub fn all(&self) -> Vec<usize> {
        self.with(|state| state != State::Removed)
    }

    fn with(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        let indexes = 0..self.members.len();
        indexes
            .filter(|index| wanted(self.members[*index].state))
            .collect()
    }

    /// The links between members.
    ///
    /// # Panics
    /// When the cluster was started without [`ClusterOptions::links`].
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster with links")
    }

    /// The certificates.
    ///
    /// # Panics
    /// When the cluster was started without [`ClusterOptions::tls`].
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a cluster with TLS")
    }

    /// Stubs for a member, as `root` where there are certificates. They connect when they are used, and again after each end.
    pub fn raw(&self, index: usize) -> Raw {
        self.raw_as(index, "root")
    }

    /// Stubs for a member, as the user whom the certificate names; without TLS as nobody.
    pub fn raw_as(&self, index: usize, user: &str) -> Raw {
        self.members[index].raw(self.certificates.as_ref(), user)
    }

    /// Turns auth on: `root` and these users, each with a role of its name that may do everything with keys that start so.
    /// Users are those of the certificates.
    pub async fn enable_auth(&self, users: &[(&str, &str)]) {
        let root = self.raw(self.running()[0]);
        root.user_add_without_password("root").await.expect("root");
        root.user_grant_role("root", "root")
            .await
            .expect("its role");
        for (user, prefix) in users {
            root.user_add_without_password(user).await.expect("a user");
            root.role_add(user).await.expect("a role");
            let end = String::from_utf8(wire::prefix_end(prefix.as_bytes()).to_vec());
            let end = end.expect("the prefix is ASCII");
            let granted = root.role_grant(user, (crate::Kind::Readwrite, prefix, &end));
            granted.await.expect("a permission");
            root.user_grant_role(user, user).await.expect("its role");
        }
        root.enable_auth().await.expect("auth can be enabled");
    }

    /// Waits until all running members agree on a leader that runs; gives its index.
    pub async fn leader(&self) -> usize {
        eventually(PATIENCE, "a leader on whom all agree", || {
            self.find_leader()
        })
        .await
    }

    /// The index of the leader on whom all running members agree.
    pub async fn find_leader(&self) -> Option<usize> {
        let mut ids = Vec::new();
        let mut leaders = Vec::new();
        for index in self.running() {
            let status = answer(self.raw(index).status()).await.ok()?;
            ids.push((index, status.header?.member_id));
            leaders.push(status.leader);
        }
        let leader = *leaders.first()?;
        let agree = leader != 0 && leaders.iter().all(|other| *other == leader);
        let (index, _) = ids.into_iter().find(|(_, id)| *id == leader)?;
        agree.then_some(index)
    }

    /// A running member that does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let mut running = self.running().into_iter();
        running
            .find(|index| *index != leader)
            .expect("two members run")
    }

    /// The member id of a running member.
    pub async fn id(&self, index: usize) -> u64 {
        let raw = self.raw(index);
        let status = eventually(PATIENCE, "a status", async || raw.status().await.ok()).await;
        status.header.expect("a header").member_id
    }

    /// Waits until every running member serves linearizable reads and has applied the same.
    pub async fn wait_healthy(&self) {
        self.wait_healthy_within(Duration::from_secs(60)).await;
    }

    /// As [`Self::wait_healthy`], with another limit.
    pub async fn wait_healthy_within(&self, limit: Duration) {
        for index in self.running() {
            let raw = self.raw(index);
            let what = format!("{} serves linearizable reads", self.members[index].name);
            let probe = async || answer(raw.range(wire::get("health"))).await.ok();
            eventually(limit, &what, probe).await;
        }
        eventually(limit, "all agree", || self.find_leader()).await;
    }

    /// Ends a member with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.members[index].process.kill();
        self.is_down(index);
    }

    /// Stops a member with SIGSTOP.
    pub fn pause(&mut self, index: usize) {
        self.members[index].process.signal(Signal::STOP);
        self.members[index].state = State::Paused;
    }

    /// Lets a paused member go on.
    pub fn resume(&mut self, index: usize) {
        self.members[index].process.signal(Signal::CONT);
        self.members[index].state = State::Running;
    }

    /// Asks a member to stop with SIGTERM and waits until it ended.
    pub fn terminate(&mut self, index: usize) -> Exit {
        let exit = self.members[index].process.terminate(PATIENCE);
        self.is_down(index);
        exit
    }

    /// Waits until a member ended by itself.
    pub fn wait_exit(&mut self, index: usize, limit: Duration) -> bool {
        let ended = self.members[index].process.wait_exit(limit).is_some();
        if ended {
            self.is_down(index);
        }
        ended
    }

    /// Starts a member again and waits until it serves, which takes a quorum.
    pub fn restart(&mut self, index: usize) {
        self.restart_all(&[index]);
    }

    /// Starts members again at the same moment and waits until they serve.
    pub fn restart_all(&mut self, members: &[usize]) {
        if let Err((why, _)) = self.try_launch(members) {
            panic!("a member did not start again: {why}");
        }
    }

    /// Starts a member again, or tells how it ended.
    pub fn try_restart(&mut self, index: usize) -> Result<(), Exit> {
        self.try_launch(&[index]).map_err(|(_, exit)| exit)
    }

    /// Starts a member again without waiting for anything.
    pub fn launch(&mut self, index: usize) {
        self.spawn(index);
    }

    /// One more flag for each later start of a member.
    pub fn add_flag(&mut self, argument: &str) {
        self.options.server = self.options.server.clone().flag(argument);
    }

    /// HashKV at the same revision on all running members, who must have the same; gives it.
    pub async fn same_hash(&self) -> pb::HashKvResponse {
        let first = self.raw(self.running()[0]);
        let revision = first.range(wire::get("a")).await.expect("a range");
        let revision = wire::revision(&revision.header);
        let mut hashes = Vec::new();
        for index in self.running() {
            let raw = self.raw(index);
            let hash = async || raw.hash_kv(revision).await.ok();
            let hash = eventually(PATIENCE, "a hash at the revision of the others", hash).await;
            hashes.push((index, hash));
        }
        let of = |hash: &pb::HashKvResponse| (hash.hash, hash.compact_revision);
        for (index, hash) in &hashes {
            assert_eq!(
                of(hash),
                of(&hashes[0].1),
                "HashKV at {revision} of m{index}"
            );
        }
        hashes.swap_remove(0).1
    }
}

/// An answer that must not take long.
pub(crate) async fn answer<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(Duration::from_secs(2), call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.process.kill();
        }
        if std::thread::panicking() {
            for member in &self.members {
                let tail = member.log().tail(30);
                eprintln!("--- end of the log of {} ---\n{tail}", member.name);
            }
        }
    }
}
