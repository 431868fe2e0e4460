//! A CA, and a server under its certificates.

use super::{Answer, Dial, get};
use holdfast_certs::{
    ClientTls, ClientTlsSettings, Issued,
    testing::{TestCa, TestCrl, TestLeaf},
};
use holdfast_tests::{Kind, Raw, Server, ServerOptions, free_port};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};
use tempfile::TempDir;

/// A CA with the files of one server.
pub(crate) struct Site {
    dir: TempDir,
    pub(crate) ca: TestCa,
    written: AtomicUsize,
}

impl Site {
    /// A CA whose only certificate so far is the server's.
    pub(crate) fn new() -> Self {
        Self::with_server(&TestLeaf::server(&["localhost", "127.0.0.1"]))
    }

    /// The same with another certificate of the server.
    pub(crate) fn with_server(server: &TestLeaf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new("the clients' CA").unwrap();
        ca.write_cert(dir.path(), "ca").unwrap();
        ca.issue(server)
            .unwrap()
            .write(dir.path(), "server")
            .unwrap();
        Self {
            dir,
            ca,
            written: AtomicUsize::new(0),
        }
    }

    /// A file of the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate of the CA.
    pub(crate) fn issue(&self, leaf: &TestLeaf) -> Issued {
        self.ca.issue(leaf).unwrap()
    }

    /// A client certificate with this common name.
    pub(crate) fn client(&self, common_name: &str) -> Issued {
        self.issue(&TestLeaf::client(common_name))
    }

    /// A client certificate that names nobody.
    pub(crate) fn nobody(&self) -> Issued {
        self.client("")
    }

    /// Writes the revocation list that the server reads.
    pub(crate) fn revoke(&self, list: &TestCrl) {
        let written = self.ca.write_revocation_list(self.dir.path(), "list", list);
        written.unwrap();
    }

    /// The client's side: shows `shown`, if anything, and speaks `alpn`.
    pub(crate) fn tls(&self, shown: Option<&Issued>, alpn: &str) -> ClientTls {
        let mut settings = ClientTlsSettings {
            ca_file: Some(self.path("ca.crt")),
            alpn: vec![alpn.to_owned()],
            ..ClientTlsSettings::default()
        };
        if let Some(shown) = shown {
            let name = format!("shown-{}", self.written.fetch_add(1, Ordering::Relaxed));
            shown.write(self.dir.path(), &name).unwrap();
            settings.cert_file = Some(self.path(&format!("{name}.crt")));
            settings.key_file = Some(self.path(&format!("{name}.key")));
        }
        ClientTls::load(&settings).unwrap()
    }

    /// The flags of a server that asks for certificates of this CA, on these ports.
    pub(crate) fn flags(&self, port: u16, metrics_port: u16) -> ServerOptions {
        let file = |name: &str| self.path(name).display().to_string();
        ServerOptions::new()
            .flag(format!("--listen-client-urls=https://127.0.0.1:{port}"))
            .flag(format!("--advertise-client-urls=https://127.0.0.1:{port}"))
            .flag(format!(
                "--listen-metrics-urls=https://127.0.0.1:{metrics_port}"
            ))
            .flag(format!("--cert-file={}", file("server.crt")))
            .flag(format!("--key-file={}", file("server.key")))
            .flag(format!("--trusted-ca-file={}", file("ca.crt")))
            .flag("--client-cert-auth")
    }

    /// A server of profile `strict`: authentication is on, and `root` is whoever has a certificate of that name.
    pub(crate) fn strict(&self, flags: &[&str]) -> Secured<'_> {
        let flags: Vec<_> = flags.iter().copied().chain(["--profile=strict"]).collect();
        self.start(&flags)
    }

    /// A server with these flags beside those for TLS.
    pub(crate) fn start(&self, flags: &[&str]) -> Secured<'_> {
        for _ in 0..5 {
            let (port, metrics_port) = (free_port(), free_port());
            let options = flags
                .iter()
                .fold(self.flags(port, metrics_port), |options, flag| {
                    options.flag(*flag)
                });
            match Server::try_start(options) {
                Ok(server) => {
                    return Secured {
                        site: self,
                        server,
                        port,
                        metrics_port,
                    };
                }
                Err(exit) if exit.says("ddress already in use") => {}
                Err(exit) => panic!("the server did not start: {exit:#?}"),
            }
        }
        panic!("no free ports");
    }
}

/// A server with TLS on both of its listeners.
pub(crate) struct Secured<'a> {
    site: &'a Site,
    pub(crate) server: Server,
    /// Of the clients' listener.
    pub(crate) port: u16,
    /// Of the listener for metrics and health.
    pub(crate) metrics_port: u16,
}

impl Secured<'_> {
    /// gRPC as whom `shown` names; or why there is no connection.
    pub(crate) async fn try_raw(&self, shown: Option<&Issued>) -> Result<Raw, String> {
        let tls = self.site.tls(shown, "h2");
        Dial::tls(self.port, tls).raw().await
    }

    /// gRPC as whom `shown` names.
    pub(crate) async fn raw(&self, shown: &Issued) -> Raw {
        self.try_raw(Some(shown)).await.unwrap()
    }

    /// gRPC as `root`.
    pub(crate) async fn root(&self) -> Raw {
        self.raw(&self.site.client("root")).await
    }

    /// Adds a user that has no password, with a role of the same name for these keys.
    pub(crate) async fn add_user(&self, root: &Raw, name: &str, key: &str, end: &str) {
        root.user_add_without_password(name).await.unwrap();
        root.role_add(name).await.unwrap();
        root.role_grant(name, (Kind::Readwrite, key, end))
            .await
            .unwrap();
        root.user_grant_role(name, name).await.unwrap();
    }

    /// A page of the clients' listener.
    pub(crate) async fn page(&self, shown: Option<&Issued>, path: &str) -> Result<Answer, String> {
        get(&self.http(shown), path).await
    }

    /// HTTP/1.1 on the clients' listener.
    pub(crate) fn http(&self, shown: Option<&Issued>) -> Dial {
        Dial::tls(self.port, self.site.tls(shown, "http/1.1"))
    }

    /// HTTP/1.1 on the listener for metrics.
    pub(crate) fn metrics_http(&self, shown: Option<&Issued>) -> Dial {
        Dial::tls(self.metrics_port, self.site.tls(shown, "http/1.1"))
    }

    /// The metrics page.
    pub(crate) async fn metrics(&self) -> String {
        let dial = self.metrics_http(Some(&self.site.nobody()));
        get(&dial, "/metrics").await.unwrap().text
    }

    /// Handshakes that failed for this reason.
    pub(crate) async fn failed_handshakes(&self, reason: &str) -> f64 {
        let series = format!("holdfast_handshakes_failed_total{{reason=\"{reason}\"}}");
        super::sample(&self.metrics().await, &series).unwrap_or(0.0)
    }
}
