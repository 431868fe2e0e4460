//! audit verify, tail and grep: on files of the audit log, without a server.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Display,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use holdfast_audit::{
    PublicKey,
    read::{self, Filter, VerifyOptions},
};

use super::bad_arguments;
use crate::{
    Exit, Failure,
    cli::Read,
    go_syntax::quote,
    output::{self, Answer, Style, Verified},
};

/// Far more than the keys of one cluster need.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;
/// Digits behind the name of a rotated file.
const ROTATED_DIGITS: usize = 20;

pub(super) fn verify(line: &Read, style: Style) -> Result<(), Failure> {
    let logs = logs("audit verify", line.positional())?;
    let expect = parsed(line, "expect")?;
    if expect.is_some() && logs.len() > 1 {
        return bad_arguments("--expect is about one log; name only that one");
    }
    let options = VerifyOptions {
        trusted: public_keys(line.text("public-key"))?,
        closed: line.flag("closed"),
        expect,
    };
    let mut verified = Vec::with_capacity(logs.len());
    for log in logs {
        let report = read::verify(&log.files, &options).map_err(unreadable)?;
        verified.push(Verified {
            log: log.path,
            report,
        });
    }
    output::show(style, Answer::Verified(&verified))?;
    if verified.iter().all(Verified::is_proven) {
        Ok(())
    } else {
        Err(Failure::new(Exit::Error, "not everything is proven"))
    }
}

pub(super) fn tail(line: &Read) -> Result<(), Failure> {
    let Ok(count) = usize::try_from(line.int("lines")) else {
        return bad_arguments("--lines takes no number below 0");
    };
    let logs = logs("audit tail", line.positional())?;
    let [log] = logs.as_slice() else {
        let names: Vec<_> = logs.iter().map(|log| log.path.to_string_lossy()).collect();
        return bad_arguments(format!(
            "audit tail is of one log; there are {}",
            names.join(", ")
        ));
    };
    for entry in read::tail(&log.path, count, line.flag("follow")).map_err(unreadable)? {
        print(&entry.map_err(unreadable)?.line)?;
    }
    Ok(())
}

pub(super) fn grep(line: &Read) -> Result<(), Failure> {
    let filter = filter(line)?;
    let mut found = false;
    for log in logs("audit grep", line.positional())? {
        for entry in read::grep(&log.files, filter.clone()) {
            print(&entry.map_err(unreadable)?.line)?;
            found = true;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Failure::reported(Exit::Error))
    }
}

fn print(line: &str) -> Result<(), Failure> {
    output::write_stdout(format!("{}\n", line.trim_end_matches('\n')).as_bytes())
}

fn filter(line: &Read) -> Result<Filter, Failure> {
    // An empty name is one, too: that of nobody.
    let given = |name| line.is_given(name).then(|| line.text(name));
    Ok(Filter {
        principal: given("principal").map(Into::into),
        rpc: given("rpc").map(Into::into),
        tenant: given("tenant").map(Into::into),
        outcome: parsed(line, "outcome")?,
        key_prefix: given("key-prefix").map(|prefix| prefix.as_bytes().to_vec()),
        since: parsed(line, "since")?,
        until: parsed(line, "until")?,
    })
}

/// The value of a flag; none if it was not given.
fn parsed<T: FromStr<Err: Display>>(line: &Read, name: &str) -> Result<Option<T>, Failure> {
    if !line.is_given(name) {
        return Ok(None);
    }
    let text = line.text(name);
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(error) => bad_arguments(format!("--{name} {}: {error}", quote(text.as_bytes()))),
    }
}

fn public_keys(files: &str) -> Result<Vec<PublicKey>, Failure> {
    let mut keys = Vec::new();
    for path in files.split(',').filter(|path| !path.is_empty()) {
        let mut text = String::new();
        let read = File::open(path)
            .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text));
        if let Err(error) = read {
            return bad_arguments(format!("cannot read the keys in {path}: {error}"));
        }
        let lines = text.lines().map(str::trim).enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            match line.parse() {
                Ok(key) => keys.push(key),
                Err(error) => {
                    return bad_arguments(format!("{path}:{}: {error}", number + 1));
                }
            }
        }
    }
    Ok(keys)
}

