//! Two members on loopback, with certificates of any kind.

use std::path::PathBuf;

use holdfast_certs::{
    ConnectError, HandshakeError, Invalid, MemberClaim, PeerIdentity, PeerTls, PeerTlsSettings,
    accept,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, SanType};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Ca, DEADLINE, Leaf, leaf_params, write_private};

pub(crate) const BOTH: [Eku; 2] = [Eku::ServerAuth, Eku::ClientAuth];

/// A directory with the CA of members.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) ca: Ca,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            ca: Ca::new("peer CA"),
        };
        site.write("peer-ca.crt", &site.ca.pem);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write_private(&self.path(name), content.as_ref());
    }

    pub(crate) fn write_pair(&self, name: &str, leaf: &Leaf) {
        self.write(&format!("{name}.crt"), &leaf.pem);
        self.write(&format!("{name}.key"), leaf.key.serialize_pem());
    }

    pub(crate) fn strict(&self, name: &str, leaf: &Leaf) -> PeerTlsSettings {
        self.write_pair(name, leaf);
        let [cert, key] = ["crt", "key"].map(|end| self.path(&format!("{name}.{end}")));
        PeerTlsSettings::named(cert, key, self.path("peer-ca.crt"), name)
    }

    pub(crate) fn etcd(&self, name: &str, leaf: &Leaf) -> PeerTlsSettings {
        let strict = self.strict(name, leaf);
        PeerTlsSettings::any_of_ca(strict.cert_file, strict.key_file, self.path("peer-ca.crt"))
    }

    /// A member of profile `strict` with a sound certificate.
    pub(crate) fn member(&self, name: &str) -> PeerTls {
        let leaf = self.ca.sign(&member_params(name));
        PeerTls::load(self.strict(name, &leaf)).unwrap()
    }

    /// The same of profile `etcd`.
    pub(crate) fn lenient(&self, name: &str) -> PeerTls {
        let leaf = self.ca.sign(&member_params(name));
        PeerTls::load(self.etcd(name, &leaf)).unwrap()
    }
}

pub(crate) fn with_uri(mut params: CertificateParams, uri: &str) -> CertificateParams {
    let uri = SanType::URI(uri.try_into().unwrap());
    params.subject_alt_names.push(uri);
    params
}

pub(crate) fn member_params(name: &str) -> CertificateParams {
    with_uri(
        leaf_params(name, &BOTH),
        &format!("spiffe://holdfast/member/{name}"),
    )
}

pub(crate) type Side = Result<Option<PeerIdentity>, String>;

/// One connection, `dialler` to `listener`. Each side says whom it sees; the handshake is complete on both when it says so.
pub(crate) async fn connection(dialler: &PeerTls, listener: &PeerTls) -> (Side, Side) {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    (
        dialled.map_err(|error| error.to_string()),
        accepted.map_err(|error| error.to_string()),
    )
}

pub(crate) async fn raw_connection(
    dialler: &PeerTls,
    listener: &PeerTls,
) -> (
    Result<Option<PeerIdentity>, HandshakeError>,
    Result<Option<PeerIdentity>, ConnectError>,
) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = socket.accept().await.unwrap();
        let (mut stream, identity) = accept(listener.listener(), tcp).await?;
        let _ = stream.write_all(b"ok").await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 1]).await;
        Ok(identity)
    };
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, identity) = dialler.connect(tcp, "127.0.0.1").await?;
        // A server that refuses our certificate says so only now.
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        read.map_err(|source| ConnectError::Io {
            target: "member".to_owned(),
            source,
        })?;
        assert_eq!(answer, b"ok");
        Ok(identity)
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(serve, dial) })
        .await
        .unwrap()
}

/// What a listener says of the dialler's certificate, which it has to refuse.
pub(crate) async fn refused_by_listener(dialler: &PeerTls, listener: &PeerTls) -> Invalid {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    assert!(
        dialled.is_err(),
        "the dialler believes that it is connected"
    );
    match accepted {
        Err(HandshakeError::Certificate(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

/// What a dialler says of the listener's certificate, which it has to refuse.
pub(crate) async fn refused_by_dialler(dialler: &PeerTls, listener: &PeerTls) -> Invalid {
    let (accepted, dialled) = raw_connection(dialler, listener).await;
    assert!(
        accepted.is_err(),
        "the listener believes that it is connected"
    );
    match dialled {
        Err(ConnectError::Certificate { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn claim<'a>(name: &'a str, known: Option<&'a str>) -> MemberClaim<'a> {
    MemberClaim {
        name,
        known,
        named_elsewhere: false,
    }
}
