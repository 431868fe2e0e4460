//! What the files of one log are called: `audit.log`, and those it was rotated to by the number of the seal before their first:
//! `audit.log.00000000000000000417`. So their names sort in the order of the chain, and rotating renames one file only.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::sink::private_file::folder;

/// As many digits as the largest number has.
const DIGITS: usize = 20;

/// More files than that are a mistake.
const MAX_FILES: usize = 100_000;

/// The name that a full file gets.
pub(crate) fn rotated(current: &Path, first_seq: u64) -> io::Result<PathBuf> {
    // A second file of that number can only come from damage. It keeps its place beside the first.
    for suffix in 0..100 {
        let mut name = current.as_os_str().to_owned();
        name.push(format!(".{first_seq:0DIGITS$}"));
        if suffix > 0 {
            name.push(format!("-{suffix:02}"));
        }
        let path = PathBuf::from(name);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The name under which the next file is made.
pub(crate) fn unfinished(current: &Path) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// The rotated files, the oldest first.
pub(crate) fn all_rotated(current: &Path) -> io::Result<Vec<PathBuf>> {
    let mut prefix = current.file_name().map(OsString::from).unwrap_or_default();
    prefix.push(".");
    let prefix = prefix.as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(current))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(prefix) else {
            continue;
        };
        if is_number(rest) {
            found.push(entry.path());
        }
        if found.len() > MAX_FILES {
            return Err(io::Error::other("too many files"));
        }
    }
    found.sort();
    Ok(found)
}

/// The rotated files, the oldest first, and the current one if it is there.
pub(crate) fn all(current: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = all_rotated(current)?;
    if current.try_exists()? {
        files.push(current.to_owned());
    }
    Ok(files)
}

fn is_number(rest: &[u8]) -> bool {
    let Some((digits, suffix)) = rest.split_at_checked(DIGITS) else {
        return false;
    };
    digits.iter().all(u8::is_ascii_digit)
        && match suffix {
            [] => true,
            [b'-', number @ ..] => number.len() == 2 && number.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}
