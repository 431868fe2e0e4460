//! Users, roles and permissions: the Auth service, and a server whose auth is on.

use crate::{Raw, Server, ServerOptions, is_reference, raw::unary};
use bytes::Bytes;
use holdfast_proto::{authpb, etcdserverpb as pb};
use tonic::Status;

pub use authpb::permission::Type as Kind;

/// The password of `root` on a [`Guarded`] server.
pub const ROOT_PASSWORD: &str = "root's long password";

/// A permission as tests write it: kind, key and range end.
pub type Permission<'a> = (Kind, &'a str, &'a str);

impl Raw {
    /// The same connection, as whoever this token stands for.
    pub fn with_token(&self, token: &str) -> Self {
        self.with_metadata(&[("token", token)])
    }

    /// The same connection, as nobody.
    pub fn anonymous(&self) -> Self {
        self.with_metadata(&[])
    }

    /// The same connection, logged in.
    pub async fn login(&self, user: &str, password: &str) -> Result<Self, Status> {
        Ok(self.with_token(&self.authenticate(user, password).await?))
    }

    unary!(
        /// Auth.AuthEnable with its request.
        enable_call, auth.auth_enable, pb::AuthEnableRequest, pb::AuthEnableResponse
    );
    unary!(
        /// Auth.AuthDisable with its request.
        disable_call, auth.auth_disable, pb::AuthDisableRequest, pb::AuthDisableResponse
    );
    unary!(
        /// Auth.AuthStatus with its request.
        auth_status_call, auth.auth_status, pb::AuthStatusRequest, pb::AuthStatusResponse
    );
    unary!(
        /// Auth.Authenticate with its request.
        authenticate_call, auth.authenticate, pb::AuthenticateRequest, pb::AuthenticateResponse
    );
    unary!(
        /// Auth.UserAdd with every option.
        user_add_call, auth.user_add, pb::AuthUserAddRequest, pb::AuthUserAddResponse
    );
    unary!(
        /// Auth.UserGet with its request.
        user_get_call, auth.user_get, pb::AuthUserGetRequest, pb::AuthUserGetResponse
    );
    unary!(
        /// Auth.UserList with its request.
        user_list_call, auth.user_list, pb::AuthUserListRequest, pb::AuthUserListResponse
    );
    unary!(
        /// Auth.UserDelete with its request.
        user_delete_call, auth.user_delete, pb::AuthUserDeleteRequest, pb::AuthUserDeleteResponse
    );
    unary!(
        /// Auth.UserChangePassword with every option.
        change_password_call, auth.user_change_password, pb::AuthUserChangePasswordRequest,
        pb::AuthUserChangePasswordResponse
    );
    unary!(
        /// Auth.UserGrantRole with its request.
        user_grant_role_call, auth.user_grant_role, pb::AuthUserGrantRoleRequest, pb::AuthUserGrantRoleResponse
    );
    unary!(
        /// Auth.UserRevokeRole with its request.
        user_revoke_role_call, auth.user_revoke_role, pb::AuthUserRevokeRoleRequest, pb::AuthUserRevokeRoleResponse
    );
    unary!(
        /// Auth.RoleAdd with its request.
        role_add_call, auth.role_add, pb::AuthRoleAddRequest, pb::AuthRoleAddResponse
    );
    unary!(
        /// Auth.RoleGet with its request.
        role_get_call, auth.role_get, pb::AuthRoleGetRequest, pb::AuthRoleGetResponse
    );
    unary!(
        /// Auth.RoleList with its request.
        role_list_call, auth.role_list, pb::AuthRoleListRequest, pb::AuthRoleListResponse
    );
    unary!(
        /// Auth.RoleDelete with its request.
        role_delete_call, auth.role_delete, pb::AuthRoleDeleteRequest, pb::AuthRoleDeleteResponse
    );
    unary!(
        /// Auth.RoleGrantPermission with every option.
        role_grant_call, auth.role_grant_permission, pb::AuthRoleGrantPermissionRequest,
        pb::AuthRoleGrantPermissionResponse
    );
    unary!(
        /// Auth.RoleRevokePermission with any bytes.
        role_revoke_call, auth.role_revoke_permission, pb::AuthRoleRevokePermissionRequest,
        pb::AuthRoleRevokePermissionResponse
    );

