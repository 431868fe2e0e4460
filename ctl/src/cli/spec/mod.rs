//! The commands and flags, as tables. Names, kinds and defaults are etcdctl's, where it has them.

mod access;
mod audit;
mod dev_cluster;
mod globals;
mod keys;

use keys::{COMPACTION, CONSISTENCY, DELETE, GET, PUT, TXN, WATCH_COMMAND};

pub(crate) use globals::GLOBAL_FLAGS;
pub(crate) use keys::{TXN_REQUESTS, WATCH};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Text,
    /// As text, but never shown again.
    Secret,
    /// Comma-separated; a repeated flag adds to it.
    List,
    Duration,
}

#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// The arguments, as the usage line shows them.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) children: &'static [Command],
    /// None for a command that only holds others.
    pub(crate) action: Option<Action>,
}

/// What the program can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Put,
    Delete,
    Txn,
    Compaction,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseList,
    LeaseKeepAlive,
    EndpointHealth,
    EndpointStatus,
    EndpointHashKv,
    AlarmList,
    AlarmDisarm,
    Defrag,
    SnapshotSave,
    MemberList,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    UserAdd,
    UserDelete,
    UserGet,
    UserList,
    UserPasswd,
    UserGrantRole,
    UserRevokeRole,
    RoleAdd,
    RoleDelete,
    RoleGet,
    RoleList,
    RoleGrantPermission,
    RoleRevokePermission,
    TokenKeyRotate,
    TokenKeyList,
    AuditVerify,
    AuditTail,
    AuditGrep,
    DevCluster,
    Completion,
    Version,
    Options,
    Help,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        kind,
        default,
        about,
    }
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    flag(name, Kind::Bool, "false", about)
}

const fn number(name: &'static str, about: &'static str) -> Flag {
    flag(name, Kind::Int, "0", about)
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag {
        short: Some(letter),
        ..flag
    }
}

const fn leaf(
    name: &'static str,
    usage: &'static str,
    action: Action,
    about: &'static str,
    flags: &'static [Flag],
) -> Command {
    Command {
        name,
        usage,
        about,
        flags,
        children: &[],
        action: Some(action),
    }
}

const fn group(name: &'static str, about: &'static str, children: &'static [Command]) -> Command {
    Command {
        name,
        usage: "",
        about,
        flags: &[],
        children,
        action: None,
    }
}

const CLUSTER: Flag = switch(
    "cluster",
    "ask every member of the cluster instead of --endpoints",
);
const STATUS_ABOUT: &str = "Show the state of each endpoint.\n\
     With -w simple: endpoint, ID, version, storage version, db size, in use, percentage not in use, quota, is leader, is learner,\n\
     raft term, raft index, raft applied index, errors, downgrade target version, downgrade enabled.";

pub(crate) static ROOT: Command = group(
    "holdfastctl",
    "The command line client of Holdfast; it speaks the etcd v3 API and takes etcdctl's commands.",
    &[
        GET,
        PUT,
        DELETE,
        TXN,
        COMPACTION,
        WATCH_COMMAND,
        group(
            "lease",
            "Leases.",
            &[
                leaf(
                    "grant",
                    "<ttl>",
                    Action::LeaseGrant,
                    "Make a lease that lives for this many seconds.",
                    &[],
                ),
                leaf(
                    "revoke",
                    "<leaseID>",
                    Action::LeaseRevoke,
                    "End a lease and delete its keys.",
                    &[],
                ),
                leaf(
                    "timetolive",
                    "<leaseID>",
                    Action::LeaseTimeToLive,
                    "Show how long a lease has to live.",
                    &[switch("keys", "also list its keys")],
                ),
                leaf("list", "", Action::LeaseList, "List all leases.", &[]),
                leaf(
                    "keep-alive",
                    "<leaseID>",
                    Action::LeaseKeepAlive,
                    "Renew a lease until it is revoked.",
                    &[switch("once", "renew it once and return")],
                ),
            ],
        ),
        Command {
            flags: &[CLUSTER],
            ..group(
                "endpoint",
                "The endpoints of a cluster.",
                &[
                    leaf(
                        "health",
                        "",
                        Action::EndpointHealth,
                        "Check that each endpoint can commit.",
                        &[],
                    ),
                    leaf("status", "", Action::EndpointStatus, STATUS_ABOUT, &[]),
                    leaf(
                        "hashkv",
                        "",
                        Action::EndpointHashKv,
                        "Show the hash of the key history of each endpoint.",
                        &[number("rev", "hash up to this revision; 0 for the latest")],
                    ),
                ],
            )
        },
        leaf(
            "status",
            "",
            Action::EndpointStatus,
            STATUS_ABOUT,
            &[CLUSTER],
        ),
        group(
            "alarm",
            "Alarms.",
            &[
                leaf("disarm", "", Action::AlarmDisarm, "Clear all alarms.", &[]),
                leaf("list", "", Action::AlarmList, "List all alarms.", &[]),
            ],
        ),
        leaf(
            "defrag",
            "",
            Action::Defrag,
            "Give free space of each endpoint back to the file system.",
            &[CLUSTER],
        ),
        group(
            "snapshot",
            "Snapshots.",
            &[leaf(
                "save",
                "<filename>",
                Action::SnapshotSave,
                "Save the state of one endpoint to a file.",
                &[],
            )],
        ),
        group(
            "member",
            "Members of the cluster.",
            &[leaf(
                "list",
                "",
                Action::MemberList,
                "List the members.\nWith -w simple: ID, status, name, peer addresses, client addresses, is learner.",
                &[CONSISTENCY],
            )],
        ),
        access::AUTH,
        access::USER,
        access::ROLE,
        access::TOKEN_KEY,
        audit::AUDIT,
        dev_cluster::DEV_CLUSTER,
        leaf(
            "completion",
            "bash|zsh|fish",
            Action::Completion,
            "Print a script that completes commands and flags in a shell.\n\n\
             bash: source <(holdfastctl completion bash)\n\
             zsh:  source <(holdfastctl completion zsh), after compinit\n\
             fish: holdfastctl completion fish | source",
            &[],
        ),
        leaf(
            "version",
            "",
            Action::Version,
            "Print the version of this program.",
            &[],
        ),
        leaf(
            "options",
            "",
            Action::Options,
            "List the global flags.",
            &[],
        ),
        leaf("help", "[command]", Action::Help, "Explain a command.", &[]),
    ],
);
