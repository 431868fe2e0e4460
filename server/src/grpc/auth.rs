//! The Auth service: switching authentication on and off, users, roles, and login.

use super::call::Call;
use super::kv::{refuse, unexpected};
use super::{Connection, Session, TENANT, errors};
use crate::identity::{How, unix_now};
use crate::login::{Checked, LoginError};
use crate::metrics::Rpc;
use bytes::Bytes;
use holdfast_auth::token::Claims;
use holdfast_auth::{
    AuthChange, AuthError, AuthState, Demands, Denied, KeyRange, PasswordHash, Permission,
    PermissionKind, ROOT, Role, Standing, User, Verb,
};
use holdfast_proto::servers::etcdserverpb::auth_server::Auth;
use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_tenant::{Answer, Command, Refusal};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// A look at users or roles that keeps to no keys.
struct Look<'a>(Standing<'a>);

impl Demands for Look<'_> {
    fn standing(&self) -> Standing<'_> {
        match self.0 {
            Standing::Any => Standing::Any,
            Standing::Admin => Standing::Admin,
            Standing::AdminOrUser(name) => Standing::AdminOrUser(name),
            Standing::AdminOrHolder(role) => Standing::AdminOrHolder(role),
        }
    }

    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

/// Changes users or roles through the log and answers with the header alone.
macro_rules! change {
    ($self:ident, $rpc:ident, $request:ident, $wire:ident => $change:expr, $response:ident) => {{
        let (call, $wire) = $self.begin(Rpc::$rpc, $request);
        call.run(async {
            let header = $self.change(&call, $change).await?;
            Ok(pb::$response {
                header: Some(header),
            })
        })
        .await
        .map(Response::new)
    }};
}

