//! Flags, environment and file: their syntax, and which of them wins.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use holdfast_config::{Feature, Profile, TlsVersion, load};

use crate::{Input, check, check_args, check_file, config};

#[test]
fn quick_start_is_what_nothing_means() {
    let quick = config(Input {
        env: &[
            "PATH=/bin",
            "ETCDCTL_API=3",
            "ETCD_VERIFY=all",
            "ETCD_NAME=",
        ],
        ..Input::default()
    });
    assert!(
        quick.quick_start && quick.client_tls.client_cert_auth && quick.notices.is_empty(),
        "{:?}",
        quick.notices
    );
    assert_eq!(
        (quick.profile, quick.data_dir.as_path()),
        (Profile::Strict, Path::new("holdfast-data"))
    );
    assert_eq!(
        quick.listen_client_urls[0].to_string(),
        "https://localhost:2379"
    );
    assert_eq!(quick.client_tls.min_version, TlsVersion::Tls13);
    check_args(
        "",
        &[
            "\ndata-dir holdfast-data # quick start\n",
            "\nprofile strict # quick start\n",
            "\nname default # default\n",
        ],
    );

    // Our own settings leave it a quick start, any setting of etcd's makes it an etcd.
    for (input, quick_start) in [
        (
            Input {
                args: "--workers 2 --client-cert-allowed-cn=root",
                ..Input::default()
            },
            true,
        ),
        (
            Input {
                args: "--profile strict",
                ..Input::default()
            },
            true,
        ),
        (
            Input {
                env: &["HOLDFAST_WORKERS=2"],
                ..Input::default()
            },
            true,
        ),
        (
            Input {
                args: "--profile etcd",
                ..Input::default()
            },
            false,
        ),
        (
            Input {
                args: "--name a",
                ..Input::default()
            },
            false,
        ),
        (
            Input {
                args: "--max-wals=3",
                ..Input::default()
            },
            false,
        ),
        (
            Input {
                env: &["ETCD_NAME=a"],
                ..Input::default()
            },
            false,
        ),
        (
            Input {
                args: "--config-file=/etc/etcd.yml",
                ..Input::default()
            },
            false,
        ),
    ] {
        assert_eq!(
            config(input).quick_start,
            quick_start,
            "{} {:?}",
            input.args,
            input.env
        );
    }
    check_args(
        "--name a",
        &[
            "\nprofile etcd # default",
            "\ndata-dir a.etcd # default",
            "\ninitial-cluster a=http://localhost:2380 # default",
        ],
    );
}

#[test]
fn go_flag_syntax() {
    for (args, expected) in [
        ("-name a", "\nname a # flag --name\n"),
        ("--name a", "\nname a # flag"),
        ("-name=a", "\nname a # flag"),
        ("--wal-dir=a=b", "\nwal-dir a=b # flag"),
        ("--name a --name b", "\nname b # flag"),
        ("--name -x", "\nname -x # flag"),
        ("--wal-dir= --name a", "\nwal-dir \"\" # flag"),
        (
            "--strict-reconfig-check=false",
            "\nstrict-reconfig-check false # flag",
        ),
        (
            "--strict-reconfig-check=F",
            "\nstrict-reconfig-check false # flag",
        ),
        ("--enable-pprof --name a", "\nenable-pprof true # flag"),
        ("--name a --", "\nname a # flag"),
        ("--max-txn-ops 0x10", "\nmax-txn-ops 16 # flag"),
        (
            "--grpc-keepalive-interval 1h30m",
            "\ngrpc-keepalive-interval 1h30m # flag",
        ),
        ("--enable-pprof false", "error: 'false' is not a valid flag"),
        ("foo", "error: 'foo' is not a valid flag"),
        ("--name a foo --bar", "error: 'foo' is not a valid flag"),
        ("-- foo", "error: 'foo' is not a valid flag"),
        ("-", "error: '-' is not a valid flag"),
        ("--snapshot 5", "error: '5' is not a valid flag"),
        ("gateway start", "error: 'gateway' is not a valid flag"),
        ("--version foo", "error: 'foo' is not a valid flag"),
        ("---name=a", "error: bad flag syntax: ---name=a"),
        ("--=a", "error: bad flag syntax: --=a"),
        ("--name", "error: flag needs an argument: --name"),
        (
            "--enable-pprof=maybe",
            "error: invalid value \"maybe\" for --enable-pprof (flag --enable-pprof): expected true or false",
        ),
        ("--help", "\nhelp\n"),
        ("-h", "\nhelp\n"),
        ("--name a -help --nonsense", "\nhelp\n"),
        ("--version", "\nversion\n"),
        ("--version=false --name a", "\nname a # flag"),
        ("--print-config", "\nprint-config\n"),
        (
            "--nonsense -h",
            "error: flag provided but not defined: --nonsense",
        ),
    ] {
        check_args(args, &[expected]);
    }
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let input = Input {
        args: "--config-file /etc/etcd.yml --name flag --print-config",
        env: &[
            "ETCD_NAME=env",
            "ETCD_MAX_TXN_OPS=7",
            "ETCD_DATA_DIR=",
            "HOLDFAST_MAX_LEASES=9",
        ],
        file: "name: file\nmax-txn-ops: 6\nmax-request-bytes: 5000\ndata-dir: /data\nworkers: 3\nmax-leases: 8\n",
    };
    let expected = [
        "\nprint-config\n",
        "\nname flag # flag --name\n",
        "\nmax-txn-ops 7 # environment ETCD_MAX_TXN_OPS\n",
        "\nmax-request-bytes 5000 # file /etc/etcd.yml, max-request-bytes\n",
        "\ndata-dir /data # file /etc/etcd.yml, data-dir\n",
        "\nworkers 3 # file /etc/etcd.yml, workers\n",
        "\nmax-leases 9 # environment HOLDFAST_MAX_LEASES\n",
        "\nmax-connections 10000 # default\n",
        "!config-file",
    ];
    check(input, &expected);
    let env: Vec<_> = input
        .env
        .iter()
        .copied()
        .chain(["ETCD_CONFIG_FILE=/etc/etcd.yml"])
        .collect();
    check(
        Input {
            args: "--name flag --print-config",
            env: &env,
            ..input
        },
        &expected,
    );
    check(
        Input {
            args: "--config-file=/etc/etcd.yml --name flag --print-config",
            env: &["ETCD_CONFIG_FILE=/none"],
            file: "",
        },
        &["\nname flag # flag"],
    );
    check(
        Input {
            env: &["ETCD_CONFIG_FILE=/none"],
            ..Input::default()
        },
        &["error: cannot read the configuration file /none: "],
    );
}

