//! The flags that every command takes.

use super::{Flag, Kind, flag, number, short, switch};

pub(crate) static GLOBAL_FLAGS: &[Flag] = &[
    flag(
        "auth-jwt-token",
        Kind::Secret,
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
    flag("password", Kind::Secret, "", "password of --user"),
    flag(
        "user",
        Kind::Secret,
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