#[tonic::async_trait]
impl Auth for Session {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        change!(self, AuthEnable, request, _wire => AuthChange::Enable, AuthEnableResponse)
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        change!(self, AuthDisable, request, _wire => AuthChange::Disable, AuthDisableResponse)
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (call, _) = self.begin(Rpc::AuthStatus, request);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::Any)).await?;
            let auth = self.tenant.auth();
            // The call is open, and how much is written is nobody's business.
            let revision = call.who().map_or(0, |_| self.tenant.revision());
            Ok(pb::AuthStatusResponse {
                header: Some(self.header_at(revision)),
                enabled: auth.is_enabled(),
                auth_revision: auth.revision(),
            })
        })
        .await
        .map(Response::new)
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let (call, wire) = self.begin(Rpc::Authenticate, request);
        call.entry().object(&wire.name);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::Any)).await?;
            let token = self.login(wire).await?;
            Ok(pb::AuthenticateResponse {
                header: Some(self.header()),
                token,
            })
        })
        .await
        .map(Response::new)
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (call, wire) = self.begin(Rpc::UserAdd, request);
        call.entry().object(&wire.name);
        call.run(async {
            // Whoever may not add users makes nobody hash passwords.
            call.authorize(Look(Standing::Admin)).await?;
            if wire.name.is_empty() {
                return Err(refuse(Refusal::Auth(AuthError::UserNameEmpty)));
            }
            // Another member may have changed what this one knows.
            self.linearizable().await?;
            if self.tenant.auth().user(&wire.name).is_some() {
                return Err(refuse(Refusal::Auth(AuthError::UserExists)));
            }
            let no_password = wire.options.is_some_and(|options| options.no_password);
            let password = if no_password {
                None
            } else {
                Some(self.hash(wire.password, wire.hashed_password).await?)
            };
            let change = AuthChange::UserAdd {
                name: wire.name,
                password,
            };
            let header = self.change(&call, change).await?;
            Ok(pb::AuthUserAddResponse {
                header: Some(header),
            })
        })
        .await
        .map(Response::new)
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (call, wire) = self.begin(Rpc::UserGet, request);
        call.entry().object(&wire.name);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::AdminOrUser(&wire.name)))
                .await?;
            let auth = self.tenant.auth();
            let user = auth
                .user(&wire.name)
                .ok_or_else(|| refuse(Refusal::Auth(AuthError::UserNotFound)))?;
            Ok(pb::AuthUserGetResponse {
                header: Some(self.header()),
                roles: user.roles.iter().map(ToString::to_string).collect(),
            })
        })
        .await
        .map(Response::new)
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (call, _) = self.begin(Rpc::UserList, request);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::Admin)).await?;
            let auth = self.tenant.auth();
            Ok(pb::AuthUserListResponse {
                header: Some(self.header()),
                users: auth.users().map(|user| user.name.to_string()).collect(),
            })
        })
        .await
        .map(Response::new)
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        change!(self, UserDelete, request, wire => AuthChange::UserDelete { name: wire.name }, AuthUserDeleteResponse)
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (call, wire) = self.begin(Rpc::UserChangePassword, request);
        call.entry().object(&wire.name);
        call.run(async {
            call.authorize(Look(Standing::AdminOrUser(&wire.name)))
                .await?;
            if call.who().is_ok_and(|who| who.how == How::External) {
                // Another issuer's word must not become a password that outlives it.
                return Err(errors::denied(Denied::NotPermitted));
            }
            let _turn = self
                .node()
                .password_change(&wire.name)
                .ok_or_else(|| login_refused(LoginError::Busy))?;
            self.linearizable().await?;
            if self.tenant.auth().user(&wire.name).is_none() {
                return Err(refuse(Refusal::Auth(AuthError::UserNotFound)));
            }
            if !wire.hashed_password.is_empty() {
                // A hash is taken from administrators alone: it could cost more to check than one of ours.
                call.authorize(Look(Standing::Admin)).await?;
            }
            let password = self.hash(wire.password, wire.hashed_password).await?;
            let change = AuthChange::UserChangePassword {
                name: wire.name,
                password: Some(password),
            };
            let header = self.change(&call, change).await?;
            Ok(pb::AuthUserChangePasswordResponse {
                header: Some(header),
            })
        })
        .await
        .map(Response::new)
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        change!(self, UserGrantRole, request, wire => AuthChange::UserGrantRole { user: wire.user, role: wire.role }, AuthUserGrantRoleResponse)
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        change!(self, UserRevokeRole, request, wire => AuthChange::UserRevokeRole { user: wire.name, role: wire.role }, AuthUserRevokeRoleResponse)
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        change!(self, RoleAdd, request, wire => AuthChange::RoleAdd { name: wire.name }, AuthRoleAddResponse)
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (call, wire) = self.begin(Rpc::RoleGet, request);
        call.entry().object(&wire.role);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::AdminOrHolder(&wire.role)))
                .await?;
            let auth = self.tenant.auth();
            let perm = permissions_of(&auth, &wire.role)?;
            Ok(pb::AuthRoleGetResponse {
                header: Some(self.header()),
                perm,
            })
        })
        .await
        .map(Response::new)
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (call, _) = self.begin(Rpc::RoleList, request);
        call.run(async {
            self.linearizable().await?;
            call.authorize(Look(Standing::Admin)).await?;
            let auth = self.tenant.auth();
            Ok(pb::AuthRoleListResponse {
                header: Some(self.header()),
                roles: auth.roles().map(|(name, _)| name.to_owned()).collect(),
            })
        })
        .await
        .map(Response::new)
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        change!(self, RoleDelete, request, wire => AuthChange::RoleDelete { name: wire.role }, AuthRoleDeleteResponse)
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        change!(self, RoleGrantPermission, request, wire => AuthChange::RoleGrantPermission {
            role: wire.name,
            permission: wire.perm.map(permission).transpose()?,
        }, AuthRoleGrantPermissionResponse)
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        change!(self, RoleRevokePermission, request, wire => AuthChange::RoleRevokePermission {
            role: wire.role,
            keys: KeyRange::from_pair(wire.key, wire.range_end),
        }, AuthRoleRevokePermissionResponse)
    }
}

/// What a change is about, for the audit log.
fn object_of(change: &AuthChange) -> String {
    let range = |keys: &KeyRange| {
        let (key, end) = keys.to_pair();
        format!("[{}, {})", key.escape_ascii(), end.escape_ascii())
    };
    match change {
        AuthChange::Enable | AuthChange::Disable | AuthChange::UpgradePassword { .. } => {
            String::new()
        }
        AuthChange::UserAdd { name, .. }
        | AuthChange::UserDelete { name }
        | AuthChange::UserChangePassword { name, .. }
        | AuthChange::RoleAdd { name }
        | AuthChange::RoleDelete { name } => name.clone(),
        AuthChange::UserGrantRole { user, role } | AuthChange::UserRevokeRole { user, role } => {
            format!("{user}, role {role}")
        }
        AuthChange::RoleGrantPermission { role, permission } => match permission {
            Some(permission) => {
                format!("{role}, {:?} {}", permission.kind, range(&permission.keys))
            }
            None => role.clone(),
        },
        AuthChange::RoleRevokePermission { role, keys } => format!("{role}, {}", range(keys)),
    }
}

