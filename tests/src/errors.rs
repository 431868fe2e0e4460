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

/// The caller is known, and may not.
#[track_caller]
pub fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) {
    refused(
        answer,
        Code::PermissionDenied,
        "etcdserver: permission denied",
    );
}

/// Nobody was named as the caller.
#[track_caller]
pub fn unidentified<T: std::fmt::Debug>(answer: Result<T, Status>) {
    refused(
        answer,
        Code::InvalidArgument,
        "etcdserver: user name is empty",
    );
}

/// The token stands for nobody, or no longer.
#[track_caller]
pub fn bad_token<T: std::fmt::Debug>(answer: Result<T, Status>) {
    refused(
        answer,
        Code::Unauthenticated,
        "etcdserver: invalid auth token",
    );
}

/// Refused as [`denied`] or [`bad_token`]: where servers differ in which of the two it is.
#[track_caller]
pub fn turned_away<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("turned away");
    let expected = match status.code() {
        Code::PermissionDenied => "etcdserver: permission denied",
        _ => "etcdserver: invalid auth token",
    };
    assert_eq!(status.message(), expected);
    assert!(
        matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated
        ),
        "{status:?}"
    );
}
