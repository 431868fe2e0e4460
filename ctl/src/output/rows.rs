//! Endpoints, members and token keys as rows, which `simple` joins with commas and `table` draws.

use holdfast_proto::{
    admin::TokenKey,
    etcdserverpb::{Member, StatusResponse},
};

use super::{Answer, EndpointAnswer, utc};
use crate::go_syntax::human_size;

/// The header and the rows of an answer; none if it is no list of such.
pub(super) fn of(answer: Answer<'_>) -> Option<(&'static [&'static str], Vec<Vec<String>>)> {
    Some(match answer {
        Answer::Members(response) => (
            &[
                "ID",
                "Status",
                "Name",
                "Peer Addrs",
                "Client Addrs",
                "Is Learner",
            ],
            response.members.iter().map(member).collect(),
        ),
        Answer::Health(endpoints) => (
            &["endpoint", "health", "took", "error"],
            endpoints
                .iter()
                .map(|health| {
                    vec![
                        health.endpoint.clone(),
                        health.error.is_none().to_string(),
                        health.took.clone(),
                        health.error.clone().unwrap_or_default(),
                    ]
                })
                .collect(),
        ),
        Answer::Status(endpoints) => (
            &[
                "endpoint",
                "ID",
                "version",
                "storage version",
                "db size",
                "in use",
                "percentage not in use",
                "quota",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
                "downgrade target version",
                "downgrade enabled",
            ],
            endpoints.iter().map(status).collect(),
        ),
        Answer::HashKv(endpoints) => (
            &["endpoint", "hash", "hash_revision"],
            endpoints
                .iter()
                .map(|each| {
                    vec![
                        each.endpoint.clone(),
                        each.response.hash.to_string(),
                        each.response.hash_revision.to_string(),
                    ]
                })
                .collect(),
        ),
        Answer::TokenKeys(response) => (
            &["key ID", "member ID", "made", "retires"],
            response.keys.iter().map(token_key).collect(),
        ),
        _ => return None,
    })
}

fn member(member: &Member) -> Vec<String> {
    // A member that was added but has not started yet has no name.
    let status = if member.name.is_empty() {
        "unstarted"
    } else {
        "started"
    };
    vec![
        format!("{:x}", member.id),
        status.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn token_key(key: &TokenKey) -> Vec<String> {
    let retires = match key.retires_at_unix {
        0 => "-".to_owned(),
        at => utc::text(at),
    };
    vec![
        key.key_id.clone(),
        format!("{:x}", key.member_id),
        utc::text(key.made_at_unix),
        retires,
    ]
}

fn status(each: &EndpointAnswer<StatusResponse>) -> Vec<String> {
    let status = &each.response;
    let member_id = status.header.unwrap_or_default().member_id;
    let size = |bytes: i64| human_size(u64::try_from(bytes).unwrap_or_default());
    // An empty store has nothing that is not in use.
    let unused = status
        .db_size_in_use
        .checked_mul(100)
        .and_then(|hundredfold| hundredfold.checked_div(status.db_size))
        .map_or(0, |used| 100 - used);
    let downgrade = status.downgrade_info.as_ref();
    vec![
        each.endpoint.clone(),
        format!("{member_id:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{unused}%"),
        size(status.db_size_quota),
        (status.leader == member_id).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.map_or_else(String::new, |info| info.target_version.clone()),
        downgrade.is_some_and(|info| info.enabled).to_string(),
    ]
}
