//! Which server binary is under test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The variable that makes the tests run against another server (a real etcd).
const OTHER_SERVER: &str = "HOLDFAST_TEST_SERVER";
/// The variable that names a Holdfast binary built elsewhere.
const OUR_BINARY: &str = "HOLDFAST_BIN";

/// Whether the server under test is a real etcd instead of Holdfast.
pub fn is_reference() -> bool {
    env::var_os(OTHER_SERVER).is_some()
}

/// The binary under test: `HOLDFAST_TEST_SERVER`, else `HOLDFAST_BIN`, else `holdfast` of the same build profile as the running
/// test, which is built first if it is missing or out of date.
pub fn server_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| match env::var_os(OTHER_SERVER) {
            Some(path) => PathBuf::from(path),
            None => our_binary(),
        })
        .clone()
}

/// A real etcd for comparison: `ETCD_BIN`, else `etcd` on `PATH`.
pub fn reference_etcd() -> Option<PathBuf> {
    if let Some(path) = env::var_os("ETCD_BIN") {
        return Some(PathBuf::from(path));
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join("etcd"))
        .find(|path| path.is_file())
}

fn our_binary() -> PathBuf {
    if let Some(path) = env::var_os(OUR_BINARY) {
        return PathBuf::from(path);
    }
    let test = env::current_exe().expect("the path of the running test");
    // target/<profile>/deps/<test>
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("a test runs from target/<profile>/deps");
    let binary = profile.join("holdfast");
    if is_stale(&binary) {
        build(profile);
    }
    assert!(binary.is_file(), "no server binary at {}", binary.display());
    binary
}

/// Whether the binary is missing or older than some source of the workspace. (`cargo test` does not build the binaries of other
/// packages, and asking cargo each time may build them anew with other features.)
fn is_stale(binary: &Path) -> bool {
    let Ok(built) = fs::metadata(binary).and_then(|found| found.modified()) else {
        return true;
    };
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let members = [
        "audit",
        "auth",
        "certs",
        "config",
        "consensus",
        "proto",
        "server",
        "storage",
        "tenant",
        "transport",
    ];
    members.iter().any(|member| {
        ["src", "proto"]
            .iter()
            .any(|sources| any_newer(&workspace.join(member).join(sources), built))
    })
}

fn any_newer(folder: &Path, than: SystemTime) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        let changed = entry.metadata().and_then(|found| found.modified());
        (path.is_dir() && any_newer(&path, than)) || changed.is_ok_and(|time| time > than)
    })
}

fn build(profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str());
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "-p", "holdfast-server", "--bin", "holdfast"]);
    match name {
        None | Some("debug") => {}
        Some(other) => {
            cargo.args(["--profile", other]);
        }
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the server does not build: {status}");
}
