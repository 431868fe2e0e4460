//! Who a client certificate names. Input: mode, trust domain, and a certificate; or (mode bit 0) its common names and alternative names,
//! each with its tag, of which a certificate is made, so that little stands between the input and the names.
//!
//! Whatever is read is bounded and free of control characters. A certificate with a URI is judged by it alone; one with several names
//! nobody; a name with a tenant is made of plain segments, and written back it is the URI.

use crate::certificate::certificate;
use crate::input::Input;
use holdfast_certs::testing::unverified_identity;
use holdfast_certs::{NameSource, PeerIdentity};

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mode = input.u8();
    let trust_domain = match input.u8() % 3 {
        0 => None,
        1 => Some("example.org"),
        _ => Some(""),
    };
    let der = if mode & 1 == 0 {
        input.rest().to_vec()
    } else {
        certificate(&mut input, |_| vec![0; 64])
    };
    let Ok(identity) = unverified_identity(&der) else {
        return false;
    };
    check_bounds(&identity);
    check_name(&identity, trust_domain)
}

pub(super) fn check_bounds(identity: &PeerIdentity) {
    let count = identity.uri_sans.len() + identity.dns_sans.len() + identity.ip_sans.len();
    assert!(count <= 64);
    let common_name = identity.common_name.iter();
    for name in common_name.clone() {
        assert!((1..=256).contains(&name.len()));
    }
    for name in identity
        .uri_sans
        .iter()
        .chain(&identity.dns_sans)
        .chain(common_name)
    {
        assert!(name.len() <= 2048);
        assert!(!name.contains(char::is_control), "{name:?}");
    }
    let serial = &identity.serial_hex;
    assert!(serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(*serial == "0" || !serial.starts_with('0'));
    assert_eq!(identity.fingerprint_sha256.len(), 64);
}

/// Whether it names somebody.
pub(super) fn check_name(identity: &PeerIdentity, trust_domain: Option<&str>) -> bool {
    let named = match identity.named_user(trust_domain) {
        Ok(Some(named)) => named,
        Ok(None) => {
            assert!(identity.uri_sans.is_empty() && identity.common_name.is_none());
            return false;
        }
        Err(_) => return false,
    };
    assert!(!named.user.is_empty() && !named.user.contains(char::is_control));
    match identity.uri_sans.as_slice() {
        [] => {
            assert_eq!(named.by, NameSource::CommonName);
            assert_eq!(identity.common_name.as_ref(), Some(&named.user));
            assert_eq!(named.tenant, None);
            assert!(!named.user.to_ascii_lowercase().starts_with("spiffe://"));
        }
        [uri] => {
            assert_eq!(named.by, NameSource::Uri);
            let rest = uri.strip_prefix("spiffe://").expect("a SPIFFE id");
            let (domain, path) = rest.split_once('/').expect("a path");
            assert!(trust_domain.is_none_or(|accepted| accepted == domain));
            match &named.tenant {
                Some(tenant) => {
                    assert_eq!(path, format!("tenant/{tenant}/user/{}", named.user));
                    for segment in [tenant, &named.user] {
                        assert!(!segment.is_empty() && segment != "." && segment != "..");
                        assert!(!segment.contains(['/', '%', '\\']));
                    }
                }
                None => assert_eq!(named.user, *uri),
            }
        }
        several => panic!("{several:?} named {named}"),
    }
    true
}
