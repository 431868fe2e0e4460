//! The verdict on the certificates of others, for the handshake and for the re-check of live connections alike.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};

use crate::{
    anchors::{AnchorFacts, Anchors},
    crl::Crls,
    error::{Invalid, TlsError, Warning},
    identity::{LeafNames, PeerIdentity},
    key_material::{parse, system_time},
    member::MemberRules,
    provider::provider,
    settings::{CrlExpiry, CrlUnknown, EkuPolicy, ServerTlsSettings},
};

/// Most certificates that may be presented. Path building can be made to try orders; few certificates keep that cheap.
const MAX_PRESENTED: usize = 8;
/// With more CAs than this, clients are not told which ones are accepted: the list would fill the handshake message.
const MAX_HINTS: usize = 64;

/// On which side the holder of a certificate stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role<'a> {
    /// It connected to us.
    Client,
    /// We connected to it, at this name.
    Server(&'a ServerName<'a>),
}

/// Everything that a certificate is judged by.
#[derive(Debug)]
pub(crate) struct Trust {
    cas: Anchors,
    crls: Crls,
    crl_expiry: CrlExpiry,
    crl_unknown: CrlUnknown,
    eku: EkuPolicy,
    allowed_common_names: Vec<String>,
    allowed_hostnames: Vec<ServerName<'static>>,
    /// For certificates of other members; `None` for those of clients.
    members: Option<MemberRules>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    pub(crate) fn new(
        settings: &ServerTlsSettings,
        members: Option<MemberRules>,
        cas: Anchors,
        crls: Option<Crls>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, TlsError> {
        let mut allowed_hostnames = Vec::with_capacity(settings.allowed_hostnames.len());
        for name in &settings.allowed_hostnames {
            let parsed = ServerName::try_from(name.clone()).map_err(|_| {
                TlsError::Settings(format!(
                    "allowed host name {name:?} is neither a DNS name nor an address"
                ))
            })?;
            allowed_hostnames.push(parsed);
        }
        if let Some(crls) = &crls {
            for ca in &cas.facts {
                if !crls.issuers.contains(&ca.subject_der) {
                    warnings.push(Warning::CaWithoutCrl {
                        subject: ca.subject.clone(),
                    });
                }
            }
        }
        let hints = if cas.anchors.len() <= MAX_HINTS {
            RootCertStore {
                roots: cas.anchors.clone(),
            }
            .subjects()
        } else {
            Vec::new()
        };
        Ok(Self {
            cas,
            crls: crls.unwrap_or_default(),
            crl_expiry: settings.crl_expiry,
            crl_unknown: settings.crl_unknown,
            eku: settings.client_eku,
            allowed_common_names: settings.allowed_common_names.clone(),
            allowed_hostnames,
            members,
            hints,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// Verifies a presented chain, leaf first: signatures, validity, usage and revocation of every certificate up to a
    /// trusted CA, then the names on the leaf.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role<'_>,
        now: UnixTime,
    ) -> Result<PeerIdentity, Invalid> {
        let Some((leaf_der, intermediates)) = chain.split_first() else {
            return Err(Invalid::Malformed("no certificate".to_owned()));
        };
        if chain.len() > MAX_PRESENTED {
            return Err(Invalid::Path(format!(
                "more than {MAX_PRESENTED} certificates presented"
            )));
        }
        let leaf =
            EndEntityCert::try_from(leaf_der).map_err(|error| Invalid::from_webpki(&error))?;
        let lists: Vec<_> = self.crls.lists.iter().collect();
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) => Some(
                options
                    .with_depth(RevocationCheckDepth::Chain)
                    .with_status_policy(match self.crl_unknown {
                        CrlUnknown::Refuse => UnknownStatusPolicy::Deny,
                        CrlUnknown::Accept => UnknownStatusPolicy::Allow,
                    })
                    .with_expiration_policy(match self.crl_expiry {
                        CrlExpiry::Enforce => ExpirationPolicy::Enforce,
                        CrlExpiry::Ignore => ExpirationPolicy::Ignore,
                    })
                    .build(),
            ),
            // The builder fails only for an empty list of CRLs: none are configured (a configured file holds at least
            // one, or it would not have loaded).
            Err(_) => None,
        };
        let path = leaf
            .verify_for_usage(
                self.algorithms.all,
                &self.cas.anchors,
                intermediates,
                now,
                role.key_usage(),
                revocation,
                Some(&|path: &VerifiedPath<'_>| self.check_ca_validity(path, now)),
            )
            .map_err(|error| role.refusal(Invalid::from_webpki(&error)))?;
        let Some(ca) = self.facts_of(&path) else {
            return Err(Invalid::UnknownIssuer);
        };
        let mut path_not_after = ca.not_after;
        for cert in path.intermediate_certificates() {
            let der = cert.der();
            let parsed = parse(&der).map_err(Invalid::Malformed)?;
            path_not_after = path_not_after.min(system_time(parsed.validity().not_after));
        }
        let names = LeafNames::parse(leaf_der)?;
        let usage = match role {
            Role::Client => names.client_auth,
            Role::Server(_) => names.server_auth,
        };
        if self.eku == EkuPolicy::Required && usage != Some(true) {
            return Err(role.refusal(Invalid::WrongPurpose));
        }
        // A SPIFFE certificate has exactly one (X509-SVID §2): whoever picks among several picks a user.
        if names.uri_sans.len() > 1 {
            return Err(Invalid::SeveralUris);
        }
        if let Role::Server(host) = role
            && leaf.verify_is_valid_for_subject_name(host).is_err()
        {
            return Err(Invalid::WrongHost(host.to_str().into_owned()));
        }
        if let Some(members) = &self.members {
            members.check(&names, role)?;
        }
        self.check_allowed(&leaf, &names)?;
        let mut identity = names.into_identity(chain, path_not_after, ca.key_sha256.clone());
        if let Role::Server(host) = role {
            identity.dialled = Some(host.to_owned());
        }
        Ok(identity)
    }

    /// Verifies again what led to `identity`, at a later time.
    pub(crate) fn verify_again(
        &self,
        identity: &PeerIdentity,
        now: SystemTime,
    ) -> Result<(), Invalid> {
        let role = match &identity.dialled {
            Some(host) => Role::Server(host),
            None => Role::Client,
        };
        self.verify(&identity.chain, role, unix_time(now))
            .map(|_| ())
    }

    /// Path building takes trust anchors as timeless; an expired CA must not vouch for anybody (Go does the same).
    fn check_ca_validity(
        &self,
        path: &VerifiedPath<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let ca = self.facts_of(path).ok_or(webpki::Error::UnknownIssuer)?;
        let at = from_unix_time(now);
        if at < ca.not_before {
            return Err(webpki::Error::CertNotValidYet {
                time: now,
                not_before: unix_time(ca.not_before),
            });
        }
        if at > ca.not_after {
            return Err(webpki::Error::CertExpired {
                time: now,
                not_after: unix_time(ca.not_after),
            });
        }
        Ok(())
    }

    /// The same CA may be in the set twice (renewed with the same key), so the anchor is found by its place.
    fn facts_of(&self, path: &VerifiedPath<'_>) -> Option<&AnchorFacts> {
        let used = path.anchor();
        let index = self
            .cas
            .anchors
            .iter()
            .position(|anchor| std::ptr::eq(anchor, used))?;
        self.cas.facts.get(index)
    }

    fn check_allowed(&self, leaf: &EndEntityCert<'_>, names: &LeafNames) -> Result<(), Invalid> {
        if !self.allowed_common_names.is_empty() {
            let name = names.common_name.as_deref().unwrap_or_default();
            if !self.allowed_common_names.iter().any(|own| own == name) {
                return Err(Invalid::NotAllowed(format!(
                    "common name {name:?} of the certificate is not among the allowed ones"
                )));
            }
        }
        if !self.allowed_hostnames.is_empty()
            && !self
                .allowed_hostnames
                .iter()
                .any(|host| leaf.verify_is_valid_for_subject_name(host).is_ok())
        {
            return Err(Invalid::NotAllowed(
                "the certificate is not valid for any of the allowed host names".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Role<'_> {
    fn key_usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server(_) => KeyUsage::server_auth(),
        }
    }

    /// Path building does not say which purpose was asked for.
    fn refusal(self, invalid: Invalid) -> Invalid {
        match (self, invalid) {
            (Self::Server(_), Invalid::WrongPurpose) => Invalid::NotForServers,
            (_, other) => other,
        }
    }
}

/// The handshake's view of [`Trust`].
#[derive(Debug)]
pub(crate) struct Verifier(pub(crate) Arc<Trust>);

impl Verifier {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let mut chain = Vec::with_capacity(1 + intermediates.len());
        chain.push(CertificateDer::from(end_entity.as_ref()));
        chain.extend(
            intermediates
                .iter()
                .map(|cert| CertificateDer::from(cert.as_ref())),
        );
        self.0
            .verify(&chain, role, now)
            .map(|_| ())
            .map_err(|invalid| invalid.into_rustls(now))
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, Role::Client, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, Role::Server(server_name), now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}

/// The verification time of `now`; before 1970 counts as 1970, when nothing was valid.
pub(crate) fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn from_unix_time(at: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(at.as_secs()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Invalid {
    fn from_webpki(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { not_after, .. } => Self::Expired {
                not_after: from_unix_time(*not_after),
            },
            E::CertNotValidYet { not_before, .. } => Self::NotYetValid {
                not_before: from_unix_time(*not_before),
            },
            E::UnknownIssuer => Self::UnknownIssuer,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::CertRevoked => Self::Revoked,
            E::UnknownRevocationStatus => Self::RevocationUnknown,
            E::CrlExpired { next_update, .. } => Self::CrlExpired {
                next_update: from_unix_time(*next_update),
            },
            E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => Self::CrlNotTrusted,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::WrongPurpose,
            E::CaUsedAsEndEntity => Self::CaAsLeaf,
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => {
                Self::Malformed(error.to_string())
            }
            other => Self::Path(other.to_string()),
        }
    }

    /// As the TLS library wants it, so that the client gets the fitting alert.
    fn into_rustls(self, now: UnixTime) -> rustls::Error {
        let error = match self {
            Self::Expired { not_after } => CertificateError::ExpiredContext {
                time: now,
                not_after: unix_time(not_after),
            },
            Self::NotYetValid { not_before } => CertificateError::NotValidYetContext {
                time: now,
                not_before: unix_time(not_before),
            },
            Self::UnknownIssuer => CertificateError::UnknownIssuer,
            Self::Revoked => CertificateError::Revoked,
            Self::RevocationUnknown => CertificateError::UnknownRevocationStatus,
            Self::CrlExpired { next_update } => CertificateError::ExpiredRevocationListContext {
                time: now,
                next_update: unix_time(next_update),
            },
            Self::WrongPurpose => CertificateError::InvalidPurpose,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        error.into()
    }

    /// The way back from [`Self::into_rustls`].
    pub(crate) fn from_rustls(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::ExpiredContext { not_after, .. } => Self::Expired {
                not_after: from_unix_time(*not_after),
            },
            E::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                not_before: from_unix_time(*not_before),
            },
            E::UnknownIssuer => Self::UnknownIssuer,
            E::Revoked => Self::Revoked,
            E::UnknownRevocationStatus => Self::RevocationUnknown,
            E::ExpiredRevocationListContext { next_update, .. } => Self::CrlExpired {
                next_update: from_unix_time(*next_update),
            },
            E::InvalidPurpose => Self::WrongPurpose,
            // Here it is the proof of possession: the client does not hold the certificate's key.
            E::BadSignature => Self::BadSignature,
            E::Other(OtherError(inner)) => match inner.downcast_ref::<Self>() {
                Some(invalid) => invalid.clone(),
                None => Self::Malformed(error.to_string()),
            },
            other => Self::Malformed(other.to_string()),
        }
    }
}
