//! Answers as the JSON of etcd's Go structs.

use holdfast_proto::{
    etcdserverpb::{
        DeleteRangeResponse, HashKvResponse, Member, MemberListResponse, PutResponse,
        RangeResponse, ResponseHeader, ResponseOp, StatusResponse, TxnResponse, WatchResponse,
        response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};

use super::{
    Answer, EndpointAnswer, EndpointHealth, audit,
    go_json::{self, Object},
};

pub(super) fn print(hex: bool, answer: Answer<'_>, out: &mut Vec<u8>) {
    match answer {
        Answer::Health(endpoints) => list(endpoints, out, health),
        Answer::Status(endpoints) => {
            list(endpoints, out, |each, out| {
                endpoint(each, "Status", status, out)
            });
        }
        Answer::HashKv(endpoints) => {
            list(endpoints, out, |each, out| {
                endpoint(each, "HashKV", hash_kv, out)
            });
        }
        Answer::Verified(logs) => list(logs, out, audit::json),
        Answer::Members(response) if hex => go_json::object(out, |o| members_in_hex(response, o)),
        _ => go_json::object(out, |o| message(answer, o)),
    }
}

/// A list as a Go slice that stays nil while nothing is added to it.
fn list<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    if items.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        go_json::array(items, out, write);
    }
}

fn message(answer: Answer<'_>, o: &mut Object<'_>) {
    match answer {
        Answer::Get(response) => range(response, o),
        Answer::Put(response) => put(response, o),
        Answer::Delete(response) => delete(response, o),
        Answer::Txn(response) => txn(response, o),
        Answer::Watch(response) => watch(response, o),
        // The structs of leases embed the header, so its members stand among theirs.
        Answer::Grant(response) => {
            header(response.header.as_ref(), o);
            o.number("ID", response.id);
            o.number("TTL", response.ttl);
            o.text("Error", &response.error);
        }
        Answer::Revoke(_, response) => header_member(response.header.as_ref(), o),
        Answer::KeepAlive(response) => {
            header(response.header.as_ref(), o);
            o.number("ID", response.id);
            o.number("TTL", response.ttl);
        }
        Answer::TimeToLive { response, .. } => {
            header(response.header.as_ref(), o);
            o.number("id", response.id);
            o.number("ttl", response.ttl);
            o.number("granted-ttl", response.granted_ttl);
            list(&response.keys, o.member("keys"), |key, out| {
                go_json::bytes(key, out)
            });
        }
        Answer::Leases(response) => {
            header(response.header.as_ref(), o);
            o.array("leases", &response.leases, |lease, out| {
                go_json::object(out, |o| o.number("id", lease.id));
            });
        }
        Answer::Members(response) => {
            header_member(response.header.as_ref(), o);
            o.array_unless_empty("members", &response.members, |each, out| {
                go_json::object(out, |o| {
                    o.number_unless_zero("ID", each.id);
                    member(each, o);
                });
            });
        }
        Answer::Alarms(response) => {
            header_member(response.header.as_ref(), o);
            o.array_unless_empty("alarms", &response.alarms, |alarm, out| {
                go_json::object(out, |o| {
                    o.number_unless_zero("memberID", alarm.member_id);
                    o.number_unless_zero("alarm", alarm.alarm);
                });
            });
        }
        Answer::Changed { header, .. } => header_member(header, o),
        Answer::AuthStatus(response) => {
            header_member(response.header.as_ref(), o);
            o.bool_if_true("enabled", response.enabled);
            o.number_unless_zero("authRevision", response.auth_revision);
        }
        Answer::User { response, .. } => {
            header_member(response.header.as_ref(), o);
            o.texts_unless_empty("roles", &response.roles);
        }
        Answer::Users(response) => {
            header_member(response.header.as_ref(), o);
            o.texts_unless_empty("users", &response.users);
        }
        Answer::Role { response, .. } => {
            header_member(response.header.as_ref(), o);
            o.array_unless_empty("perm", &response.perm, |permission, out| {
                go_json::object(out, |o| {
                    o.number_unless_zero("permType", permission.perm_type);
                    o.bytes_unless_empty("key", &permission.key);
                    o.bytes_unless_empty("range_end", &permission.range_end);
                });
            });
        }
        Answer::Roles(response) => {
            header_member(response.header.as_ref(), o);
            o.texts_unless_empty("roles", &response.roles);
        }
        Answer::TokenKeys(response) => o.array("keys", &response.keys, |key, out| {
            go_json::object(out, |o| {
                o.text("key_id", &key.key_id);
                o.number("member_id", key.member_id);
                o.number("made_at_unix", key.made_at_unix);
                o.number_unless_zero("retires_at_unix", key.retires_at_unix);
            });
        }),
        Answer::TokenKeyRotated(response) => {
            o.text("key_id", &response.key_id);
            o.number_unless_zero("previous_retire_at_unix", response.previous_retire_at_unix);
        }
        // Lists are arrays, not objects.
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) | Answer::Verified(_) => {}
    }
}

