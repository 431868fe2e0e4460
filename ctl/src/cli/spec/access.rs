//! The commands on who may do what: authentication, users, roles, keys of tokens.

use super::{Action, Command, Flag, Kind, flag, group, leaf, switch};

const INTERACTIVE: Flag = flag(
    "interactive",
    Kind::Bool,
    "true",
    "ask for the password twice; with =false, read it from one line of standard input",
);

pub(super) const AUTH: Command = group(
    "auth",
    "Authentication. While it is off, every client may do everything.",
    &[
        leaf(
            "disable",
            "",
            Action::AuthDisable,
            "Let every client do everything again.",
            &[],
        ),
        leaf(
            "enable",
            "",
            Action::AuthEnable,
            "Demand of every client to say who it is, and hold it to its roles.\n\
             There must be a user `root`; the role `root` is granted to it if it does not have it yet.",
            &[],
        ),
        leaf(
            "status",
            "",
            Action::AuthStatus,
            "Show whether authentication is on, and the revision of users and roles.",
            &[],
        ),
    ],
);

pub(super) const USER: Command = group(
    "user",
    "Users.",
    &[
        leaf(
            "add",
            "<user name or user:password>",
            Action::UserAdd,
            "Add a user. Without a password on the command line it is asked for.\n\
             The name is taken whole, colons included, with --new-user-password, --no-password and --password-hash-file.",
            &[
                INTERACTIVE,
                flag(
                    "new-user-password",
                    Kind::Secret,
                    "",
                    "password of the new user",
                ),
                switch(
                    "no-password",
                    "a user without a password, known by its certificate only",
                ),
                flag(
                    "password-hash-file",
                    Kind::Text,
                    "",
                    "file with a bcrypt or argon2id hash of the password, to bring a user along from elsewhere",
                ),
            ],
        ),
        leaf(
            "delete",
            "<user name>",
            Action::UserDelete,
            "Delete a user.",
            &[],
        ),
        leaf(
            "get",
            "<user name>",
            Action::UserGet,
            "Show the roles of a user.",
            &[switch("detail", "also show the permissions of the roles")],
        ),
        leaf(
            "grant-role",
            "<user name> <role name>",
            Action::UserGrantRole,
            "Grant a role to a user.",
            &[],
        ),
        leaf("list", "", Action::UserList, "List all users.", &[]),
        leaf(
            "passwd",
            "<user name>",
            Action::UserPasswd,
            "Change the password of a user. Users may change their own.",
            &[INTERACTIVE],
        ),
        leaf(
            "revoke-role",
            "<user name> <role name>",
            Action::UserRevokeRole,
            "Revoke a role from a user.",
            &[],
        ),
    ],
);

const FROM_KEY: Flag = switch("from-key", "all keys from the given one on");
const PREFIX: Flag = switch("prefix", "all keys that start with the given one");

pub(super) const ROLE: Command = group(
    "role",
    "Roles: named sets of permissions on keys.",
    &[
        leaf("add", "<role name>", Action::RoleAdd, "Add a role.", &[]),
        leaf(
            "delete",
            "<role name>",
            Action::RoleDelete,
            "Delete a role, and revoke it from all users.",
            &[],
        ),
        leaf(
            "get",
            "<role name>",
            Action::RoleGet,
            "Show the permissions of a role.",
            &[],
        ),
        leaf(
            "grant-permission",
            "<role name> <read|write|readwrite> <key> [endkey]",
            Action::RoleGrantPermission,
            "Let the holders of a role read or write a key, or the keys up to (and without) endkey.",
            &[FROM_KEY, PREFIX],
        ),
        leaf("list", "", Action::RoleList, "List all roles.", &[]),
        leaf(
            "revoke-permission",
            "<role name> <key> [endkey]",
            Action::RoleRevokePermission,
            "Take a permission from a role. Key and endkey must be those that it was granted with.",
            &[FROM_KEY, PREFIX],
        ),
    ],
);

pub(super) const TOKEN_KEY: Command = group(
    "token-key",
    "The keys that sign tokens (Holdfast only).",
    &[
        leaf(
            "list",
            "",
            Action::TokenKeyList,
            "List the keys whose tokens are accepted.\n\
             With -w simple: key ID, member ID, when it was made, when it retires (- while it is in use).",
            &[],
        ),
        leaf(
            "rotate",
            "",
            Action::TokenKeyRotate,
            "Sign new tokens with a new key.",
            &[flag(
                "overlap",
                Kind::Duration,
                "0s",
                "how long tokens of the keys before are still accepted; 0s for as long as they live",
            )],
        ),
    ],
);
