//! Settings of users, tokens and audit, and what the profile makes of them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_config::{
    AuditConfig, AuditSink, AuditSync, ExternalIssuerConfig, Host, ListenUrl, Profile,
    ProfileSettings,
};

use crate::{Input, check, check_args, check_file, config};

fn args(args: &str) -> holdfast_config::Config {
    config(Input {
        args,
        ..Input::default()
    })
}

#[test]
fn each_profile_has_its_defaults() {
    // The profile of the data directory counts, whatever this start says.
    for given in ["strict", "etcd"] {
        let config = args(&format!("--profile={given} --data-dir=/var/lib/h"));
        assert_eq!(
            *config.for_profile(Profile::Strict),
            ProfileSettings {
                initial_auth: true,
                max_connections_per_source: NonZeroUsize::new(1024),
                listen_peer_urls: Vec::new(),
                min_password_length: 12,
                audit_sinks: vec![AuditSink::File("/var/lib/h/audit/audit.log".into())],
            }
        );
        assert_eq!(
            *config.for_profile(Profile::Etcd),
            ProfileSettings {
                initial_auth: false,
                max_connections_per_source: None,
                listen_peer_urls: vec![
                    ListenUrl::parse_peer("http://localhost:2380").expect("valid")
                ],
                min_password_length: 0,
                audit_sinks: Vec::new(),
            }
        );
    }
    check_args(
        "--profile=strict",
        &[
            "\ninitial-auth true # default of profile strict\n",
            "\nmax-connections-per-source 1024 # default of profile strict\n",
            "\nmin-password-length 12 # default of profile strict\n",
            "\naudit-log file:${data-dir}/audit/audit.log # default of profile strict\n",
            "\nlogin-memory-bytes 67108864 # default\n",
        ],
    );
    check_args(
        "--profile=etcd",
        &[
            "\ninitial-auth false # default\n",
            "\nmin-password-length 0 # default\n",
            "\naudit-log \"\" # default\n",
        ],
    );
    check_args(
        "--help",
        &[
            "\nHoldfast: users:\n--initial-auth 'false'\n",
            "In profile strict the default is 'true'.",
            "\nHoldfast: audit:\n--audit-log ''\n",
        ],
    );
}

#[test]
fn what_is_given_counts_in_every_profile() {
    let config = args(
        "--profile strict --initial-auth=false --max-connections-per-source=0 --min-password-length=8 --audit-log=none \
         --listen-peer-urls=http://[::1]:7",
    );
    for profile in [Profile::Strict, Profile::Etcd] {
        assert_eq!(
            *config.for_profile(profile),
            ProfileSettings {
                initial_auth: false,
                max_connections_per_source: None,
                listen_peer_urls: vec![ListenUrl::parse_peer("http://[::1]:7").expect("valid")],
                min_password_length: 8,
                audit_sinks: Vec::new(),
            }
        );
    }
    let empty = args("--profile strict --audit-log=");
    assert_eq!(empty.for_profile(Profile::Strict).audit_sinks, []);
}

#[test]
fn our_settings_leave_the_quick_start_as_it_is() {
    let config = config(Input {
        args: "--min-password-length=20",
        env: &["HOLDFAST_AUDIT_LOG=stdout", "HOLDFAST_INITIAL_AUTH=true"],
        ..Input::default()
    });
    assert!(config.quick_start && config.profile == Profile::Strict);
    let settings = config.for_profile(config.profile);
    assert_eq!(settings.min_password_length, 20);
    assert_eq!(settings.audit_sinks, [AuditSink::Stdout]);
    assert!(config.check_founding().is_ok());
}

#[test]
fn nobody_is_locked_out_of_a_new_cluster() {
    let tls = "--cert-file /c --key-file /k --trusted-ca-file /ca --advertise-client-urls https://a:1 --listen-client-urls";
    for (given, founds) in [
        ("--profile etcd", true),
        ("--profile etcd --initial-auth", false),
        ("--profile strict --name a", false),
        ("--profile strict --name a --initial-auth=false", true),
        (
            &format!("--profile strict {tls} https://127.0.0.1:1"),
            false,
        ),
        (
            &format!("--profile strict {tls} https://127.0.0.1:1 --client-cert-auth"),
            true,
        ),
        (
            &format!("--profile strict {tls} http://127.0.0.1:1 --client-cert-auth"),
            false,
        ),
        (
            &format!("--profile strict {tls} http://127.0.0.1:1,unixs://x --client-cert-auth"),
            true,
        ),
    ] {
        let outcome = args(given).check_founding();
        assert_eq!(outcome.is_ok(), founds, "{given}");
        if let Err(error) = outcome {
            let message = error.to_string();
            assert!(
                message.contains("--initial-auth") && message.contains("--client-cert-auth"),
                "{message}"
            );
        }
    }
}