fn header(header: Option<&ResponseHeader>, o: &mut Object<'_>) {
    if let Some(header) = header {
        o.number_unless_zero("cluster_id", header.cluster_id);
        o.number_unless_zero("member_id", header.member_id);
        o.number_unless_zero("revision", header.revision);
        o.number_unless_zero("raft_term", header.raft_term);
    }
}

fn header_member(value: Option<&ResponseHeader>, o: &mut Object<'_>) {
    if value.is_some() {
        o.object("header", |o| header(value, o));
    }
}

fn key_value(pair: &KeyValue, o: &mut Object<'_>) {
    o.bytes_unless_empty("key", &pair.key);
    o.number_unless_zero("create_revision", pair.create_revision);
    o.number_unless_zero("mod_revision", pair.mod_revision);
    o.number_unless_zero("version", pair.version);
    o.bytes_unless_empty("value", &pair.value);
    o.number_unless_zero("lease", pair.lease);
}

fn key_value_member(name: &str, pair: Option<&KeyValue>, o: &mut Object<'_>) {
    if let Some(pair) = pair {
        o.object(name, |o| key_value(pair, o));
    }
}

fn key_values(name: &str, pairs: &[KeyValue], o: &mut Object<'_>) {
    o.array_unless_empty(name, pairs, |pair, out| {
        go_json::object(out, |o| key_value(pair, o));
    });
}

fn range(response: &RangeResponse, o: &mut Object<'_>) {
    header_member(response.header.as_ref(), o);
    key_values("kvs", &response.kvs, o);
    o.bool_if_true("more", response.more);
    o.number_unless_zero("count", response.count);
}

fn put(response: &PutResponse, o: &mut Object<'_>) {
    header_member(response.header.as_ref(), o);
    key_value_member("prev_kv", response.prev_kv.as_ref(), o);
}

fn delete(response: &DeleteRangeResponse, o: &mut Object<'_>) {
    header_member(response.header.as_ref(), o);
    o.number_unless_zero("deleted", response.deleted);
    key_values("prev_kvs", &response.prev_kvs, o);
}

fn txn(response: &TxnResponse, o: &mut Object<'_>) {
    header_member(response.header.as_ref(), o);
    o.bool_if_true("succeeded", response.succeeded);
    o.array_unless_empty("responses", &response.responses, |operation, out| {
        go_json::object(out, |o| {
            o.object("Response", |o| operation_response(operation, o))
        });
    });
}

fn operation_response(operation: &ResponseOp, o: &mut Object<'_>) {
    match &operation.response {
        Some(Response::ResponseRange(response)) => {
            o.object("response_range", |o| range(response, o));
        }
        Some(Response::ResponsePut(response)) => o.object("response_put", |o| put(response, o)),
        Some(Response::ResponseDeleteRange(response)) => {
            o.object("response_delete_range", |o| delete(response, o));
        }
        Some(Response::ResponseTxn(response)) => o.object("response_txn", |o| txn(response, o)),
        None => {}
    }
}