    /// Turns auth on.
    pub async fn enable_auth(&self) -> Result<pb::AuthEnableResponse, Status> {
        self.enable_call(pb::AuthEnableRequest {}).await
    }

    /// Turns auth off.
    pub async fn disable_auth(&self) -> Result<pb::AuthDisableResponse, Status> {
        self.disable_call(pb::AuthDisableRequest {}).await
    }

    /// Whether auth is on, and the auth revision.
    pub async fn auth_status(&self) -> Result<pb::AuthStatusResponse, Status> {
        self.auth_status_call(pb::AuthStatusRequest {}).await
    }

    /// The auth revision.
    pub async fn auth_revision(&self) -> u64 {
        let status = self.auth_status().await.expect("the auth status is open");
        status.auth_revision
    }

    /// A token for a name and a password.
    pub async fn authenticate(&self, user: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest {
            name: user.to_owned(),
            password: password.to_owned(),
        };
        Ok(self.authenticate_call(request).await?.token)
    }

    /// Adds a user with a password.
    pub async fn user_add(
        &self,
        user: &str,
        password: &str,
    ) -> Result<pb::AuthUserAddResponse, Status> {
        self.user_add_call(pb::AuthUserAddRequest {
            name: user.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        })
        .await
    }

    /// Adds a user that has no password.
    pub async fn user_add_without_password(
        &self,
        user: &str,
    ) -> Result<pb::AuthUserAddResponse, Status> {
        self.user_add_call(pb::AuthUserAddRequest {
            name: user.to_owned(),
            options: Some(authpb::UserAddOptions { no_password: true }),
            ..Default::default()
        })
        .await
    }

    /// The roles of a user.
    pub async fn user_get(&self, user: &str) -> Result<Vec<String>, Status> {
        let name = user.to_owned();
        let answer = self.user_get_call(pb::AuthUserGetRequest { name }).await?;
        Ok(answer.roles)
    }

    /// All users.
    pub async fn user_list(&self) -> Result<Vec<String>, Status> {
        let answer = self.user_list_call(pb::AuthUserListRequest {}).await?;
        Ok(answer.users)
    }

    /// Deletes a user.
    pub async fn user_delete(&self, user: &str) -> Result<pb::AuthUserDeleteResponse, Status> {
        let name = user.to_owned();
        self.user_delete_call(pb::AuthUserDeleteRequest { name })
            .await
    }

    /// Gives a user another password.
    pub async fn change_password(
        &self,
        user: &str,
        password: &str,
    ) -> Result<pb::AuthUserChangePasswordResponse, Status> {
        self.change_password_call(pb::AuthUserChangePasswordRequest {
            name: user.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        })
        .await
    }