#[test]
fn audit_sinks_and_files() {
    let config = check_sinks(
        "--audit-log=file:/var/log/a.log,stdout,syslog:/dev/log,syslog:127.0.0.1:514,syslog:[::1]:601,syslog:localhost:1,stdout \
         --audit-rules-file=/r.json --audit-file-max-bytes=1048576 --audit-file-max-count=3 --audit-sync=block --audit-deadline=500ms",
        &[
            AuditSink::File("/var/log/a.log".into()),
            AuditSink::Stdout,
            AuditSink::SyslogSocket("/dev/log".into()),
            AuditSink::SyslogAddress {
                host: Host::Ip([127, 0, 0, 1].into()),
                port: 514,
            },
            AuditSink::SyslogAddress {
                host: Host::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
                port: 601,
            },
            AuditSink::SyslogAddress {
                host: Host::Name("localhost".to_owned()),
                port: 1,
            },
        ],
    );
    assert_eq!(
        config.audit,
        AuditConfig {
            rules_file: Some(PathBuf::from("/r.json")),
            file_max_bytes: 1 << 20,
            file_max_count: 3,
            sync: AuditSync::Block,
            deadline: Duration::from_millis(500),
        }
    );
    assert_eq!(config.notices, [] as [String; 0]);
    check_sinks(
        "--data-dir=/a,b --audit-log=file:${data-dir}/x/y.log",
        &[AuditSink::File("/a,b/x/y.log".into())],
    );
    let config = args("--name a");
    assert_eq!(
        config.audit,
        AuditConfig {
            rules_file: None,
            file_max_bytes: 100 << 20,
            file_max_count: 10,
            sync: AuditSync::Checkpoint,
            deadline: Duration::from_secs(2),
        }
    );
    check_file(
        "audit-log: [\"file:/a\", stdout]\naudit-deadline: 3000000000\nmin-password-length: 9\n",
        &[
            "\naudit-log file:/a,stdout # file /etc/etcd.yml, audit-log\n",
            "\naudit-deadline 3000000000ns # file",
            "\nmin-password-length 9 # file",
        ],
    );
}

#[track_caller]
fn check_sinks(text: &str, expected: &[AuditSink]) -> holdfast_config::Config {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = args(&text);
    for profile in [Profile::Strict, Profile::Etcd] {
        assert_eq!(config.for_profile(profile).audit_sinks, expected);
    }
    config
}

#[test]
fn audit_settings_that_cannot_be_meant_are_refused() {
    let nine: Vec<_> = (0..9).map(|n| format!("file:/a{n}")).collect();
    for (given, expected) in [
        (
            "--audit-log=/var/log/audit",
            "\"/var/log/audit\": expected file:<path>, stdout,",
        ),
        ("--audit-log=File:/a", "expected file:<path>"),
        ("--audit-log=file:", "the name of a file is missing"),
        (
            "--audit-log=file:/var/log/",
            "the name of a file is missing",
        ),
        (
            "--audit-log=file:${data-dir}",
            "expected a path below ${data-dir}",
        ),
        (
            "--audit-log=file:${data-dir}x/a",
            "expected a path below ${data-dir}",
        ),
        ("--audit-log=file:/a\nb", "control characters"),
        ("--audit-log=stdout,none", "none excludes all others"),
        ("--audit-log=syslog:", "the port is missing"),
        ("--audit-log=syslog:host", "the port is missing"),
        ("--audit-log=syslog:host:0", "the port cannot be 0"),
        ("--audit-log=syslog:host:70000", "from 0 to 65535"),
        (
            "--audit-log=syslog:udp://host:1",
            "without user, path or query",
        ),
        ("--audit-log=syslog:::1:514", "in brackets"),
        (
            &format!("--audit-log={}", nine.join(",")),
            "more than 8 sinks",
        ),
        ("--audit-file-max-bytes=1024", "from 1048576 to"),
        ("--audit-file-max-count=0", "from 1 to 10000"),
        (
            "--audit-sync=always",
            "expected one of none, checkpoint, block",
        ),
        ("--audit-deadline=0", "from 10ms to 60s"),
        ("--audit-deadline=1h", "from 10ms to 60s"),
        ("--min-password-length=65", "from 0 to 64"),
        ("--min-password-length=-1", "from 0 to 64"),
        ("--login-memory-bytes=19922943", "from 19922944 to"),
        ("--max-connections-per-source=-1", "from 0 to 10000000"),
        ("--initial-auth=maybe", "expected true or false"),
    ] {
        check_args(given, &["\nerror: invalid value ", expected]);
    }
    check_args(
        "--audit-log=syslog:10.0.0.1:514",
        &["# notice: --audit-log: syslog carries audit records to another machine"],
    );
    check_args(
        "--audit-rules-file=/r --name a",
        &["# notice: --audit-rules-file has no effect: --audit-log names no sink\n"],
    );
}

