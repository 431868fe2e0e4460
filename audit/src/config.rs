//! What an auditor is made of.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::{NodeKey, Rules};

/// What [`crate::Auditor::start`] needs.
#[derive(Clone, Debug)]
pub struct AuditorConfig {
    /// Name of this node, in every record.
    pub node: String,
    /// Name or id of its cluster, in the header of every file.
    pub cluster: String,
    /// Version of the server, in the header of every file.
    pub version: String,
    /// Signs checkpoints and hashes keys.
    pub key: NodeKey,
    /// What is recorded.
    pub rules: Rules,
    /// Where it goes. Without any, nothing is recorded.
    pub sinks: Vec<SinkConfig>,
    /// Time a sink has to take what it was given.
    pub deadline: Duration,
    /// Bytes that may wait in one writer.
    pub writer_limit_bytes: usize,
    /// Bytes that may wait for one sink.
    pub sink_limit_bytes: usize,
    /// Time between signed checkpoints of a file that grows.
    pub checkpoint_every: Duration,
    /// Time that a sink rests after an error.
    pub retry_after: Duration,
}

impl AuditorConfig {
    /// The built-in rules, no sinks, and the limits of `docs/audit.md`.
    pub fn new(node: &str, cluster: &str, version: &str, key: NodeKey) -> Self {
        Self {
            node: node.to_owned(),
            cluster: cluster.to_owned(),
            version: version.to_owned(),
            key,
            rules: Rules::default(),
            sinks: Vec::new(),
            deadline: Duration::from_secs(2),
            writer_limit_bytes: 8 << 20,
            sink_limit_bytes: 16 << 20,
            checkpoint_every: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// A destination of records. `Display` is its name in metrics and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkConfig {
    /// A chained file.
    File(FileConfig),
    /// Standard output, one line for each record.
    Stdout,
    /// A syslog daemon, one message for each record.
    Syslog(SyslogTarget),
}

impl SinkConfig {
    /// Whether both are the same place, whatever else differs.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(two)) => one.path == two.path,
            _ => self == other,
        }
    }
}

impl fmt::Display for SinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "file:{}", file.path.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Syslog(SyslogTarget::Socket(path)) => write!(f, "syslog:{}", path.display()),
            Self::Syslog(SyslogTarget::Udp { host, port }) if host.contains(':') => {
                write!(f, "syslog:[{host}]:{port}")
            }
            Self::Syslog(SyslogTarget::Udp { host, port }) => write!(f, "syslog:{host}:{port}"),
        }
    }
}

/// A chained file and those it was rotated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The file that is written. Its folder is made, closed to others, if there is none.
    pub path: PathBuf,
    /// Size at which the next file is begun.
    pub max_bytes: u64,
    /// Full files that are kept beside it.
    pub keep: usize,
    /// When it is synced.
    pub sync: SyncPolicy,
}

impl FileConfig {
    /// 100 MiB a file, ten kept, synced at checkpoints.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 100 << 20,
            keep: 10,
            sync: SyncPolicy::Checkpoint,
        }
    }
}

/// When an audit file is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Never: it is left to the operating system.
    None,
    /// After each checkpoint.
    Checkpoint,
    /// After each block: what a strict rule asked for is on the disk before the request is carried out.
    Block,
}

/// Where a syslog daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// A unix datagram socket, `/dev/log` as a rule.
    Socket(PathBuf),
    /// A UDP port. Nothing protects what is sent there.
    Udp {
        /// Address or name.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Something the operator should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The process before did not stop in order.
    Resumed {
        /// The file.
        path: PathBuf,
        /// Lines that had no seal yet; they are sealed now.
        unsealed_lines: u64,
        /// Bytes of a last line that was not written to its end.
        torn_bytes: u64,
    },
    /// A file was not continued but renamed.
    SetAside {
        /// The file.
        path: PathBuf,
        /// Its new name.
        to: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file was open to others, and is not any more.
    PermissionsRepaired {
        /// The file.
        path: PathBuf,
        /// Its permission bits before.
        found: u32,
    },
    /// A sink fails, after all was well; it is tried again and again, and further failures are not said.
    Failed {
        /// The sink's name.
        sink: String,
        /// What failed.
        error: String,
    },
    /// A sink that failed has taken something.
    Recovered {
        /// The sink's name.
        sink: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resumed {
                path,
                unsealed_lines,
                torn_bytes,
            } => write!(
                f,
                "audit file {} was not closed in order: {unsealed_lines} lines had no seal, {torn_bytes} bytes belong to a line without end",
                path.display()
            ),
            Self::SetAside { path, to, why } => write!(
                f,
                "audit file {} is not continued but kept as {}: {why}",
                path.display(),
                to.display()
            ),
            Self::PermissionsRepaired { path, found } => write!(
                f,
                "audit file {} had mode {found:03o}; it is 600 now",
                path.display()
            ),
            Self::Failed { sink, error } => write!(f, "audit sink {sink} fails: {error}"),
            Self::Recovered { sink } => write!(f, "audit sink {sink} works again"),
        }
    }
}

/// Why auditing cannot start, or be reloaded.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A sink cannot be opened.
    #[error("audit sink {sink}: {source}")]
    Sink {
        /// The sink's name.
        sink: String,
        /// What failed.
        source: io::Error,
    },
    /// Every request that a strict rule matches would be refused.
    #[error("the audit rules have a strict rule, and there is no sink")]
    StrictWithoutSink,
    /// Two sinks write to the same place.
    #[error("audit sink {0} is given twice")]
    Twice(String),
    /// A thread cannot be started.
    #[error("no thread for auditing: {0}")]
    Thread(#[source] io::Error),
    /// The auditor was made by [`crate::Auditor::off`], or has stopped.
    #[error("auditing is off")]
    Off,
}
