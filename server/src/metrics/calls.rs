//! Counters of RPCs: one array slot each, so that counting hashes no label and takes no lock.

use super::rpc::Rpc;
use super::series::Registrar;
use prometheus::{Histogram, IntCounter};
use std::time::Duration;
use tonic::Code;

/// etcd's names of the status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
const LABELS_WITH_CODE: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];

/// Bounds of `grpc_server_handling_seconds`: the default ones of Prometheus' clients, which etcd has too.
const HANDLING_SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

struct OfRpc {
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: [IntCounter; CODES.len()],
    handling: Option<Histogram>,
}

pub(super) struct Calls {
    /// By the discriminant of [`Rpc`].
    of: Vec<OfRpc>,
}

impl Calls {
    pub(super) fn new(registrar: &Registrar<'_>, extensive: bool) -> Calls {
        let started = registrar.counters(
            "grpc_server_started_total",
            "RPCs that began on this server.",
            &LABELS,
        );
        let handled = registrar.counters(
            "grpc_server_handled_total",
            "RPCs that ended on this server, by status code.",
            &LABELS_WITH_CODE,
        );
        let received = registrar.counters(
            "grpc_server_msg_received_total",
            "Messages of RPCs that arrived.",
            &LABELS,
        );
        let sent = registrar.counters(
            "grpc_server_msg_sent_total",
            "Messages of RPCs that were sent.",
            &LABELS,
        );
        let handling = extensive.then(|| {
            registrar.histograms(
                "grpc_server_handling_seconds",
                "Time from the begin of an RPC to its end.",
                &LABELS,
                HANDLING_SECONDS.to_vec(),
            )
        });
        let of = Rpc::ALL
            .iter()
            .map(|rpc| {
                let labels = [rpc.kind().as_str(), rpc.service(), rpc.method()];
                let [kind, service, method] = labels;
                OfRpc {
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODES
                        .map(|code| handled.with_label_values(&[kind, service, method, code])),
                    handling: handling
                        .as_ref()
                        .map(|histograms| histograms.with_label_values(&labels)),
                }
            })
            .collect();
        Calls { of }
    }

    pub(super) fn started(&self, rpc: Rpc) {
        self.of[rpc as usize].started.inc();
    }

    pub(super) fn handled(&self, rpc: Rpc, code: Code, took: Duration) {
        let of = &self.of[rpc as usize];
        of.handled[code as i32 as usize % CODES.len()].inc();
        if let Some(handling) = &of.handling {
            handling.observe(took.as_secs_f64());
        }
    }

    pub(super) fn received(&self, rpc: Rpc, messages: u64) {
        self.of[rpc as usize].received.inc_by(messages);
    }

    pub(super) fn sent(&self, rpc: Rpc, messages: u64) {
        self.of[rpc as usize].sent.inc_by(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_where_their_number_points() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(number as i32);
            assert_eq!(code as i32 as usize, number);
            // tonic and grpc-go spell one of them differently.
            let known = format!("{code:?}").replace("Cancelled", "Canceled");
            assert!(known.eq_ignore_ascii_case(name), "{known} {name}");
        }
    }
}
