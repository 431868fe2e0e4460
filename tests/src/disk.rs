//! Disks that can be full, and copies of what is on them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Copies a folder with all that is in it.
///
/// # Panics
/// If that cannot be done.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A file system of its own in memory; unmounted on drop. Only root can mount one.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// A disk of `size`, as `mount` writes it (`160m`); `None` when this user may not mount.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs"],
            folder.path(),
        )
        .then_some(Self { folder })
    }

    /// Makes it as large as this.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn grow(&self, size: &str) {
        assert!(run(
            "mount",
            &["-o", &format!("remount,size={size}")],
            self.folder.path()
        ));
    }

    /// A folder on it that does not exist yet.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes all of its room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file on the small disk");
        let piece = vec![0_u8; 64 * 1024];
        while file.write_all(&piece).is_ok() {}
    }

    /// Gives the room back that [`Self::fill`] took.
    pub fn relieve(&self) {
        fs::remove_file(self.ballast()).expect("the ballast can be removed");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], self.folder.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
