//! The connector that HTTP clients use.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails is a test that fails"
)]

mod support;

use std::{pin::Pin, time::Duration};

use holdfast_certs::{ClientIo, ClientTls, ConnectError, Target, TlsConnector, accept};
use support::{DEADLINE, Pki};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};
use tower_service::Service;

async fn echo_one(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut byte = [0; 1];
    io.read_exact(&mut byte).await.unwrap();
    io.write_all(&byte).await.unwrap();
    io.flush().await.unwrap();
}

async fn ask(mut io: ClientIo) {
    io.write_all(b"?").await.unwrap();
    io.flush().await.unwrap();
    let mut byte = [0; 1];
    io.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"?");
}

/// Connects as an HTTP client does.
async fn call(connector: &TlsConnector, uri: &str) -> Result<ClientIo, ConnectError> {
    let mut service = connector.clone();
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    let connecting = service.call(uri.parse().unwrap());
    Ok(connecting.await?.into_inner())
}

fn in_time<'a, T>(work: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(async { tokio::time::timeout(DEADLINE, work).await.unwrap() })
}

#[tokio::test]
async fn the_uri_or_the_fixed_target_decides_about_tls() {
    let pki = Pki::new();
    let server = pki.server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Some(pki.good_client());
    let by_uri = TlsConnector::new(tls.clone());
    let fixed = TlsConnector::fixed(
        tls,
        Target::parse(&format!("https://{address}"), false).unwrap(),
    );
    for (connector, uri) in [
        (&by_uri, format!("https://{address}/x")),
        (&fixed, "http://anything".to_owned()),
    ] {
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let (stream, peer) = accept(&server, tcp).await.unwrap();
            echo_one(stream).await;
            peer.unwrap().common_name
        };
        let dial = async {
            let io = call(connector, &uri).await.unwrap();
            assert!(matches!(io, ClientIo::Tls(_)));
            ask(io).await;
        };
        let (name, ()) = in_time(async { tokio::join!(serve, dial) }).await;
        assert_eq!(name.as_deref(), Some("alice"));
    }
    let serve = async { echo_one(listener.accept().await.unwrap().0).await };
    let dial = async {
        let io = call(&by_uri, &format!("http://{address}")).await.unwrap();
        assert!(matches!(io, ClientIo::Tcp(_)));
        ask(io).await;
    };
    in_time(async { tokio::join!(serve, dial) }).await;
}

#[tokio::test]
async fn unix_sockets_with_and_without_tls() {
    let pki = Pki::new();
    let server = pki.server();
    let path = pki.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    for scheme in ["unix", "unixs"] {
        let endpoint = format!("{scheme}://{}", path.display());
        let target = Target::parse(&endpoint, false).unwrap();
        let uri = target.dial_uri().to_string();
        let connector = TlsConnector::fixed(Some(pki.good_client()), target);
        let serve = async {
            let (unix, _) = listener.accept().await.unwrap();
            if scheme == "unixs" {
                echo_one(accept(&server, unix).await.unwrap().0).await;
            } else {
                echo_one(unix).await;
            }
        };
        let dial = async { ask(call(&connector, &uri).await.unwrap()).await };
        in_time(async { tokio::join!(serve, dial) }).await;
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let pki = Pki::new();
    let plain = TlsConnector::new(None);
    let error = call(&plain, "https://127.0.0.1:1").await.unwrap_err();
    assert!(matches!(error, ConnectError::NoTls(_)), "{error}");
    let error = call(&plain, "/no-host").await.unwrap_err();
    assert!(matches!(error, ConnectError::Target(_)), "{error}");

    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = call(&plain, &format!("http://{address}"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    // A server that does not speak TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client: ClientTls = pki.good_client();
    let connector = TlsConnector::new(Some(client));
    let serve = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Held open until the client has judged.
        let _ = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut [0; 4096])).await;
        tcp
    };
    let uri = format!("https://{address}");
    let (_tcp, result) = in_time(async { tokio::join!(serve, call(&connector, &uri)) }).await;
    let message = result.unwrap_err().to_string();
    assert!(message.contains("does not speak TLS"), "{message}");
}
