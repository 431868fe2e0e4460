//! Those who have no certificate of a member.

use crate::attacker::{Line, Target};
use crate::security::Dial;
use holdfast_certs::{
    Issued, LeafRequest,
    testing::{TestCa, TestLeaf},
};
use holdfast_proto::peer as pb;
use holdfast_tests::{PATIENCE, eventually, holdfast_only};
use tokio::io::AsyncReadExt;

/// Whoever comes so gets no answer of a member, which counts and logs it.
async fn is_kept_out(target: &Target, dial: &Dial, what: &str) {
    let log = target.cluster.member(0).log();
    let before = target.refused(0, "handshake").await;
    let mark = log.len();
    if let Ok(mut line) = Line::open(dial).await {
        // With TLS 1.3 a refusal may come after our side of the handshake.
        let request = crate::attacker::frame(&pb::DescribeRequest { protocol: 1 });
        let answer = line.call("Describe", request).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    eventually(PATIENCE, "it is counted", async || {
        (target.refused(0, "handshake").await > before).then_some(())
    })
    .await;
    let log = log.clone();
    let look = move || log.wait_after(mark, "rejected connection on peer endpoint", PATIENCE);
    let said = tokio::task::spawn_blocking(look).await.unwrap();
    assert!(said.is_some(), "{what} in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_is_kept_out_at_the_handshake() {
    holdfast_only!();
    let mut target = Target::start().await;
    let certificates = target.cluster.certificates();
    let member = |name: &str| LeafRequest {
        common_name: name.to_owned(),
        client_auth: true,
        ..LeafRequest::server(["localhost", "127.0.0.1"])
    };
    let another = TestCa::new("another CA").unwrap();
    let user = LeafRequest {
        common_name: String::new(),
        uris: vec!["spiffe://holdfast/tenant/default/user/root".to_owned()],
        ..member("")
    };
    let shown: [(&str, Option<Issued>); 7] = [
        ("no certificate", None),
        (
            "a client's certificate",
            Some(certificates.clients().issue_client("root").unwrap()),
        ),
        (
            "a client's certificate with a member's name",
            Some(certificates.clients().issue(&member("m1")).unwrap()),
        ),
        ("a user's certificate", Some(target.certificate(&user))),
        (
            "a certificate for clients only",
            Some(target.certificate(&LeafRequest::client("m1"))),
        ),
        (
            "another CA",
            Some(another.issue(&TestLeaf::member("m1")).unwrap()),
        ),
        (
            "an expired one of another CA",
            Some(another.issue(&TestLeaf::member("m1").expired()).unwrap()),
        ),
    ];
    for (what, shown) in &shown {
        is_kept_out(&target, &target.dial(0, shown.as_ref()), what).await;
    }
    target.serves("strangers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_is_not_answered() {
    holdfast_only!();
    let mut target = Target::start().await;
    let dial = Dial::plain(target.cluster.member(0).peer_port());
    is_kept_out(&target, &dial, "plaintext").await;
    // Nor is a browser, or a client of the peer protocol of others.
    for path in ["/version", "/raft", "/members", "/metrics", "/"] {
        let answer = crate::security::get(&dial, path).await;
        assert!(answer.is_err(), "{path}: {answer:?}");
    }
    // A connection that says nothing is not kept.
    let mut silent = dial.open().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "it is still open");
    target.serves("plaintext").await;
}

/// Whoever reaches a plaintext peer port could speak as any member: it is refused at every start, not at the first alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_does_not_come_back_in_plaintext() {
    holdfast_only!();
    let mut target = Target::start().await;
    let port = target.cluster.member(2).peer_port();
    target.cluster.kill(2);
    let listen = format!("--listen-peer-urls=http://127.0.0.1:{port}");
    target.cluster.add_flag(&listen);
    let exit = target.cluster.try_restart(2).expect_err("it serves");
    let log = exit.log.join("\n");
    // By itself: not because nobody reaches it.
    assert!(exit.status.is_some_and(|status| !status.success()), "{log}");
    assert!(
        log.contains("in profile strict members know each other by certificates"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_not_be_asked_what_clients_ask() {
    holdfast_only!();
    let mut target = Target::start().await;
    let certificate = target.member_certificate(2);
    let mut line = target.line(0, &certificate).await.unwrap();
    for method in ["Put", "../../etcdserverpb.KV/Put", "", "Describe/"] {
        let answer = line.call(method, vec![0; 5]).await.unwrap();
        assert_eq!(answer.code, 12, "{method}: {answer:?}");
    }
    target.serves("other methods").await;
}
