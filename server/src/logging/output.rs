//! Where lines go.

use super::Severity;
use holdfast_config::{LogOutput, LogRotation};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Where systemd's journal takes records (systemd's "Native Journal Protocol").
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// For this user alone: a log names users, addresses and keys.
const FILE_MODE: u32 = 0o600;
const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One destination of lines.
pub(super) enum Output {
    Stderr,
    Stdout,
    /// Without a journal, lines go to stderr with the priority in front, which systemd reads there too.
    Journal(Option<UnixDatagram>),
    File(Mutex<LogFile>),
}

impl Output {
    pub(super) fn open(
        output: &LogOutput,
        rotation: Option<&LogRotation>,
        warnings: &mut Vec<String>,
    ) -> io::Result<Output> {
        Ok(match output {
            LogOutput::Stderr => Output::Stderr,
            LogOutput::Stdout => Output::Stdout,
            LogOutput::Journal => Output::Journal(journal(JOURNAL_SOCKET)),
            LogOutput::File(path) => {
                if let Some(rotation) = rotation {
                    warnings.extend(unsupported(rotation));
                }
                let file = LogFile::open(path, rotation.cloned()).map_err(|error| {
                    let text = format!("cannot open the log file {}: {error}", path.display());
                    io::Error::new(error.kind(), text)
                })?;
                Output::File(Mutex::new(file))
            }
        })
    }

    /// Writes one line, which ends with a newline. There is nobody to tell of a failure.
    pub(super) fn write(&self, level: Severity, line: &str) {
        let _ = match self {
            Output::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(line.as_bytes())
                    .and_then(|()| stdout.flush())
            }
            Output::Journal(socket) => to_journal(socket.as_ref(), level, line),
            Output::File(file) => file.lock().write(line.as_bytes(), SystemTime::now()),
        };
    }
}

fn journal(path: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}

fn to_journal(socket: Option<&UnixDatagram>, level: Severity, line: &str) -> io::Result<()> {
    let priority = level.priority();
    if let Some(socket) = socket {
        // The line has no newline but its last, so the protocol's simple form will do.
        let record = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=holdfast\nMESSAGE={line}");
        if socket.send(record.as_bytes()).is_ok() {
            return Ok(());
        }
    }
    let line = format!("<{priority}>{line}");
    io::stderr().lock().write_all(line.as_bytes())
}

fn unsupported(rotation: &LogRotation) -> impl Iterator<Item = String> {
    let option = |asked: bool, text: &str| asked.then(|| text.to_owned());
    [
        option(
            rotation.compress,
            "log rotation: compress is not supported; rotated files stay as they are",
        ),
        option(
            rotation.local_time,
            "log rotation: localtime is not supported; rotated files are named by UTC",
        ),
    ]
    .into_iter()
    .flatten()
}

/// A file that is appended to and, if wanted, begun anew when it is full. Old files are named as lumberjack names them:
/// `<name>-<time>.<extension>`.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Option<LogRotation>,
}

impl LogFile {
    fn open(path: &Path, rotation: Option<LogRotation>) -> io::Result<LogFile> {
        let (file, bytes) = append_to(path)?;
        Ok(LogFile {
            path: path.to_owned(),
            file,
            bytes,
            rotation,
        })
    }

    fn write(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let length = line.len() as u64;
        if let Some(rotation) = &self.rotation {
            let most = u64::from(rotation.max_size_megabytes) * MEGABYTE;
            if self.bytes > 0 && self.bytes + length > most {
                // If it cannot be rotated, lines go on into the full file: better long than lost. The next attempt is one size
                // later, not at every line.
                if self.rotate(now).is_err() {
                    self.bytes = 0;
                }
            }
        }
        self.file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        fs::rename(&self.path, self.backup(now)?)?;
        (self.file, self.bytes) = append_to(&self.path)?;
        self.remove_old(now)
    }

