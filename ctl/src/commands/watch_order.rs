//! What a `watch` line asks for.

use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::WatchCreateRequest;

use super::{bad_arguments, kv::prefix_range};
use crate::{Failure, cli::Read, go_syntax::quote};

/// A watch to be made, and the command to run for each of its events; none if that is empty.
#[derive(Debug)]
pub(super) struct WatchOrder {
    pub(super) create: WatchCreateRequest,
    pub(super) exec: Vec<Vec<u8>>,
}

/// Key and range end from the environment; empty if there are none.
#[derive(Debug, Default)]
pub(super) struct Preset {
    pub(super) key: Vec<u8>,
    pub(super) range_end: Vec<u8>,
}

impl Preset {
    pub(super) fn from_environment() -> Result<Preset, Failure> {
        let variable = |name| std::env::var_os(name).unwrap_or_default().into_vec();
        let preset = Preset {
            key: variable("ETCDCTL_WATCH_KEY"),
            range_end: variable("ETCDCTL_WATCH_RANGE_END"),
        };
        if preset.key.is_empty() && !preset.range_end.is_empty() {
            return bad_arguments(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={}",
                quote(&preset.range_end)
            ));
        }
        Ok(preset)
    }
}

impl WatchOrder {
    /// Reads `[key] [range_end] [-- command]` and the flags of `watch`.
    pub(super) fn from_line(line: &Read, preset: &Preset) -> Result<WatchOrder, Failure> {
        let (arguments, exec) = line.around_dashes();
        if exec.is_some_and(<[_]>::is_empty) {
            return bad_arguments("bad number of arguments (found separator --, but no commands)");
        }
        let (key, range_end) = match arguments {
            [] if !preset.key.is_empty() => {
                let end = Some(&preset.range_end).filter(|end| !end.is_empty());
                (&preset.key, end)
            }
            [_, ..] if !preset.key.is_empty() => {
                return bad_arguments(
                    "bad number of arguments (found conflicting environment key)",
                );
            }
            [key] => (key, None),
            [key, end] => (key, Some(end)),
            _ => return bad_arguments("bad number of arguments"),
        };
        let (key, range_end) = match (line.flag("prefix"), range_end) {
            (true, Some(_)) => {
                return bad_arguments("`range_end` and `--prefix` are mutually exclusive");
            }
            (true, None) => prefix_range(key),
            (false, end) => (
                Bytes::copy_from_slice(key),
                end.cloned().unwrap_or_default().into(),
            ),
        };
        Ok(WatchOrder {
            create: WatchCreateRequest {
                key,
                range_end,
                start_revision: line.int("rev"),
                progress_notify: line.flag("progress-notify"),
                prev_kv: line.flag("prev-kv"),
                ..WatchCreateRequest::default()
            },
            exec: exec.unwrap_or_default().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{WATCH, read};

    fn order(arguments: &[&str], preset: &Preset) -> Result<WatchOrder, String> {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|a| a.as_bytes().to_vec()).collect();
        let line = read(&WATCH, &[], &arguments).unwrap();
        WatchOrder::from_line(&line, preset).map_err(|failure| failure.to_string())
    }

    #[test]
    fn key_range_and_command() {
        let none = Preset::default();
        let preset = Preset {
            key: b"e".to_vec(),
            range_end: b"f".to_vec(),
        };
        for (arguments, preset, key, end, exec) in [
            (&["a"][..], &none, "a", "", &[][..]),
            (&["a", "b", "--rev", "1"], &none, "a", "b", &[]),
            (&["--prefix", "a"], &none, "a", "b", &[]),
            (&["--prefix", ""], &none, "\0", "\0", &[]),
            (&["a", "--", "sh", "-c"], &none, "a", "", &["sh", "-c"]),
            (&[], &preset, "e", "f", &[]),
            (&["--rev", "1", "--", "a"], &preset, "e", "f", &["a"]),
        ] {
            let order = order(arguments, preset).unwrap();
            assert_eq!(order.create.key, key, "{arguments:?}");
            assert_eq!(order.create.range_end, end, "{arguments:?}");
            assert_eq!(
                order.exec,
                exec.iter().map(|a| a.as_bytes()).collect::<Vec<_>>()
            );
        }
        for (arguments, preset, error) in [
            (&[][..], &none, "bad number of arguments"),
            (&["a", "b", "c"], &none, "bad number of arguments"),
            (
                &["a", "--"],
                &none,
                "bad number of arguments (found separator --, but no commands)",
            ),
            (
                &["a"],
                &preset,
                "bad number of arguments (found conflicting environment key)",
            ),
            (
                &["a", "b", "--prefix"],
                &none,
                "`range_end` and `--prefix` are mutually exclusive",
            ),
        ] {
            assert_eq!(
                order(arguments, preset).unwrap_err(),
                error,
                "{arguments:?}"
            );
        }
    }
}
