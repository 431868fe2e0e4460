//! get, put, del and compaction. The requests are built here for the command line and for the lines of a transaction.

use std::{io, time::Duration};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
    range_request::{SortOrder, SortTarget},
};
use tonic::{Response, Status, Streaming};

use super::{Context, bad_arguments, is_serializable};
use crate::{
    Exit, Failure,
    cli::Read,
    connect::Retry,
    go_syntax::{parse_int, quote},
    output::{self, Answer, Format, Style},
};

/// The end of a range that has none.
pub(super) const OPEN_END: Bytes = Bytes::from_static(b"\0");
/// The smallest key: etcd has no empty one.
pub(super) const FIRST_KEY: Bytes = Bytes::from_static(b"\0");
/// How long `del` waits for second thoughts about a range.
const RANGE_DELETE_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn get(context: &Context<'_>) -> Result<(), Failure> {
    let request = range_request(context.line)?;
    if request.count_only && context.style.format != Format::Fields {
        return bad_arguments("--count-only is only for `--write-out=fields`");
    }
    let value_only = context.line.flag("print-value-only");
    if value_only && context.style.format != Format::Simple {
        return bad_arguments("print-value-only is only for `--write-out=simple`");
    }
    let streamed = context.line.flag("stream");
    let response = context
        .client
        .call(Retry::Safe, |link| {
            let request = request.clone();
            async move {
                if streamed {
                    let chunks = link.kv().range_stream(request).await?;
                    collect(chunks.into_inner()).await.map(Response::new)
                } else {
                    link.kv().range(request).await
                }
            }
        })
        .await?;
    let style = Style {
        value_only,
        ..context.style
    };
    output::show(style, Answer::Get(&response))
}

/// Joins the chunks of a streamed range: the pairs of all, and of the rest what was said last.
async fn collect(
    mut chunks: Streaming<holdfast_proto::etcdserverpb::RangeStreamResponse>,
) -> Result<RangeResponse, Status> {
    let mut whole = RangeResponse::default();
    while let Some(chunk) = chunks.message().await? {
        let Some(part) = chunk.range_response else {
            continue;
        };
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more |= part.more;
        if part.count != 0 {
            whole.count = part.count;
        }
    }
    Ok(whole)
}

pub(super) async fn put(context: &Context<'_>) -> Result<(), Failure> {
    let request = put_request(context.line, io::stdin())?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.kv().put(request).await }
        })
        .await?;
    context.show(Answer::Put(&response))
}

pub(super) async fn delete(context: &Context<'_>) -> Result<(), Failure> {
    let request = delete_request(context.line)?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.kv().delete_range(request).await }
        })
        .await?;
    context.show(Answer::Delete(&response))
}

pub(super) async fn compaction(context: &Context<'_>) -> Result<(), Failure> {
    let [revision] = context.line.positional() else {
        return bad_arguments("compaction command needs 1 argument");
    };
    let revision = parse_int(&String::from_utf8_lossy(revision), 10)
        .map_err(|reason| Failure::new(Exit::Error, reason))?;
    let physical = context.line.flag("physical");
    context
        .client
        .call(Retry::Unsafe, |link| async move {
            let request = CompactionRequest { revision, physical };
            link.kv().compact(request).await
        })
        .await?;
    output::write_stdout(format!("compacted revision {revision}\n").as_bytes())
}

/// The request of a `get` line.
pub(crate) fn range_request(line: &Read) -> Result<RangeRequest, Failure> {
    let arguments = line.positional();
    let Some(key) = arguments.first() else {
        return bad_arguments(
            "get command needs one argument as key and an optional argument as range_end",
        );
    };
    if line.flag("keys-only") && line.flag("count-only") {
        return bad_arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        );
    }
    let (key, range_end) = range(line, key, arguments.get(1))?;
    let (sort_target, sort_order) = sort(line)?;
    let (min_create_revision, max_create_revision) =
        revisions(line, "min-create-rev", "max-create-rev", "Create")?;
    let (min_mod_revision, max_mod_revision) =
        revisions(line, "min-mod-rev", "max-mod-rev", "Mod")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: line.int("limit"),
        revision: line.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable: is_serializable(line.text("consistency"))?,
        keys_only: line.flag("keys-only"),
        count_only: line.flag("count-only"),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// The request of a `put` line; a missing value is read from `stdin`.
