//! endpoint health, status and hashkv: questions to each endpoint by itself.

use std::time::Instant;

use futures::future::join_all;
use holdfast_proto::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvRequest, RangeRequest, StatusRequest,
};
use tonic::{Code, Response, Status};

use super::{Context, members};
use crate::{
    Exit, Failure,
    connect::Link,
    failure::status_text,
    go_syntax::format_duration,
    output::{self, Answer, EndpointAnswer, EndpointHealth, alarm_name},
};

/// The endpoints of `--endpoints`, or with `--cluster` those of all members.
pub(super) async fn endpoints(context: &Context<'_>) -> Result<Vec<String>, Failure> {
    if !context.line.flag("cluster") {
        return Ok(context.client.globals().endpoints.clone());
    }
    let members = members(context).await.map_err(|failure| {
        failure.wrapped(|text| {
            format!("failed to fetch endpoints from etcd cluster member list: {text}")
        })
    })?;
    let urls = members.members.into_iter();
    Ok(urls.flat_map(|member| member.client_ur_ls).collect())
}

pub(super) async fn health(context: &Context<'_>) -> Result<(), Failure> {
    let endpoints = endpoints(context).await?;
    let checks = endpoints.iter().map(|endpoint| check(context, endpoint));
    let results = join_all(checks).await;
    context.show(Answer::Health(&results))?;
    if results.iter().any(|health| health.error.is_some()) {
        return Err(Failure::new(Exit::Error, "unhealthy cluster"));
    }
    Ok(())
}

async fn check(context: &Context<'_>, endpoint: &str) -> EndpointHealth {
    let health = |start: Instant, error| EndpointHealth {
        endpoint: endpoint.to_owned(),
        took: format_duration(start.elapsed()),
        error,
    };
    let start = Instant::now();
    let link = match context.client.link(endpoint).await {
        Ok(link) => link,
        Err(error) => return health(start, Some(Failure::from(error).to_string())),
    };
    // Connecting and authenticating is not what is measured.
    let start = Instant::now();
    // Any key will do: a linearizable read needs a quorum. So does the refusal of one.
    let request = RangeRequest {
        key: "health".into(),
        ..RangeRequest::default()
    };
    let read = context.client.send(link.clone(), |link| {
        let request = request.clone();
        async move { link.kv().range(request).await }
    });
    let mut health = match read.await {
        Ok(_) => health(start, None),
        Err(status) if status.code() == Code::PermissionDenied => health(start, None),
        Err(status) => return health(start, Some(status_text(&status))),
    };
    let alarms = context.client.send(link, |link| async move {
        link.maintenance().alarm(AlarmRequest::default()).await
    });
    health.error = match alarms.await {
        Err(_) => Some("Unable to fetch the alarm list".to_owned()),
        Ok(response) if response.alarms.is_empty() => None,
        Ok(response) => {
            let names =
                response
                    .alarms
                    .iter()
                    .map(|member| match AlarmType::try_from(member.alarm) {
                        Ok(AlarmType::Nospace | AlarmType::Corrupt) => {
                            alarm_name(member.alarm) + " "
                        }
                        _ => "UNKNOWN ".to_owned(),
                    });
            Some(format!("Active Alarm(s): {}", names.collect::<String>()))
        }
    };
    health
}

pub(super) async fn status(context: &Context<'_>) -> Result<(), Failure> {
    let ask = |link: Link| async move { link.maintenance().status(StatusRequest {}).await };
    let (answers, failed) = ask_each(context, "status", ask).await?;
    context.show(Answer::Status(&answers))?;
    match failed {
        Some(_) => Err(Failure::reported(Exit::Error)),
        None => Ok(()),
    }
}

pub(super) async fn hash_kv(context: &Context<'_>) -> Result<(), Failure> {
    let revision = context.line.int("rev");
    let ask =
        |link: Link| async move { link.maintenance().hash_kv(HashKvRequest { revision }).await };
    let (answers, failed) = ask_each(context, "hash", ask).await?;
    context.show(Answer::HashKv(&answers))?;
    failed.map_or(Ok(()), Err)
}

/// Asks the endpoints one after the other, tells of those that do not answer, and gives the last reason.
async fn ask_each<T, R>(
    context: &Context<'_>,
    what: &str,
    ask: impl Fn(Link) -> R,
) -> Result<(Vec<EndpointAnswer<T>>, Option<Failure>), Failure>
where
    R: Future<Output = Result<Response<T>, Status>>,
{
    let mut answers = Vec::new();
    let mut failed = None;
    for endpoint in endpoints(context).await? {
        let answer = match context.client.link(&endpoint).await {
            Ok(link) => context
                .client
                .send(link, &ask)
                .await
                .map_err(|status| Failure::rpc(Exit::Error, &status)),
            Err(error) => Err(error.into()),
        };
        match answer {
            Ok(response) => answers.push(EndpointAnswer { endpoint, response }),
            Err(failure) => {
                let line = format!("Failed to get the {what} of endpoint {endpoint} ({failure})\n");
                output::write_stderr(line.as_bytes());
                failed = Some(failure.with_exit(Exit::Error));
            }
        }
    }
    Ok((answers, failed))
}
