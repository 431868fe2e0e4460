//! What we say we are.

/// Our own version.
pub(crate) const HOLDFAST: &str = env!("CARGO_PKG_VERSION");
/// The etcd release whose behaviour we follow.
pub(crate) const COMPATIBLE: &str = "3.7.1";
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

/// Reads `major.minor` or `major.minor.patch`, as etcd's downgrade does.
pub(crate) fn minor(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    if let Some(patch) = parts.next() {
        patch.parse::<u64>().ok()?;
    }
    parts.next().is_none().then_some((major, minor))
}

/// The cluster version that goes with a release, `major.minor`; clients are shown `.0` behind it.
pub(crate) fn of_cluster((major, minor): (u64, u64)) -> String {
    format!("{major}.{minor}.0")
}

/// The release below a cluster's, the only one that a downgrade may aim at.
pub(crate) fn below((major, minor): (u64, u64)) -> Option<(u64, u64)> {
    Some((major, minor.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        assert_eq!(minor("3.6"), Some((3, 6)));
        assert_eq!(minor("3.6.0"), Some((3, 6)));
        for bad in ["", "three", "3", "3.", "3.6.x", "3.6.0.1", "v3.6"] {
            assert_eq!(minor(bad), None, "{bad}");
        }
        assert_eq!(below((3, 7)), Some((3, 6)));
        assert_eq!(below((4, 0)), None);
        assert_eq!(of_cluster((3, 7)), "3.7.0");
    }
}
