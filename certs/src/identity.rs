//! Who stands behind a certificate.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::{
    asn1_rs::Tag,
    extensions::GeneralName,
    prelude::X509Certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::{
    error::Invalid,
    key_material::{parse, system_time},
    provider::{hex, sha256},
};

/// Most subject alternative names a certificate may carry.
const MAX_SANS: usize = 64;
/// Longest name in bytes: SPIFFE ids end at 2048 (SPIFFE-ID §2.3).
const MAX_NAME_BYTES: usize = 2048;
/// Longest common name in bytes. X.520 says 64 characters; certificates of machines exceed that.
const MAX_COMMON_NAME_BYTES: usize = 256;

/// The holder of a verified certificate: a client, or another member on either side of a connection.
///
/// Only [`crate::accept`] and [`crate::PeerTls::connect`] make one, after the certificate and the possession of its key were verified (and the feature `testing`,
/// without that). Its names are free of control characters and bounded in number and length.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The subject's common name, if it has exactly one that is not empty. etcd's user name.
    pub common_name: Option<String>,
    /// URI alternative names, as in the certificate.
    pub uri_sans: Vec<String>,
    /// DNS alternative names, as in the certificate.
    pub dns_sans: Vec<String>,
    /// Address alternative names.
    pub ip_sans: Vec<IpAddr>,
    /// Serial number in lower-case hexadecimal without leading zeros.
    pub serial_hex: String,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub fingerprint_sha256: String,
    /// When the identity ends: the earliest end of validity on the verified path from the certificate to its CA.
    pub not_after: SystemTime,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of the CA at the end of the verified path, in lower-case
    /// hexadecimal. Tells apart two CAs that issue the same common name.
    pub ca_key_sha256: String,
    /// The certificates as presented, leaf first, to be verified again.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    /// The name at which we reached the holder; `None` if it connected to us.
    pub(crate) dialled: Option<ServerName<'static>>,
}

/// What the leaf alone tells.
pub(crate) struct LeafNames {
    pub(crate) common_name: Option<String>,
    pub(crate) uri_sans: Vec<String>,
    pub(crate) dns_sans: Vec<String>,
    pub(crate) ip_sans: Vec<IpAddr>,
    pub(crate) serial_hex: String,
    pub(crate) not_after: SystemTime,
    /// Whether the extended key usage names clientAuth; `None` without the extension.
    pub(crate) client_auth: Option<bool>,
    /// The same for serverAuth.
    pub(crate) server_auth: Option<bool>,
}

impl LeafNames {
    /// Reads the names out of a certificate that need not be honest.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, Invalid> {
        let cert = parse(der).map_err(Invalid::Malformed)?;
        let mut names = Self {
            common_name: common_name(cert.subject())?,
            uri_sans: Vec::new(),
            dns_sans: Vec::new(),
            ip_sans: Vec::new(),
            serial_hex: serial_hex(&cert),
            not_after: system_time(cert.validity().not_after),
            client_auth: None,
            server_auth: None,
        };
        let usage = cert
            .extended_key_usage()
            .map_err(|_| malformed("extended key usage"))?;
        names.client_auth = usage.as_ref().map(|usage| usage.value.client_auth);
        names.server_auth = usage.map(|usage| usage.value.server_auth);
        let sans = cert
            .subject_alternative_name()
            .map_err(|_| malformed("subject alternative names"))?;
        let Some(sans) = sans else {
            return Ok(names);
        };
        if sans.value.general_names.len() > MAX_SANS {
            return Err(Invalid::Malformed(format!(
                "more than {MAX_SANS} subject alternative names"
            )));
        }
        for name in &sans.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uri_sans.push(bounded(uri, MAX_NAME_BYTES)?),
                GeneralName::DNSName(dns) => names.dns_sans.push(bounded(dns, MAX_NAME_BYTES)?),
                GeneralName::IPAddress(octets) => names.ip_sans.push(ip_address(octets)?),
                GeneralName::Invalid(..) => return Err(malformed("subject alternative name")),
                // Mail addresses, directory names and the like identify nobody here.
                _ => {}
            }
        }
        Ok(names)
    }

    /// Completes the names with what the verified path tells.
    pub(crate) fn into_identity(
        self,
        chain: &[CertificateDer<'_>],
        path_not_after: SystemTime,
        ca_key_sha256: String,
    ) -> PeerIdentity {
        let fingerprint_sha256 = chain
            .first()
            .map(|leaf| hex(sha256(leaf).as_ref()))
            .unwrap_or_default();
        PeerIdentity {
            common_name: self.common_name,
            uri_sans: self.uri_sans,
            dns_sans: self.dns_sans,
            ip_sans: self.ip_sans,
            serial_hex: self.serial_hex,
            fingerprint_sha256,
            not_after: self.not_after.min(path_not_after),
            ca_key_sha256,
            chain: chain.iter().map(|cert| cert.clone().into_owned()).collect(),
            dialled: None,
        }
    }
}

