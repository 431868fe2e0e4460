//! The server-side twin of the watch answer. On the wire a `repeated` message field and a `repeated bytes` field are the same, so an
//! event that was encoded once is copied into the answers of all its watchers as it stands.
//!
//! Field numbers follow `etcdserverpb.WatchResponse`; a test encodes one and decodes the other.

use crate::etcdserverpb::ResponseHeader;
use bytes::Bytes;

/// `etcdserverpb.WatchResponse` with encoded `mvccpb.Event`s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    /// Who answered, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The watch on its stream; -1 for answers that concern none or all.
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    /// Answers a create request.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// The watch has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// The compacted revision that ended the watch.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why the watch ended.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// More events of the same revision follow.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    /// The events, each an encoded `mvccpb.Event`.
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub events: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{etcdserverpb, mvccpb};
    use prost::Message;

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        })
    }

    fn key_value() -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from_static(b"v"),
            lease: 7,
        }
    }

    #[test]
    fn a_watch_answer_decodes_as_the_plain_message() {
        let event = mvccpb::Event {
            r#type: mvccpb::event::EventType::Delete as i32,
            kv: Some(key_value()),
            prev_kv: Some(key_value()),
        };
        let encoded = WatchResponse {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: "r".into(),
            fragment: true,
            events: vec![event.encode_to_vec().into()],
        };
        let plain = etcdserverpb::WatchResponse {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: "r".into(),
            fragment: true,
            events: vec![event],
        };
        assert_eq!(
            etcdserverpb::WatchResponse::decode(encoded.encode_to_vec().as_slice()),
            Ok(plain)
        );
    }
}
