//! Opening files that only this user may have a hand in.

use rustix::fs::OFlags;
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Opens a plain file of this user, and nothing else: no link, which could lead elsewhere; no other user's file, which could hold anything; no
/// pipe or device, at which this would wait.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = options.custom_flags(flags).open(path).map_err(|error| {
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            refused("it is a symbolic link")
        } else {
            error
        }
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refused("it is no plain file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("it belongs to another user"));
    }
    if found.nlink() > 1 {
        return Err(refused("it has a second name"));
    }
    Ok(file)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The permission bits.
pub(crate) fn mode(file: &File) -> io::Result<u32> {
    Ok(file.metadata()?.mode() & 0o777)
}

/// Makes the folder of `path`, closed to others, if there is none.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let folder = folder(path);
    if !folder.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    Ok(())
}

/// Makes names in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
