//! What a development cluster consists of: names, ports, directories and the flags of each member. Nothing is touched here.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{Exit, Failure};

/// More members than this are no use in etcd's protocol either: each write waits for a majority.
pub(super) const MAX_MEMBERS: u8 = 7;
pub(super) const DEFAULT_MEMBERS: u8 = 3;
pub(super) const DEFAULT_BASE_PORT: u16 = 2379;
/// From the ports of one member to those of the next.
const PORT_STEP: u16 = 10;

/// How many members, from which port on: what a directory is bound to once it holds a cluster, because the members know each other
/// by their ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) members: u8,
    pub(super) base_port: u16,
}

impl Shape {
    /// What was asked for, and for the rest what is recorded, or the default.
    pub(super) fn settle(
        members: Option<u8>,
        base_port: Option<u16>,
        recorded: Option<Shape>,
    ) -> Result<Shape, Failure> {
        let wanted = Shape {
            members: members.unwrap_or(recorded.map_or(DEFAULT_MEMBERS, |found| found.members)),
            base_port: base_port
                .unwrap_or(recorded.map_or(DEFAULT_BASE_PORT, |found| found.base_port)),
        };
        wanted.check()?;
        match recorded {
            Some(found) if found != wanted => Err(Failure::new(
                Exit::BadArguments,
                format!(
                    "the directory holds a cluster of {} with --base-port {}; give another --dir for another cluster",
                    found.members, found.base_port
                ),
            )),
            _ => Ok(wanted),
        }
    }

    fn check(self) -> Result<(), Failure> {
        if !(1..=MAX_MEMBERS).contains(&self.members) {
            return Err(Failure::new(
                Exit::BadArguments,
                format!("a development cluster has 1 to {MAX_MEMBERS} members"),
            ));
        }
        let last = u16::from(self.members - 1) * PORT_STEP + 1;
        if self.base_port == 0 || self.base_port > u16::MAX - last {
            return Err(Failure::new(
                Exit::BadArguments,
                format!(
                    "--base-port must be 1 to {} for {} members",
                    u16::MAX - last,
                    self.members
                ),
            ));
        }
        Ok(())
    }

    /// As it is kept in the directory.
    pub(super) fn record(self) -> String {
        let Shape { members, base_port } = self;
        format!("members={members}\nbase-port={base_port}\n")
    }

    /// Reads what [`Self::record`] wrote.
    pub(super) fn parse(text: &str) -> Option<Shape> {
        let (members, base_port) = text.strip_suffix('\n')?.split_once('\n')?;
        let shape = Shape {
            members: members.strip_prefix("members=")?.parse().ok()?,
            base_port: base_port.strip_prefix("base-port=")?.parse().ok()?,
        };
        shape.check().ok()?;
        Some(shape)
    }

    pub(super) fn members(self) -> Vec<Member> {
        (0..u16::from(self.members))
            .map(|index| Member {
                name: format!("m{}", index + 1),
                // `check` has seen to it that the last one fits.
                client_port: self.base_port.saturating_add(index * PORT_STEP),
                peer_port: self.base_port.saturating_add(index * PORT_STEP + 1),
            })
            .collect()
    }
}

/// One member of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    client_port: u16,
    peer_port: u16,
}

impl Member {
    /// An address, not `localhost`: that may be two, and a member listens on one.
    pub(super) fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client_port)
    }

    fn peer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer_port)
    }

    pub(super) fn log_file(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.name))
    }
}

/// The certificates that a member works with.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) client_ca: PathBuf,
    pub(super) server_cert: PathBuf,
    pub(super) server_key: PathBuf,
    pub(super) peer_ca: PathBuf,
    pub(super) peer_cert: PathBuf,
    pub(super) peer_key: PathBuf,
}