#[test]
fn an_external_issuer_is_given_whole() {
    let all = "--auth-jwks-file=/j.json --auth-jwt-issuer=https://issuer.example/ --auth-jwt-audience=holdfast";
    let expected = ExternalIssuerConfig {
        jwks_file: "/j.json".into(),
        issuer: "https://issuer.example/".to_owned(),
        audience: "holdfast".to_owned(),
        user_claim: "sub".to_owned(),
        roles_claim: None,
    };
    assert_eq!(args(all).external_issuer, Some(expected.clone()));
    assert_eq!(
        args(&format!(
            "{all} --auth-jwt-user-claim=email --auth-jwt-roles-claim=groups"
        ))
        .external_issuer,
        Some(ExternalIssuerConfig {
            user_claim: "email".to_owned(),
            roles_claim: Some("groups".to_owned()),
            ..expected
        })
    );
    assert_eq!(args("--name a").external_issuer, None);
    for (given, message) in [
        (
            "--auth-jwks-file=/j --auth-jwt-issuer=i",
            "\nerror: --auth-jwks-file (flag --auth-jwks-file) needs --auth-jwt-audience too\n",
        ),
        (
            "--auth-jwks-file=/j --auth-jwt-audience=a",
            "needs --auth-jwt-issuer too\n",
        ),
        (
            "--auth-jwt-issuer=i",
            "\nerror: --auth-jwt-issuer (flag --auth-jwt-issuer) needs --auth-jwks-file too\n",
        ),
        ("--auth-jwt-audience=a", "needs --auth-jwks-file too"),
        ("--auth-jwt-user-claim=sub", "needs --auth-jwks-file too"),
        ("--auth-jwt-roles-claim=r", "needs --auth-jwks-file too"),
        (
            &format!("{all} --auth-jwt-user-claim="),
            "a claim is needed",
        ),
        (&format!("{all} --auth-jwt-roles-claim=a\tb"), "never match"),
        (
            &format!("{all} --auth-jwt-roles-claim={}", "r".repeat(513)),
            "longer than 512 bytes",
        ),
    ] {
        check_args(given, &["\nerror: ", message]);
    }
}

#[test]
fn a_trust_domain_is_checked() {
    let trusted = "--trusted-ca-file=/ca --client-cert-uri-trust-domain";
    let config = args(&format!("{trusted}=example.org"));
    assert_eq!(
        config.client_cert_uri_trust_domain.as_deref(),
        Some("example.org")
    );
    assert_eq!(args("--name a").client_cert_uri_trust_domain, None);
    // The quick start has a CA, though no flag names it.
    assert!(args("--client-cert-uri-trust-domain=td").quick_start);
    let long = "a".repeat(256);
    for bad in ["spiffe://example.org", "Example.org", "a/b", "a:1", &long] {
        check_args(
            &format!("{trusted}={bad}"),
            &["error: invalid value", "expected a trust domain"],
        );
    }
    check_args(
        "--name a --client-cert-uri-trust-domain=td",
        &["needs --trusted-ca-file"],
    );
    check_file(
        "client-transport-security: {trusted-ca-file: /ca, uri-trust-domain: td}",
        &["\nclient-cert-uri-trust-domain td # file"],
    );
}

#[test]
fn tokens_apply_and_bcrypt_is_told_of_once() {
    for given in ["simple", "", "jwt,sign-method=EdDSA,priv-key=/k"] {
        let config = args(&format!("--auth-token={given} --auth-token-ttl=60"));
        assert_eq!(config.auth_token, given);
        assert_eq!(config.auth_token_ttl, Duration::from_secs(60));
        assert_eq!(config.notices, [] as [String; 0], "{given}");
    }
    check_args(
        "--auth-token=opaque",
        &["error", "expected simple, or jwt with its options"],
    );
    let config = args("--bcrypt-cost=12");
    assert_eq!(config.notices.len(), 1);
    assert!(config.notices[0].contains("Argon2id"));
    check(
        Input {
            args: "--name a",
            ..Input::default()
        },
        &["!bcrypt"],
    );
}
