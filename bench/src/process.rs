//! What a process uses, read from `/proc` (proc_pid_stat(5), proc_pid_status(5)).

use std::{fs, io, time::Duration};

/// Linux reports CPU times in ticks of 1/100 s to user space on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A process to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// `VmRSS`.
    pub(crate) resident: u64,
    /// `VmHWM`.
    pub(crate) peak: u64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            peak: self.peak + other.peak,
        }
    }
}

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid }
    }

    pub(crate) fn own() -> Self {
        Self::of(std::process::id())
    }

    /// User and system time of all its threads so far.
    pub(crate) fn cpu(self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        parse_cpu(&stat).ok_or_else(|| io::Error::other("/proc/<pid>/stat has an unknown form"))
    }

    /// Lets the peak begin anew at what is resident now (proc_pid_clear_refs(5)).
    pub(crate) fn reset_peak(self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
    }

    /// Resident and peak memory.
    pub(crate) fn memory(self) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        parse_memory(&status)
            .ok_or_else(|| io::Error::other("/proc/<pid>/status has an unknown form"))
    }
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name in brackets, which may hold spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(Memory {
        resident: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_with_a_hostile_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 3 0 1 2 3";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu("7 (x) S 1"), None);
    }

    #[test]
    fn reads_status() {
        let memory = parse_memory("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n");
        assert_eq!(
            memory.map(|memory| (memory.resident, memory.peak)),
            Some((1 << 20, 2 << 20))
        );
        assert!(parse_memory("VmRSS: x kB").is_none());
    }

    #[test]
    fn reads_itself() -> io::Result<()> {
        assert!(Process::own().memory()?.resident > 0);
        Process::own().cpu().map(drop)
    }
}
