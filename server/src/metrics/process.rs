//! What the kernel knows of this process, from `/proc`.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks per second of the times in `/proc/*/stat`: `USER_HZ`, which Linux fixed at 100 for all programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at `/proc`. What cannot be read is absent, and exported as `NaN`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// Seconds since 1970.
    pub(crate) start_time_seconds: Option<f64>,
}

impl Process {
    /// Looks.
    pub(crate) fn read() -> Process {
        let read = |path: &str| fs::read_to_string(path).ok();
        let status = read("/proc/self/status");
        let memory = |field: &str| kilobytes(status.as_deref()?, field);
        let stat = read("/proc/self/stat");
        let times = stat.as_deref().and_then(times);
        Process {
            resident_bytes: memory("VmRSS:"),
            virtual_bytes: memory("VmSize:"),
            cpu_seconds: times.map(|(cpu, _)| cpu),
            open_fds: open_fds(),
            max_fds: read("/proc/self/limits").as_deref().and_then(max_fds),
            start_time_seconds: times
                .and_then(|(_, since_boot)| Some(boot_time(&read("/proc/stat")?)? + since_boot)),
        }
    }
}

/// File descriptors that are open.
fn open_fds() -> Option<u64> {
    // One of them is the directory that is being read.
    let entries = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(entries.saturating_sub(1))
}

/// File descriptors that may be open: the soft limit.
pub(crate) fn fd_limit() -> Option<u64> {
    max_fds(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// Time since 1970 as Prometheus writes it.
pub(crate) fn unix_seconds(at: SystemTime) -> f64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -Duration::as_secs_f64(&before.duration()),
    }
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Processor time and time of start since boot, in seconds.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program's name in parentheses and may itself contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // Fields are counted from 1 in proc(5); the first behind the name is the third.
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start: u64 = fields.nth(22 - 16)?.parse().ok()?;
    Some((
        (user + system) as f64 / TICKS_PER_SECOND,
        start as f64 / TICKS_PER_SECOND,
    ))
}

fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_plausible() {
        let process = Process::read();
        let resident = process.resident_bytes.expect("VmRSS");
        assert!(resident > 1 << 20 && resident < 1 << 40, "{resident}");
        assert!(process.virtual_bytes >= process.resident_bytes);
        let (open, max) = (
            process.open_fds.expect("fds"),
            process.max_fds.expect("limit"),
        );
        assert!(open >= 3 && open <= max, "{open} of {max}");
        let now = unix_seconds(SystemTime::now());
        let start = process.start_time_seconds.expect("start");
        // The test binary was started within the last hours, and the clock of boot is coarse.
        assert!(
            start > now - 6.0 * 3600.0 && start < now + 2.0,
            "{start} {now}"
        );
        assert!(process.cpu_seconds.expect("cpu") < 6.0 * 3600.0);
    }

    #[test]
    fn odd_process_names_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 1000 20";
        assert_eq!(times(stat), Some((3.0, 10.0)));
        assert_eq!(times(""), None);
        assert_eq!(max_fds("Max open files   1024   4096  files\n"), Some(1024));
        assert_eq!(kilobytes("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12288));
        assert_eq!(
            kilobytes("VmRSS:\t 18446744073709551615 kB\n", "VmRSS:"),
            None
        );
    }
}
