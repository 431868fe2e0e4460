//! The lines that stand for requests and for what happens to the log itself. (Lines of the chain are `chain.rs`'s.)

use std::time::SystemTime;

use crate::{
    Level, Plan, hex,
    record::{End, Outcome, Record},
    stamp::Stamp,
    text,
};

/// Bytes of a reason or an object that a record keeps.
const MAX_TEXT_BYTES: usize = 256;

/// Every line of a request begins so.
pub(crate) const RPC: &[u8] = br#"{"type":"rpc","time":"#;

/// A begin record, without an end; or an end record, with it.
pub(crate) fn request(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    plan: &Plan,
    level: Level,
    record: &Record<'_>,
    end: Option<&End<'_>>,
) {
    out.extend_from_slice(RPC);
    stamp.push(out, record.time);
    out.extend_from_slice(plan.fixed());
    out.extend_from_slice(br#","id":""#);
    hex::push(out, &record.id.to_be_bytes());
    out.extend_from_slice(match end {
        None => br#"","stage":"begin","request_bytes":"#.as_slice(),
        Some(_) => br#"","stage":"end","request_bytes":"#,
    });
    text::number(out, record.request_bytes);
    match level {
        Level::Keys => record.keys.push_plain(out),
        Level::KeysHashed => record.keys.push_hashed(out),
        Level::Metadata | Level::None => {}
    }
    if let Some(object) = record.object {
        out.extend_from_slice(br#","object":"#);
        text::message(out, object, MAX_TEXT_BYTES);
    }
    if let Some(end) = end {
        push_end(out, end);
    }
    out.extend_from_slice(b"}\n");
}

fn push_end(out: &mut Vec<u8>, end: &End<'_>) {
    match end.outcome {
        Outcome::Ok => out.extend_from_slice(br#","outcome":"OK","class":"ok""#),
        Outcome::Denied { code, reason } | Outcome::Failed { code, reason } => {
            out.extend_from_slice(br#","outcome":""#);
            out.extend_from_slice(code.name().as_bytes());
            out.extend_from_slice(br#"","class":""#);
            out.extend_from_slice(end.outcome.class().name().as_bytes());
            out.extend_from_slice(br#"","reason":"#);
            text::message(out, reason, MAX_TEXT_BYTES);
        }
    }
    if let Some(revision) = end.revision {
        out.extend_from_slice(br#","revision":"#);
        text::signed(out, revision);
    }
    out.extend_from_slice(br#","duration_us":"#);
    let micros = u64::try_from(end.duration.as_micros()).unwrap_or(u64::MAX);
    text::number(out, micros);
}

/// Says that the process started or stops, or that rules are in force. `fixed` are the fields of every line of this node.
pub(crate) fn event(kind: &str, fixed: &[u8], rules: Option<(u64, Option<&[u8; 32]>)>) -> Vec<u8> {
    let mut out = begin(kind);
    out.extend_from_slice(fixed);
    if let Some((generation, digest)) = rules {
        out.extend_from_slice(br#","generation":"#);
        text::number(&mut out, generation);
        out.extend_from_slice(br#","rules":""#);
        match digest {
            Some(digest) => {
                out.extend_from_slice(b"sha256:");
                hex::push(&mut out, digest);
            }
            None => out.extend_from_slice(b"built in"),
        }
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Says how many records did not get where this line stands.
pub(crate) fn lost(count: u64) -> Vec<u8> {
    let mut out = begin("lost");
    out.extend_from_slice(br#","count":"#);
    text::number(&mut out, count);
    out.extend_from_slice(b"}\n");
    out
}

/// `{"type":"…","time":"…"`, at the present time.
pub(crate) fn begin(kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","time":"#);
    Stamp::default().push(&mut out, SystemTime::now());
    out
}
