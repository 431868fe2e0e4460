//! The keys that sign tokens, through Holdfast's own administration API.

use holdfast_proto::admin::{ListTokenKeysRequest, RotateTokenKeyRequest};

use super::{Context, bad_arguments, no_arguments};
use crate::{Failure, connect::Retry, output::Answer};

pub(super) async fn rotate(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "token-key rotate command requires no arguments")?;
    let overlap = context.line.duration("overlap");
    // 0 means something else to the server than a moment.
    let whole = overlap.subsec_nanos() == 0;
    let Some(overlap_seconds) = i64::try_from(overlap.as_secs()).ok().filter(|_| whole) else {
        return bad_arguments("--overlap takes whole seconds");
    };
    let response = context
        .client
        .call(Retry::Unsafe, |link| async move {
            let request = RotateTokenKeyRequest { overlap_seconds };
            link.admin().rotate_token_key(request).await
        })
        .await?;
    context.show(Answer::TokenKeyRotated(&response))
}

pub(super) async fn list(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "token-key list command requires no arguments")?;
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            link.admin().list_token_keys(ListTokenKeysRequest {}).await
        })
        .await?;
    context.show(Answer::TokenKeys(&response))
}
