//! Who a client certificate names. Input: mode, trust domain, and a certificate; or (mode bit 0) its common names and alternative names,
//! each with its tag, of which a certificate is made, so that little stands between the input and the names.
//!
//! Whatever is read is bounded and free of control characters. A certificate with a URI is judged by it alone; one with several names
//! nobody; a name with a tenant is made of plain segments, and written back it is the URI.

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
        certificate(&mut input)
    };
    let Ok(identity) = unverified_identity(&der) else {
        return false;
    };
    check_bounds(&identity);
    check_name(&identity, trust_domain)
}

fn check_bounds(identity: &PeerIdentity) {
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

fn check_name(identity: &PeerIdentity, trust_domain: Option<&str>) -> bool {
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

/// A certificate (X.509 v3, nobody signed it) with common names and alternative names of the input: for each a byte that says where it
/// stands (0: common name, else alternative name) and with which tag, and its bytes (u8 length).
pub(crate) fn certificate(input: &mut Input<'_>) -> Vec<u8> {
    let (mut subject, mut names) = (Vec::new(), Vec::new());
    let usage = input.u8();
    while !input.is_empty() {
        let (place, tag) = (input.u8(), input.u8());
        let bytes = input.short();
        if place == 0 {
            let attribute = [element(0x06, &[0x55, 0x04, 0x03]), element(tag, bytes)].concat();
            subject.extend(element(0x31, &element(0x30, &attribute)));
        } else {
            names.extend(element(tag, bytes));
        }
    }
    let mut extensions = Vec::new();
    if !names.is_empty() {
        extensions.extend(extension(&[0x55, 0x1d, 0x11], &element(0x30, &names)));
    }
    // Extended key usage: clientAuth, serverAuth, none, or no list at all.
    let purpose = |last| element(0x06, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last]);
    match usage & 7 {
        1 => extensions.extend(extension(&[0x55, 0x1d, 0x25], &element(0x30, &purpose(2)))),
        2 => extensions.extend(extension(&[0x55, 0x1d, 0x25], &element(0x30, &purpose(1)))),
        3 => extensions.extend(extension(&[0x55, 0x1d, 0x25], &element(0x30, &[]))),
        4 => extensions.extend(extension(&[0x55, 0x1d, 0x25], &[])),
        _ => {}
    }
    let algorithm = element(0x30, &element(0x06, &[0x2b, 0x65, 0x70]));
    let validity = [
        element(0x17, b"250101000000Z"),
        element(0x17, b"490101000000Z"),
    ]
    .concat();
    let key = [algorithm.clone(), element(0x03, &[0; 33])].concat();
    let tbs = [
        element(0xa0, &element(0x02, &[2])),
        element(0x02, &[1]),
        algorithm.clone(),
        element(0x30, &[]),
        element(0x30, &validity),
        element(0x30, &subject),
        element(0x30, &key),
        element(0xa3, &element(0x30, &extensions)),
    ]
    .concat();
    let parts = [element(0x30, &tbs), algorithm, element(0x03, &[0; 65])].concat();
    element(0x30, &parts)
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    let parts = [element(0x06, id), element(0x04, value)].concat();
    element(0x30, &parts)
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xffff => {
            out.push(0x82);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x84);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}
