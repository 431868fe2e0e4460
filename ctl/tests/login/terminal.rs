//! Passwords typed on a terminal: asked for twice, and never shown.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use crate::server::{PASSWORD, Rule, Server};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

/// A program on a terminal of its own, and this end of the terminal.
struct Session {
    child: Child,
    keyboard: File,
    shown: String,
}

impl Session {
    fn start(server: &Server, arguments: &[&str]) -> Session {
        let here = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&here).expect("granted");
        unlockpt(&here).expect("unlocked");
        let name = ptsname(&here, Vec::new()).expect("a name");
        let name = name.to_str().expect("UTF-8");
        let there = || File::options().read(true).write(true).open(name);
        let child = Command::new(env!("CARGO_BIN_EXE_holdfastctl"))
            .args(["--endpoints", &server.address])
            .args(arguments)
            .env_clear()
            .stdin(there().expect("the other end"))
            .stdout(there().expect("the other end"))
            .stderr(Stdio::from(OwnedFd::from(there().expect("the other end"))))
            .spawn()
            .expect("the binary runs");
        Session {
            child,
            keyboard: here.into(),
            shown: String::new(),
        }
    }

    /// Reads what the terminal shows until it ends in `prompt`, and types an answer.
    fn answer(&mut self, prompt: &str, typed: &str) {
        let mut byte = [0];
        while !self.shown.ends_with(prompt) {
            self.keyboard.read_exact(&mut byte).expect(prompt);
            self.shown.push(char::from(byte[0]));
        }
        let modes = tcgetattr(&self.keyboard).expect("a terminal").local_modes;
        assert!(!modes.contains(LocalModes::ECHO), "{}", self.shown);
        self.keyboard.write_all(typed.as_bytes()).expect("typed");
    }

    /// The exit code, and all that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        // A terminal whose other end is closed reports an error after its last byte.
        let _ = self.keyboard.read_to_end(&mut rest);
        self.shown.push_str(&String::from_utf8_lossy(&rest));
        let modes = tcgetattr(&self.keyboard).expect("a terminal").local_modes;
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.contains(usual), "the terminal stays mute");
        let status = self.child.wait().expect("the binary ends");
        (status.code(), self.shown.replace("\r\n", "\n"))
    }
}

#[test]
fn a_new_password_is_asked_for_twice() {
    for (second, code, end) in [
        ("open sesame\r", 0, "User bob created\n"),
        // Typing errors can be corrected.
        ("closed\x15open sesami\x7fe\r", 0, "User bob created\n"),
        ("other\r", 128, "Error: given passwords are different\n"),
        ("\x03", 5, ""),
    ] {
        let server = Server::start(Rule::TakesAll);
        let mut session = Session::start(&server, &["user", "add", "bob"]);
        session.answer("Password of bob: ", "open sesame\r");
        session.answer("Type password of bob again for confirmation: ", second);
        let (exit, shown) = session.end();
        let prompts = "Password of bob: \nType password of bob again for confirmation: \n";
        assert_eq!(shown, format!("{prompts}{end}"));
        assert_eq!(exit, Some(code));
        assert_eq!(server.requests().len(), usize::from(code == 0));
    }
}

#[test]
fn a_login_is_asked_for_once() {
    let server = Server::start(Rule::RefusesFirst("etcdserver: invalid auth token"));
    let mut session = Session::start(&server, &["--user", "alice", "get", "k"]);
    session.answer("Password: ", &format!("{PASSWORD}\r"));
    let (exit, shown) = session.end();
    assert_eq!(shown, "Password: \nk\nv\n");
    assert_eq!(exit, Some(0));
    assert_eq!(server.logins(), 2);
}
