//! What the person at the terminal is told once the cluster serves.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// The certificates of the user root, and the CA to know the members by.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// One line of the table of members.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) pid: Option<u32>,
    pub(super) log: PathBuf,
}

pub(super) fn banner(members: &[Served], access: &Access) -> String {
    let mut text = format!(
        "\nA Holdfast cluster of {} serves, with TLS 1.3, client certificates and authentication on:\n",
        members.len()
    );
    // Writing to a String cannot fail; the same holds below.
    for member in members {
        let Served {
            name,
            url,
            pid,
            log,
        } = member;
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let _ = writeln!(text, "- {name}  {url}  pid {pid}  log {}", log.display());
    }
    let urls: Vec<_> = members.iter().map(|member| member.url.as_str()).collect();
    text.push_str("\nYou are root by certificate. In another terminal:\n\n");
    let _ = writeln!(text, "  export ETCDCTL_ENDPOINTS={}", urls.join(","));
    for (variable, path) in [
        ("CACERT", &access.ca),
        ("CERT", &access.cert),
        ("KEY", &access.key),
    ] {
        let _ = writeln!(text, "  export ETCDCTL_{variable}={}", shell_word(path));
    }
    text.push_str(
        "  etcdctl put greeting hello\n  etcdctl get greeting\n  etcdctl endpoint status -w table\n\n\
         holdfastctl takes the same commands and variables.\n",
    );
    // Of two, none may be missing.
    if members.len() > 2 {
        text.push_str("The others go on when one member is killed: kill -9 and its pid.\n");
    }
    text.push_str(
        "Ctrl-C stops the cluster; the same command starts it again with its data.\n\
         This is for trying things out: the CAs' keys lie beside the certificates.\n",
    );
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

    #[test]
    fn a_shell_takes_the_variables_as_they_are() {
        let member = |name: &str, port: u16| Served {
            name: name.to_owned(),
            url: format!("https://127.0.0.1:{port}"),
            pid: Some(17),
            log: format!("/d/{name}.log").into(),
        };
        let access = Access {
            ca: "/dev's dir/$HOME/ca.crt".into(),
            cert: "/d/client-root.crt".into(),
            key: "/d/client-root.key".into(),
        };
        let text = banner(&[member("m1", 2379), member("m2", 2389)], &access);
        assert!(text.contains("- m2  https://127.0.0.1:2389  pid 17  log /d/m2.log\n"));
        let script: String = text
            .lines()
            .filter(|line| line.starts_with("  "))
            .map(|line| format!("{line}\n"))
            .collect();
        let script = format!(
            "etcdctl() {{ :; }}\n{script}printf '%s\\n' \"$ETCDCTL_ENDPOINTS\" \"$ETCDCTL_CACERT\" \"$ETCDCTL_CERT\" \"$ETCDCTL_KEY\""
        );
        let output = std::process::Command::new("sh")
            .args(["-eu", "-c", &script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "https://127.0.0.1:2379,https://127.0.0.1:2389\n/dev's dir/$HOME/ca.crt\n/d/client-root.crt\n/d/client-root.key\n"
        );
    }
}
