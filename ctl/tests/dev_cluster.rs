//! `dev-cluster` with stand-ins for the server's program: what is started, what stops it, and what is left behind.

#![expect(
    clippy::expect_used,
    reason = "a helper that cannot do its part fails the test"
)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// Everything here takes milliseconds; this only ends a hang.
const DEADLINE: Duration = Duration::from_secs(30);

struct Site {
    dir: TempDir,
}

impl Site {
    /// With a server's program that is this shell script; `$1` is `--name=<name>`, and `$here` the site's directory.
    fn new(script: &str) -> Site {
        let site = Site {
            dir: tempfile::tempdir().expect("a directory"),
        };
        let here = site.dir.path().display();
        let text = format!("#!/bin/sh\nhere='{here}'\nname=${{1#--name=}}\n{script}\n");
        let program = site.path("holdfast");
        fs::write(&program, text).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("mode");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
        command
            .arg("dev-cluster")
            .args(arguments)
            .arg("--holdfast")
            .arg(self.path("holdfast"))
            .arg("--dir")
            .arg(self.path("dev"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ended(self.start(arguments))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("the binary runs")
    }

    /// The process id that a stand-in has written to a file.
    fn pid(&self, name: &str) -> Pid {
        let path = self.path(name);
        let text = eventually("a process id", || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        });
        Pid::from_raw(text.trim().parse().expect("a number")).expect("not zero")
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn gone(pid: Pid) {
    eventually("the end of a process", || test_kill_process(pid).err());
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill_process(Pid::from_raw(pid).expect("not zero"), signal).expect("signal");
}

/// Waits for the end of the command; one that does not end is killed, and its members with it.
fn ended(mut child: Child) -> Output {
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("kill");
            let output = child.wait_with_output().expect("it ends");
            panic!("the command did not end: {}", said(&output));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it ended")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port where nobody listens, with room for the others above it.
fn port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    port.min(60_000).to_string()
}

/// Writes its process id and waits.
const WAITS: &str = "echo $$ > \"$here/$name.pid\"\nexec sleep 1000";

#[test]
fn a_member_that_dies_at_start_ends_the_command_with_its_last_words() {
    let site = Site::new(&format!(
        "if [ $name = m2 ]; then echo 'no room at the inn' >&2; exit 7; fi\n{WAITS}"
    ));
    let output = site.run(&["2", "--base-port", &port()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("member m2 ended before the cluster was ready: exit status: 7"));
    assert!(text.contains("no room at the inn"), "{text}");
    assert!(output.stdout.is_empty());
    // m1 may have been stopped before it had written its process id, even with the file made; if it had, it is gone.
    if fs::read_to_string(site.path("m1.pid")).is_ok_and(|text| text.ends_with('\n')) {
        gone(site.pid("m1.pid"));
    }
}

#[test]
fn a_signal_stops_all_members_in_order() {
    let site = Site::new(
        "trap 'echo stopped > \"$here/$name.stopped\"; exit 0' TERM\n\
         echo $$ > \"$here/$name.pid\"\n\
         while :; do sleep 0.01; done",
    );
    for number in [Signal::INT, Signal::TERM, Signal::HUP] {
        let child = site.start(&["--base-port", &port()]);
        let pids = ["m1.pid", "m2.pid", "m3.pid"].map(|name| site.pid(name));
        signal(&child, number);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        for (pid, name) in pids.into_iter().zip(["m1", "m2", "m3"]) {
            gone(pid);
            fs::remove_file(site.path(&format!("{name}.stopped"))).expect("stopped in order");
            fs::remove_file(site.path(&format!("{name}.pid"))).expect("pid");
        }
        // Another port each time: what is tested here is not the record.
        fs::remove_file(site.path("dev").join("cluster")).expect("record");
    }
}

#[test]
fn a_second_signal_kills_members_that_do_not_stop() {
    let site = Site::new(
        "trap 'echo asked > \"$here/$name.asked\"' TERM\n\
         echo $$ > \"$here/$name.pid\"\n\
         while :; do sleep 0.01; done",
    );
    let child = site.start(&["1", "--base-port", &port()]);
    let pid = site.pid("m1.pid");
    signal(&child, Signal::TERM);
    eventually("the first signal", || {
        site.path("m1.asked").exists().then_some(())
    });
    signal(&child, Signal::TERM);
    let output = ended(child);
    gone(pid);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not all members stopped in order: member m1: signal: 9"));
}

#[test]
#[cfg(target_os = "linux")]
fn members_do_not_outlive_a_parent_that_is_killed() {
    let site = Site::new(WAITS);
    let mut child = site.start(&["2", "--base-port", &port()]);
    let pids = ["m1.pid", "m2.pid"].map(|name| site.pid(name));
    for pid in pids {
        test_kill_process(pid).expect("it runs");
    }
    signal(&child, Signal::KILL);
    child.wait().expect("it ends");
    for pid in pids {
        gone(pid);
    }
}

#[test]
fn a_directory_keeps_its_cluster_and_runs_it_once() {
    let site = Site::new(&format!(
        "printf '%s\\n' \"$@\" > \"$here/$name.args\"\n{WAITS}"
    ));
    let port = port();
    let first = site.start(&["2", "--base-port", &port]);
    let pid = site.pid("m1.pid");
    site.pid("m2.pid");
    let second = site.run(&[]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(said(&second).contains("does a cluster run in this directory?"));
    signal(&first, Signal::TERM);
    ended(first);
    gone(pid);
    for wrong in [&["3"][..], &["--base-port", "1234"]] {
        let output = site.run(wrong);
        assert_eq!(output.status.code(), Some(128), "{}", said(&output));
        assert!(said(&output).contains(&format!("a cluster of 2 with --base-port {port}")));
    }
    let arguments = fs::read_to_string(site.path("m2.args")).expect("arguments");
    fs::remove_file(site.path("m1.pid")).expect("pid");
    fs::remove_file(site.path("m2.pid")).expect("pid");
    let certificate = fs::read(site.path("dev/certs/member-m2.crt")).expect("certificate");
    let again = site.start(&[]);
    site.pid("m1.pid");
    site.pid("m2.pid");
    signal(&again, Signal::TERM);
    ended(again);
    let repeated = fs::read_to_string(site.path("m2.args")).expect("arguments");
    assert_eq!(repeated, arguments);
    // Every file that is named is there, and none of them is open to others.
    let named = arguments.lines().filter_map(|line| {
        let (flag, value) = line.split_once('=')?;
        flag.ends_with("-file").then(|| value.to_owned())
    });
    let named: Vec<_> = named.collect();
    assert_eq!(named.len(), 6);
    for path in named {
        let mode = fs::metadata(Path::new(&path))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077 == 0, path.ends_with(".key"), "{path} {mode:o}");
    }
    let after = fs::read(site.path("dev/certs/member-m2.crt")).expect("certificate");
    assert_eq!(after, certificate);
}

#[test]
fn mistakes_are_named_before_anything_is_made() {
    let site = Site::new("exit 0");
    for wrong in [
        &["0"][..],
        &["8"],
        &["three"],
        &["+3"],
        &["1", "2"],
        &["--base-port", "70000"],
        &["--base-port", "-1"],
        &["--base-port", "65530"],
    ] {
        let output = site.run(wrong);
        assert_eq!(
            output.status.code(),
            Some(128),
            "{wrong:?}: {}",
            said(&output)
        );
        assert!(!site.path("dev").join("certs").exists());
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_holdfastctl"))
        .args(["dev-cluster", "--holdfast", "/nowhere/holdfast", "--dir"])
        .arg(site.path("other"))
        .output()
        .expect("the binary runs");
    assert_eq!(nowhere.status.code(), Some(128));
    assert!(said(&nowhere).contains("--holdfast"));
    assert!(!site.path("other").exists());
}