/// One node's log: its current file and those it was rotated to.
struct Log {
    /// The current file.
    path: PathBuf,
    /// All that were asked for, in order.
    files: Vec<PathBuf>,
}

/// The logs that files and directories stand for. Files of one log, as a shell's `audit.log*` names them, come together.
fn logs(command: &str, arguments: &[Vec<u8>]) -> Result<Vec<Log>, Failure> {
    if arguments.is_empty() {
        return bad_arguments(format!("{command} needs a file or a directory"));
    }
    let mut logs: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for argument in arguments {
        let path = Path::new(OsStr::from_bytes(argument));
        let failed = |error: io::Error| {
            let text = format!("cannot read {}: {error}", path.display());
            Failure::new(Exit::BadArguments, text)
        };
        if path.is_dir() {
            for current in logs_in(path).map_err(failed)? {
                let files = read::files(&current).map_err(failed)?;
                logs.entry(plain(&current)).or_default().extend(files);
            }
            continue;
        }
        let (current, files) = match base_of(path) {
            Some(current) if path.exists() => (current, vec![path.to_owned()]),
            _ => (path.to_owned(), read::files(path).map_err(failed)?),
        };
        if files.is_empty() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        logs.entry(plain(&current)).or_default().extend(files);
    }
    if logs.is_empty() {
        return bad_arguments(format!("{command}: there is no log"));
    }
    let in_order = logs.into_iter().map(|(path, files)| {
        let mut files: Vec<PathBuf> = files.iter().map(|file| plain(file)).collect();
        // The rotated ones by their numbers, then the current one.
        files.sort_by_key(|file| (*file == path, file.clone()));
        files.dedup();
        Log { path, files }
    });
    Ok(in_order.collect())
}

/// The current files of the logs in a directory, those that are not there because of a rotation included.
fn logs_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let current = base_of(&path).unwrap_or(path);
        if current.extension() == Some(OsStr::new("log")) {
            found.push(current);
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The current file of the log that a rotated file belongs to; none if its name is not that of one.
fn base_of(path: &Path) -> Option<PathBuf> {
    let (base, rest) = path.file_name()?.to_str()?.rsplit_once('.')?;
    // After damage, two files can have the same number; the second got a number of its own behind that.
    let (number, second) = rest.split_once('-').unwrap_or((rest, "00"));
    let is_number = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_rotated = is_number(number, ROTATED_DIGITS) && is_number(second, 2);
    (is_rotated && !base.is_empty()).then(|| path.with_file_name(base))
}

/// The same path without `./`, so that a file has one name.
fn plain(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

fn unreadable(error: impl Display) -> Failure {
    Failure::new(Exit::Error, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_log_come_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let old = "audit.log.00000000000000000041";
        let older = "audit.log.00000000000000000007-01";
        for name in ["audit.log", old, older, "other.log", "key", "audit.log.x"] {
            File::create(path(name)).unwrap();
        }
        let argument = |name: &str| path(name).as_os_str().as_bytes().to_vec();
        let found = |arguments: &[Vec<u8>]| -> Vec<(PathBuf, Vec<PathBuf>)> {
            let logs = logs("audit verify", arguments).unwrap();
            logs.into_iter().map(|log| (log.path, log.files)).collect()
        };
        let all = vec![path(older), path(old), path("audit.log")];
        let whole = [(path("audit.log"), all)];
        assert_eq!(found(&[argument("audit.log")]), whole);
        assert_eq!(
            found(&[argument(old), argument("audit.log"), argument(older)]),
            whole
        );
        let one = [(path("audit.log"), vec![path(old)])];
        assert_eq!(found(&[argument(old)]), one);
        let other = (path("other.log"), vec![path("other.log")]);
        assert_eq!(
            found(&[argument("")]),
            [whole.to_vec(), vec![other]].concat()
        );

        assert!(logs("audit verify", &[]).is_err());
        assert!(logs("audit verify", &[argument("nothing")]).is_err());
        let empty = tempfile::tempdir().unwrap();
        let empty = empty.path().as_os_str().as_bytes().to_vec();
        assert!(logs("audit verify", &[empty]).is_err());
    }
}
