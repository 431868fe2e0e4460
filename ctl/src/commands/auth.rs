//! auth enable, disable and status.

use holdfast_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

use super::{Context, no_arguments};
use crate::{
    Failure,
    connect::Retry,
    output::{self, Answer},
};

/// The user, and the role, that may do everything.
const ROOT: &str = "root";

pub(super) async fn enable(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "auth enable command does not accept any arguments")?;
    match switch_on(context).await {
        Err(failure) if failure.text() == Some("etcdserver: root user does not have root role") => {
            make_root(context).await?;
            switch_on(context).await?;
        }
        result => result?,
    }
    output::write_stdout(b"Authentication Enabled\n")
}

async fn switch_on(context: &Context<'_>) -> Result<(), Failure> {
    context
        .client
        .call(Retry::Unsafe, |link| async move {
            link.auth().auth_enable(AuthEnableRequest {}).await
        })
        .await
        .map(drop)
}

/// Gives the user root the role root, which is made first: etcd wants a record of it for `role get`.
async fn make_root(context: &Context<'_>) -> Result<(), Failure> {
    let added = context
        .client
        .call(Retry::Unsafe, |link| async move {
            let request = AuthRoleAddRequest {
                name: ROOT.to_owned(),
            };
            link.auth().role_add(request).await
        })
        .await;
    match added {
        Err(failure) if failure.text() != Some("etcdserver: role name already exists") => {
            return Err(failure);
        }
        _ => {}
    }
    context
        .client
        .call(Retry::Unsafe, |link| async move {
            let request = AuthUserGrantRoleRequest {
                user: ROOT.to_owned(),
                role: ROOT.to_owned(),
            };
            link.auth().user_grant_role(request).await
        })
        .await
        .map(drop)
}

pub(super) async fn disable(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(
        context,
        "auth disable command does not accept any arguments",
    )?;
    context
        .client
        .call(Retry::Unsafe, |link| async move {
            link.auth().auth_disable(AuthDisableRequest {}).await
        })
        .await?;
    output::write_stdout(b"Authentication Disabled\n")
}

pub(super) async fn status(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "auth status command does not accept any arguments")?;
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            link.auth().auth_status(AuthStatusRequest {}).await
        })
        .await?;
    context.show(Answer::AuthStatus(&response))
}
