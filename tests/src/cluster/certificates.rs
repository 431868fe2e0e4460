//! The certificates of a cluster: one CA for clients and what serves them, another for peers.

use crate::Raw;
use holdfast_certs::{
    ClientTls, ClientTlsSettings, DevCa, Issued, LeafRequest, Target, TlsConnector,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use tonic::transport::Endpoint;

const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

/// Two CAs with their files.
pub struct Certificates {
    folder: PathBuf,
    clients: DevCa,
    peers: DevCa,
    loaded: Mutex<HashMap<String, ClientTls>>,
}

impl Certificates {
    pub(super) fn new(folder: &Path) -> Self {
        let ca = |name| DevCa::open_or_create(&folder.join(name)).expect("a CA for a test");
        Self {
            folder: folder.to_owned(),
            clients: ca("clients"),
            peers: ca("peers"),
            loaded: Mutex::default(),
        }
    }

    /// The CA of clients, and of what serves them.
    pub fn clients(&self) -> &DevCa {
        &self.clients
    }

    /// The CA of peers.
    pub fn peers(&self) -> &DevCa {
        &self.peers
    }

    /// A certificate by which a member shows itself to others. It names the member.
    pub fn peer(&self, name: &str) -> Issued {
        let request = LeafRequest {
            common_name: name.to_owned(),
            client_auth: true,
            ..LeafRequest::server(LOOPBACK.into_iter().chain([name]))
        };
        self.peers.issue(&request).expect("a peer certificate")
    }

    /// The flags of the member of this name. Its certificates are made when it has none.
    pub(super) fn flags(&self, name: &str) -> Vec<String> {
        let peer = format!("peer-{name}");
        let cert = self.folder.join(format!("{peer}.crt"));
        if !cert.exists() {
            let issued = self.peer(name);
            issued
                .write(&self.folder, &peer)
                .expect("files can be written");
        }
        let clients = self.clients.files();
        let peers = self.peers.files();
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        vec![
            file("cert-file", &clients.server_cert),
            file("key-file", &clients.server_key),
            file("trusted-ca-file", &clients.ca_cert),
            "--client-cert-auth".to_owned(),
            file("peer-cert-file", &cert),
            file("peer-key-file", &self.folder.join(format!("{peer}.key"))),
            file("peer-trusted-ca-file", &peers.ca_cert),
            "--peer-client-cert-auth".to_owned(),
        ]
    }

    /// How a client speaks whose certificate has this common name; `root` is one of them.
    pub fn client(&self, user: &str) -> ClientTls {
        let mut loaded = self.loaded.lock().expect("no test panics with it");
        let load = || {
            let name = format!("client-{user}");
            let issued = self.clients.issue_client(user);
            let issued = issued.expect("a client certificate");
            issued
                .write(&self.folder, &name)
                .expect("files can be written");
            let settings = ClientTlsSettings {
                ca_file: Some(self.clients.files().ca_cert),
                cert_file: Some(self.folder.join(format!("{name}.crt"))),
                key_file: Some(self.folder.join(format!("{name}.key"))),
                ..ClientTlsSettings::default()
            };
            ClientTls::load(&settings).expect("the files can be used")
        };
        loaded.entry(user.to_owned()).or_insert_with(load).clone()
    }
}

/// Stubs that connect when they are used, and again after a connection ended.
pub(super) fn lazy(port: u16, tls: Option<ClientTls>) -> Raw {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let target = Target::parse(&format!("{scheme}://127.0.0.1:{port}"), tls.is_some());
    let connector = TlsConnector::fixed(tls, target.expect("an endpoint"));
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
        .expect("a URI")
        .connect_timeout(Duration::from_secs(2));
    Raw::over(endpoint.connect_with_connector_lazy(connector))
}
