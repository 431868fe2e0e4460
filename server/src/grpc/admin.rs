//! The administration service: what etcd's API has no place for.

use super::{Connection, Session, off_runtime};
use crate::identity::unix_now;
use crate::metrics::Rpc;
use crate::tokens::TokensError;
use holdfast_auth::{Demands, KeyRange, Standing, Verb};
use holdfast_proto::admin as pb;
use holdfast_proto::servers::admin::admin_server::Admin;
use holdfast_tenant::Command;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Longest overlap of token keys, seconds: a year.
const OVERLAP_MAX_SECS: i64 = 31_536_000;

/// The keys that sign tokens.
struct TokenKeys;

impl Demands for TokenKeys {
    fn standing(&self) -> Standing<'_> {
        Standing::Admin
    }

    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

#[tonic::async_trait]
impl Admin for Session {
    async fn rotate_token_key(
        &self,
        request: Request<pb::RotateTokenKeyRequest>,
    ) -> Result<Response<pb::RotateTokenKeyResponse>, Status> {
        let (call, wire) = self.begin(Rpc::RotateTokenKey, request);
        call.run(async {
            call.authorize(TokenKeys).await?;
            let tokens = &self.node().tokens;
            let overlap = match wire.overlap_seconds {
                0 => tokens.ttl().as_secs(),
                secs @ 1..=OVERLAP_MAX_SECS => secs.unsigned_abs(),
                _ => {
                    return Err(Status::invalid_argument(format!(
                        "etcdserver: the overlap must be between 0 and {OVERLAP_MAX_SECS} seconds"
                    )));
                }
            };
            let retire_at = unix_now().saturating_add(overlap);
            let key_id = self.rotate(retire_at).await?;
            Ok(pb::RotateTokenKeyResponse {
                key_id,
                previous_retire_at_unix: i64::try_from(retire_at).unwrap_or(i64::MAX),
            })
        })
        .await
        .map(Response::new)
    }

    async fn list_token_keys(
        &self,
        request: Request<pb::ListTokenKeysRequest>,
    ) -> Result<Response<pb::ListTokenKeysResponse>, Status> {
        let (call, _) = self.begin(Rpc::ListTokenKeys, request);
        call.run(async {
            self.linearizable().await?;
            call.authorize(TokenKeys).await?;
            let seconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
            let keys = self.node().tenants.token_keys();
            Ok(pb::ListTokenKeysResponse {
                keys: keys
                    .iter()
                    .map(|key| pb::TokenKey {
                        key_id: key.kid.to_string(),
                        member_id: key.member,
                        made_at_unix: seconds(key.made_at),
                        retires_at_unix: key.retires_at.map_or(0, seconds),
                    })
                    .collect(),
            })
        })
        .await
        .map(Response::new)
    }
}

impl Connection {
    /// Makes a new key, makes it known, and signs with it. Keys of this member before it are accepted until `retire_at`.
    ///
    /// A client that goes away leaves no rotation half done: a key that retires would go on signing.
    async fn rotate(self: &Arc<Self>, retire_at: u64) -> Result<String, Status> {
        let connection = self.clone();
        tokio::spawn(async move { connection.rotate_whole(retire_at).await })
            .await
            .map_err(|_| Status::internal("etcdserver: the rotation failed"))?
    }

    async fn rotate_whole(self: &Arc<Self>, retire_at: u64) -> Result<String, Status> {
        fn failed(error: TokensError) -> Status {
            tracing::error!(%error, "cannot rotate the token key");
            Status::internal("etcdserver: cannot keep a new token key")
        }
        let _turn = self.node().tokens.rotation().await;
        let connection = self.clone();
        // Files are written.
        let made = off_runtime(move || connection.node().tokens.make_next(unix_now())).await?;
        let Some(key) = made.map_err(failed)? else {
            return Err(Status::failed_precondition(
                "etcdserver: tokens are signed with the operator's key (--auth-token)",
            ));
        };
        let kid = key.kid.clone();
        let publish = Command::PublishTokenKey {
            key,
            retire_older_at: Some(retire_at),
        };
        self.worker
            .propose_internal(&self.tenant, &publish)
            .await
            .map_err(|error| self.unanswered(error))?;
        let connection = self.clone();
        off_runtime(move || connection.node().tokens.take_next())
            .await?
            .map_err(failed)?;
        tracing::info!(key = kid, retire_at, "rotated the token key");
        Ok(kid)
    }
}
