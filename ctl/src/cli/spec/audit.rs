//! The commands on files of the audit log.

use super::{Action, Command, Kind, flag, group, leaf, short, switch};

pub(super) const AUDIT: Command = group(
    "audit",
    "Files of the audit log; no server is asked (Holdfast only).\n\
     A directory stands for the logs in it, and a log for the files that it was rotated to, too.",
    &[
        leaf(
            "grep",
            "<file or directory>...",
            Action::AuditGrep,
            "Print the records that fit all conditions, as they are in the file: one JSON document per line.\n\
             A principal, rpc or tenant that ends in * takes what begins so. Exits with 1 if no record fits.",
            &[
                flag(
                    "key-prefix",
                    Kind::Text,
                    "",
                    "only requests on keys that start with this",
                ),
                flag(
                    "outcome",
                    Kind::Text,
                    "",
                    "only requests that ended so: ok, denied, failed or the name of a gRPC code",
                ),
                flag(
                    "principal",
                    Kind::Text,
                    "",
                    "only requests made by this user; an empty name is nobody's",
                ),
                flag(
                    "rpc",
                    Kind::Text,
                    "",
                    "only calls of this, as KV/Put or Auth/*",
                ),
                flag(
                    "since",
                    Kind::Text,
                    "",
                    "only records from this time on: 2026-01-31T12:30:00Z (UTC) or the beginning of one",
                ),
                flag("tenant", Kind::Text, "", "only requests to this tenant"),
                flag(
                    "until",
                    Kind::Text,
                    "",
                    "only records up to this time; 2026-01 is up to the end of that month",
                ),
            ],
        ),
        leaf(
            "tail",
            "<file or directory>",
            Action::AuditTail,
            "Print the last records, as they are in the file: one JSON document per line.",
            &[
                short(
                    'f',
                    switch("follow", "go on with what is added, through rotations"),
                ),
                short(
                    'n',
                    flag("lines", Kind::Int, "10", "how many records to begin with"),
                ),
            ],
        ),
        leaf(
            "verify",
            "<file or directory>...",
            Action::AuditVerify,
            "Check that no record was changed, added or taken away.\n\
             Exits with 0 only if everything is proven: every line chained, under a checkpoint, and that signed with a key of --public-key.\n\
             Of a log that is being written, the lines since its last checkpoint are not signed yet.",
            &[
                switch("closed", "the log must end in order, as after a stop"),
                flag(
                    "expect",
                    Kind::Text,
                    "",
                    "a checkpoint known from elsewhere, as an earlier verify printed it, which the log must pass",
                ),
                flag(
                    "public-key",
                    Kind::List,
                    "",
                    "file with the public keys of the nodes that may have signed, one per line",
                ),
            ],
        ),
    ],
);
