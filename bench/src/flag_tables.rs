//! The flags of every command.

use crate::flags::{Flag, Group};

/// Flags of every load.
pub(crate) const LOAD: &[Group] = &[
    Group {
        title: "Server",
        flags: &[
            Flag {
                name: "endpoint",
                placeholder: "URL",
                default: "http://127.0.0.1:2379",
                help: "http://HOST:PORT or https://HOST:PORT; connections are dealt round several, separated by commas",
            },
            Flag {
                name: "cacert",
                placeholder: "FILE",
                default: "",
                help: "CA of the server's certificate (default: the system's)",
            },
            Flag {
                name: "cert",
                placeholder: "FILE",
                default: "",
                help: "client certificate",
            },
            Flag {
                name: "key",
                placeholder: "FILE",
                default: "",
                help: "key of the client certificate",
            },
            Flag {
                name: "server-name",
                placeholder: "NAME",
                default: "",
                help: "name to verify instead of the endpoint's host",
            },
            Flag {
                name: "insecure-skip-verify",
                placeholder: "",
                default: "",
                help: "accept any server certificate",
            },
            Flag {
                name: "pid",
                placeholder: "PID",
                default: "",
                help: "the server's process, or several with commas: reports CPU per request and memory",
            },
        ],
    },
    Group {
        title: "Shape",
        flags: &[
            Flag {
                name: "connections",
                placeholder: "N",
                default: "4",
                help: "connections",
            },
            Flag {
                name: "in-flight",
                placeholder: "N",
                default: "100",
                help: "requests in flight over all connections",
            },
            Flag {
                name: "threads",
                placeholder: "N",
                default: "1",
                help: "threads of the client",
            },
            Flag {
                name: "seconds",
                placeholder: "S",
                default: "5",
                help: "length of the measurement",
            },
            Flag {
                name: "warmup",
                placeholder: "S",
                default: "1",
                help: "seconds before it that do not count",
            },
            Flag {
                name: "requests",
                placeholder: "N",
                default: "",
                help: "end after N requests instead, without warm-up",
            },
            Flag {
                name: "rate",
                placeholder: "R",
                default: "",
                help: "requests per second, instead of as fast as answered (scan: 500)",
            },
            Flag {
                name: "seed",
                placeholder: "N",
                default: "1",
                help: "seed of keys and values",
            },
        ],
    },
    Group {
        title: "Data",
        flags: &[
            Flag {
                name: "value-bytes",
                placeholder: "N",
                default: "256",
                help: "size of a value",
            },
            Flag {
                name: "keys",
                placeholder: "N",
                default: "",
                help: "keys (default 100000; range 1000; count and scan 1000000)",
            },
            Flag {
                name: "prefix",
                placeholder: "TEXT",
                default: "/bench/",
                help: "what every key begins with",
            },
            Flag {
                name: "sequential",
                placeholder: "",
                default: "",
                help: "put: each key once, in order, instead of at random",
            },
            Flag {
                name: "limit",
                placeholder: "N",
                default: "500",
                help: "range: its limit, 0 for none",
            },
            Flag {
                name: "page-keys",
                placeholder: "N",
                default: "10000",
                help: "scan: keys in a page, 0 for all in one answer",
            },
            Flag {
                name: "watchers",
                placeholder: "N",
                default: "",
                help: "watches (default: watch-prefix 100, watch-keys 1000)",
            },
            Flag {
                name: "watches-per-stream",
                placeholder: "N",
                default: "1",
                help: "watches that share a stream",
            },
            Flag {
                name: "skip-setup",
                placeholder: "",
                default: "",
                help: "get, range, count, scan: the keys are there, do not put them",
            },
        ],
    },
    OUTPUT,
];

const OUTPUT: Group = Group {
    title: "Output",
    flags: &[
        Flag {
            name: "json",
            placeholder: "",
            default: "",
            help: "the report as JSON on standard output",
        },
        Flag {
            name: "quiet",
            placeholder: "",
            default: "",
            help: "no progress bar",
        },
        Flag {
            name: "help",
            placeholder: "",
            default: "",
            help: "this text",
        },
    ],
};

/// Flags of the do-nothing server.
pub(crate) const NOOP: &[Group] = &[Group {
    title: "Flags",
    flags: &[
        Flag {
            name: "listen",
            placeholder: "ADDRESS",
            default: "127.0.0.1:0",
            help: "IP:PORT; port 0 takes a free one",
        },
        Flag {
            name: "threads",
            placeholder: "N",
            default: "",
            help: "runtimes (default: one per processor)",
        },
        Flag {
            name: "value-bytes",
            placeholder: "N",
            default: "256",
            help: "size of the values in its answers",
        },
        Flag {
            name: "cert-file",
            placeholder: "FILE",
            default: "",
            help: "server certificate; turns TLS on, with key and CA",
        },
        Flag {
            name: "key-file",
            placeholder: "FILE",
            default: "",
            help: "its key",
        },
        Flag {
            name: "trusted-ca-file",
            placeholder: "FILE",
            default: "",
            help: "CA of the client certificates, which are required",
        },
        Flag {
            name: "help",
            placeholder: "",
            default: "",
            help: "this text",
        },
    ],
}];