fn watch(response: &WatchResponse, o: &mut Object<'_>) {
    o.object("Header", |o| header(response.header.as_ref(), o));
    list(&response.events, o.member("Events"), event);
    o.number("CompactRevision", response.compact_revision);
    o.number("Canceled", response.canceled);
    o.number("Created", response.created);
    o.text("CancelReason", &response.cancel_reason);
}

fn event(event: &Event, out: &mut Vec<u8>) {
    go_json::object(out, |o| {
        o.number_unless_zero("type", event.r#type);
        key_value_member("kv", event.kv.as_ref(), o);
        key_value_member("prev_kv", event.prev_kv.as_ref(), o);
    });
}

/// All of a member but its id, whose form depends on `--hex`.
fn member(member: &Member, o: &mut Object<'_>) {
    o.text_unless_empty("name", &member.name);
    o.texts_unless_empty("peerURLs", &member.peer_ur_ls);
    o.texts_unless_empty("clientURLs", &member.client_ur_ls);
    o.bool_if_true("isLearner", member.is_learner);
}

fn members_in_hex(response: &MemberListResponse, o: &mut Object<'_>) {
    let header = response.header.unwrap_or_default();
    o.object("header", |o| {
        o.text("cluster_id", &format!("{:x}", header.cluster_id));
        o.text("member_id", &format!("{:x}", header.member_id));
        o.number_unless_zero("revision", header.revision);
        o.number_unless_zero("raft_term", header.raft_term);
    });
    o.array("members", &response.members, |each, out| {
        go_json::object(out, |o| {
            o.text("ID", &format!("{:x}", each.id));
            member(each, o);
        });
    });
}

fn health(health: &EndpointHealth, out: &mut Vec<u8>) {
    go_json::object(out, |o| {
        o.text("endpoint", &health.endpoint);
        o.number("health", health.error.is_none());
        o.text("took", &health.took);
        o.text_unless_empty("error", health.error.as_deref().unwrap_or_default());
    });
}

fn endpoint<T>(
    each: &EndpointAnswer<T>,
    name: &str,
    write: impl FnOnce(&T, &mut Object<'_>),
    out: &mut Vec<u8>,
) {
    go_json::object(out, |o| {
        o.text("Endpoint", &each.endpoint);
        o.object(name, |o| write(&each.response, o));
    });
}

fn status(status: &StatusResponse, o: &mut Object<'_>) {
    header_member(status.header.as_ref(), o);
    o.text_unless_empty("version", &status.version);
    o.number_unless_zero("dbSize", status.db_size);
    o.number_unless_zero("leader", status.leader);
    o.number_unless_zero("raftIndex", status.raft_index);
    o.number_unless_zero("raftTerm", status.raft_term);
    o.number_unless_zero("raftAppliedIndex", status.raft_applied_index);
    o.texts_unless_empty("errors", &status.errors);
    o.number_unless_zero("dbSizeInUse", status.db_size_in_use);
    o.bool_if_true("isLearner", status.is_learner);
    o.text_unless_empty("storageVersion", &status.storage_version);
    o.number_unless_zero("dbSizeQuota", status.db_size_quota);
    if let Some(info) = &status.downgrade_info {
        o.object("downgradeInfo", |o| {
            o.bool_if_true("enabled", info.enabled);
            o.text_unless_empty("targetVersion", &info.target_version);
        });
    }
}

fn hash_kv(response: &HashKvResponse, o: &mut Object<'_>) {
    header_member(response.header.as_ref(), o);
    o.number_unless_zero("hash", response.hash);
    o.number_unless_zero("compact_revision", response.compact_revision);
    o.number_unless_zero("hash_revision", response.hash_revision);
}