/// The flags of `member`, which is one of `all`.
pub(super) fn flags(
    member: &Member,
    all: &[Member],
    dir: &Path,
    certificates: &Certificates,
) -> Vec<OsString> {
    let peers: Vec<_> = all
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_url()))
        .collect();
    let (client_url, peer_url) = (member.client_url(), member.peer_url());
    let texts = [
        ("name", member.name.as_str()),
        // Kept in the data directory; at a second start it only has to be the same.
        ("profile", "strict"),
        ("listen-client-urls", &client_url),
        ("advertise-client-urls", &client_url),
        ("listen-peer-urls", &peer_url),
        ("initial-advertise-peer-urls", &peer_url),
        ("initial-cluster", &peers.join(",")),
        ("initial-cluster-token", "holdfast-dev"),
        ("initial-cluster-state", "new"),
        ("client-cert-auth", "true"),
        ("peer-client-cert-auth", "true"),
    ]
    .map(|(name, value)| OsString::from(format!("--{name}={value}")));
    let data_dir = dir.join(&member.name);
    let paths = [
        ("data-dir", &data_dir),
        ("cert-file", &certificates.server_cert),
        ("key-file", &certificates.server_key),
        ("trusted-ca-file", &certificates.client_ca),
        ("peer-cert-file", &certificates.peer_cert),
        ("peer-key-file", &certificates.peer_key),
        ("peer-trusted-ca-file", &certificates.peer_ca),
    ]
    .map(|(name, path)| {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(path);
        flag
    });
    texts.into_iter().chain(paths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(members: u8, base_port: u16) -> Shape {
        Shape { members, base_port }
    }

    #[test]
    fn what_is_not_said_is_as_recorded_or_the_default() {
        let settled = |members, base_port, recorded| {
            Shape::settle(members, base_port, recorded).map_err(|failure| failure.exit())
        };
        assert_eq!(settled(None, None, None), Ok(shape(3, 2379)));
        assert_eq!(settled(Some(5), Some(4000), None), Ok(shape(5, 4000)));
        let recorded = Some(shape(5, 4000));
        assert_eq!(settled(None, None, recorded), Ok(shape(5, 4000)));
        assert_eq!(settled(Some(5), Some(4000), recorded), Ok(shape(5, 4000)));
        for (members, base_port) in [(Some(3), None), (None, Some(2379))] {
            assert_eq!(
                settled(members, base_port, recorded),
                Err(Exit::BadArguments)
            );
        }
    }

    #[test]
    fn every_port_has_to_exist() {
        for (members, base_port, good) in [
            (1, 1, true),
            (1, 65534, true),
            (1, 65535, false),
            (7, 65474, true),
            (7, 65475, false),
            (3, 0, false),
            (0, 2379, false),
            (8, 2379, false),
            (255, 2379, false),
        ] {
            let settled = Shape::settle(Some(members), Some(base_port), None);
            assert_eq!(settled.is_ok(), good, "{members} {base_port}");
        }
        let last = shape(7, 65474).members().pop().unwrap();
        assert_eq!((last.client_port, last.peer_port), (65534, 65535));
    }

    #[test]
    fn a_record_reads_back_and_nothing_else_does() {
        for shape in [shape(1, 1), shape(7, 2379)] {
            assert_eq!(Shape::parse(&shape.record()), Some(shape));
        }
        for text in [
            "",
            "members=3\n",
            "members=3\nbase-port=2379",
            "members=3\nbase-port=2379\nx=1\n",
            "members=9\nbase-port=2379\n",
            "members=3\nbase-port=0\n",
            "members=3\nbase-port=70000\n",
            "base-port=2379\nmembers=3\n",
        ] {
            assert_eq!(Shape::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn each_member_gets_its_own_ports_and_knows_all_others() {
        let members = shape(3, 2379).members();
        let certificates = Certificates {
            client_ca: "/d/certs/ca.crt".into(),
            server_cert: "/d/certs/server.crt".into(),
            server_key: "/d/certs/server.key".into(),
            peer_ca: "/d/certs/peer-ca.crt".into(),
            peer_cert: "/d/certs/member-m2.crt".into(),
            peer_key: "/d/certs/member-m2.key".into(),
        };
        let flags = flags(&members[1], &members, Path::new("/d"), &certificates);
        let flags: Vec<_> = flags.iter().map(|flag| flag.to_str().unwrap()).collect();
        assert_eq!(
            flags,
            [
                "--name=m2",
                "--profile=strict",
                "--listen-client-urls=https://127.0.0.1:2389",
                "--advertise-client-urls=https://127.0.0.1:2389",
                "--listen-peer-urls=https://127.0.0.1:2390",
                "--initial-advertise-peer-urls=https://127.0.0.1:2390",
                "--initial-cluster=m1=https://127.0.0.1:2380,m2=https://127.0.0.1:2390,m3=https://127.0.0.1:2400",
                "--initial-cluster-token=holdfast-dev",
                "--initial-cluster-state=new",
                "--client-cert-auth=true",
                "--peer-client-cert-auth=true",
                "--data-dir=/d/m2",
                "--cert-file=/d/certs/server.crt",
                "--key-file=/d/certs/server.key",
                "--trusted-ca-file=/d/certs/ca.crt",
                "--peer-cert-file=/d/certs/member-m2.crt",
                "--peer-key-file=/d/certs/member-m2.key",
                "--peer-trusted-ca-file=/d/certs/peer-ca.crt",
            ]
        );
    }
}