/// Flags of `make-certs`.
pub(crate) const CERTS: &[Group] = &[Group {
    title: "Flags",
    flags: &[Flag {
        name: "help",
        placeholder: "",
        default: "",
        help: "this text",
    }],
}];

const ETCD: Flag = Flag {
    name: "etcd",
    placeholder: "PATH",
    default: "",
    help: "binary of a real etcd",
};

const HOLDFAST: Flag = Flag {
    name: "holdfast",
    placeholder: "PATH",
    default: "",
    help: "binary of Holdfast",
};

const DIR: Flag = Flag {
    name: "dir",
    placeholder: "DIR",
    default: "target/compare",
    help: "data goes below it and is removed; must be a real disk",
};

const ROUNDS: Flag = Flag {
    name: "rounds",
    placeholder: "N",
    default: "5",
    help: "runs of each load against each server",
};

const SECONDS: Flag = Flag {
    name: "seconds",
    placeholder: "S",
    default: "4",
    help: "length of a run",
};

const WARMUP: Flag = Flag {
    name: "warmup",
    placeholder: "S",
    default: "1",
    help: "seconds before it that do not count",
};

const QUIET: Flag = Flag {
    name: "quiet",
    placeholder: "",
    default: "",
    help: "no progress bar",
};

const HELP: Flag = Flag {
    name: "help",
    placeholder: "",
    default: "",
    help: "this text",
};

const TLS: Flag = Flag {
    name: "tls",
    placeholder: "MODE",
    default: "both",
    help: "plain, mtls or both",
};

const OUT: Flag = Flag {
    name: "out",
    placeholder: "FILE",
    default: "",
    help: "every figure as JSON",
};

/// Flags of the comparison.
pub(crate) const COMPARE: &[Group] = &[
    Group {
        title: "Servers (the do-nothing server always takes part where it can)",
        flags: &[ETCD, HOLDFAST, TLS, DIR],
    },
    Group {
        title: "Loads",
        flags: &[
            Flag {
                name: "loads",
                placeholder: "A,B,...",
                default: "",
                help: "some of the loads below (default: all)",
            },
            ROUNDS,
            SECONDS,
            WARMUP,
            Flag {
                name: "million",
                placeholder: "N",
                default: "1000000",
                help: "keys of the million-keys loads",
            },
        ],
    },
    Group {
        title: "Output",
        flags: &[
            Flag {
                name: "out",
                placeholder: "FILE",
                default: "",
                help: "every run as JSON (default: compare.json in --dir)",
            },
            QUIET,
            HELP,
        ],
    },
];

/// Flags of the cost of security.
pub(crate) const SECURED: &[Group] = &[
    Group {
        title: "Servers",
        flags: &[ETCD, HOLDFAST, DIR],
    },
    Group {
        title: "Loads",
        flags: &[ROUNDS, SECONDS, WARMUP],
    },
    Group {
        title: "Output",
        flags: &[QUIET, HELP],
    },
];

/// Flags of the loads on three members.
pub(crate) const CLUSTER: &[Group] = &[
    Group {
        title: "Servers",
        flags: &[ETCD, HOLDFAST, TLS, DIR],
    },
    Group {
        title: "Loads",
        flags: &[
            ROUNDS,
            SECONDS,
            WARMUP,
            Flag {
                name: "puts",
                placeholder: "N",
                default: "200000",
                help: "puts to each cluster before its memory is read",
            },
            Flag {
                name: "connections",
                placeholder: "N",
                default: "6",
                help: "connections, dealt round the members that a load talks to",
            },
        ],
    },
    Group {
        title: "Output",
        flags: &[OUT, QUIET, HELP],
    },
];

/// Flags of the loss of a leader.
pub(crate) const FAILOVER: &[Group] = &[
    Group {
        title: "Servers",
        flags: &[
            ETCD,
            HOLDFAST,
            Flag {
                default: "mtls",
                ..TLS
            },
            DIR,
        ],
    },
    Group {
        title: "Losses",
        flags: &[
            Flag {
                name: "kills",
                placeholder: "N",
                default: "20",
                help: "leaders killed in each cluster",
            },
            Flag {
                name: "stops",
                placeholder: "N",
                default: "",
                help: "leaders stopped in order in each cluster (default: as many)",
            },
        ],
    },
    Group {
        title: "Output",
        flags: &[OUT, QUIET, HELP],
    },
];

/// Flags of the return of a member.
pub(crate) const CATCHUP: &[Group] = &[
    Group {
        title: "Servers",
        flags: &[
            ETCD,
            HOLDFAST,
            Flag {
                default: "plain",
                ..TLS
            },
            DIR,
        ],
    },
    Group {
        title: "Loads",
        flags: &[
            Flag {
                name: "writes",
                placeholder: "N",
                default: "1000000",
                help: "while the member is away",
            },
            Flag {
                name: "keys",
                placeholder: "N",
                default: "100000",
                help: "keys that are written, again and again",
            },
            Flag {
                name: "rate",
                placeholder: "R",
                default: "1000",
                help: "writes per second to the leader before, during and after",
            },
            Flag {
                name: "seconds",
                placeholder: "S",
                default: "30",
                help: "of them before the member comes back",
            },
        ],
    },
    Group {
        title: "Output",
        flags: &[OUT, QUIET, HELP],
    },
];
