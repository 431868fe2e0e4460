//! What a refused call looks like to a client.

use tonic::{Code, Status};

/// The call must be refused with exactly this code and text.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    match answer {
        Ok(answer) => panic!("accepted, not refused with {code:?} {text:?}: {answer:?}"),
        Err(status) => assert_eq!((status.code(), status.message()), (code, text)),
    }
}

/// As [`refused`], for calls through the `etcd-client` crate.
#[track_caller]
pub fn refused_by<T: std::fmt::Debug>(
    answer: Result<T, etcd_client::Error>,
    code: Code,
    text: &str,
) {
    match answer {
        Err(etcd_client::Error::GRpcStatus(status)) => refused::<()>(Err(status), code, text),
        other => panic!("not refused with {code:?} {text:?}: {other:?}"),
    }
}
