//! What we say we are.

/// Our own version.
pub(crate) const HOLDFAST: &str = env!("CARGO_PKG_VERSION");
/// The etcd release whose behaviour we follow.
pub(crate) const COMPATIBLE: &str = "3.7.1";
/// The cluster version that goes with it.
pub(crate) const CLUSTER: &str = "3.7.0";
/// The storage version that goes with it.
pub(crate) const STORAGE: &str = "3.7.0";

/// What `--version` prints. The first lines are etcd's: wrappers parse `etcd Version: <semver>` (behaviour §6.1).
pub(crate) fn text() -> String {
    format!(
        "etcd Version: {COMPATIBLE}\nGit SHA: Holdfast {HOLDFAST}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\nHoldfast Version: {HOLDFAST}\n",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
