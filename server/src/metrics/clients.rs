//! Requests by the version that clients say they are of. The header is the client's own text, so its values are bounded in shape
//! and number before they become labels.

use super::rpc::Kind;
use super::series::Registrar;
use crate::headers::is_api_version;
use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec};

/// Label for what is not a version, and for versions beyond [`VERSIONS_MAX`].
const UNKNOWN: &str = "unknown";
/// More versions of clients than one cluster meets in its life; each costs two series.
const VERSIONS_MAX: usize = 64;

struct Version {
    text: Box<[u8]>,
    unary: IntCounter,
    stream: IntCounter,
}

impl Version {
    fn count(&self, kind: Kind) {
        match kind {
            Kind::Unary => self.unary.inc(),
            Kind::ServerStream | Kind::BidiStream => self.stream.inc(),
        }
    }
}

pub(super) struct ClientRequests {
    series: IntCounterVec,
    versions: RwLock<Vec<Version>>,
}

impl ClientRequests {
    pub(super) fn new(registrar: &Registrar<'_>) -> ClientRequests {
        ClientRequests {
            series: registrar.counters(
                "etcd_server_client_requests_total",
                "Requests by the version of the API that the client named.",
                &["type", "client_api_version"],
            ),
            versions: RwLock::default(),
        }
    }

    pub(super) fn count(&self, kind: Kind, version: Option<&[u8]>) {
        let text = match version {
            Some(text) if is_api_version(text) => text,
            _ => UNKNOWN.as_bytes(),
        };
        if self.count_known(kind, text) {
            return;
        }
        let mut versions = self.versions.write();
        let text = if versions.len() < VERSIONS_MAX {
            text
        } else {
            UNKNOWN.as_bytes()
        };
        // Another thread may have added it between the two locks.
        if !versions.iter().any(|known| *known.text == *text) {
            let label = std::str::from_utf8(text).unwrap_or(UNKNOWN);
            versions.push(Version {
                text: text.into(),
                unary: self.series.with_label_values(&["unary", label]),
                stream: self.series.with_label_values(&["stream", label]),
            });
        }
        drop(versions);
        self.count_known(kind, text);
    }

    fn count_known(&self, kind: Kind, text: &[u8]) -> bool {
        let versions = self.versions.read();
        let known = versions.iter().find(|known| *known.text == *text);
        known.inspect(|version| version.count(kind)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &prometheus::Registry) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("text")
    }

    #[test]
    fn odd_versions_share_one_label() {
        let registry = prometheus::Registry::new();
        let requests = ClientRequests::new(&Registrar {
            registry: &registry,
        });
        requests.count(Kind::Unary, Some(b"3.7"));
        requests.count(Kind::BidiStream, Some(b"3.7"));
        let odd: [&[u8]; 8] = [
            b"",
            b"\xff\xfe",
            b"3.7\n",
            b"3..7",
            b"3.7.1.2",
            b"11111111111111111",
            b"v3",
            b"3.7\"}",
        ];
        for version in odd {
            requests.count(Kind::Unary, Some(version));
        }
        requests.count(Kind::Unary, None);
        let text = text(&registry);
        let series = "etcd_server_client_requests_total";
        for line in [
            format!("{series}{{client_api_version=\"3.7\",type=\"unary\"}} 1"),
            format!("{series}{{client_api_version=\"3.7\",type=\"stream\"}} 1"),
            format!("{series}{{client_api_version=\"unknown\",type=\"unary\"}} 9"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn a_client_cannot_make_series_without_end() {
        let registry = prometheus::Registry::new();
        let requests = ClientRequests::new(&Registrar {
            registry: &registry,
        });
        for minor in 0..10_000 {
            requests.count(Kind::Unary, Some(format!("3.{minor}").as_bytes()));
        }
        let text = text(&registry);
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines <= 2 * (VERSIONS_MAX + 1), "{lines}");
        assert!(text.contains("client_api_version=\"unknown\",type=\"unary\"} 99"));
    }
}
