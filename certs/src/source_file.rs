//! Reading the files that TLS material comes from, with bounds, and noticing when they change.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::error::TlsError;

/// What a file should hold; decides how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A certificate chain of a handful of certificates.
    Certificates,
    /// One private key.
    PrivateKey,
    /// A bundle of CAs. The bundles of Linux distributions have some 200 KiB.
    CaBundle,
    /// Revocation lists. Large public CAs reach some tens of MiB.
    Crl,
}

impl Kind {
    const fn limit_bytes(self) -> u64 {
        match self {
            Self::Certificates => 1 << 20,
            Self::PrivateKey => 64 << 10,
            Self::CaBundle => 16 << 20,
            Self::Crl => 64 << 20,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Certificates => "a certificate chain",
            Self::PrivateKey => "a private key",
            Self::CaBundle => "a CA bundle",
            Self::Crl => "revocation lists",
        }
    }
}

/// A file's bytes, with the facts about it that later messages need.
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl SourceFile {
    /// Reads `path` whole.
    pub(crate) fn read(path: &Path, kind: Kind) -> Result<Self, TlsError> {
        let read_error = |source| TlsError::Read {
            path: path.to_owned(),
            source,
        };
        // Asked before opening: opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(TlsError::NotRegular {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(read_error)?;
        let meta = file.metadata().map_err(read_error)?;
        let limit_bytes = kind.limit_bytes();
        let mut bytes = Vec::new();
        // One byte more than allowed, because the length in the metadata may be out of date.
        file.take(limit_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        if bytes.len() as u64 > limit_bytes {
            return Err(TlsError::TooLarge {
                path: path.to_owned(),
                what: kind.what(),
                limit_bytes,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            bytes,
            mode: meta.mode() & 0o7777,
        })
    }
}

/// What identifies one version of a file without reading it.
///
/// The path is followed to the file it ends at, so that the swap of a symbolic link anywhere on the way (a Kubernetes
/// secret volume swaps `..data`) shows as another inode. The change time is in it because `cp -p` keeps the
/// modification time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stamp {
    File {
        device: u64,
        inode: u64,
        len_bytes: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    Unreadable(io::ErrorKind),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(meta) => Self::File {
                device: meta.dev(),
                inode: meta.ino(),
                len_bytes: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            },
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    /// Whether a later change would be sure to alter this stamp. File systems count time in steps of milliseconds up to
    /// two seconds; a file rewritten in place within one step keeps its stamp.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        const COARSEST_STEP: Duration = Duration::from_secs(2);
        let Self::File { modified, .. } = self else {
            return true;
        };
        let Ok(seconds) = u64::try_from(modified.0) else {
            return true;
        };
        let Some(modified) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        else {
            return true;
        };
        // A modification time in the future says nothing; treating it as unsettled would mean reading for ever.
        now.duration_since(modified)
            .map_or(true, |age| age > COARSEST_STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(
            SourceFile::read(&missing, Kind::Certificates),
            Err(TlsError::Read { path, .. }) if path == missing
        ));
        assert!(matches!(
            SourceFile::read(dir.path(), Kind::Certificates),
            Err(TlsError::NotRegular { .. })
        ));
        let big = dir.path().join("big");
        let limit = usize::try_from(Kind::PrivateKey.limit_bytes()).unwrap();
        fs::write(&big, vec![b'x'; limit]).unwrap();
        assert_eq!(
            SourceFile::read(&big, Kind::PrivateKey)
                .unwrap()
                .bytes
                .len(),
            limit
        );
        fs::write(&big, vec![b'x'; limit + 1]).unwrap();
        assert!(matches!(
            SourceFile::read(&big, Kind::PrivateKey),
            Err(TlsError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_swapped_directory_link_changes_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("tls.crt"), "same length").unwrap();
        }
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        let path = dir.path().join("tls.crt");
        std::os::unix::fs::symlink("..data/tls.crt", &path).unwrap();
        let before = Stamp::of(&path);
        assert_eq!(before, Stamp::of(&path));
        std::os::unix::fs::symlink("v2", dir.path().join("..next")).unwrap();
        fs::rename(dir.path().join("..next"), &data).unwrap();
        assert_ne!(before, Stamp::of(&path));
    }
}