#[test]
fn an_older_spelling_gives_way_to_the_current_one() {
    let older = "is an older spelling of --watch-progress-notify-interval";
    for (args, env, value) in [
        (
            "--experimental-watch-progress-notify-interval=5s",
            None,
            "5s # flag --experimental-watch-progress-notify-interval",
        ),
        (
            "--experimental-watch-progress-notify-interval=5s --watch-progress-notify-interval=7s",
            None,
            "7s # flag --watch",
        ),
        (
            "--watch-progress-notify-interval=7s --experimental-watch-progress-notify-interval=5s",
            None,
            "7s # flag --watch",
        ),
        (
            "",
            Some("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL=5s"),
            "5s # environment ETCD_EXPERIMENTAL_WATCH",
        ),
        (
            "--experimental-watch-progress-notify-interval=5s",
            Some("ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL=7s"),
            "5s # flag",
        ),
    ] {
        let env: Vec<_> = env.into_iter().collect();
        let told = if value.starts_with('7') {
            "is ignored: --watch-progress-notify-interval is given too"
        } else {
            older
        };
        check(
            Input {
                args,
                env: &env,
                file: "",
            },
            &[&format!("\nwatch-progress-notify-interval {value}"), told],
        );
    }
    for (args, env, on) in [
        ("--experimental-initial-corrupt-check=true", None, true),
        (
            "--experimental-initial-corrupt-check",
            Some("ETCD_FEATURE_GATES=InitialCorruptCheck=false"),
            true,
        ),
        (
            "--experimental-initial-corrupt-check --feature-gates=InitialCorruptCheck=false",
            None,
            false,
        ),
        (
            "--feature-gates=InitialCorruptCheck=true --feature-gates=CompactHashCheck=true",
            None,
            true,
        ),
        ("--feature-gates=AllAlpha=true", None, true),
        ("", Some("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK=1"), true),
    ] {
        let env: Vec<_> = env.into_iter().collect();
        let gates = config(Input {
            args,
            env: &env,
            file: "",
        })
        .feature_gates;
        assert_eq!(
            gates.enabled(Feature::InitialCorruptCheck),
            on,
            "{args} {env:?}"
        );
    }
}