/// A permission as the wire has it.
fn permission(wire: authpb::Permission) -> Result<Permission, Status> {
    use authpb::permission::Type;
    let kind = match Type::try_from(wire.perm_type) {
        Ok(Type::Read) => PermissionKind::Read,
        Ok(Type::Write) => PermissionKind::Write,
        Ok(Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(refuse(Refusal::Malformed("unknown permission type"))),
    };
    Permission::from_pair(wire.key, wire.range_end, kind)
        .map_err(|error| refuse(Refusal::Auth(error)))
}

fn permissions_of(auth: &AuthState, role: &str) -> Result<Vec<authpb::Permission>, Status> {
    use authpb::permission::Type;
    let name = role;
    let role: &Role = auth
        .role(role)
        .ok_or_else(|| refuse(Refusal::Auth(AuthError::RoleNotFound)))?;
    if name == ROOT {
        // Its permissions are no grants that could be listed; etcd's tools expect this one.
        return Ok(vec![authpb::Permission {
            perm_type: Type::Readwrite as i32,
            key: Bytes::new(),
            range_end: Bytes::from_static(&[0]),
        }]);
    }
    let raise = |permission: &Permission| {
        let (key, range_end) = permission.keys.to_pair();
        let kind = match permission.kind {
            PermissionKind::Read => Type::Read,
            PermissionKind::Write => Type::Write,
            PermissionKind::ReadWrite => Type::Readwrite,
        };
        authpb::Permission {
            perm_type: kind as i32,
            key,
            range_end,
        }
    };
    Ok(role.permissions().map(raise).collect())
}

impl Connection {
    async fn change(
        self: &Arc<Self>,
        call: &Call<'_>,
        change: AuthChange,
    ) -> Result<pb::ResponseHeader, Status> {
        call.entry().object(&object_of(&change));
        let command = call.authorize(Command::Auth(change)).await?;
        match self.commit(call, command).await? {
            Answer::Done { revision, .. } => Ok(self.header_at(revision)),
            _ => Err(unexpected()),
        }
    }

    /// The hash of a new password, or one that was made elsewhere.
    async fn hash(&self, password: String, hashed: String) -> Result<PasswordHash, Status> {
        if password.is_empty() && !hashed.is_empty() {
            return PasswordHash::parse(&hashed)
                .map_err(|error| Status::invalid_argument(format!("etcdserver: {error}")));
        }
        let least = self.node().settings().min_password_length;
        if password.len() < least {
            return Err(Status::invalid_argument(format!(
                "etcdserver: the password is shorter than {least} bytes"
            )));
        }
        self.node()
            .logins
            .hash(self.peer, password.into_bytes())
            .await
            .map_err(login_refused)
    }

    /// Checks a name and a password and gives a token for them.
    async fn login(&self, wire: pb::AuthenticateRequest) -> Result<String, Status> {
        let find = || {
            let auth = self.tenant.auth();
            if !auth.is_enabled() {
                return Err(refuse(Refusal::Auth(AuthError::NotEnabled)));
            }
            let user = auth.user(&wire.name).cloned();
            Ok(user.map(|user| (auth.epochs(&user), user)))
        };
        let user: Option<Arc<User>> = find()?.map(|(_, user)| user);
        let node = self.node();
        let stored = user.as_ref().and_then(|user| user.password.clone());
        let checked = node
            .logins
            .check(
                self.tenant.id,
                &wire.name,
                self.peer,
                wire.password.into_bytes(),
                stored,
            )
            .await
            .map_err(login_refused)?;
        let (Checked::Right { upgrade }, Some(user)) = (checked, user) else {
            return Err(refuse(Refusal::Auth(AuthError::LoginFailed)));
        };
        if let Some(password) = upgrade {
            let change = AuthChange::UpgradePassword {
                user: user.id,
                credential: user.credential,
                password,
            };
            self.worker
                .propose_internal(&self.tenant, &Command::Auth(change))
                .await
                .map_err(|error| self.unanswered(error))?;
        }
        // The user may have changed while the password was checked: what was right then is so no more.
        match find()? {
            Some((epochs, now)) if now.id == user.id && now.credential == user.credential => {
                let claims = Claims {
                    user: now.name.to_string(),
                    user_id: now.id.0,
                    tenant: TENANT.to_owned(),
                    epoch: epochs.epoch,
                    credential: epochs.credential,
                    issued_at: unix_now(),
                    expires_at: unix_now() + node.tokens.ttl().as_secs(),
                };
                let token = node.tokens.mint(&claims).map_err(|error| {
                    tracing::error!(%error, "cannot sign a token");
                    Status::internal("etcdserver: cannot sign a token")
                })?;
                // Without a key that signs, no name and password are good for anything here.
                token.ok_or_else(|| refuse(Refusal::Auth(AuthError::LoginFailed)))
            }
            _ => Err(refuse(Refusal::Auth(AuthError::LoginFailed))),
        }
    }
}

fn login_refused(error: LoginError) -> Status {
    let code = match error {
        LoginError::TooLong => Code::InvalidArgument,
        LoginError::Busy | LoginError::Blocked(_) => Code::ResourceExhausted,
        LoginError::Stopping => Code::Unavailable,
        LoginError::Failed => Code::Internal,
    };
    Status::new(code, error.to_string())
}
