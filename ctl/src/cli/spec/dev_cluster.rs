//! The command that runs a cluster on this machine.

use super::{Action, Command, Kind, flag, leaf};

pub(super) const DEV_CLUSTER: Command = leaf(
    "dev-cluster",
    "[members]",
    Action::DevCluster,
    "Run a cluster of 1 to 7 members (default 3) on this machine, to try things out (Holdfast only).\n\
     A directory gets CAs, certificates, and for each member a data directory and a log. Every port wants TLS 1.3 and client\n\
     certificates; authentication is on, with profile strict. Member i (from 0) serves clients on port base+10*i and other\n\
     members on base+10*i+1, on 127.0.0.1. When all serve, the variables for etcdctl and holdfastctl are printed.\n\
     Ctrl-C (SIGINT), SIGTERM or SIGHUP stops all members, a second one kills them. In the same directory the command starts the\n\
     same cluster again. It ends with an error if a member dies before the cluster serves; later it goes on while one is left.",
    &[
        flag(
            "base-port",
            Kind::Int,
            "2379",
            "first port; a directory that holds a cluster keeps its own",
        ),
        flag(
            "dir",
            Kind::Text,
            "./holdfast-dev",
            "directory of the cluster, made if it does not exist",
        ),
        flag(
            "holdfast",
            Kind::Text,
            "",
            "the server's program; without it the one beside this program",
        ),
    ],
);