#[test]
fn files() {
    for (file, expected) in [
        ("", "\nname default # default"),
        ("# nothing\n", "\nprofile etcd # default"),
        (
            "{\n\t\"name\": \"j\",\n\t\"client-transport-security\": {\"auto-tls\": true},\n\t\"max-txn-ops\": 5\n}",
            "\nmax-txn-ops 5 # file /etc/etcd.yml, max-txn-ops\n",
        ),
        ("proxy: off", "\nproxy off # file"),
        (
            "socket-options: {reuse-port: true}",
            "\nsocket-reuse-port true # file /etc/etcd.yml, socket-options/reuse-port\n",
        ),
        (
            "discovery-config: {endpoints: ['http://h:1'], token: t}",
            "is not supported: members are found by --initial-cluster",
        ),
        ("disable-log-sampling: true", "!notice"),
        ("proxy: false", "\nproxy false # file"),
        ("client-transport-security:\n", "\nname default # default"),
        (
            "auto-compaction-retention: 1",
            "\nauto-compaction-retention 1 # file",
        ),
        (
            "auto-compaction-retention: 5m",
            "\nauto-compaction-retention 5m # file",
        ),
        (
            "grpc-keepalive-timeout: 5000000000",
            "\ngrpc-keepalive-timeout 5000000000ns # file",
        ),
        ("log-outputs: []", "\nlog-outputs default # default"),
        (
            "client-crl-file: /crl\nclient-transport-security: {trusted-ca-file: /ca}",
            "\nclient-crl-file /crl # file /etc/etcd.yml, client-crl-file",
        ),
        (
            "peer-skip-client-san-verification: true",
            "\npeer-skip-client-san-verification true # file",
        ),
        (
            "grpc-keepalive-timeout: '5000000000'",
            "error: invalid value \"5000000000\" for --grpc-keepalive-timeout (file /etc/etcd.yml, grpc-keepalive-timeout): the unit is missing",
        ),
        (
            "grpc-keepalive-timeout: -5",
            "a duration cannot be negative",
        ),
        (
            "max-txn-ops: 1.5",
            "error: invalid value \"1.5\" for --max-txn-ops (file /etc/etcd.yml, max-txn-ops): expected a whole number",
        ),
        (
            "name: [a]",
            "error: configuration file /etc/etcd.yml: \"name\" takes one value, not a list",
        ),
        ("name: {a: b}", "\"name\" takes a value, not a section"),
        (
            "log-outputs: [[a]]",
            "\"log-outputs\" must be a list of plain values",
        ),
        (
            "client-transport-security: 5",
            "\"client-transport-security\" must be a section",
        ),
        (
            "cert-file: /x",
            "\"cert-file\" is called \"cert-file\" here and belongs into the section \"client-transport-security\"",
        ),
        (
            "peer-cert-file: /x",
            "\"peer-cert-file\" is called \"cert-file\" here and belongs into the section \"peer-transport-security\"",
        ),
        (
            "config-file: /x",
            "\"config-file\" is a flag of the command line",
        ),
        ("version: true", "\"version\" is a flag of the command line"),
        (
            "name: a\nname: b",
            "error: configuration file /etc/etcd.yml: the key \"name\" is given twice",
        ),
        (
            "peer-transport-security: {allowed-cn: a, allowed-cns: [b]}",
            "error: --peer-cert-allowed-cn is given twice",
        ),
        ("[a, b]", "expected keys with values"),
        ("name: [", "error: configuration file /etc/etcd.yml: "),
        ("{\"name\": ", "error: configuration file /etc/etcd.yml: "),
    ] {
        check_file(file, &[expected]);
    }
    check_file(
        &"#".repeat((1 << 20) + 1),
        &["error: configuration file /etc/etcd.yml: 1048577 bytes are more than"],
    );
}

#[test]
#[cfg(unix)]
fn variables_that_are_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    let read = |_: &Path| -> io::Result<Vec<u8>> { Err(io::ErrorKind::NotFound.into()) };
    let error = load(Vec::new(), [("ETCD_NAME".into(), bad())], read).expect_err("not UTF-8");
    assert_eq!(
        error.to_string(),
        "the environment variable ETCD_NAME is not valid UTF-8"
    );
    load(
        Vec::new(),
        [("OTHER".into(), bad()), (bad(), "x".into())],
        read,
    )
    .expect("not ours");
    let error =
        load(vec!["--config-file=/f".into()], [], |_| Ok(vec![0xff])).expect_err("not UTF-8");
    assert!(
        error.to_string().starts_with("configuration file /f: "),
        "{error}"
    );
}

#[test]
fn passwords_and_forged_lines_stay_out_of_sight() {
    let input = Input {
        args: "--discovery-password=hunter2 --discovery-user root:hunter2",
        ..Input::default()
    };
    check(
        input,
        &["!hunter2", "\ndiscovery-password (not shown) # flag"],
    );
    assert!(!format!("{:?}", config(input)).contains("hunter2"));
    check(
        Input {
            env: &["ETCD_WAL_DIR=/a\nname  forged  # flag --name"],
            ..Input::default()
        },
        &["!\nname forged", "\nwal-dir /a\\nname forged"],
    );
}
