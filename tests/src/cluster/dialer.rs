//! Which of our processes a connection comes from.

use std::fs;

/// The index in `processes` of the one that has the other end of a loopback connection from `source` to `listener`. Linux
/// tells it; elsewhere, and for connections of others, there is none.
pub(super) fn of(source: u16, listener: u16, processes: &[Option<u32>]) -> Option<usize> {
    let socket = format!("socket:[{}]", inode(source, listener)?);
    processes.iter().position(|process| {
        let Some(id) = process else { return false };
        let Ok(files) = fs::read_dir(format!("/proc/{id}/fd")) else {
            return false;
        };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str())
        })
    })
}

/// The inode of the socket that is bound to `source` and connected to `listener`.
fn inode(source: u16, listener: u16) -> Option<String> {
    let (local, remote) = (format!(":{source:04X}"), format!(":{listener:04X}"));
    // Sockets of Go's runtime may be dual-stack ones, which are in the other file.
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let matches = fields.next()?.ends_with(&local) && fields.next()?.ends_with(&remote);
                // After state, queues, timer, retransmissions, user and timeout; 0 once nobody has it open.
                let inode = fields.nth(6)?;
                (matches && inode != "0").then(|| inode.to_owned())
            })
        })
}
