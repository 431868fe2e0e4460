use super::*;
use crate::metrics::Gauges;
use holdfast_certs::Issued;
use holdfast_certs::testing::{TestLeaf, TestPeers};
use std::time::{Duration, SystemTime};

/// What the page of metrics says of the end of these certificates; `None`: nothing.
fn ends(metrics: &Metrics) -> [Option<f64>; 3] {
    let page = metrics.render(&Gauges::default());
    ["server", "client", "ca"].map(|label| {
        let series =
            format!("holdfast_peer_certificate_not_after_seconds{{certificate=\"{label}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series))?;
        Some(value.parse().expect("a number"))
    })
}

fn until(issued: &Issued) -> Option<f64> {
    let since = issued.not_after.duration_since(SystemTime::UNIX_EPOCH);
    // Certificates say whole seconds.
    Some(since.expect("a time of today").as_secs() as f64)
}

#[test]
fn the_ends_of_members_certificates_are_shown_and_follow_the_files() {
    let dir = tempfile::tempdir().expect("directory");
    let peers = TestPeers::new(dir.path(), &["one"]).expect("certificates");
    let ending_in = |hours: u64| TestLeaf {
        not_after: SystemTime::now() + Duration::from_secs(hours * 3600),
        ..TestLeaf::member("one")
    };
    let issue = |name: &str, hours| peers.add(name, &ending_in(hours)).expect("a certificate");
    let (serving, dialling) = (issue("one", 3), issue("dialling", 2));
    let mut settings = peers.settings("one");
    let (cert, key) = peers.pair("dialling");
    (settings.client_cert_file, settings.client_key_file) = (Some(cert), Some(key));
    let tls = PeerTls::load(settings).expect("sound files");
    let metrics = Metrics::new(false);
    assert_eq!(ends(&metrics), [None; 3]);
    peers_expire(&tls.listener().report(), &metrics);
    let ca = until(&peers.ca.itself());
    assert_eq!(ends(&metrics), [until(&serving), until(&dialling), ca]);
    let renewed = issue("dialling", 5);
    poll_peers(&tls, &metrics);
    assert_eq!(ends(&metrics), [until(&serving), until(&renewed), ca]);
    let certificate = peers.pair("one").0;
    std::fs::write(certificate, "no certificate").expect("a file");
    poll_peers(&tls, &metrics);
    assert_eq!(ends(&metrics), [until(&serving), until(&renewed), ca]);
}
