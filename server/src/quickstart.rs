//! The quick start: a development CA, certificates made by it, and the commands to try the server with.

use holdfast_certs::{DevCa, IssueError, Warning};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the quick start listens (config's defaults for it).
const ENDPOINT: &str = "https://localhost:2379";

/// What the server needs to start without any configuration.
#[derive(Debug)]
pub(crate) struct QuickStart {
    /// To be asked now and then for [`DevCa::renew`].
    pub(crate) ca: DevCa,
    pub(crate) ca_file: PathBuf,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) warnings: Vec<Warning>,
    /// For a person at a terminal, with commands to copy.
    pub(crate) banner: String,
}

/// Makes, or finds, the CA in `<data_dir>/certs`.
///
/// # Errors
///
/// The directory or what is in it cannot be used; see [`DevCa::open_or_create`].
pub(crate) fn prepare(data_dir: &Path) -> Result<QuickStart, IssueError> {
    let ca = DevCa::open_or_create(&data_dir.join("certs"))?;
    let files = ca.files();
    let banner = banner(&files.ca_cert, &files.client_cert, &files.client_key);
    Ok(QuickStart {
        warnings: ca.warnings().to_vec(),
        ca,
        ca_file: files.ca_cert,
        cert_file: files.server_cert,
        key_file: files.server_key,
        banner,
    })
}

fn banner(ca: &Path, cert: &Path, key: &Path) -> String {
    let access = format!(
        "--endpoints {ENDPOINT} --cacert {} --cert {} --key {}",
        shell_word(ca),
        shell_word(cert),
        shell_word(key)
    );
    let mut text = format!(
        "\nHoldfast serves at {ENDPOINT}, with TLS 1.3, client certificates and authentication on.\n\
         You are root by the certificate in {}. Try it from this directory:\n",
        cert.display()
    );
    for (program, also) in [
        ("etcdctl", ""),
        ("holdfastctl", "\nor, without etcd's tools:\n"),
    ] {
        text.push_str(also);
        text.push('\n');
        for command in [
            "put greeting hello",
            "get greeting",
            "endpoint status -w table",
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {program} {access} {command}");
        }
    }
    text.push_str("\nThis is for trying things out: the CA's key lies beside the certificates.\n");
    text
}

/// A path as one word of a POSIX shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_certs::{ServerTls, ServerTlsSettings};

    #[test]
    fn the_files_serve_and_the_banner_names_them() {
        let dir = tempfile::tempdir().expect("dir");
        let data_dir = dir.path().join("data dir's");
        let quick = prepare(&data_dir).expect("prepare");
        let settings = ServerTlsSettings::new(&quick.cert_file, &quick.key_file)
            .with_client_ca(&quick.ca_file);
        let tls = ServerTls::load(settings).expect("load");
        assert!(tls.requires_client_certificate());
        assert!(quick.warnings.is_empty());

        let lines: Vec<_> = quick
            .banner
            .lines()
            .filter(|line| line.starts_with("  "))
            .collect();
        assert_eq!(lines.len(), 6);
        for line in lines {
            // A shell finds the same paths that the CA wrote.
            let script = format!(
                "etcdctl() {{ printf '%s\\n' \"$@\"; }}; holdfastctl() {{ etcdctl \"$@\"; }};{line}"
            );
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .expect("sh");
            let words = String::from_utf8(output.stdout).expect("text");
            let words: Vec<_> = words.lines().collect();
            assert_eq!(words[..2], ["--endpoints", ENDPOINT]);
            for (flag, position) in [("--cacert", 2), ("--cert", 4), ("--key", 6)] {
                assert_eq!(words[position], flag);
                assert!(Path::new(words[position + 1]).is_file(), "{line}");
            }
        }
        // A second start finds the same CA.
        let before = std::fs::read(&quick.ca_file).expect("ca");
        let again = prepare(&data_dir).expect("again");
        assert_eq!(std::fs::read(&again.ca_file).expect("ca"), before);
    }
}