pub(crate) fn put_request(line: &Read, mut stdin: impl io::Read) -> Result<PutRequest, Failure> {
    const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let arguments = line.positional();
    let Some(key) = arguments.first() else {
        return bad_arguments(USAGE);
    };
    let ignore_value = line.flag("ignore-value");
    let value = match arguments.get(1) {
        Some(_) if ignore_value => {
            return bad_arguments("put command needs only 1 argument when 'ignore-value' is set");
        }
        Some(value) => value.clone(),
        None if ignore_value => Vec::new(),
        None => {
            let mut value = Vec::new();
            if stdin.read_to_end(&mut value).is_err() || value.is_empty() {
                return bad_arguments(USAGE);
            }
            value
        }
    };
    let lease = match parse_int(line.text("lease"), 16) {
        Ok(lease) => lease,
        Err(reason) => {
            return bad_arguments(format!("bad lease ID ({reason}), expecting ID in Hex"));
        }
    };
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: line.flag("prev-kv"),
        ignore_value,
        ignore_lease: line.flag("ignore-lease"),
    })
}

/// The request of a `del` line. Two keys without `--range` are a frequent mistake for two deletes: there is a warning, and time.
pub(crate) fn delete_request(line: &Read) -> Result<DeleteRangeRequest, Failure> {
    let arguments = line.positional();
    let (Some(first), true) = (arguments.first(), arguments.len() <= 2) else {
        return bad_arguments(
            "del command needs one argument as key and an optional argument as range_end",
        );
    };
    let (key, range_end) = range(line, first, arguments.get(1))?;
    if let (Some(end), false) = (arguments.get(1), line.flag("range")) {
        let warning = format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to cancel. \
             You can provide `--range` flag to avoid the delay.\n",
            quote(first),
            quote(end)
        );
        output::write_stderr(warning.as_bytes());
        std::thread::sleep(RANGE_DELETE_PAUSE);
    }
    Ok(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: line.flag("prev-kv"),
    })
}

fn range(line: &Read, key: &[u8], end: Option<&Vec<u8>>) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (line.flag("prefix"), line.flag("from-key"));
    if prefix && from_key {
        return bad_arguments(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        );
    }
    if end.is_some() && (prefix || from_key) {
        return bad_arguments(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        );
    }
    Ok(if prefix {
        prefix_range(key)
    } else if from_key {
        let first = if key.is_empty() {
            FIRST_KEY
        } else {
            Bytes::copy_from_slice(key)
        };
        (first, OPEN_END)
    } else {
        let end = end.cloned().unwrap_or_default();
        (Bytes::copy_from_slice(key), end.into())
    })
}

/// The range of all keys that start with `prefix`.
pub(crate) fn prefix_range(prefix: &[u8]) -> (Bytes, Bytes) {
    let Some(last) = prefix.iter().rposition(|byte| *byte < 0xff) else {
        let first = if prefix.is_empty() {
            FIRST_KEY
        } else {
            Bytes::copy_from_slice(prefix)
        };
        return (first, OPEN_END);
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    (Bytes::copy_from_slice(prefix), end.into())
}

fn sort(line: &Read) -> Result<(SortTarget, SortOrder), Failure> {
    let unknown = |what: &str, value: &str| {
        Err(Failure::new(
            Exit::BadFeature,
            format!("bad sort {what} {value}"),
        ))
    };
    let order = match line.text("order").to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return unknown("order", line.text("order")),
    };
    let target = match line.text("sort-by").to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return unknown("target", line.text("sort-by")),
    };
    // Keys come in ascending order anyway; asked for by name, the server would sort them again.
    if target == SortTarget::Key && order == SortOrder::Ascend {
        return Ok((target, SortOrder::None));
    }
    Ok((target, order))
}

/// A pair of bounds, of which those that are not positive mean none.
fn revisions(line: &Read, min: &str, max: &str, what: &str) -> Result<(i64, i64), Failure> {
    let (min, max) = (line.int(min), line.int(max));
    if max > 0 && min > max {
        return Err(Failure::new(
            Exit::BadFeature,
            format!("getMin{what}Rev(={min}) > getMax{what}Rev(={max})"),
        ));
    }
    Ok((min.max(0), max.max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_its_successor() {
        for (prefix, end) in [
            (&b"foo"[..], &b"fop"[..]),
            (b"a\xff\xff", b"b"),
            (b"\xff\xff", b"\0"),
        ] {
            let range = prefix_range(prefix);
            assert_eq!((&range.0[..], &range.1[..]), (prefix, end));
        }
        assert_eq!(prefix_range(b""), (FIRST_KEY, OPEN_END));
    }
}
