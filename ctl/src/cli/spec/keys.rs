//! The commands on keys and their history.

use super::{Action, Command, Flag, Kind, flag, group, leaf, number, short, switch};

const PREV_KV: Flag = switch("prev-kv", "also return the pair as it was before");
pub(super) const CONSISTENCY: Flag = flag(
    "consistency",
    Kind::Text,
    "l",
    "l for linearizable, s for serializable",
);

pub(super) const GET: Command = leaf(
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

pub(super) const PUT: Command = leaf(
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

pub(super) const DELETE: Command = leaf(
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

pub(super) const WATCH_COMMAND: Command = leaf(
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

pub(super) const TXN: Command = leaf(
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
);

pub(super) const COMPACTION: Command = leaf(
    "compaction",
    "<revision>",
    Action::Compaction,
    "Drop the history before a revision.",
    &[switch("physical", "wait until the space is free")],
);

/// `watch`, which the lines of an interactive watch repeat.
pub(crate) static WATCH: Command = WATCH_COMMAND;

/// The requests that a transaction may hold.
pub(crate) static TXN_REQUESTS: Command = group("txn", "", &[PUT, GET, DELETE]);
