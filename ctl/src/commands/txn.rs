//! txn

use std::io;

use super::{Context, bad_arguments};
use crate::{Failure, connect::Retry, output, output::Answer, txn::read_transaction};

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    if !context.line.positional().is_empty() {
        return bad_arguments("txn command does not accept argument");
    }
    let interactive = context.line.flag("interactive");
    let request = read_transaction(io::stdin().lock(), |text| {
        if interactive {
            output::write_stdout(format!("{text}\n").as_bytes())?;
        }
        Ok(())
    })?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.kv().txn(request).await }
        })
        .await?;
    context.show(Answer::Txn(&response))
}
