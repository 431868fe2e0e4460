//! alarm list, alarm disarm and defrag.

use std::time::Instant;

use holdfast_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, DefragmentRequest, alarm_request::AlarmAction,
};

use super::{Context, bad_arguments, endpoint::endpoints};
use crate::{
    Exit, Failure,
    connect::Retry,
    go_syntax::format_duration,
    output::{self, Answer},
};

pub(super) async fn alarm_list(context: &Context<'_>) -> Result<(), Failure> {
    if !context.line.positional().is_empty() {
        return bad_arguments("alarm list command accepts no arguments");
    }
    context.show(Answer::Alarms(&alarms(context).await?))
}

/// Clears the alarms one by one. The answer has no header, because it is of no single request.
pub(super) async fn alarm_disarm(context: &Context<'_>) -> Result<(), Failure> {
    if !context.line.positional().is_empty() {
        return bad_arguments("alarm disarm command accepts no arguments");
    }
    let mut disarmed = AlarmResponse::default();
    for AlarmMember { member_id, alarm } in alarms(context).await?.alarms {
        let response = context
            .client
            // Clearing an alarm twice is clearing it once.
            .call(Retry::Safe, |link| async move {
                let request = AlarmRequest {
                    action: AlarmAction::Deactivate.into(),
                    member_id,
                    alarm,
                };
                link.maintenance().alarm(request).await
            })
            .await?;
        disarmed.alarms.extend(response.alarms);
    }
    context.show(Answer::Alarms(&disarmed))
}

async fn alarms(context: &Context<'_>) -> Result<AlarmResponse, Failure> {
    context
        .client
        .call(Retry::Safe, |link| async move {
            // The default action is to get those of all members.
            link.maintenance().alarm(AlarmRequest::default()).await
        })
        .await
}

pub(super) async fn defrag(context: &Context<'_>) -> Result<(), Failure> {
    let mut failed = false;
    for endpoint in endpoints(context).await? {
        let start = Instant::now();
        let result = match context.client.link(&endpoint).await {
            Ok(link) => {
                let sent = context.client.send(link, |link| async move {
                    link.maintenance().defragment(DefragmentRequest {}).await
                });
                sent.await
                    .map_err(|status| Failure::rpc(Exit::Error, &status))
            }
            Err(error) => Err(error.into()),
        };
        let took = format_duration(start.elapsed());
        match result {
            Ok(_) => output::write_stdout(
                format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n").as_bytes(),
            )?,
            Err(failure) => {
                failed = true;
                output::write_stderr(
                    format!(
                        "Failed to defragment etcd member[{endpoint}]. took {took}. ({failure})\n"
                    )
                    .as_bytes(),
                );
            }
        }
    }
    if failed {
        return Err(Failure::reported(Exit::Error));
    }
    Ok(())
}
