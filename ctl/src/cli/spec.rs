//! The commands and flags, as tables. Names, kinds and defaults are etcdctl's.

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Text,
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
const PREV_KV: Flag = switch("prev-kv", "also return the pair as it was before");
const CONSISTENCY: Flag = flag(
    "consistency",
    Kind::Text,
    "l",
    "l for linearizable, s for serializable",
);

const GET: Command = leaf(
    "get",
    "<key> [range_end]",
    Action::Get,
    "Read a key or a range of keys.",
    &[
        CONSISTENCY,
        switch("count-only", "only the number of keys (with -w fields)"),
        switch("from-key", "all keys from the given one on"),
        switch("keys-only", "keys without values"),
        number("limit", "return at most this many pairs; 0 for all"),
        number(
            "max-create-rev",
            "only keys created at or before this revision",
        ),
        number(
            "max-mod-rev",
            "only keys last changed at or before this revision",
        ),
        number(
            "min-create-rev",
            "only keys created at or after this revision",
        ),
        number(
            "min-mod-rev",
            "only keys last changed at or after this revision",
        ),
        flag("order", Kind::Text, "", "ASCEND or DESCEND"),
        switch("prefix", "all keys that start with the given one"),
        switch("print-value-only", "values without keys (with -w simple)"),
        number("rev", "read as of this revision"),
        flag(
            "sort-by",
            Kind::Text,
            "",
            "CREATE, KEY, MODIFY, VALUE or VERSION",
        ),
        switch("stream", "fetch the answer in pieces, for large ranges"),
    ],
);

const PUT: Command = leaf(
    "put",
    "<key> <value>",
    Action::Put,
    "Write a key. A value that is not given is read from standard input.\nPut -- before a value that starts with a dash.",
    &[
        switch("ignore-lease", "keep the lease that the key has"),
        switch("ignore-value", "keep the value that the key has"),
        flag(
            "lease",
            Kind::Text,
            "0",
            "attach the key to this lease (an id in hexadecimal)",
        ),
        PREV_KV,
    ],
);

const DELETE: Command = leaf(
    "del",
    "<key> [range_end]",
    Action::Delete,
    "Delete a key or a range of keys.",
    &[
        switch("from-key", "all keys from the given one on"),
        switch("prefix", "all keys that start with the given one"),
        PREV_KV,
        switch(
            "range",
            "do not wait two seconds before [key, range_end) is deleted",
        ),
    ],
);

const WATCH_COMMAND: Command = leaf(
    "watch",
    "[key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    Action::Watch,
    "Print the changes of a key or a range as they happen, or run a command for each.\n\
         The command finds ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its environment.\n\
         Without a key, ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END are used.",
    &[
        short(
            'i',
            switch(
                "interactive",
                "read lines `watch ...` and `progress` from standard input",
            ),
        ),
        switch("prefix", "all keys that start with the given one"),
        PREV_KV,
        switch(
            "progress-notify",
            "also print progress while nothing changes",
        ),
        number("rev", "start at this revision"),
    ],
);

/// `watch`, which the lines of an interactive watch repeat.
pub(crate) static WATCH: Command = WATCH_COMMAND;

/// The requests that a transaction may hold.
pub(crate) static TXN_REQUESTS: Command = group("txn", "", &[PUT, GET, DELETE]);

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
        leaf(
            "txn",
            "",
            Action::Txn,
            "Run a transaction read from standard input: compares, an empty line, requests if all hold, an empty line,\n\
             requests otherwise, an empty line.\n\n\
             A compare is `target(\"key\") op \"value\"` with a target of version, create, mod, value or lease and an op of =, !=, < or >;\n\
             a request is a get, put or del command line.",
            &[short(
                'i',
                switch("interactive", "print what is expected next"),
            )],
        ),
        leaf(
            "compaction",
            "<revision>",
            Action::Compaction,
            "Drop the history before a revision.",
            &[switch("physical", "wait until the space is free")],
        ),
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

pub(crate) static GLOBAL_FLAGS: &[Flag] = &[
    flag(
        "auth-jwt-token",
        Kind::Text,
        "",
        "authenticate with this token",
    ),
    flag(
        "cacert",
        Kind::Text,
        "",
        "PEM file of the CAs that may sign the server's certificate",
    ),
    flag("cert", Kind::Text, "", "PEM file of the client certificate"),
    flag(
        "command-timeout",
        Kind::Duration,
        "5s",
        "how long a request may take once connected",
    ),
    switch("debug", "print the global flags in use to stderr"),
    flag(
        "dial-timeout",
        Kind::Duration,
        "2s",
        "how long to try to connect to the endpoints",
    ),
    short(
        'd',
        flag(
            "discovery-srv",
            Kind::Text,
            "",
            "not supported: endpoints are not looked up in DNS",
        ),
    ),
    flag(
        "discovery-srv-name",
        Kind::Text,
        "",
        "not supported, as --discovery-srv",
    ),
    flag(
        "endpoints",
        Kind::List,
        "127.0.0.1:2379",
        "endpoints, tried in order: host:port, http://, https:// or unix://",
    ),
    short('h', switch("help", "explain the command")),
    switch("hex", "print keys, values and ids in hexadecimal"),
    flag(
        "insecure-discovery",
        Kind::Bool,
        "true",
        "no effect, as --discovery-srv",
    ),
    switch(
        "insecure-skip-tls-verify",
        "accept any server certificate (for tests only)",
    ),
    flag(
        "insecure-transport",
        Kind::Bool,
        "true",
        "plaintext for endpoints without a scheme, if no TLS file is given",
    ),
    flag(
        "keepalive-time",
        Kind::Duration,
        "2s",
        "ping a silent connection after this time",
    ),
    flag(
        "keepalive-timeout",
        Kind::Duration,
        "6s",
        "give up a connection whose ping has no answer for this time",
    ),
    flag(
        "key",
        Kind::Text,
        "",
        "PEM file of the client certificate's key",
    ),
    number("max-recv-bytes", "largest answer accepted; 0 for 2 GiB"),
    number("max-request-bytes", "largest request sent; 0 for 2 MiB"),
    flag("password", Kind::Text, "", "password of --user"),
    flag(
        "user",
        Kind::Text,
        "",
        "authenticate as name[:password]; the password is asked for if not given",
    ),
    switch("version", "print the version of this program"),
    short(
        'w',
        flag(
            "write-out",
            Kind::Text,
            "simple",
            "output format: fields, json, simple or table",
        ),
    ),
];