    /// Gives a user a role.
    pub async fn user_grant_role(
        &self,
        user: &str,
        role: &str,
    ) -> Result<pb::AuthUserGrantRoleResponse, Status> {
        self.user_grant_role_call(pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        })
        .await
    }

    /// Takes a role from a user.
    pub async fn user_revoke_role(
        &self,
        user: &str,
        role: &str,
    ) -> Result<pb::AuthUserRevokeRoleResponse, Status> {
        self.user_revoke_role_call(pb::AuthUserRevokeRoleRequest {
            name: user.to_owned(),
            role: role.to_owned(),
        })
        .await
    }

    /// Adds a role.
    pub async fn role_add(&self, role: &str) -> Result<pb::AuthRoleAddResponse, Status> {
        let name = role.to_owned();
        self.role_add_call(pb::AuthRoleAddRequest { name }).await
    }

    /// The permissions of a role.
    pub async fn role_get(&self, role: &str) -> Result<Vec<authpb::Permission>, Status> {
        let role = role.to_owned();
        let answer = self.role_get_call(pb::AuthRoleGetRequest { role }).await?;
        Ok(answer.perm)
    }

    /// All roles.
    pub async fn role_list(&self) -> Result<Vec<String>, Status> {
        let answer = self.role_list_call(pb::AuthRoleListRequest {}).await?;
        Ok(answer.roles)
    }

    /// Deletes a role.
    pub async fn role_delete(&self, role: &str) -> Result<pb::AuthRoleDeleteResponse, Status> {
        let role = role.to_owned();
        self.role_delete_call(pb::AuthRoleDeleteRequest { role })
            .await
    }

    /// Gives a role a permission.
    pub async fn role_grant(
        &self,
        role: &str,
        (kind, key, end): Permission<'_>,
    ) -> Result<pb::AuthRoleGrantPermissionResponse, Status> {
        self.role_grant_call(pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(authpb::Permission {
                perm_type: kind.into(),
                key: crate::wire::b(key),
                range_end: crate::wire::b(end),
            }),
        })
        .await
    }

    /// Takes the permission on `(key, end)` from a role.
    pub async fn role_revoke(
        &self,
        role: &str,
        key: &str,
        end: &str,
    ) -> Result<pb::AuthRoleRevokePermissionResponse, Status> {
        self.role_revoke_call(pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: crate::wire::b(key),
            range_end: crate::wire::b(end),
        })
        .await
    }

    /// Makes a role have exactly these permissions.
    pub async fn role_set(&self, role: &str, permissions: &[Permission<'_>]) {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("tests grant text");
        for old in self.role_get(role).await.expect("the role exists") {
            self.role_revoke(role, &text(&old.key), &text(&old.range_end))
                .await
                .expect("a permission is revoked");
        }
        for permission in permissions {
            self.role_grant(role, *permission)
                .await
                .expect("a permission is granted");
        }
    }
}

/// A server with auth on and a connection of `root`.
pub struct Guarded {
    /// The server.
    pub server: Server,
    /// `root`, logged in by password.
    pub root: Raw,
}

impl Guarded {
    /// Starts a plain server and turns auth on.
    pub async fn start() -> Self {
        Self::start_with(ServerOptions::new()).await
    }

    /// Starts a server whose auth is off at first, and turns it on.
    pub async fn start_with(options: ServerOptions) -> Self {
        let server = Server::start_with(Self::options(options));
        let raw = server.raw().await;
        raw.user_add("root", ROOT_PASSWORD).await.expect("root");
        raw.user_grant_role("root", "root").await.expect("its role");
        raw.enable_auth().await.expect("auth can be enabled");
        let root = raw
            .login("root", ROOT_PASSWORD)
            .await
            .expect("root logs in");
        Self { server, root }
    }

    /// The options of a server whose passwords are quickly checked, where that can be chosen.
    pub fn options(options: ServerOptions) -> ServerOptions {
        if is_reference() {
            options.flag("--bcrypt-cost=4")
        } else {
            options
        }
    }

    /// Adds a user with a role of the same name that has exactly these permissions, and logs it in on the same connection.
    pub async fn user(&self, name: &str, permissions: &[Permission<'_>]) -> Raw {
        self.add_user(name, permissions).await;
        self.login(name).await
    }

    /// Adds a user with a role of the same name that has exactly these permissions. Its password is [`password_of`] its name.
    pub async fn add_user(&self, name: &str, permissions: &[Permission<'_>]) {
        let root = &self.root;
        root.user_add(name, &password_of(name))
            .await
            .expect("a user");
        root.role_add(name).await.expect("a role");
        root.role_set(name, permissions).await;
        root.user_grant_role(name, name).await.expect("its role");
    }

    /// Logs a user of [`Guarded::add_user`] in, on the same connection.
    pub async fn login(&self, name: &str) -> Raw {
        self.root
            .login(name, &password_of(name))
            .await
            .expect("the user logs in")
    }

    /// The same connection, as nobody.
    pub fn anonymous(&self) -> Raw {
        self.root.anonymous()
    }
}

/// The password that [`Guarded::add_user`] gives a user.
pub fn password_of(user: &str) -> String {
    format!("the password of {user}")
}