fn malformed(what: &str) -> Invalid {
    Invalid::Malformed(format!("unreadable {what}"))
}

/// Go takes the last of several common names, OpenSSL's tools the first: whoever picks one picks a user.
fn common_name(subject: &X509Name<'_>) -> Result<Option<String>, Invalid> {
    let mut names = subject.iter_common_name();
    let Some(first) = names.next() else {
        return Ok(None);
    };
    if names.next().is_some() {
        return Err(Invalid::Malformed("several common names".to_owned()));
    }
    let name = bounded(&attribute_text(first)?, MAX_COMMON_NAME_BYTES)?;
    Ok((!name.is_empty()).then_some(name))
}

fn attribute_text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, Invalid> {
    let value = attribute.attr_value();
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| malformed("common name"))
        }
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units)
                .collect::<Result<_, _>>()
                .map_err(|_| malformed("common name"))
        }
        // Teletex strings have no single meaning outside ASCII.
        Tag::T61String if bytes.is_ascii() => Ok(bytes.iter().copied().map(char::from).collect()),
        _ => Err(malformed("common name")),
    }
}

/// Names end up in log lines, metric labels and comparisons: none may hide a NUL or a line break.
fn bounded(name: &str, max_bytes: usize) -> Result<String, Invalid> {
    if name.len() > max_bytes {
        return Err(Invalid::Malformed(format!(
            "a name longer than {max_bytes} bytes"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Invalid::Malformed(
            "a name with control characters".to_owned(),
        ));
    }
    Ok(name.to_owned())
}

fn ip_address(octets: &[u8]) -> Result<IpAddr, Invalid> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(v4));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(octets) {
        return Ok(IpAddr::from(v6));
    }
    Err(malformed("address"))
}

fn serial_hex(cert: &X509Certificate<'_>) -> String {
    let digits = hex(cert.raw_serial());
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        significant => significant.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn reason(result: Result<LeafNames, Invalid>) -> String {
        match result {
            Err(Invalid::Malformed(reason)) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn all_kinds_of_names_are_read() {
        let der = leaf(|params| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.serial_number = Some(vec![0, 0x0a, 0xff].into());
            params.subject_alt_names = vec![
                SanType::URI("spiffe://td/tenant/a/user/b".try_into().unwrap()),
                SanType::DnsName("host.example".try_into().unwrap()),
                SanType::IpAddress("10.0.0.1".parse().unwrap()),
                SanType::IpAddress("::1".parse().unwrap()),
                SanType::Rfc822Name("a@b.c".try_into().unwrap()),
            ];
        });
        let names = LeafNames::parse(&der).unwrap();
        assert_eq!(names.common_name.as_deref(), Some("alice"));
        assert_eq!(names.uri_sans, ["spiffe://td/tenant/a/user/b"]);
        assert_eq!(names.dns_sans, ["host.example"]);
        assert_eq!(
            names.ip_sans,
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
        assert_eq!(names.serial_hex, "aff");
        assert_eq!(names.client_auth, None);
    }

    #[test]
    fn an_empty_common_name_is_none_and_a_bmp_one_is_decoded() {
        let der = leaf(|params| params.distinguished_name.push(DnType::CommonName, ""));
        assert_eq!(LeafNames::parse(&der).unwrap().common_name, None);
        let der = leaf(|params| {
            let name = rcgen::string::BmpString::try_from("zoë").unwrap();
            params
                .distinguished_name
                .push(DnType::CommonName, DnValue::BmpString(name));
        });
        assert_eq!(
            LeafNames::parse(&der).unwrap().common_name.as_deref(),
            Some("zoë")
        );
    }

    #[test]
    fn names_that_could_deceive_are_refused() {
        let der = leaf(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "root\0.evil.example");
        });
        assert!(reason(LeafNames::parse(&der)).contains("control"));
        let der = leaf(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "r".repeat(257));
        });
        assert!(reason(LeafNames::parse(&der)).contains("longer"));
        let der = leaf(|params| {
            params.subject_alt_names = (0..=MAX_SANS)
                .map(|n| SanType::DnsName(format!("h{n}.example").try_into().unwrap()))
                .collect();
        });
        assert!(reason(LeafNames::parse(&der)).contains("more than"));
        let der = leaf(|params| {
            params.subject_alt_names = vec![SanType::URI("spiffe://td/\nuser".try_into().unwrap())];
        });
        assert!(reason(LeafNames::parse(&der)).contains("control"));
    }

    #[test]
    fn damaged_certificates_never_panic() {
        let der = leaf(|params| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.subject_alt_names = vec![SanType::DnsName("host.example".try_into().unwrap())];
        });
        for cut in 0..der.len() {
            assert!(LeafNames::parse(&der[..cut]).is_err());
        }
        for position in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = der.clone();
                damaged[position] ^= flip;
                // Whether it still parses depends on the place; it must only come back.
                let _ = LeafNames::parse(&damaged);
            }
        }
    }
}
