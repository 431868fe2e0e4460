//! `"Name" : value` lines.

use std::io::{self, Write};

use holdfast_proto::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, StatusResponse,
        TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};

use super::{Answer, EndpointAnswer, access, alarm_name, event_name};
use crate::go_syntax::quote;

pub(super) fn print(hex: bool, answer: Answer<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let mut lines = Lines { hex, out };
    match answer {
        Answer::Get(response) => lines.get(response),
        Answer::Put(response) => lines.put(response),
        Answer::Delete(response) => lines.delete(response),
        Answer::Txn(response) => lines.txn(response),
        Answer::Watch(response) => {
            lines.header(response.header)?;
            for event in &response.events {
                lines.plain("Type", event_name(event.r#type))?;
                if let Some(pair) = &event.prev_kv {
                    lines.key_value("Prev", pair)?;
                }
                lines.key_value("", event.kv.as_ref().unwrap_or(&KeyValue::default()))?;
            }
            Ok(())
        }
        Answer::Grant(response) => {
            lines.header(response.header)?;
            lines.lease("ID", response.id)?;
            lines.plain("TTL", response.ttl)
        }
        Answer::Revoke(_, response) => lines.header(response.header),
        Answer::KeepAlive(response) => {
            lines.header(response.header)?;
            lines.lease("ID", response.id)?;
            lines.plain("TTL", response.ttl)
        }
        Answer::TimeToLive { response, .. } => {
            lines.header(response.header)?;
            lines.lease("ID", response.id)?;
            lines.plain("TTL", response.ttl)?;
            lines.plain("GrantedTTL", response.granted_ttl)?;
            response
                .keys
                .iter()
                .try_for_each(|key| lines.plain("Key", quote(key)))
        }
        Answer::Leases(response) => {
            lines.header(response.header)?;
            response
                .leases
                .iter()
                .try_for_each(|lease| lines.lease("ID", lease.id))
        }
        Answer::Members(response) => {
            lines.header(response.header)?;
            for member in &response.members {
                lines.member("ID", member.id)?;
                lines.text("Name", &member.name)?;
                for url in &member.peer_ur_ls {
                    lines.text("PeerURL", url)?;
                }
                for url in &member.client_ur_ls {
                    lines.text("ClientURL", url)?;
                }
                lines.plain("IsLearner", member.is_learner)?;
                lines.end()?;
            }
            Ok(())
        }
        Answer::Alarms(response) => {
            lines.header(response.header)?;
            for alarm in &response.alarms {
                lines.member("MemberID", alarm.member_id)?;
                lines.plain("AlarmType", alarm_name(alarm.alarm))?;
                lines.end()?;
            }
            Ok(())
        }
        Answer::Health(endpoints) => {
            for health in endpoints {
                lines.text("Endpoint", &health.endpoint)?;
                lines.plain("Health", health.error.is_none())?;
                lines.plain("Took", &health.took)?;
                lines.plain("Error", health.error.as_deref().unwrap_or_default())?;
                lines.end()?;
            }
            Ok(())
        }
        Answer::Changed { header, .. } => lines.header(header.copied()),
        Answer::Role { response, .. } => {
            lines.header(response.header)?;
            for permission in &response.perm {
                // etcdctl has two spaces here.
                let kind = access::kind_name(permission.perm_type);
                lines.plain("PermType", format_args!(" {kind}"))?;
                lines.plain("Key", quote(&permission.key))?;
                lines.plain("RangeEnd", quote(&permission.range_end))?;
            }
            Ok(())
        }
        Answer::Roles(response) => {
            lines.header(response.header)?;
            let roles = response.roles.iter();
            let names: Vec<String> = roles
                .map(|name| format!(" {}", quote(name.as_bytes())))
                .collect();
            writeln!(lines.out, "\"Roles\" :{}", names.concat())
        }
        Answer::TokenKeys(response) => {
            for key in &response.keys {
                lines.text("KeyID", &key.key_id)?;
                lines.member("MemberID", key.member_id)?;
                lines.plain("MadeAt", key.made_at_unix)?;
                lines.plain("RetiresAt", key.retires_at_unix)?;
                lines.end()?;
            }
            Ok(())
        }
        Answer::TokenKeyRotated(response) => {
            lines.text("KeyID", &response.key_id)?;
            lines.plain("PreviousRetireAt", response.previous_retire_at_unix)
        }
        // `render` has refused them: they have no such form.
        Answer::AuthStatus(_) | Answer::User { .. } | Answer::Users(_) | Answer::Verified(_) => {
            Ok(())
        }
        Answer::Status(endpoints) => endpoints.iter().try_for_each(|each| lines.status(each)),
        Answer::HashKv(endpoints) => {
            for each in endpoints {
                lines.header(each.response.header)?;
                lines.text("Endpoint", &each.endpoint)?;
                lines.plain("Hash", each.response.hash)?;
                lines.plain("HashRevision", each.response.hash_revision)?;
                lines.end()?;
            }
            Ok(())
        }
    }
}

struct Lines<'a> {
    hex: bool,
    out: &'a mut Vec<u8>,
}

impl Lines<'_> {
    fn plain(&mut self, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "\"{name}\" : {value}")
    }

    fn text(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.plain(name, quote(value.as_bytes()))
    }

    /// A member or cluster id.
    fn member(&mut self, name: &str, id: u64) -> io::Result<()> {
        if self.hex {
            self.plain(name, format_args!("{id:x}"))
        } else {
            self.plain(name, id)
        }
    }

    fn lease(&mut self, name: &str, id: i64) -> io::Result<()> {
        if self.hex {
            self.plain(name, format_args!("{id:016x}"))
        } else {
            self.plain(name, id)
        }
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    fn header(&mut self, header: Option<ResponseHeader>) -> io::Result<()> {
        let header = header.unwrap_or_default();
        self.member("ClusterID", header.cluster_id)?;
        self.member("MemberID", header.member_id)?;
        if header.revision > 0 {
            self.plain("Revision", header.revision)?;
        }
        self.plain("RaftTerm", header.raft_term)
    }

    fn key_value(&mut self, prefix: &str, pair: &KeyValue) -> io::Result<()> {
        self.plain(&format!("{prefix}Key"), quote(&pair.key))?;
        self.plain(&format!("{prefix}CreateRevision"), pair.create_revision)?;
        self.plain(&format!("{prefix}ModRevision"), pair.mod_revision)?;
        self.plain(&format!("{prefix}Version"), pair.version)?;
        self.plain(&format!("{prefix}Value"), quote(&pair.value))?;
        self.lease(&format!("{prefix}Lease"), pair.lease)
    }

    fn get(&mut self, response: &RangeResponse) -> io::Result<()> {
        self.header(response.header)?;
        for pair in &response.kvs {
            self.key_value("", pair)?;
        }
        self.plain("More", response.more)?;
        self.plain("Count", response.count)
    }

    fn put(&mut self, response: &PutResponse) -> io::Result<()> {
        self.header(response.header)?;
        response
            .prev_kv
            .iter()
            .try_for_each(|pair| self.key_value("Prev", pair))
    }

    fn delete(&mut self, response: &DeleteRangeResponse) -> io::Result<()> {
        self.header(response.header)?;
        self.plain("Deleted", response.deleted)?;
        response
            .prev_kvs
            .iter()
            .try_for_each(|pair| self.key_value("Prev", pair))
    }

    fn txn(&mut self, response: &TxnResponse) -> io::Result<()> {
        self.header(response.header)?;
        self.plain("Succeeded", response.succeeded)?;
        for operation in &response.responses {
            match &operation.response {
                Some(Response::ResponseRange(response)) => self.get(response)?,
                Some(Response::ResponsePut(response)) => self.put(response)?,
                Some(Response::ResponseDeleteRange(response)) => self.delete(response)?,
                // The grammar has no nested transaction, so no server answers with one.
                Some(Response::ResponseTxn(_)) | None => self.text("Unknown", "")?,
            }
        }
        Ok(())
    }

    fn status(&mut self, each: &EndpointAnswer<StatusResponse>) -> io::Result<()> {
        let status = &each.response;
        let downgrade = status.downgrade_info.as_ref();
        self.header(status.header)?;
        self.text("Version", &status.version)?;
        self.text("StorageVersion", &status.storage_version)?;
        self.plain("DBSize", status.db_size)?;
        self.plain("DBSizeInUse", status.db_size_in_use)?;
        self.plain("DBSizeQuota", status.db_size_quota)?;
        self.plain("Leader", status.leader)?;
        self.plain("IsLearner", status.is_learner)?;
        self.plain("RaftIndex", status.raft_index)?;
        self.plain("RaftTerm", status.raft_term)?;
        self.plain("RaftAppliedIndex", status.raft_applied_index)?;
        self.plain("Errors", format_args!("[{}]", status.errors.join(" ")))?;
        self.text("Endpoint", &each.endpoint)?;
        let version = downgrade.map_or("", |info| info.target_version.as_str());
        self.text("DowngradeTargetVersion", version)?;
        self.plain(
            "DowngradeEnabled",
            downgrade.is_some_and(|info| info.enabled),
        )?;
        self.end()
    }
}