    /// A name for the full file that is not taken.
    fn backup(&self, now: SystemTime) -> io::Result<PathBuf> {
        (0..1000)
            .filter_map(|milliseconds| {
                let at = now + Duration::from_millis(milliseconds);
                let format = format_description!(
                    "[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]"
                );
                let time = OffsetDateTime::from(at).format(&format).ok()?;
                let (stem, extension) = self.name();
                Some(
                    self.path
                        .with_file_name(format!("{stem}-{time}{extension}")),
                )
            })
            .find(|path| !path.exists())
            .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// The file's name before and from its last dot.
    fn name(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let extension = match part(self.path.extension()) {
            extension if extension.is_empty() => extension,
            extension => format!(".{extension}"),
        };
        (part(self.path.file_stem()), extension)
    }

    /// Removes old files beyond the number and the age that are kept.
    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        let Some(rotation) = &self.rotation else {
            return Ok(());
        };
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut old: Vec<(SystemTime, PathBuf)> = fs::read_dir(directory)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let at = self.time_of_backup(entry.file_name().to_str()?)?;
                Some((at, entry.path()))
            })
            .collect();
        old.sort_by(|one, other| other.cmp(one));
        let kept = match rotation.max_backups {
            0 => usize::MAX,
            count => count as usize,
        };
        let age = match rotation.max_age_days {
            0 => Duration::MAX,
            days => DAY * days,
        };
        for (position, (at, path)) in old.into_iter().enumerate() {
            let too_old = now.duration_since(at).is_ok_and(|found| found > age);
            if position >= kept || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The time in the name of an old file; `None` for files of any other name, which are not ours to remove.
    fn time_of_backup(&self, name: &str) -> Option<SystemTime> {
        let (stem, extension) = self.name();
        let time = name
            .strip_prefix(&stem)?
            .strip_prefix('-')?
            .strip_suffix(&extension)?;
        let format = format_description!(
            "[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]"
        );
        let time = PrimitiveDateTime::parse(time, &format).ok()?;
        Some(time.assume_utc().into())
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(max_backups: u32, max_age_days: u32) -> LogRotation {
        LogRotation {
            max_size_megabytes: 1,
            max_age_days,
            max_backups,
            local_time: false,
            compress: false,
        }
    }

    fn backups(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .expect("dir")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("name")
            })
            .filter(|name| name.starts_with("etcd-"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_and_old_ones_are_removed() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("etcd.log");
        let stranger = dir.path().join("etcd-notes.log");
        fs::write(&stranger, "not ours").expect("write");
        let mut file = LogFile::open(&path, Some(rotation(2, 0))).expect("open");
        let line = vec![b'x'; 600 << 10];
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_366_245);
        for second in 0..5 {
            file.write(&line, begin + Duration::from_secs(second))
                .expect("write");
        }
        assert_eq!(
            backups(dir.path()),
            [
                "etcd-2026-01-02T15-04-08.000.log",
                "etcd-2026-01-02T15-04-09.000.log",
                "etcd-notes.log",
            ]
        );
        assert_eq!(fs::metadata(&path).expect("file").len(), 600 << 10);

        // A line longer than a file goes into one of its own; two at one time get two names.
        let long = vec![b'y'; 2 << 20];
        let now = begin + Duration::from_secs(9);
        file.write(&long, now).expect("write");
        file.write(&long, now).expect("write");
        assert_eq!(backups(dir.path()).len(), 3);

        // By age.
        file.rotation = Some(rotation(0, 1));
        file.write(&line, now + 3 * DAY).expect("write");
        assert_eq!(backups(dir.path()).len(), 2);
        assert!(stranger.exists());
    }

    #[test]
    fn an_existing_file_is_appended_to_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        for _ in 0..2 {
            let mut file = LogFile::open(&path, None).expect("open");
            file.write(b"line\n", SystemTime::now()).expect("write");
        }
        assert_eq!(fs::read_to_string(&path).expect("read"), "line\nline\n");
        let mode = fs::metadata(&path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = LogFile::open(&dir.path().join("no/such/dir"), None);
        assert!(error.is_err());
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        let asked = LogRotation {
            compress: true,
            local_time: true,
            ..rotation(0, 0)
        };
        assert_eq!(unsupported(&asked).count(), 2);
        assert_eq!(unsupported(&rotation(3, 3)).count(), 0);
    }

    #[test]
    fn the_journal_gets_priority_and_message() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("journal");
        let there = UnixDatagram::bind(&path).expect("bind");
        let socket = journal(path.to_str().expect("path"));
        to_journal(socket.as_ref(), Severity::Warn, "{\"level\":\"warn\"}\n").expect("send");
        let mut buffer = [0; 256];
        let length = there.recv(&mut buffer).expect("receive");
        assert_eq!(
            String::from_utf8_lossy(&buffer[..length]),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=holdfast\nMESSAGE={\"level\":\"warn\"}\n"
        );
        assert!(journal("/nonexistent/socket").is_none());
    }
}
